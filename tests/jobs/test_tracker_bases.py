"""One base for the life of a job: where its events count, and where it is shown."""

import msgspec
import pytest
from jobs.examples import NOW, job, jobs_in, waiting, with_jobs
from jobs.test_tracker import HOUR, Watch

from exporter.jobs.flavor_types import complete_all
from exporter.jobs.job import View
from exporter.jobs.tracked import Base
from exporter.jobs.tracker import observe

BASE = Base("0", "pool-1", "Ascend")
UNKNOWN = Base("0", "pool-1", "unknown")


def unallocated(job_id="a", **changes):
    """A job that waits for the pool to give it a flavor."""
    return waiting(job_id, flavor_type="unknown", accelerator="unknown", **changes)


def bases(events, *kinds):
    return {each.base for each in events if each.kind in kinds or not kinds}


def shown(watch, job_id="a"):
    return watch[job_id].job.flavor_type


@pytest.fixture
def watching():
    """The baseline was an empty workspace."""
    watch = Watch()
    watch.see()
    return watch


def test_the_type_is_that_of_the_other_jobs_of_the_pool(watching):
    watching.see(job("other"))

    assert bases(watching.see(unallocated())) == {BASE}
    assert shown(watching) == "Ascend"
    events = [*watching.see(job()), *watching.see(job(phase="Completed", ended=NOW))]
    assert {each.kind for each in events} == {"started", "ran", "finished"}
    assert bases(events) == {BASE}


def test_the_others_may_be_read_in_the_same_view_and_after_it(watching):
    assert bases(watching.see(unallocated("a"), job("b"), unallocated("c"))) == {BASE}


def test_the_others_may_have_ended_long_ago(watching):
    watching.see(job("other", phase="Failed", created=NOW - 90 * HOUR))
    watching.see(deleted=["other"])

    assert bases(watching.see(unallocated())) == {BASE}


def test_the_others_may_be_in_another_workspace(watching):
    watching.see(job("other", workspace="w"), newest_created={"0": NOW, "w": NOW})

    assert bases(watching.see(unallocated())) == {BASE}


def test_a_job_that_waits_at_the_baseline_counts_where_it_runs():
    watch = Watch()
    watch.see(unallocated())
    assert shown(watch) == "unknown"

    events = [*watch.see(job()), *watch.see(job(phase="Failed", ended=NOW))]

    assert [each.kind for each in events] == ["started", "ran", "finished"]
    assert bases(events) == {BASE}


def test_the_first_counted_event_decides_where_the_others_count(watching):
    assert bases(watching.see(unallocated())) == {UNKNOWN}

    events = [*watching.see(job()), *watching.see(job(phase="Failed", ended=NOW))]
    events += watching.see(deleted=["a"])

    assert [each.kind for each in events] == ["started", "ran", "finished", "deleted"]
    assert bases(events) == {UNKNOWN}


def test_a_better_answer_moves_the_job_but_not_what_is_still_to_count(watching):
    watching.see(unallocated())
    watching.see(job())

    assert shown(watching) == "Ascend"
    assert watching["a"].base == UNKNOWN
    assert watching.fleet.accelerators == {BASE: {"910B"}, UNKNOWN: {"unknown", "910B"}}


def test_a_job_that_was_not_read_is_moved_without_an_event(watching):
    watching.see(unallocated("a"), unallocated("b", pool="pool-2"))

    assert bases(watching.see(job("other"))) == {BASE}

    assert (shown(watching, "a"), shown(watching, "b")) == ("Ascend", "unknown")
    assert watching.changed.keys() == {"a", "other"}
    assert bases(watching.see(job("a"))) == {UNKNOWN}


def test_a_job_that_was_moved_and_read_as_before_is_not_news(watching):
    watching.see(unallocated())
    watching.see(job("other"))

    assert watching.see(unallocated()) == []
    assert watching.changed == {}
    assert shown(watching) == "Ascend"


