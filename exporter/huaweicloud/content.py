"""The content of a response: decompressed step by step, within its limit of size."""

import asyncio
import contextlib
import zlib
from typing import Any

from exporter.errors import BrokenResponseError, InvalidResponseError

MAX_RESPONSE_BYTES = 16 * 2**20
"""A page of 50 jobs has about 100 kB; a body a hundred times larger is not a page of jobs."""

SMALL_BYTES = 262_144
"""What is no larger is handled in about a millisecond."""

_STEP = 2**20
_ANY_HEADER = 32 + zlib.MAX_WBITS  # of gzip or zlib
_NO_HEADER = -zlib.MAX_WBITS
_GZIP = 0x1F  # its first byte
_GARBLED = "the response was cut off or garbled"
_COMPRESSED = ("gzip", "x-gzip", "deflate")


class Content:
    """The body of a response, received piece by piece.

    A few kilobytes can contain a gigabyte, so data is decompressed step by step.

    Args:
        encoding: its Content-Encoding.
        limit: bytes, as received and as decompressed.
    """

    def __init__(self, encoding: str, limit: int = MAX_RESPONSE_BYTES) -> None:
        self._limit = limit
        self._is_compressed = encoding.strip().lower() in _COMPRESSED
        self._decompressor: Any = None
        self._pending = b""
        self._members = 0
        self._received = 0
        self._pieces: list[bytes] = []
        self.size = 0

    async def add(self, piece: bytes) -> None:
        """Add a piece. Blocks the event loop only for a short time.

        Raises:
            InvalidResponseError: there are too many bytes.
            BrokenResponseError: the compressed data is garbled.
        """
        self._received += len(piece)
        self._check(self._received)
        if not self._is_compressed:
            self._keep(piece)
            return
        self._pending += piece
        if self._pending:
            self._decompress(SMALL_BYTES)
        if self._pending:
            await asyncio.to_thread(self._decompress_all)

    async def read(self) -> bytes:
        """Return the whole content; raises as `add`, also if compressed data is truncated."""
        if self.size <= SMALL_BYTES:
            return self._read()
        return await asyncio.to_thread(self._read)

    def _read(self) -> bytes:
        while self._decompressor is not None:
            before = self.size
            self._decompress(_STEP)
            if self._decompressor is not None and self.size == before:
                raise BrokenResponseError(_GARBLED)
        return b"".join(self._pieces)

    def _keep(self, piece: bytes) -> None:
        self.size += len(piece)
        self._check(self.size)
        self._pieces.append(piece)

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise InvalidResponseError(f"the response is larger than {self._limit} bytes")

    def _decompress_all(self) -> None:
        while self._pending:
            self._decompress(_STEP)

    def _decompress(self, most: int) -> None:
        """Decompress what is pending, at most so many bytes of content."""
        if self._decompressor is None:
            if self._members and self._pending[0] != _GZIP:
                self._pending = b""  # padding after the last member
                return
            self._members += 1
            # Some servers send deflate without a zlib header, whose low four bits are 8.
            has_header = self._pending[0] == _GZIP or self._pending[0] & 0x0F == zlib.DEFLATED
            self._decompressor = zlib.decompressobj(_ANY_HEADER if has_header else _NO_HEADER)
        decompressor, piece = self._decompressor, None
        with contextlib.suppress(zlib.error):
            piece = decompressor.decompress(self._pending, most)
        if piece is None:  # raised here, so that no context keeps the data in memory
            raise BrokenResponseError(_GARBLED)
        self._keep(piece)
        self._pending = decompressor.unconsumed_tail
        if decompressor.eof:
            self._pending = decompressor.unused_data
            self._decompressor = None
