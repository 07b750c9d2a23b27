"""A real Alertmanager, and whoever it sends its messages to."""

from typing import Any, NamedTuple

import aiohttp
import yaml
from aiohttp import web
from e2e.prometheus import binary, guarded
from process.program import eventually, free_port

NAMES = ("alertmanager", "prometheus-alertmanager")
"""As its makers call it, and as Debian does."""


class Message(NamedTuple):
    """What one call of the webhook brought: who it is for, and documents with ``labels``, …"""

    receiver: str
    alerts: list[dict[str, Any]]

    @property
    def name(self):
        """The name of its alerts, of which there is only one if they are grouped by it."""
        (name,) = {alert["labels"]["alertname"] for alert in self.alerts}
        return name

    @property
    def firing(self):
        """The labels of its alerts that fire."""
        return [alert["labels"] for alert in self.alerts if alert["status"] == "firing"]


class Receiver:
    """A webhook.

    Attributes:
        url: where it listens, once started; the rest of the path is the receiver of a message.
        messages: all that came, in order.
    """

    def __init__(self):
        self.url = ""
        self.messages = []
        self._runner = None

    @property
    def alerts(self):
        """The alerts of all messages, in order."""
        return [alert for message in self.messages for alert in message.alerts]

    async def __aenter__(self):
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/{receiver:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/"
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    async def _take(self, request):
        alerts = (await request.json())["alerts"]
        self.messages.append(Message(request.match_info["receiver"], alerts))
        return web.Response()

    async def until(self, number):
        """All alerts that came, once there are so many."""

        async def so():
            return len(self.alerts) >= number

        await eventually(so)
        return self.alerts


def alone(url):
    """A configuration that sends every alert on its own, at once."""
    return {
        "route": {
            "receiver": "webhook",
            "group_by": ["..."],
            "group_wait": "0s",
            "group_interval": "1s",
            "repeat_interval": "1h",
        },
        "receivers": [
            {"name": "webhook", "webhook_configs": [{"url": url, "send_resolved": True}]}
        ],
    }


async def running(start, folder, where, config):
    """Start it, and wait until it answers; its address."""
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    program = start(
        "--config.file=alertmanager.yml",
        "--storage.path=alerts",
        "--log.level=warn",
        "--cluster.listen-address=",  # it is alone
        f"--web.listen-address={address}",
        command=guarded(binary(where, NAMES)),
    )

    async def answers():
        assert program.process.poll() is None, program.stderr
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://{address}/-/ready") as answer,
            ):
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    await eventually(answers)
    return address
