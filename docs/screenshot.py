"""Take the screenshots of the status page for the documentation: ``make screenshot``.

Starts the demo and a headless Chromium, and stops both. The simulated history ends when the demo
starts, so no two runs are equal and no test compares the pictures. Check them by eye.
"""

import asyncio
import base64
import contextlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

IMAGES = Path(__file__).parent / "images"
SEED = "11"
PATIENCE_SECONDS = 60
LARGEST_PHONE = 500


class Picture(NamedTuple):
    """A screenshot of the page, from one element to the end of another.

    Attributes:
        name: file name.
        width: CSS pixels.
        scheme: ``light`` or ``dark``.
        first: selector of the element at the top.
        last: selector of the element at the end.
    """

    name: str
    width: int
    scheme: str
    first: str
    last: str


PICTURES = (
    Picture("page.png", 1200, "light", "body", "#failures tbody tr:nth-child(4)"),
    Picture("page-phone.png", 390, "dark", "#failures", "#failures tbody tr:nth-child(2)"),
)


@contextlib.asynccontextmanager
async def program(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process until the end of the context; its output can be read."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def wait_for_output(process: asyncio.subprocess.Process, pattern: str) -> str:
    """Wait until the output of a process matches a pattern. Returns the first group."""
    written = ""
    if process.stdout is None:
        raise RuntimeError("the output of the process is not a pipe")
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for line in process.stdout:
            written += line.decode()
            if found := re.search(pattern, written):
                return found[1]
    raise SystemExit(f"the program ended early: {written}")


class Tab:
    """A tab of the browser, controlled over its debugging protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol. Returns the result."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                message = await self._socket.receive_json()
                if message.get("id") == self._number:
                    result: dict[str, Any] = message["result"]
                    return result

    async def take(self, url: str, picture: Picture) -> bytes:
        """Take a screenshot of a page, as PNG."""
        phone = picture.width <= LARGEST_PHONE
        metrics = {"width": picture.width, "height": 900, "deviceScaleFactor": 1, "mobile": phone}
        features = [{"name": "prefers-color-scheme", "value": picture.scheme}]
        await self.call("Emulation.setDeviceMetricsOverride", **metrics)
        await self.call("Emulation.setEmulatedMedia", features=features)
        await self.call("Page.navigate", url=url)
        async with asyncio.timeout(PATIENCE_SECONDS):
            loaded = f"document.readyState == 'complete' && location == '{url}'"
            while not await self.run(loaded):  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.1)
        top = await self.run(f"document.querySelector('{picture.first}').offsetTop")
        box = f"document.querySelector('{picture.last}').getBoundingClientRect()"
        end = await self.run(f"{box}.bottom + scrollY") + 1
        clip = {"x": 0, "y": top, "width": picture.width, "height": end - top, "scale": 1}
        shot = await self.call(
            "Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True
        )
        return base64.b64decode(shot["data"])

    async def run(self, expression: str) -> Any:
        """Evaluate an expression in the page."""
        answer = await self.call("Runtime.evaluate", expression=expression)
        return answer["result"].get("value")


@contextlib.asynccontextmanager
async def browser_tab() -> AsyncIterator[Tab]:
    """Start a new browser with one tab."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("chromium is required; on Debian or Ubuntu: apt-get install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = (
            chromium, "--headless", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--no-first-run", "--disable-background-networking", "--remote-debugging-port=0",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
            f"--user-data-dir={folder}", "about:blank",
        )  # fmt: skip
        async with program(*command) as process, aiohttp.ClientSession() as session:
            port = await wait_for_output(process, r"DevTools listening on ws://127\.0\.0\.1:(\d+)/")
            async with session.get(f"http://127.0.0.1:{port}/json") as response:
                (tab,) = [each for each in await response.json() if each["type"] == "page"]
            address = tab["webSocketDebuggerUrl"]
            async with session.ws_connect(address, max_msg_size=0) as socket:
                yield Tab(socket)


async def main() -> None:
    """Take all screenshots."""
    demo = (sys.executable, "-m", "exporter", "demo", "--seed", SEED)
    async with (
        program(*demo, "--web.listen-address=127.0.0.1:0") as exporter,
        browser_tab() as tab,
    ):
        url = await wait_for_output(exporter, r"the exporter at (http://\S+)\.\n[\s\S]*Ctrl-C")
        await asyncio.sleep(10)  # let something happen
        for picture in PICTURES:
            path = IMAGES / picture.name
            path.write_bytes(await tab.take(f"{url}/", picture))
            print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    asyncio.run(main())
