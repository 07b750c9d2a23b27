"""Content negotiation: the best representation for every client, and never an error."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.web.negotiation import CONTENT_TYPES, Negotiated, negotiate

TEXT = "text/plain; version=0.0.4; charset=utf-8"
TEXT_1 = "text/plain; version=1.0.0; charset=utf-8"
OPENMETRICS_0 = "application/openmetrics-text; version=0.0.1; charset=utf-8"
OPENMETRICS_1 = "application/openmetrics-text; version=1.0.0; charset=utf-8"

PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3_5 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3_5_TEXT = (
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.4"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)
LISTED = "application/openmetrics-text;version=1.0.0"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        # headers of scrapers and browsers
        (PROMETHEUS_2_42, OPENMETRICS_1),
        (PROMETHEUS_3_5, f"{OPENMETRICS_1}; escaping=allow-utf-8"),
        (PROMETHEUS_3_5_TEXT, f"{TEXT_1}; escaping=allow-utf-8"),
        (f"{PROTOBUF};q=0.6,{PROMETHEUS_2_42}", OPENMETRICS_1),
        (BROWSER, TEXT),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", TEXT),  # Java
        # no preference
        (None, TEXT),
        ("", TEXT),
        (" , ;, ", TEXT),
        # wildcards
        ("*/*", TEXT),
        ("text/*", TEXT),
        ("application/*", OPENMETRICS_1),
        ("*/*;q=0.9, text/*;q=0.1", OPENMETRICS_1),
        ("text/plain;q=0, */*", OPENMETRICS_1),
        ("text/plain;version=0.0.4;q=0, text/*", TEXT_1),
        # versions
        ("text/plain", TEXT),
        ("text/plain;version=0.0.4", TEXT),
        ("text/plain;version=1.0.0", TEXT_1),
        ("application/openmetrics-text", OPENMETRICS_1),
        ("application/openmetrics-text;version=0.0.1", OPENMETRICS_0),
        ("application/openmetrics-text;version=", OPENMETRICS_1),
        ("application/openmetrics-text;version=abc", TEXT),
        ("application/openmetrics-text;version=2.0.0", TEXT),
        ("application/openmetrics-text;version=2.0.0,text/plain;version=1.0.0;q=0.1", TEXT_1),
        ("text/plain;version=abc", TEXT),
        ('application/openmetrics-text; version="1.0.0"', OPENMETRICS_1),
        ('text/plain;x="a,b;c\\"d";version=1.0.0', TEXT_1),
        ("APPLICATION/OpenMetrics-Text ; Version=0.0.1", OPENMETRICS_0),
        ("application/openmetrics-text;version=1.0.0;charset=utf-8", OPENMETRICS_1),
        # quality: the highest wins, 0 excludes, the most precise range counts
        (f"{LISTED};q=0.4,text/plain;q=0.5", TEXT),
        (f"{LISTED};q=0.5,text/plain;q=0.4", OPENMETRICS_1),
        (f"{LISTED};q=0.001,text/plain;q=0", OPENMETRICS_1),
        (f"{LISTED};q=0,*/*;q=0.1", TEXT),
        (f"{LISTED};q=0", TEXT),
        ("*/*;q=0", TEXT),
        ("text/plain;q=0", TEXT),
        (f"{LISTED};Q=0.000, */*", TEXT),
        (
            "application/openmetrics-text;q=0.1,application/openmetrics-text;version=0.0.1",
            OPENMETRICS_0,
        ),
        # of equal quality: OpenMetrics only if named
        (f"text/plain,{LISTED}", OPENMETRICS_1),
        (f"*/*,{LISTED}", OPENMETRICS_1),
        ("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4", OPENMETRICS_0),
        ("text/plain;version=0.0.4,*/*", TEXT),
        ("text/plain;version=1.0.0,*/*", TEXT_1),
        # a malformed quality: the range is ignored
        (f"{LISTED};q=abc", TEXT),
        (f"{LISTED};q=", TEXT),
        (f"{LISTED};q=nan,text/plain", TEXT),
        (f"{LISTED};q=-1", TEXT),
        (f"{LISTED};q=2", TEXT),
        (f"{LISTED};q=1.000", OPENMETRICS_1),
        # escaping: known values, in versions that have it
        (f"{LISTED};escaping=underscores", f"{OPENMETRICS_1}; escaping=underscores"),
        (f"{LISTED};escaping=dots", f"{OPENMETRICS_1}; escaping=dots"),
        ("application/openmetrics-text;escaping=values", f"{OPENMETRICS_1}; escaping=values"),
        (f"{LISTED};escaping=\r\nSet-Cookie: x", OPENMETRICS_1),
        (f"{LISTED};escaping=none", OPENMETRICS_1),
        ("application/openmetrics-text;version=0.0.1;escaping=dots", OPENMETRICS_0),
        ("text/plain;version=0.0.4;escaping=dots", TEXT),
        ("text/plain;escaping=dots", TEXT),
        # garbage
        ("application/json", TEXT),
        (PROTOBUF, TEXT),
        ('\x00\xff;;;==,,"', TEXT),
        ("text/plain/plain;version=1.0.0", TEXT),
    ],
)
def test_format(accept, content_type):
    choice = negotiate(accept, None)

    assert choice.content_type == content_type
    assert choice.format == ("text" if content_type.startswith("text/plain") else "openmetrics")
    assert not choice.gzip


@pytest.mark.parametrize(
    ("accept_encoding", "gzip"),
    [
        ("gzip", True),
        ("gzip, deflate, br, zstd", True),
        ("x-gzip", True),
        ("GZIP;Q=1", True),
        ("*", True),
        ("br;q=1, gzip;q=0.1", True),
        ("gzip;q=0.5, identity;q=0.5", True),
        ("identity;q=0, gzip;q=0.1", True),
        ("identity;q=0, *", True),
        ("*;q=0, gzip", True),
        ("gzip;q=0, x-gzip", True),
        (None, False),
        ("", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("gzip;q=0, *", False),
        ("x-gzip;q=0, *;q=1", False),
        ("*;q=0", False),
        ("identity", False),
        ("identity;q=0", False),  # nothing is acceptable: uncompressed anyway
        ("identity, gzip;q=0.5", False),
        ("*;q=0.5, identity", False),
        ("deflate, br", False),
        ("gzip;q=abc", False),
        ("gzippy", False),
        ("not gzip", False),
    ],
)
def test_encoding(accept_encoding, gzip):
    assert negotiate(None, accept_encoding) == Negotiated("text", TEXT, gzip)


# Tokens of the grammar in any order, so that not all inputs are pure garbage.
PIECES = st.lists(
    st.sampled_from(
        (
            *("text/plain", "application/openmetrics-text", "*/*", "text/*", "gzip", "identity"),
            *("version", "q", "escaping", "0.0.4", "1.0.0", "0", "0.5", "1", "allow-utf-8"),
            *(";", ",", "=", '"', "\\", " ", "\t", "\x00", "é", "*"),
        )
    ),
    max_size=40,
).map("".join)
HEADERS = st.none() | st.text() | PIECES


@given(HEADERS, HEADERS)
@example('"', "\\")
@example('"\\', '"\\')
@example(";q=9" * 3, ";q=" + "9" * 5000)
def test_every_header_has_an_answer(accept, accept_encoding):
    choice = negotiate(accept, accept_encoding)

    assert choice.content_type in CONTENT_TYPES
    assert choice.content_type.startswith("text/plain" if choice.format == "text" else "app")
    assert isinstance(choice.gzip, bool)


@pytest.mark.parametrize(
    "piece", ['"', "\\", '"\\', ",", ";", "=", "a", ";q=0.1", ' "a', "q=", "9"]
)
def test_long_headers_take_linear_time(piece):
    def seconds(size):
        header = (piece * size)[:size]
        started = time.thread_time()
        for _ in range(5):
            negotiate(header, header)
        return time.thread_time() - started

    small, large = seconds(2_000), min(seconds(32_000) for _ in range(2))
    assert large < 16 * 6 * max(small, 0.001)  # quadratic: 256 times


def test_four_kilobytes_are_read():
    filler = ",".join(f"application/x-{number}" for number in range(228))
    assert 4096 - 150 < len(filler) < 4096 - len(LISTED) - 1

    assert negotiate(f"{filler},{LISTED}", f"{filler},gzip") == ("openmetrics", OPENMETRICS_1, True)
    assert negotiate(f"{LISTED},{filler * 9}", f"gzip,{filler * 9}") == (
        "openmetrics",
        OPENMETRICS_1,
        True,
    )


def test_beyond_that_nothing_is_read():
    filler = "a," * 2048
    assert negotiate(f"{filler}{LISTED}", f"{filler}gzip") == ("text", TEXT, False)


@pytest.mark.parametrize("length", range(4096 - 60, 4096 + 4))
def test_what_is_cut_off_is_not_read(length):
    """``q=0.001`` must not become ``q=0.0``, nor ``gzip;q=0`` ``gzip``."""
    element = f"{LISTED};q=0.001"
    filler = "," * (length - len(element))
    whole = length <= 4096
    later = ",text/plain;q=0.0001" * 1000
    expected = "openmetrics" if whole else "text"
    assert negotiate(f"{filler}{element}{later}", None).format == expected
    filler = "," * (length - len("gzip;q=0"))
    assert not negotiate(None, f"*;q=0,{filler}gzip;q=0,{later}").gzip


def test_labels():
    assert len(CONTENT_TYPES) == 12
