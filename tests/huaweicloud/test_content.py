"""Bodies are decompressed within their limit, whatever was sent; lone surrogates are replaced."""

import asyncio
import gzip
import random
import zlib

import pytest

from exporter.errors import BrokenResponseError, InvalidResponseError
from exporter.huaweicloud import content as content_module
from exporter.huaweicloud.content import MAX_RESPONSE_BYTES, SMALL_BYTES, Content
from exporter.huaweicloud.encodable import encodable

RANDOM = random.Random(7)
TEXT = RANDOM.randbytes(1000) + b'{"items": []}' * 1000
LARGE = RANDOM.randbytes(100_000) + bytes(5_000_000)


def raw_deflate(data):
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def read(data, encoding="", size=1000):
    async def add_all():
        content = Content(encoding)
        for start in range(0, len(data), size):
            await content.add(data[start : start + size])
        return await content.read()

    return asyncio.run(add_all())


@pytest.mark.parametrize("size", [1, 17, 1000, 10**9])
@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("", lambda data: data),
        ("identity", lambda data: data),
        ("gzip", gzip.compress),
        (" X-GZIP ", gzip.compress),
        (
            "gzip",
            lambda data: gzip.compress(data[:77], mtime=0) + gzip.compress(data[77:], mtime=0),
        ),
        ("gzip", lambda data: gzip.compress(data, mtime=0) + b"\0\0"),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
    ],
)
def test_content_is_what_was_sent(encoding, compress, size):
    assert read(compress(TEXT), encoding, size) == TEXT
    assert read(compress(b""), encoding, size) == b""
    assert read(compress(LARGE), encoding, max(size, 1000)) == LARGE


@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
def test_no_content(encoding):
    assert read(b"", encoding) == b""


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(TEXT, mtime=0)[:-1],
        gzip.compress(TEXT, mtime=0)[:-9],
        gzip.compress(TEXT, mtime=0)[:5],
        gzip.compress(LARGE, mtime=0)[:-1],
        gzip.compress(TEXT, mtime=0)[:-8] + b"12345678",
        gzip.compress(TEXT, mtime=0) + gzip.compress(TEXT, mtime=0)[:-1],
        zlib.compress(TEXT)[:-1],
        b"{}",
        b"\x1f\x8b",
    ],
)
@pytest.mark.parametrize("size", [1, 1000, 10**9])
def test_what_was_cut_off_or_garbled_is_worth_another_try(data, size):
    with pytest.raises(BrokenResponseError) as caught:
        read(data, "gzip", size)

    assert caught.value.__context__ is None


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_the_limit_is_exact(encoding):
    compress = gzip.compress if encoding else bytes
    exact = bytes(MAX_RESPONSE_BYTES)

    assert read(compress(exact), encoding, 10**6) == exact
    with pytest.raises(InvalidResponseError, match=f"larger than {MAX_RESPONSE_BYTES} bytes"):
        read(compress(exact + b"\0"), encoding, 10**6)


def test_a_bomb_is_never_unpacked(monkeypatch):
    """Of what would be 100 MB, no more is unpacked than is allowed, and one step."""
    bomb = gzip.compress(bytes(10**8), mtime=0)
    unpacked = []
    keep = Content._keep
    monkeypatch.setattr(
        Content, "_keep", lambda self, piece: unpacked.append(len(piece)) or keep(self, piece)
    )

    with pytest.raises(InvalidResponseError):
        read(bomb, "gzip", 10**9)
    assert max(unpacked) <= content_module._STEP
    assert sum(unpacked) <= MAX_RESPONSE_BYTES + content_module._STEP


async def test_only_little_is_unpacked_in_the_event_loop(monkeypatch):
    in_threads = []

    async def to_thread(work):
        in_threads.append(work.__name__)
        return work()

    monkeypatch.setattr(content_module.asyncio, "to_thread", to_thread)
    for data, expected in (
        (TEXT, []),
        (bytes(SMALL_BYTES), []),
        (bytes(SMALL_BYTES * 2), ["_decompress_all", "_read"]),
    ):
        content = Content("gzip")
        await content.add(gzip.compress(data, mtime=0))
        assert await content.read() == data
        assert in_threads == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rb"a\ud800b", rb"a\ufffdb"),
        (rb"\uDBFF\uD800\udc00\uDFFF", rb"\ufffd\uD800\udc00\ufffd"),
        (rb"\ud83d\ude80", rb"\ud83d\ude80"),
        (rb"\\ud800", rb"\\ud800"),
        (rb"\\\ud800", rb"\\\ufffd"),
        (rb"\ud800\\udc00", rb"\ufffd\\udc00"),
        (rb"\ud8", rb"\ud8"),
        (b"\xff", b"\xff"),
    ],
)
def test_lone_surrogates_are_replaced(text, expected):
    assert encodable(text) == expected
