import io
import json
import logging
import re
import sys

import pytest

from exporter.app import log

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture(autouse=True)
def _restored():
    root = logging.getLogger()
    before = (root.level, root.handlers[:])
    quiet = {name: logging.getLogger(name).level for name in ("asyncio", "aiohttp")}
    root.handlers = []
    yield
    root.level, root.handlers = before
    for name, level in quiet.items():
        logging.getLogger(name).setLevel(level)


def written(form, write, level="info"):
    stream = io.StringIO()
    log.setup(level, form, stream)
    write(logging.getLogger("exporter.polling.poller"))
    return stream.getvalue()


def without_time(text):
    assert re.match(TIME, text)
    return re.sub(f"^{TIME} ", "", text)


def failing(logger):
    try:
        {}["a\nb\x1b"]
    except KeyError:
        logger.exception("poll failed", extra={"target": "cn-north-4/research"})


def test_text():
    facts = {"target": "cn-north-4/research", "result": "auth"}
    line = written("text", lambda it: it.warning("poll failed: %s", "HTTP 401", extra=facts))
    assert without_time(line) == (
        "WARNING poll failed: HTTP 401 target=cn-north-4/research result=auth\n"
    )


def test_time_of_the_record():
    record = logging.makeLogRecord({"msg": "x", "levelname": "INFO", "created": 1795500000.1239})
    assert log.TextFormatter().format(record) == "2026-11-24T06:00:00.123Z INFO x"
    assert json.loads(log.JsonFormatter().format(record))["time"] == "2026-11-24T06:00:00.123Z"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a b", '"a b"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('say "x"', r'"say \"x\""'),
        ("back\\slash", r'"back\\slash"'),
        ("a\nb", r'"a\nb"'),
        ("\x1b[31m", r'"\x1b[31m"'),
        ("\u2028", r'"\u2028"'),
        ("Grüße", "Grüße"),
        (1.5, "1.5"),
        (None, "None"),
    ],
)
def test_values_of_fields_in_text(value, shown):
    line = written("text", lambda it: it.info("x", extra={"value": value}))
    assert without_time(line) == f"INFO x value={shown}\n"


def test_one_record_is_one_line_in_text():
    message = "a\nb\r\x00\x1b\x85\u2028\ud800c"
    line = written("text", lambda it: it.info(message))
    assert without_time(line) == "INFO a\\nb\\r\\x00\\x1b\\x85\\u2028\\ud800c\n"


def test_traceback_in_text():
    first, *rest = written("text", failing).splitlines()
    assert without_time(first) == "ERROR poll failed target=cn-north-4/research"
    assert rest[0] == "    Traceback (most recent call last):"
    assert rest[-1].startswith("    KeyError: ")
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_json():
    facts = {"target": "cn-north-4/research", "jobs": 5, "odd": {1}}
    line = written("json", lambda it: it.warning("poll\nfailed: %s", "ü", extra=facts))
    assert line.count("\n") == 1
    found = json.loads(line)
    assert re.fullmatch(TIME, found.pop("time"))
    assert found == {
        "level": "warning",
        "logger": "exporter.polling.poller",
        "message": "poll\nfailed: ü",
        "target": "cn-north-4/research",
        "jobs": 5,
        "odd": "{1}",
    }
    assert list(json.loads(line))[:4] == ["time", "level", "logger", "message"]


def test_traceback_in_json():
    line = written("json", failing)
    assert line.count("\n") == 1
    found = json.loads(line)
    assert found["exception"].startswith("Traceback (most recent call last):\n")
    assert "KeyError" in found["exception"]
    assert found["target"] == "cn-north-4/research"


def test_own_fields_cannot_be_overwritten_in_json():
    found = json.loads(
        written("json", lambda it: it.info("x", extra={"level": "y", "logger": "y"}))
    )
    assert (found["level"], found["logger"]) == ("info", "exporter.polling.poller")


@pytest.mark.parametrize("form", ["text", "json"])
def test_arguments_that_do_not_fit_lose_no_line(form):
    assert "poll %s %s" in written(form, lambda it: it.info("poll %s %s", 1))


def test_levels():
    def write(logger):
        logger.debug("debug")
        logger.info("info")
        logger.warning("warning")

    assert len(written("text", write, "debug").splitlines()) == 3
    assert len(written("text", write, "info").splitlines()) == 2
    assert len(written("text", write, "error").splitlines()) == 0


@pytest.mark.parametrize("name", ["asyncio", "aiohttp.server"])
def test_libraries_are_quiet(name):
    def write(_):
        logging.getLogger(name).info("info")
        logging.getLogger(name).warning("warning")

    assert len(written("text", write, "debug").splitlines()) == 1
    assert len(written("text", write, "error").splitlines()) == 0


def test_a_second_setup_replaces_the_first(capsys):
    log.setup("info", "text", first := io.StringIO())
    log.setup("info", "json")
    logging.getLogger("exporter").info("x")
    assert first.getvalue() == ""
    assert json.loads(capsys.readouterr().err)["message"] == "x"
    assert logging.getLogger().handlers[0].stream is sys.stderr
