"""Which of several exporters polls a target: rendezvous hashing, which needs no membership."""

from hashlib import blake2b


def shard_of(region: str, project: str, count: int) -> int:
    """Return the index of the shard that polls a target, from 0 to ``count`` - 1.

    Every shard has a weight for the target; the largest wins. So with one shard more, only the
    targets move that the new one wins, and with one less only those that it had.

    Args:
        region: label of the target.
        project: label of the target.
        count: number of shards.
    """
    return max(range(count), key=lambda index: _weight(index, region, project))


def _weight(index: int, region: str, project: str) -> bytes:
    return blake2b("\0".join((str(index), region, project)).encode(), digest_size=16).digest()
