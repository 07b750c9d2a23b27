"""How rows of the state file are encoded: msgpack, and a checksum for every value that counts."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any
from zlib import crc32

import msgspec

from exporter.jobs.job import Job
from exporter.jobs.tracked import TrackedJob
from exporter.metrics.counters import Series
from exporter.storage.damage import DamagedFileError

encode = msgspec.msgpack.Encoder().encode
decode_labels = msgspec.msgpack.Decoder(tuple[str, ...]).decode
decode_job = msgspec.msgpack.Decoder(TrackedJob).decode
decode_series = msgspec.msgpack.Decoder(Series).decode
UNREADABLE = (msgspec.MsgspecError, TypeError, ValueError)
"""Raised by `verified` and the decoders."""

_CHECKSUM_BYTES = 4
_DIGEST_BYTES = 8


def damaged(what: str, name: str, why: object) -> DamagedFileError:
    """The exception for a row that cannot be used."""
    return DamagedFileError(f"is damaged ({what} {name[:64]!r}: {why})")


def pack(struct: TrackedJob | Series, key: bytes) -> bytes:
    """Encode with a checksum, since zeros from a failing disk would pass for numbers.

    It covers the key of the row as well: a value under another key is damaged, too.
    """
    return sealed(encode(struct), key)


def sealed(blob: bytes, key: bytes) -> bytes:
    """Add the checksum to an encoded struct."""
    return blob + crc32(blob, crc32(key)).to_bytes(_CHECKSUM_BYTES, "little")


def verified(packed: Any, key: bytes) -> Any:
    """Verify the checksum and return the encoded struct."""
    blob = packed[:-_CHECKSUM_BYTES]
    if crc32(blob, crc32(key)) != int.from_bytes(packed[-_CHECKSUM_BYTES:], "little"):
        raise ValueError("wrong checksum")
    return blob


def key_of(*parts: object) -> bytes:
    """The key of a row, as its checksum covers it."""
    return "\0".join(map(str, parts)).encode()


def checksum(values: Sequence[object]) -> int:
    """The checksum of a row of plain values."""
    return crc32(encode(values))


def digest(job: Job) -> int:
    """A number that differs for jobs that differ in anything: 64 bits, signed as in SQLite."""
    found = blake2b(encode(job), digest_size=_DIGEST_BYTES).digest()
    return int.from_bytes(found, "little", signed=True)


def released_mark(key: bytes, *, released: bool) -> int:
    """What says whether a series is released: a checksum, so that no flipped bit can say so."""
    return crc32(b"released" if released else b"held", crc32(key))


def is_released(mark: object, key: bytes) -> bool:
    """Read `released_mark`.

    Raises:
        ValueError: it is neither.
    """
    if mark == released_mark(key, released=True):
        return True
    if mark == released_mark(key, released=False):
        return False
    raise ValueError("wrong checksum of the release")
