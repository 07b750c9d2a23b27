"""A set of IDs that takes few bytes for each: a million of them must fit beside everything else."""

from array import array
from collections.abc import Iterable
from hashlib import blake2b

_BUCKETS = 2**16


class IdSet:
    """IDs can be added and looked up, but not listed: only a hash of 64 bits of each is kept.

    So two IDs may be taken for one, but hardly ever: with a probability of 1 in 37 million for a
    million IDs.
    """

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._buckets: dict[int, array[int]] = {}
        self._length = 0
        self.update(ids)

    def __contains__(self, job_id: str) -> bool:
        number = _hash(job_id)
        return number in self._buckets.get(number % _BUCKETS, ())

    def __len__(self) -> int:
        return self._length

    def update(self, ids: "Iterable[str] | IdSet") -> None:
        """Add IDs."""
        if isinstance(ids, IdSet):
            self._add(number for bucket in ids._buckets.values() for number in bucket)  # noqa: SLF001
        else:
            self._add(map(_hash, ids))

    def _add(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            bucket = self._buckets.setdefault(number % _BUCKETS, array("Q"))
            if number not in bucket:
                bucket.append(number)
                self._length += 1


def _hash(job_id: str) -> int:
    return int.from_bytes(blake2b(job_id.encode("utf-8", "replace"), digest_size=8).digest())
