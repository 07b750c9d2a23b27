"""One log line a record, as text or as JSON, whatever a message contains.

Fields go into ``extra=``: ``log.warning("poll failed", extra={"target": name})``.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from exporter.errors import one_line

_LIBRARIES = ("aiohttp", "asyncio")
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def setup(level: str, format: str, stream: TextIO | None = None) -> None:  # noqa: A002 - log.format
    """Write all log records to a stream. A second call replaces the first.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``; for libraries at least ``warning``.
        format: ``text`` or ``json``.
        stream: standard error by default.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for library in _LIBRARIES:
        quieter = max(logging.getLogger().level, logging.WARNING)
        logging.getLogger(library).setLevel(quieter)


class TextFormatter(logging.Formatter):
    """``2026-11-24T06:00:00.123Z WARNING poll failed target=cn-north-4/research result=auth``.

    Lines of a traceback follow, indented.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format as text; only a traceback takes more than one line."""
        fields = (f" {name}={_value(value)}" for name, value in _extra(record).items())
        line = f"{_time(record)} {record.levelname} {one_line(_message(record))}{''.join(fields)}"
        below = _exception(self, record)
        return "\n    ".join([line, *map(one_line, below.splitlines())])


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``logger``, ``message`` and the extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Format as JSON; a traceback becomes the field ``exception``."""
        fields: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        if exception := _exception(self, record):
            fields["exception"] = exception
        return json.dumps(fields | _extra(record) | fields, default=str)


def _time(record: logging.LogRecord) -> str:
    time = datetime.fromtimestamp(record.created, UTC)
    return time.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # a line must not be lost because its arguments do not fit
        return f"{record.msg} {record.args}"


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info else []
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _USUAL}


def _value(value: object) -> str:
    """A field's value, in quotes where it would be ambiguous."""
    text = str(value)
    plain = text and text.isprintable() and not set(' "=\\') & set(text)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return text if plain else f'"{one_line(escaped)}"'
