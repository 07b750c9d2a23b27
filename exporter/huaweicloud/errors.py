"""Error responses of Huawei Cloud: the typed error that a non-2xx response means."""

import json
import re
import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from exporter.errors import (
    AuthError,
    ForbiddenError,
    InvalidResponseError,
    PollError,
    RejectedError,
    ThrottledError,
    UpstreamError,
)
from exporter.huaweicloud.http import Response
from exporter.huaweicloud.redaction import quote

# Error codes of the gateway (APIG., APIGW.) and of ModelArts. They are looked at before the
# status, because some come with a status that means something else.
_SKEW_CODES = (".0303",)
_AUTH_CODES = (".0301", ".0303", ".0307", "ModelArts.0201", "ModelArts.0202", "ModelArts.0203")
_FORBIDDEN_CODES = (
    ".0302",
    "ModelArts.0108",
    "ModelArts.0112",
    "ModelArts.0206",
    "ModelArts.0210",
)
_OTHER_PROJECT_CODE = "ModelArts.0210"
_THROTTLED_CODES = (".0308", "ModelArts.2799")

_UNAUTHORIZED, _FORBIDDEN, _TOO_MANY_REQUESTS, _SERVER_ERROR = 401, 403, 429, 500
_OK = range(200, 300)
_REDIRECT = range(300, 400)
_TEXT_LIMIT = 200
_MAX_BYTES = 65_536
"""An error is short; parsing megabytes would block the event loop."""
_CODE = re.compile(r"[A-Za-z]{1,20}\.[0-9]{1,8}")
_REQUEST_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


def error_of(
    response: Response,
    *,
    permission: str = "",
    workspace: str = "",
    endpoint_option: str = "",
    secrets: Sequence[str | None] = (),
    now: Callable[[], float] = time.time,
) -> PollError:
    """Turn an error response, in any form the service uses, into a typed error.

    Args:
        response: an HTTP response that is not a success.
        permission: the IAM action that the request needs, named when it is missing.
        workspace: that the request asks for, named where it may be wrong: one of several may be.
        endpoint_option: the option that holds the base URL, named where it may be wrong.
        secrets: that the service was sent; it may repeat them.
        now: unix seconds, to report how far apart the clocks are.
    """
    status = response.status
    code, text = _code_and_text(response.body, secrets)
    details = f"{status} {code} {text}".replace("  ", " ").strip(" .")  # the sentence goes on
    request_id = response.headers.get("X-Request-Id", "")
    if _REQUEST_ID.fullmatch(request_id) and quote(request_id, _TEXT_LIMIT, secrets) == request_id:
        details += f" (request {request_id})"
    if status == _TOO_MANY_REQUESTS or _is_one_of(code, _THROTTLED_CODES):
        return ThrottledError(f"throttled: {details}", retry_after=_retry_after(response, now()))
    if _is_one_of(code, _SKEW_CODES):
        skew = _skew(response, now())
        return AuthError(f"clock skew: {skew}; set this machine's clock: {details}")
    if status == _FORBIDDEN or _is_one_of(code, _FORBIDDEN_CODES):
        return ForbiddenError(
            f"not allowed: {details}{_permission_hint(code, permission, workspace)}"
        )
    if status == _UNAUTHORIZED or _is_one_of(code, _AUTH_CODES):
        return AuthError(f"credentials not accepted: {details}; check target.auth.*")
    if status >= _SERVER_ERROR:
        message = f"the service failed: {details}"
        return UpstreamError(message, retry_after=_retry_after(response, now()))
    if status in _REDIRECT:
        hint = f"; check {endpoint_option}" if endpoint_option else ""
        return RejectedError(f"redirect not followed: {details}{hint}", status=status)
    if status in _OK:
        return InvalidResponseError(f"unexpected response: {details}")
    places = f"{endpoint_option} and target.project_id"
    if workspace:
        places = f"{endpoint_option}, target.project_id and target.workspaces (here {workspace})"
    hint = f"; check {places}" if endpoint_option else ""
    return RejectedError(f"refused: {details}{hint}", status=status, code=code)


def _permission_hint(code: str, permission: str, workspace: str) -> str:
    if code == _OTHER_PROJECT_CODE:
        return "; check target.project_id"
    if not permission:
        return ""
    if workspace:
        return f"; grant {permission} to this identity in this project and workspace {workspace}"
    return f"; grant {permission} to this identity in this project"


def _is_one_of(code: str, codes: tuple[str, ...]) -> bool:
    """Look up a code; ``.0301`` in the list stands for APIG.0301 and APIGW.0301."""
    if code.startswith(("APIG.", "APIGW.")):
        code = code[code.index(".") :]
    return code in codes


def _code_and_text(body: bytes, secrets: Sequence[str | None]) -> tuple[str, str]:
    """Code and message of an error body; if it has none, what the body is instead."""
    try:
        document: Any = json.loads(body[:_MAX_BYTES])
    except (ValueError, RecursionError):
        kind = "an HTML page" if b"<" in body[:256] else "not JSON" if body.strip() else "no body"
        return "", f"({kind})"
    if not isinstance(document, dict):
        return "", "(not a JSON object)"
    error = document.get("error")
    if isinstance(error, dict):
        document = error
    code = _first(document, "error_code", "errorCode", "code")
    text = _first(document, "error_msg", "errorMsg", "message", "title")
    if not _CODE.fullmatch(code):
        code = "" if code.isdigit() else quote(code, _TEXT_LIMIT, secrets)
    return code, quote(text, _TEXT_LIMIT, secrets)


def _first(document: dict[str, Any], *keys: str) -> str:
    for key in keys:
        value = document.get(key)
        if isinstance(value, str | int) and value != "":
            return str(value)
    return ""


def _retry_after(response: Response, now: float) -> float | None:
    """Seconds to wait according to Retry-After (seconds or HTTP date); None if unusable."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    date = _http_date(value)
    return None if date is None else max(0.0, date - (_sent_at(response) or now))


def _skew(response: Response, now: float) -> str:
    theirs = _sent_at(response)
    if theirs is None:
        return "the service's clock and ours differ by more than 15 minutes"
    return f"our clock is {abs(now - theirs):.0f} s {'ahead' if now > theirs else 'behind'}"


def _sent_at(response: Response) -> float | None:
    return _http_date(response.headers.get("Date", ""))


def _http_date(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None
