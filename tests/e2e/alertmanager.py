"""A real Alertmanager that sends every alert on its own, at once, and whoever it sends them to."""

import aiohttp
import yaml
from aiohttp import web
from e2e.prometheus import binary, guarded
from process.program import eventually, free_port

NAMES = ("alertmanager", "prometheus-alertmanager")
"""As its makers call it, and as Debian does."""


class Receiver:
    """A webhook.

    Attributes:
        url: where it listens, once started.
        alerts: all that came, in order, each a document with ``status``, ``labels`` and so on.
    """

    def __init__(self):
        self.url = ""
        self.alerts = []
        self._runner = None

    async def __aenter__(self):
        app = web.Application()
        app.router.add_post("/", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/"
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    async def _take(self, request):
        self.alerts.extend((await request.json())["alerts"])
        return web.Response()

    async def until(self, number):
        """All that came, once there are so many."""

        async def so():
            return len(self.alerts) >= number

        await eventually(so)
        return self.alerts


async def running(start, folder, where, receiver):
    """Start it, and wait until it answers; its address."""
    (folder / "alertmanager.yml").write_text(
        yaml.safe_dump(
            {
                "route": {
                    "receiver": "webhook",
                    "group_by": ["..."],
                    "group_wait": "0s",
                    "group_interval": "1s",
                    "repeat_interval": "1h",
                },
                "receivers": [
                    {
                        "name": "webhook",
                        "webhook_configs": [{"url": receiver.url, "send_resolved": True}],
                    }
                ],
            }
        )
    )
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
