"""Faults on demand: the requests that they affect, and the responses to these.

`delivery` sends damaged responses.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import msgspec

from exporter.simulator.edits import ABSENT, as_path, edit
from exporter.simulator.reply import ErrorForm, Reply, error_body
from exporter.simulator.signature import Incoming

Do = Literal[
    "act",
    "latency",
    "same_page",
    "status",
    "redirect",
    "replace",
    "edit",
    "duplicate",
    "truncate",
    "hang",
    "cut",
    "reset",
    "cut_body",
    "broken_chunking",
    "trickle",
    "oversized",
    "gzip_bomb",
]
DELIVERIES = (
    "hang",
    "cut",
    "reset",
    "cut_body",
    "broken_chunking",
    "trickle",
    "oversized",
    "gzip_bomb",
)
INSTEAD = ("status", "redirect", "replace", "hang", "cut", "reset", "oversized", "gzip_bomb")
"""Faults that need no real response: the request does not reach the service."""


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """A fault that affects some requests.

    ========================  =================================================================
    ``do``                    effect
    ========================  =================================================================
    ``act``                   ``action`` changes the world first: a function of the fleet, or a
                              document as in `actions.perform`
    ``latency``               the response is delayed by ``seconds``
    ``same_page``             the offset of a search is replaced by 0
    ``status``                an error with ``status``, in ``form`` with ``code`` and ``message``;
                              with ``retry_after``, verbatim, if given
    ``redirect``              ``status`` (3xx) to ``location``
    ``replace``               ``body`` as ``content_type``, with ``status``
    ``edit``                  ``edits`` and ``remove`` (paths) in the response's document; with
                              ``item`` in that item, with ``item`` -1 in every item
    ``duplicate``             ``item`` appears twice
    ``truncate``              only the first half of the document, in a complete HTTP message
    ``hang``                  headers are never sent
    ``cut``, ``reset``        the connection is closed, or reset, without a response
    ``cut_body``              the connection is closed in the middle of the body
    ``broken_chunking``       the body's chunks are damaged
    ``trickle``               ``size`` bytes of the response every ``seconds``
    ``oversized``             ``size`` bytes of blanks
    ``gzip_bomb``             ``size`` bytes of blanks, compressed
    ========================  =================================================================

    Attributes:
        do: the effect.
        operation: ``search``, ``get``, ``pools``, ``pool_usage``, ``flavors``, ``pool_queue``,
            ``quotas``, ``workspaces``, ``token``, ``id_token``, ``projects``, ``own_projects``,
            ``metadata_token``, ``securitykey``; empty: any.
        path: a part of the request's path; empty: any.
        nth: the first matching request affected, counted from 1 since the fault was set.
        times: number of requests affected; None: all from ``nth`` on.
        probability: of affecting each of them.
        seen: matching requests so far.
        hits: affected requests so far.
    """

    do: Do
    operation: str = ""
    path: str = ""
    nth: int = 1
    times: int | None = None
    probability: float = 1.0
    status: int | None = None
    form: ErrorForm = "error_code"
    code: str = "ModelArts.2799"
    message: str = "Simulated fault."
    retry_after: str | None = None
    location: str = ""
    body: str = ""
    content_type: str = "application/json"
    item: int | None = None
    edits: dict[str, Any] = {}
    remove: list[str] = []
    action: Any = None
    seconds: float = 0.0
    size: int = 1
    seen: int = 0
    hits: int = 0

    def strikes(self, operation: str, path: str, chance: float) -> bool:
        """Count a request; return whether it is affected, given a ``chance`` in [0, 1)."""
        if self.operation not in ("", operation) or self.path not in path:
            return False
        self.seen += 1
        spent = self.times is not None and self.hits >= self.times
        if self.seen < self.nth or spent or chance >= self.probability:
            return False
        self.hits += 1
        return True


class Faults:
    """The faults set, in order."""

    def __init__(self, seed: int = 0) -> None:
        self._faults: list[Fault] = []
        self._random = random.Random(seed)

    def add(self, fault: Fault) -> Fault:
        """Set a fault.

        Returns:
            The fault, whose ``hits`` increase.
        """
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    def striking(self, operation: str, path: str) -> list[Fault]:
        """Return the faults that affect this request; call it once per request."""
        return [
            fault for fault in self._faults if fault.strikes(operation, path, self._random.random())
        ]


def disturbed(request: Incoming, faults: Sequence[Fault]) -> Incoming:
    """Return the request as changed by the faults."""
    if not any(fault.do == "same_page" for fault in faults):
        return request
    try:
        document = json.loads(request.body)
    except ValueError:
        return request
    if not isinstance(document, dict):
        return request
    return replace(request, body=json.dumps(document | {"offset": 0}).encode())


def instead(fault: Fault, request_id: str) -> Reply:
    """Return the response instead of the service's."""
    if fault.do == "status":
        status = fault.status or 503
        body, content_type = error_body(fault.form, status, fault.code, fault.message, request_id)
        headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
        return Reply(status, body, headers, content_type)
    if fault.do == "redirect":
        return Reply(fault.status or 302, b"", {"Location": fault.location}, "text/html")
    return Reply(fault.status or 200, fault.body.encode(), {}, fault.content_type)


def damaged(reply: Reply, faults: Sequence[Fault]) -> Reply:
    """Return the response with its document changed; an error is unchanged."""
    if reply.status >= 400:  # noqa: PLR2004 - client and server errors
        return reply
    body = reply.body
    for fault in faults:
        if fault.do == "edit":
            body = json.dumps(_edited(json.loads(body), fault)).encode()
        elif fault.do == "duplicate":
            body = json.dumps(_duplicated(json.loads(body), fault.item or 0)).encode()
    if any(fault.do == "truncate" for fault in faults):
        body = body[: len(body) // 2]
    return Reply(reply.status, body, reply.headers, reply.content_type)


def _edited(document: Any, fault: Fault) -> Any:
    edits = {as_path(path): value for path, value in fault.edits.items()}
    edits |= {as_path(path): ABSENT for path in fault.remove}
    if fault.item is None:
        roots: list[tuple[str, ...]] = [()]
    else:
        count = len(document["items"])
        wanted = range(count) if fault.item == -1 else range(fault.item, fault.item + 1)
        roots = [("items", str(position)) for position in wanted if position < count]
    for root in roots:
        for path, value in edits.items():
            document = edit(document, root + path, value)
    return document


def _duplicated(document: Any, item: int) -> Any:
    items = document["items"]
    return document | {"items": items[: item + 1] + items[item:]}
