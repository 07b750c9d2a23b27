"""HTTP control of the world and its faults, for tests in other processes; loopback only.

=========================================  =====================================================
``GET /-/sim/truth``                       the current state: `Fleet.summary`
``GET /-/sim/truth?jobs=1``                also ``facts``: `Fleet.facts` of every job
``GET /-/sim/truth?unified=0``             the same without fine-tuning jobs
``GET /-/sim/truth/{id}``                  the facts of one job
``GET /-/sim/events?since=N``              ``events`` from number N on, ``next`` to continue; a
                                           world with a bounded history has the latest only
``GET /-/sim/requests``                    the latest requests
``POST /-/sim/pause``, ``resume``          stop the world's clock, let it go on
``POST /-/sim/faults``                     set a fault: the fields of `faults.Fault`
``DELETE /-/sim/faults``                   remove all faults
``POST /-/sim/jobs``                       change the world: see `actions.perform`
=========================================  =====================================================

An invalid document is answered with 400 and ``error``.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

import msgspec

from exporter.simulator.actions import perform
from exporter.simulator.faults import Fault, Faults
from exporter.simulator.fleet import Fleet
from exporter.simulator.reply import Reply, encoded
from exporter.simulator.signature import Incoming

PREFIX = "/-/sim/"
_MOST_EVENTS = 10_000


class Control:
    """Answers requests under `PREFIX`.

    Args:
        fleet: the world.
        faults: the faults set.
        requests: the latest requests, each a tuple with ``_asdict``.
    """

    def __init__(self, fleet: Fleet, faults: Faults, requests: Callable[[], Iterable[Any]]) -> None:
        self._fleet = fleet
        self._faults = faults
        self._requests = requests

    def answer(self, request: Incoming) -> Reply:
        """Return the response; an error if the request is invalid."""
        name, _, argument = request.path.removeprefix(PREFIX).partition("/")
        handler = getattr(self, f"_{request.method.lower()}_{name}", None)
        if handler is None:
            return encoded(404, {"error": f"no such control: {request.method} {name}"})
        try:
            document = json.loads(request.body) if request.body else {}
            parameters = {key: values[0] for key, values in parse_qs(request.query).items()}
            return encoded(200, handler(document, argument, parameters))
        except (LookupError, TypeError, ValueError) as error:
            return encoded(400, {"error": f"{type(error).__name__}: {error}"})

    def _get_truth(self, _document: Any, job_id: str, parameters: dict[str, str]) -> Any:
        if job_id:
            return self._fleet.facts(job_id)
        unified = parameters.get("unified") != "0"
        truth = self._fleet.summary(unified=unified)
        if "jobs" in parameters:
            jobs = [job for job in self._fleet if unified or not job.fine_tuning]
            truth["facts"] = [self._fleet.facts(job) for job in jobs]
        return truth

    def _get_events(self, _document: Any, _argument: str, parameters: dict[str, str]) -> Any:
        since = max(int(parameters.get("since", "0")), self._fleet.events.first)
        events = self._fleet.events[since : since + _MOST_EVENTS]
        return {"next": since + len(events), "events": [event.as_dict() for event in events]}

    def _get_requests(self, *_: Any) -> Any:
        rows = [entry._asdict() for entry in self._requests()]
        return {
            "requests": [row | {"body": row["body"].decode("utf-8", "replace")} for row in rows]
        }

    def _post_pause(self, *_: Any) -> Any:
        self._fleet.pause()
        return {"now": self._fleet.now}

    def _post_resume(self, *_: Any) -> Any:
        self._fleet.resume()
        return {"now": self._fleet.now}

    def _post_faults(self, document: Any, *_: Any) -> Any:
        fault = self._faults.add(msgspec.convert(document, Fault))
        return {"do": fault.do}

    def _delete_faults(self, *_: Any) -> Any:
        self._faults.clear()
        return {}

    def _post_jobs(self, document: Any, *_: Any) -> Any:
        if not isinstance(document, dict):
            raise TypeError("an action is an object")
        return {"jobs": perform(self._fleet, document)}
