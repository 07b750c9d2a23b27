"""The errors of the exporter, as one tree. Each error carries the decision that follows from it.

::

    ExporterError
    ├── ConfigError                 the configuration cannot work: a line per problem, exit code 2
    ├── StartError                  the start failed (port in use, ...): one line, exit code 1
    ├── StateError                  the state file fails: nothing new is exposed until it works
    │   └── HistoryLostError        it had to be written anew without old jobs: load the state again
    └── PollError                   a request or a poll failed; the last good state is kept
        ├── AuthError               401 (rejected, expired, clock skew), or no credentials
        │   └── ForbiddenError      403: authenticated, but not authorized
        ├── ThrottledError          429
        ├── TimedOutError           a request or a poll took too long
        ├── ConnectionFailedError   refused, reset, name not found, TLS
        ├── UpstreamError           5xx: the service has a problem
        ├── RejectedError           other 4xx, and redirects: the service refused the request
        └── InvalidResponseError    invalid response: HTML, wrong types, an error with status 200
            ├── BrokenResponseError     truncated or garbled: worth a retry
            └── InconsistentPagesError  the pages of a list contradict each other

``reason`` is bounded: it becomes the label ``result`` of ``modelarts_exporter_polls_total`` and
the label ``reason`` of ``modelarts_exporter_api_retries_total``. Messages are for people; they
never contain a secret or a raw job.
"""

from typing import ClassVar


def one_line(text: str, limit: int | None = None) -> str:
    """Escape line breaks and control characters, so that the text stays on one line.

    Args:
        text: from outside the program; may contain anything.
        limit: maximum length; a longer text is cut and ends with an ellipsis.
    """
    line = text if limit is None else text[: limit + 1]
    if not line.isprintable():
        line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


class ExporterError(Exception):
    """Base class of all expected errors."""


class ConfigError(ExporterError):
    """The configuration cannot work.

    Attributes:
        problems: one line each, with the option, the origin and what would be valid.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class StartError(ExporterError):
    """The program cannot start at the moment, for example because a port is in use."""


class StateError(ExporterError):
    """The state file cannot be read or written; one line with its path and what to do."""


class HistoryLostError(StateError):
    """The saved state was lost, and written anew from memory, which has only some of the jobs.

    What was saved before must be loaded again; the workspaces are marked as incomplete in it.
    """


class PollError(ExporterError):
    """A request, and with it the poll, failed.

    Attributes:
        reason: bounded label value.
        retryable: whether the request may be retried within the poll.
    """

    reason: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False


class AuthError(PollError):
    """The service rejected the credentials (401), or there are none."""

    reason = "auth"


class ForbiddenError(AuthError):
    """The identity lacks a permission (403)."""


class ThrottledError(PollError):
    """The service throttles the requests (429).

    Attributes:
        retry_after: seconds to wait as requested by the service, or None.
    """

    reason = "throttled"
    retryable = True

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TimedOutError(PollError):
    """No complete response in time."""

    reason = "timeout"
    retryable = True


class ConnectionFailedError(PollError):
    """No connection, or it was lost before the response started.

    Attributes:
        lasting: there was no connection at all (name not found, refused, certificate not trusted),
            so a retry within seconds will hardly help.
    """

    reason = "upstream"
    retryable = True

    def __init__(self, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting


class UpstreamError(PollError):
    """The service failed (5xx)."""

    reason = "upstream"
    retryable = True

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RejectedError(PollError):
    """The service refused the request: a 4xx other than 401, 403 and 429, or a redirect.

    Attributes:
        status: HTTP status.
        code: error code of the service such as ``ModelArts.2789``, or "".
    """

    reason = "upstream"

    def __init__(self, message: str, *, status: int, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class InvalidResponseError(PollError):
    """The response has status 200, but its content is not valid."""

    reason = "invalid"


class BrokenResponseError(InvalidResponseError):
    """The response was truncated or garbled in transit."""

    retryable = True


class InconsistentPagesError(InvalidResponseError):
    """The pages of one search contradict each other, and reading them again did not help."""
