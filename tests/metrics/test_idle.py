"""When bases were last active, and which are idle."""

from jobs import examples

from exporter.jobs.fleet import Fleet
from exporter.jobs.tracked import Base, TrackedJob
from exporter.metrics.fleet import bases_with_jobs, fleet_blocks
from exporter.metrics.idle import advance_activity, first_activity, idle_bases

NOW = 1_750_000_000.0
DAY = 86_400.0
ONE, TWO, THREE = (Base("0", pool, "Ascend") for pool in ("one", "two", "three"))


def tracked(base, phase="Running", ended=None):
    job = examples.job("a", phase=phase, pool=base.pool, flavor_type=base.flavor_type)
    return TrackedJob(job, ended, ended is not None, True, (), 0, None, 0.0, None)


def test_a_base_is_idle_after_the_retention():
    last_active = {ONE: NOW - 30 * DAY - 1, TWO: NOW - 30 * DAY, THREE: NOW + DAY}

    assert idle_bases(last_active, 30 * DAY, NOW) == {ONE}
    assert idle_bases(last_active, 0, NOW) == frozenset()


def test_first_activity_is_that_of_the_last_job_that_counts():
    jobs = [
        tracked(ONE),
        tracked(TWO, "Completed", NOW - 9 * DAY),
        tracked(TWO, "Failed", NOW - 8 * DAY),
    ]

    assert first_activity(jobs, {ONE, TWO, THREE}, history=0, now=NOW) == {
        ONE: NOW,
        TWO: NOW,
        THREE: NOW,
    }
    assert first_activity(jobs, {TWO, THREE}, history=2 * DAY, now=NOW) == {
        TWO: NOW - 6 * DAY,
        THREE: NOW,
    }
    assert first_activity(jobs, {TWO}, history=20 * DAY, now=NOW) == {TWO: NOW}


def advanced(last_active, active=(), left=(), retention=30 * DAY):
    return advance_activity(last_active, active=active, left=left, retention=retention, now=NOW)


def test_activity_is_saved_when_it_is_a_tenth_late():
    assert advanced({ONE: NOW - 3 * DAY}, active=[ONE]) == {}
    assert advanced({ONE: NOW - 3 * DAY - 1}, active=[ONE]) == {ONE: NOW}
    assert advanced({ONE: NOW - 3 * DAY - 1}, active=[TWO]) == {}


def test_activity_is_saved_when_the_last_job_leaves():
    assert advanced({ONE: NOW - 60, TWO: NOW - 60}, left=[ONE]) == {ONE: NOW}


def test_activity_in_the_future_is_corrected():
    assert advanced({ONE: NOW + DAY}) == {ONE: NOW}


def test_nothing_is_saved_if_nothing_becomes_idle():
    assert advanced({ONE: 0.0}, active=[ONE], left=[ONE], retention=0) == {}


def shown(fleet, idle):
    """The bases in the gauges, and those in which a job counts."""
    blocks = fleet_blocks(fleet, {}, idle=idle)
    bases = {Base(*labels[:3]) for block in blocks[:3] for labels, _ in block.samples}
    return bases, bases_with_jobs(blocks[0])


def test_idle_bases_have_no_gauges_unless_a_job_counts_in_them():
    accelerators = {ONE: frozenset(), TWO: frozenset({"910B"})}
    fleet = Fleet(open={"a": tracked(ONE)}, accelerators=accelerators)

    assert shown(fleet, ()) == ({ONE, TWO}, {ONE})
    assert shown(fleet, {TWO}) == ({ONE}, {ONE})
    assert shown(fleet, {ONE, TWO}) == ({ONE}, {ONE})
    blocks = fleet_blocks(fleet, {}, idle={ONE, TWO})
    assert len([labels for labels, _ in blocks[0].samples if labels[:3] == ONE]) == 8