def test_a_pool_with_several_types_says_nothing(watching):
    watching.see(job("other"), job("another", flavor_type="GPU"))

    assert bases(watching.see(unallocated())) == {UNKNOWN}


def test_a_job_with_cards_is_no_cpu_job(watching):
    watching.see(job("other"), job("another", flavor_type="CPU", accelerators=None))

    watching.see(unallocated("a"), unallocated("b", accelerators=None))

    assert (shown(watching, "a"), shown(watching, "b")) == ("Ascend", "unknown")


def test_an_answer_is_kept_although_the_pool_gets_a_second_type(watching):
    watching.see(job("other"), unallocated())
    watching.see(job("another", flavor_type="GPU"))

    assert bases(watching.see(unallocated(started=NOW, phase="Running"))) == {BASE}
    assert shown(watching) == "Ascend"


def test_a_type_is_kept_when_the_job_does_not_show_it_any_more(watching):
    watching.see(job())
    events = watching.see(job(phase="Pending", flavor_type="unknown", duration=510.0))

    assert bases(events) == {BASE}
    assert shown(watching) == "Ascend"


def test_a_type_of_its_own_is_better_than_that_of_the_others(watching):
    watching.see(job("other"), unallocated())
    events = watching.see(job(flavor_type="GPU"))

    assert bases(events) == {BASE}
    assert shown(watching) == "GPU"


def test_nothing_is_learned_about_the_public_pool(watching):
    watching.see(job("other", pool="public"))

    assert bases(watching.see(unallocated(pool="public"))) == {Base("0", "public", "unknown")}


def test_the_list_of_pools_may_say_it(watching):
    watching.see(unallocated())
    listed = View({}, pool_types={"pool-1": "Ascend", "public": "GPU"})
    observed = observe(watching.fleet, listed, NOW)
    watching.fleet = observed.fleet

    assert (observed.events, observed.jobs.keys()) == ([], {"a"})
    assert shown(watching) == "Ascend"
    assert bases(watching.see(unallocated("b"))) == {BASE}
    watching.see(job("c", flavor_type="GPU"))
    assert observe(watching.fleet, listed, NOW).jobs == {}
    assert bases(watching.see(unallocated("d"))) == {UNKNOWN}


def test_jobs_tell_more_than_the_list_of_pools(watching):
    watching.see(job("other"))
    watching.fleet = observe(watching.fleet, View({}, pool_types={"pool-1": "GPU"}), NOW).fleet

    assert bases(watching.see(unallocated())) == {BASE}


def test_the_pool_of_the_first_event_is_kept_too(watching):
    watching.see(waiting(pool="public", flavor_type="unknown"))

    assert bases(watching.see(job())) == {Base("0", "public", "unknown")}
    assert watching["a"].job.pool == "pool-1"


def test_a_job_that_moves_to_another_workspace_counts_there(watching):
    watching.see(waiting())

    assert bases(watching.see(job(workspace="w"))) == {BASE._replace(workspace="w")}


def test_a_job_of_an_older_state_file_counts_where_it_was_created(watching):
    """The version before did not keep the base."""
    watching.see(unallocated("a"), unallocated("b"))
    jobs = {
        job_id: msgspec.structs.replace(known, base=None)
        for job_id, known in jobs_in(watching.fleet).items()
    }
    watching.fleet = with_jobs(watching.fleet, jobs)

    assert bases(watching.see(job("a"))) == {UNKNOWN}
    assert bases(watching.see(job("b"))) == {UNKNOWN}
    assert bases(watching.see(job("b", phase="Failed"))) == {UNKNOWN}


def test_jobs_that_are_read_at_once_complete_each_other():
    """For a backfill, which sees everything once."""
    waiting_jobs = (unallocated("a"), unallocated("c", pool="p"), unallocated("d", pool="q"))
    jobs = {each.id: each for each in (job("b"), *waiting_jobs)}

    types = [each.flavor_type for each in complete_all(jobs, {"q": "GPU"}).values()]
    assert types == ["Ascend", "Ascend", "unknown", "GPU"]
