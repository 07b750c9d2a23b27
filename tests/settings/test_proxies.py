"""Which proxy is used: the variables mean what they mean for programs in Go."""

import pytest

from exporter.errors import ConfigError
from exporter.settings.load import load
from exporter.settings.problems import InvalidValueError
from exporter.settings.proxies import Proxy, proxy_for

PROXY = {"HTTPS_PROXY": "http://proxy:3128", "HTTP_PROXY": "http://proxy:3129"}
REGION = ["--target.region=cn-north-4"]


def used(url, **environ):
    return proxy_for(url, None, environ)


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("127.0.0.1:3128", "http://127.0.0.1:3128"),
        ("localhost:3128", "http://localhost:3128"),
        ("proxy.example.com", "http://proxy.example.com"),
        ("u:p@proxy:3128", "http://u:p@proxy:3128"),
        ("[fd00::1]:3128", "http://[fd00::1]:3128"),
        (" http://proxy:3128/\n", "http://proxy:3128"),
        ("HTTPS://proxy", "https://proxy"),
        ("http://u:p@ss:w%23rd\\%zz@proxy:1", "http://u:p%40ss%3Aw%23rd%5C%25zz@proxy:1"),
        ("http://u%3A1:%E4%B8%AD@proxy:1", "http://u%3A1:%E4%B8%AD@proxy:1"),
    ],
)
def test_urls_of_proxies(value, url):
    assert used("https://m.example", HTTPS_PROXY=value).url == url
    assert load([*REGION, f"--target.proxy={value}"], {}).target.proxy == url


@pytest.mark.parametrize(
    ("environ", "url", "origin"),
    [
        (PROXY, "https://m.example", "HTTPS_PROXY"),
        (PROXY, "http://m.example", "HTTP_PROXY"),
        ({"https_proxy": "proxy"}, "https://m.example", "https_proxy"),
        ({"http_proxy": "proxy"}, "http://m.example", "http_proxy"),
        ({"https_proxy": "lower", "HTTPS_PROXY": "upper"}, "https://m.example", "HTTPS_PROXY"),
        ({"https_proxy": "lower", "HTTPS_PROXY": " "}, "https://m.example", "https_proxy"),
        ({"ALL_PROXY": "proxy"}, "https://m.example", "ALL_PROXY"),
        ({"all_proxy": "proxy"}, "http://m.example", "all_proxy"),
        (PROXY | {"ALL_PROXY": "last"}, "https://m.example", "HTTPS_PROXY"),
    ],
)
def test_the_variable_that_applies(environ, url, origin):
    assert proxy_for(url, None, environ).origin == origin


def test_the_option_wins_over_every_variable():
    environ = PROXY | {"NO_PROXY": "*"}
    option = "http://mine:1"
    assert proxy_for("https://m.example", option, environ) == Proxy(option, "target.proxy")


def test_a_proxy_does_not_show_its_password():
    assert "geheim" not in repr(used("https://m.example", HTTPS_PROXY="http://u:geheim@proxy"))


# Mostly those of golang.org/x/net/http/httpproxy/proxy_test.go.
GO = (
    "foobar.com, .barbaz.net, *.wild.org, host:8080, 192.168.1.1, 192.168.1.2:81, 192.168.1.3:80, "
    "10.0.0.0/30, 2001:db8::52:0:1, [2001:db8::52:0:2]:443, [2001:db8::52:0:3]:80, "
    "2002:db8:a::45/64, [fd00::1], MiXeD.example., bücher.example, :1, /, [, a/b, x:y:z"
)


