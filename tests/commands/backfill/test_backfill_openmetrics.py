"""The document, byte by byte and as parsed OpenMetrics."""

from jobs.test_tracker import NOW, job
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from exporter.commands.backfill.grid import Grid
from exporter.commands.backfill.openmetrics import TargetSeries, document
from exporter.commands.backfill.series import SeriesBuilder

GRID = Grid(NOW - 600, NOW + 300, 300.0)
JOB = job(phase="Failed", created=NOW - 500, started=NOW - 400, ended=NOW + 100, duration=500.0)


def text(*jobs, labels=None, lo=0, hi=4, **options):
    history = SeriesBuilder(GRID, **options)
    for each in jobs:
        history.add(each, NOW + 300)
    told = TargetSeries(list(history.families()), labels or {"project": "p"})
    return b"".join(document([told], GRID, lo, hi)).decode()


def family(document, name):
    return [line for line in document.splitlines() if f"modelarts_training_{name}" in line]


def test_a_small_job_to_the_letter():
    series = (
        "modelarts_training_oldest_pending_timestamp_seconds"
        '{flavor_type="Ascend",pool="pool-1",project="p",workspace="0"}'
    )
    assert family(text(job(created=NOW - 500, started=NOW + 100)), "oldest") == [
        (
            "# HELP modelarts_training_oldest_pending_timestamp_seconds Creation time "
            "(metadata.create_time) of the oldest training job in Creating or Pending, in unix "
            "seconds; absent if no job is waiting."
        ),
        "# TYPE modelarts_training_oldest_pending_timestamp_seconds gauge",
        f"{series} 1.7499995e+09 {NOW - 300:.0f}",
        f"{series} 1.7499995e+09 {NOW:.0f}",
    ]
    series = (
        "modelarts_training_jobs_finished_total"
        '{flavor_type="Ascend",phase="Failed",pool="pool-1",project="p",workspace="0"}'
    )
    lines = family(text(JOB), "jobs_finished")
    assert lines[:2] == [
        (
            "# HELP modelarts_training_jobs_finished Transitions of training jobs into a terminal "
            "phase (status.phase)."
        ),
        "# TYPE modelarts_training_jobs_finished counter",
    ]
    assert [line for line in lines if "Failed" in line] == [
        f"{series} 0.0 {NOW - 600:.0f}",
        f"{series} 0.0 {NOW - 300:.0f}",
        f"{series} 0.0 {NOW:.0f}",
        f"{series} 1.0 {NOW + 300:.0f}",
    ]
    assert text(JOB).endswith("\n# EOF\n")


def test_it_is_openmetrics_and_a_day_is_a_part_of_the_whole():
    def samples(document):
        return [
            sample
            for each in text_string_to_metric_families(document)
            for sample in each.samples
        ]  # fmt: skip

    whole = samples(text(JOB))
    assert (
        len({(each.name, str(each.labels), str(each.timestamp)) for each in whole})
        == len(whole)
        > 50
    )
    parts = samples(text(JOB, hi=2)) + samples(text(JOB, lo=2))
    assert sorted(map(str, parts)) == sorted(map(str, whole))


def test_a_histogram_is_written_moment_by_moment():
    lines = family(text(JOB, histograms=True), "queue_duration")
    assert len(lines) == 2 + len(GRID) * 20
    assert [line.rpartition(" ")[2] for line in lines[2:]] == [
        moment for moment in GRID.texts for _ in range(20)
    ]
    assert [line for line in lines if 'le="+Inf"' in line][-1].split()[-2] == "1.0"
    assert [line for line in lines if "_sum" in line][-1].split()[-2] == "100.0"
    # The library's parser keeps only samples of the first time: parse one time at a time.
    for position in range(len(GRID)):
        one = text(JOB, histograms=True, lo=position, hi=position + 1)
        types = {each.type for each in text_string_to_metric_families(one)}
        assert types == {"gauge", "counter", "histogram"}


def test_texts_of_strangers_are_escaped():
    odd = job(pool='a"b\\c\nd', pool_name='x"\n')
    labels = {"project": 'p"1', "job": "a\\b"}
    families = {
        each.name: each for each in text_string_to_metric_families(text(odd, labels=labels))
    }
    info = families["modelarts_pool_info"].samples[0]
    unknown = {"type": "unknown", "workspace": "unknown"}
    assert info.labels == {"pool": 'a"b\\c\nd', "pool_name": 'x"\n', **unknown, **labels}


def test_no_jobs_no_families():
    assert text() == "# EOF\n"


def test_several_targets_share_their_families():
    told = []
    for project in ("p", "q"):
        history = SeriesBuilder(GRID)
        history.add(JOB, NOW + 300)
        told.append(TargetSeries(list(history.families()), {"project": project}))
    found = list(
        text_string_to_metric_families(b"".join(document(told, GRID, 0, len(GRID))).decode())
    )
    assert len({each.name for each in found}) == len(found)
    assert all({each.labels["project"] for each in one.samples} == {"p", "q"} for one in found)
