"""The 100,000 series that are rendered and scraped: 10,000 jobs with ten series each.

As blocks for our renderer, and as gauges in a registry of prometheus_client. `bench_render` checks
that both give the same bytes.
"""

import random
import uuid
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Gauge

from exporter.metrics.exposition import Exposition, Metric, SampleBlock, assemble, render_block

JOBS = 10_000
SERIES = JOBS * 10

_CONSTANT = {"region": "cn-north-4", "project": "research"}
_PHASES = ("Creating", "Pending", "Running", "Completed", "Failed", "Terminated")
_POOLS = (("pool-5a1d0f7c", "llm"), ("pool-8c21e4aa", "vision"), ("public", ""))
_USERS = tuple(f"user{number}@team" for number in range(40))
_INFO = (
    "job_name",
    "user",
    "workspace",
    "pool",
    "pool_name",
    "flavor_type",
    "flavor",
    "accelerator",
    "engine",
    "kind",
)
_NUMBERS = {
    "created_timestamp_seconds": lambda chance, now: round(now - chance.random() * 1e6, 3),
    "start_timestamp_seconds": lambda chance, now: round(now - chance.random() * 1e6, 3),
    "end_timestamp_seconds": lambda chance, now: round(now - chance.random() * 1e5, 3),
    "duration_seconds": lambda chance, _: round(chance.random() * 1e5, 3),
    "nodes": lambda chance, _: chance.choice((1, 1, 1, 2, 4, 8, 16)),
    "accelerators": lambda chance, _: chance.choice((1, 2, 4, 8, 8, 8, 64, 128)),
    "exit_code": lambda chance, _: chance.choice((0, 0, 0, 1, 137)),
    "restarts": lambda chance, _: chance.choice((0, 0, 0, 1, 2)),
}


def blocks() -> list[SampleBlock]:
    """The series; the same on every call."""
    chance = random.Random(0)
    now = 1_750_000_000.0
    ids = [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(JOBS)]
    rows: list[SampleBlock] = [
        _block("info", _INFO, [((job_id, *_info(chance)), 1) for job_id in ids]),
        _block("phase", ("phase",), [((job_id, chance.choice(_PHASES)), 1) for job_id in ids]),
    ]
    rows += [
        _block(name, (), [((job_id,), value(chance, now)) for job_id in ids])
        for name, value in _NUMBERS.items()
    ]
    return rows


def _block(
    name: str, labels: tuple[str, ...], samples: list[tuple[tuple[str, ...], float]]
) -> SampleBlock:
    metric = Metric(f"modelarts_training_job_{name}", "gauge", f"The {name} of a training job.")
    return SampleBlock(metric, ("job_id", *labels), _CONSTANT, samples)


def _info(chance: random.Random) -> tuple[str, ...]:
    pool, pool_name = chance.choice(_POOLS)
    return (
        f"finetune-{chance.randrange(1000):03d}",
        chance.choice(_USERS),
        "0",
        pool,
        pool_name,
        "Ascend",
        f"modelarts.pool.visual.{chance.choice(('x', '2x', '4x', '8x'))}large",
        "ascend-snt9b",
        "Ascend-Powered-Engine",
        "job",
    )


def exposition() -> Exposition:
    """The series as rendered by the exporter."""
    return assemble((block.metric, [render_block(block)]) for block in blocks())


def registry() -> CollectorRegistry:
    """The series as most exporters have them: a gauge per family, a child per series."""
    result = CollectorRegistry()
    for block in blocks():
        names = tuple(sorted((*block.constant, *block.labels)))
        gauge = Gauge(block.metric.name, block.metric.help, names, registry=result)
        for labels, value in _labelled(block):
            gauge.labels(**labels).set(value)
    return result


def _labelled(block: SampleBlock) -> Iterator[tuple[Mapping[str, str], float]]:
    for values, value in block.samples:
        yield {**block.constant, **dict(zip(block.labels, values, strict=True))}, value
