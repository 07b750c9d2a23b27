"""What services say is quoted, but no secret that they repeat, however they write it."""

import base64
import html
import json
from urllib.parse import quote as percent
from urllib.parse import quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.huaweicloud.errors import error_of
from exporter.huaweicloud.http import Response
from exporter.huaweicloud.redaction import NOT_SHOWN, quote, redact

SHORT = "Sup3r!Geheim"
LONG = 'a "quoted" \\ back & <tag> pässwörd 密码 of mine'
TOKEN = "MIIEpAIBAAKCAQEA" * 50
SECRETS = {
    "short": SHORT,
    "odd": '"\\&<> ',
    "short and odd": 'p"\\ &<é',
    "long": LONG,
    "non-ASCII": "пароль密码пароль密码",
    "token": TOKEN,
    "tiny": "k9",
}
ENCODINGS = {
    "as it is": lambda text: text,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON, not ASCII": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "JSON of Go": lambda text: (
        json.dumps(text)[1:-1].replace("<", "\\u003c").replace("&", "\\u0026")
    ),
    "all escaped": lambda text: "".join(f"\\u{ord(char):04x}" for char in text),
    "HTML": html.escape,
    "HTML by number": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "HTML in hexadecimal": lambda text: "".join(f"&#x{ord(char):X};" for char in text),
    "percent": percent,
    "percent, all": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "form": quote_plus,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 in a document": lambda text: base64.b64encode(f'{{"a":"{text}"}}'.encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(f"x{text}".encode()).decode(),
    "base64 in lines": lambda text: base64.encodebytes(text.encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
    "JSON in JSON": lambda text: json.dumps(json.dumps({"password": text})),
    "JSON in base64": lambda text: base64.b64encode(json.dumps([text]).encode()).decode(),
    "JSON in a URL": lambda text: percent(json.dumps(text)),
    "HTML in JSON": lambda text: json.dumps(html.escape(text)),
    "Latin-1": lambda text: text.encode().decode("latin-1"),
    "ASCII": lambda text: text.encode("ascii", "replace").decode(),
    "upper case": str.upper,
    "other blanks": lambda text: text.replace(" ", "\u00a0"),
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("before", ["", "x" * 150, "bad request: "], ids=len)
def test_a_secret_is_not_shown_however_it_is_written(secret, encode, before):
    if encode is ENCODINGS["ASCII"] and secret == SECRETS["non-ASCII"]:
        return  # nothing of it is left
    said = before + encode(secret) + " was refused"
    shown = quote(said, 200, (None, "", secret))
    assert shown == NOT_SHOWN or (secret is TOKEN and "***" in shown)
    assert secret[:8] not in shown


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("length", range(8, len(LONG)))
def test_a_secret_with_blanks_that_was_cut_off_is_not_shown(encode, length):
    if encode is not ENCODINGS["ASCII"]:
        assert quote(f"you sent {encode(LONG[:length])}", 200, [LONG]) == NOT_SHOWN
    assert quote(f"you sent {encode(LONG)[:200]}"[: 9 + length], 200, [LONG])[9:] not in LONG


@pytest.mark.parametrize("length", range(4, 12))
def test_a_beginning_or_an_end_of_a_long_secret_at_an_end_of_the_text_is_not_shown(length):
    secret = "correct-horse-battery-staple"
    assert quote(f"you sent {secret[:length]}", 200, [secret]) == NOT_SHOWN
    assert quote(f"{secret[-length:]} was sent", 200, [secret]) == NOT_SHOWN


@settings(max_examples=300)
@given(
    st.text(st.sampled_from("ab1 \"'\\&<>%+=/é密\u0301{}"), min_size=1, max_size=40),
    st.sampled_from([name for name in ENCODINGS if name != "ASCII"]),
    st.text(max_size=30),
)
def test_random_secrets_are_not_shown(secret, encoding, noise):
    encoded = ENCODINGS[encoding](secret)
    shown = quote(noise + encoded + noise, 200, [secret])
    assert shown == NOT_SHOWN or encoded.strip() == "" or encoded not in shown


@given(st.text(max_size=700), st.text(max_size=40))
def test_anything_can_be_quoted_on_one_line(text, secret):
    shown = quote(text, 200, [secret])
    assert len(shown) <= 200 or shown == NOT_SHOWN
    assert shown.isprintable()


PASSWORDS = [
    "password1",
    "password",
    "wrong",
    "is",
    "The username or password is wrong",
    "The user",
]


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_password_is_not_revealed_by_what_is_left_out(password):
    """What IAM says of any wrong password is the same, whatever the password is."""
    assert quote("The username or password is wrong.", 200, [password]) == (
        "The username or password is wrong."
    )
    other = quote("This username or password is unknown", 200, [password])
    assert other in {NOT_SHOWN, "This username or password is unknown"}


@pytest.mark.parametrize("secret", [SHORT, LONG, TOKEN])
def test_what_has_nothing_of_a_secret_is_shown(secret):
    text = "The domain acme does not exist, request 4f1c22: contact the administrator."
    assert quote(text, 200, [secret]) == text
    assert quote(text, 20, [secret]) == "The domain acme doe…"
    assert quote("a\nb", 200, [secret]) == r"a\nb"


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_nothing_stays_nothing(text):
    assert quote(text, 200, ["k9", SHORT]) == ""


def test_what_comes_before_a_token_is_shown():
    text = f"verify aksk signature fail: host:x|x-security-token:{TOKEN}|x-sdk-date:y"
    assert quote(text, 200, [TOKEN]) == "verify aksk signature fail: host:x|x-security-token:***"


def test_our_own_messages_lose_long_secrets_only():
    assert redact(f"{LONG} and {SHORT} and {TOKEN}", (LONG, None, SHORT, TOKEN)) == (
        f"*** and {SHORT} and ***"
    )


@pytest.mark.parametrize("secret", [SHORT, LONG, "IAMIAM", "4f1c22"])
@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("error_msg", f"X.1 {NOT_SHOWN} (request 00ff)"),
        ("error_code", f"{NOT_SHOWN} no (request 00ff)"),
        ("X-Request-Id", "X.1 no"),
    ],
)
def test_every_part_of_an_answer_is_looked_at(secret, place, shown):
    document = {"error_code": "X.1", "error_msg": "no"} | {place: secret}
    headers = {"X-Request-Id": secret if place == "X-Request-Id" else "00ff"}
    response = Response(400, headers, json.dumps(document).encode())
    assert str(error_of(response, secrets=(secret,))) == f"refused: 400 {shown}"
