"""Responses before they are sent, and all forms of error responses."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

ErrorForm = Literal["error_code", "apig", "error", "errorMsg", "html", "empty"]


@dataclass(slots=True)
class Reply:
    """Status, body and headers; content length and ``X-Request-Id`` are added when it is sent."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json;charset=utf-8"


class ApiError(Exception):
    """The service refuses a request.

    Args:
        status: HTTP status.
        code: ``ModelArts.2764``, ``APIG.0301`` …, or ``IAM`` for the form of that service.
        message: error message.
        headers: more headers.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})

    def reply(self, request_id: str) -> Reply:
        """Return the response in the form for the code."""
        form: ErrorForm = "error_code"
        if self.code.startswith("APIG"):
            form = "apig"
        elif self.code == "IAM":
            form = "error"
        body, content_type = error_body(form, self.status, self.code, self.message, request_id)
        return Reply(self.status, body, self.headers, content_type)


def encoded(status: int, document: Any, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a JSON response."""
    return Reply(status, json.dumps(document).encode(), dict(headers or {}))


def error_body(
    form: ErrorForm, status: int, code: str, message: str, request_id: str
) -> tuple[bytes, str]:
    """Return body and content type of an error in one of the documented forms."""
    documents: dict[str, dict[str, Any]] = {
        "error_code": {"error_code": code, "error_msg": message},
        "apig": {"error_code": code, "error_msg": message, "request_id": request_id},
        "error": {"error": {"code": status, "message": message, "title": _title(status)}},
        "errorMsg": {"errorCode": code, "errorMsg": message},
    }
    if form in documents:
        return json.dumps(documents[form]).encode(), "application/json;charset=utf-8"
    if form == "html":
        title = f"{status} {_title(status)}"
        page = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
        return page.encode(), "text/html"
    return b"", "text/plain"


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
