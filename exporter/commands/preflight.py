"""What `check` can tell without the network: whether `serve` could start here."""

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from exporter.errors import StartError
from exporter.settings.schema import Settings
from exporter.settings.types import Address
from exporter.storage.examine import examine


def preflight(settings: Settings) -> list[str]:
    """Examine the state file and the listen addresses; return notes.

    That a port is in use is a note: usually it is the exporter that runs already.

    Raises:
        ConfigError: the state file cannot be used.
        StartError: an address cannot be listened on.
    """
    notes = []
    if settings.state.file and (note := examine(Path(settings.state.file))):
        notes.append(f"state.file: {settings.state.file} {note}")
    return [*notes, *_listen_notes(settings.web.listen_address)]


def _listen_notes(addresses: Iterable[Address]) -> Iterator[str]:
    for address in addresses:
        try:
            _bind(address)
        except (OSError, OverflowError) as error:
            number = getattr(error, "errno", None)
            reason = os.strerror(number) if number and number > 0 else str(error)
            if number != errno.EADDRINUSE:
                raise StartError(f"cannot listen on {address}: {reason}") from None
            yield f"web.listen_address: {address} is in use, perhaps by a running exporter"


def _bind(address: Address) -> None:
    """Bind the address for a moment, as `serve` would."""
    host, port = address
    dual_stack = host in ("", "::") and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual_stack or ":" in host else socket.AF_INET
    with socket.socket(family) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if dual_stack:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("" if dual_stack else host, port))
        server.listen()  # with SO_REUSEADDR, only this shows that another program listens