@pytest.mark.parametrize(
    ("host", "proxied"),
    [
        ("localhost", False),
        ("127.0.0.1", False),
        ("127.0.0.2", False),
        ("[::1]", False),
        ("[::2]", True),
        ("[::ffff:127.0.0.1]", False),
        ("localhost.", False),
        ("192.168.1.1", False),
        ("192.168.1.1:8443", False),
        ("192.168.1.2", True),
        ("192.168.1.2:81", False),
        ("192.168.1.3", True),
        ("192.168.1.3:80", False),
        ("[::ffff:192.168.1.1]", False),
        ("10.0.0.2", False),
        ("10.0.0.8", True),
        ("[2001:db8::52:0:1]", False),
        ("[2001:db8::52:0:2]", False),
        ("[2001:db8::52:0:2]:444", True),
        ("[2001:db8::52:0:3]", True),
        ("[2002:db8:a::123]", False),
        ("[2002:db8:a:1::123]", True),
        ("[fe80::424b:c8be:1643:a1b6]", True),
        ("[fd00::1]", False),
        ("[fd00::2]", True),
        ("barbaz.net", True),
        ("www.barbaz.net", False),
        ("foobar.com", False),
        ("www.foobar.com", False),
        ("www.foobar.com.", False),
        ("foofoobar.com", True),
        ("baz.com", True),
        ("localhost.net", True),
        ("local.localhost", True),
        ("barbarbaz.net", True),
        ("wild.org", True),
        ("a.b.wild.org", False),
        ("host:8080", False),
        ("host", True),
        ("sub.host:8080", False),
        ("mixed.EXAMPLE", False),
        ("xn--bcher-kva.example", False),
        ("192.168.1.11", True),
    ],
)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_no_proxy_as_in_go(host, proxied, variable):
    assert bool(proxy_for(f"https://{host}/v2", None, PROXY | {variable: GO})) is proxied


@pytest.mark.parametrize("value", ["*", "a, *", "* b"])
def test_no_proxy_for_anything(value):
    assert used("https://m.example", **PROXY, NO_PROXY=value) is None
    assert used("https://192.168.7.7", **PROXY, NO_PROXY=value) is None


def test_a_name_is_not_resolved_for_no_proxy():
    assert used("https://m.example", **PROXY, NO_PROXY="0.0.0.0/0,::/0")


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ("http://u:gehe#im@proxy:3128", "invalid proxy URL: got a string (not shown); use "),
        ("http://u:gehe/im@proxy:3128", "invalid proxy URL: got a string (not shown); use "),
        ("http://u:gehe?im@proxy:3128", "invalid proxy URL: got a string (not shown); use "),
        ("http://u:gehe[im@proxy:3128", "invalid proxy URL: got a string (not shown); use "),
        ("u:gehe im@proxy:3128", "invalid proxy URL: got a string (not shown); use "),
        ("u:geheimß@proxy:3128", "invalid proxy URL: got a string (not shown); use "),
        ("ftp://u:geheim@proxy", "invalid proxy URL: got a string (not shown); use "),
        ("socks5://u:geheim@proxy:1080", "SOCKS proxies are not supported; use an HTTP proxy, "),
        ("SOCKS5H://u:geheim@proxy:1080", "SOCKS proxies are not supported; use an HTTP proxy, "),
        ("socks4a://proxy:1080", "SOCKS proxies are not supported; use an HTTP proxy, "),
    ],
)
def test_a_useless_variable_is_named_and_not_shown(variable, value, wrong):
    with pytest.raises(InvalidValueError) as error:
        used("https://m.example", **{variable: value})
    assert str(error.value).startswith(wrong)
    with pytest.raises(ConfigError) as caught:
        load(REGION, {variable: value})
    (line,) = caught.value.problems
    assert line.startswith(f"target.proxy: {wrong}http://HOST:PORT or ")
    assert line.endswith(f" (from environment variable {variable})")
    assert "gehe" not in line


def test_quotes_that_a_shell_would_have_removed():
    with pytest.raises(ConfigError) as caught:
        load(REGION, {"https_proxy": '"http://u:geheim@proxy:3128"'})
    (line,) = caught.value.problems
    wrong = "target.proxy: begins and ends with a quote; remove the quotes"
    assert line == f"{wrong} (from environment variable https_proxy)"


@pytest.mark.parametrize(
    "environ",
    [
        {"HTTP_PROXY": "socks5://proxy:1080"},
        {"ALL_PROXY": "socks5://proxy:1080", "HTTPS_PROXY": "http://proxy:1080"},
        {"ALL_PROXY": "socks5://proxy:1080", "NO_PROXY": ".myhuaweicloud.com"},
        {"ALL_PROXY": "socks5://proxy:1080", "MODELARTS_EXPORTER_TARGET__PROXY": "http://proxy"},
    ],
)
def test_a_useless_variable_that_does_not_apply_is_no_problem(environ):
    assert load(REGION, environ)
