"""Which requests of browsers are refused because another site is behind them.

There are two kinds. A form or script of another site can send requests here, though it cannot read
the responses: `is_cross_origin`. And a site can let its own name resolve to an address of this
machine, and then reads the responses, too (DNS rebinding): `is_rebound`.
"""

import ipaddress
from collections.abc import Mapping
from socket import gethostname
from urllib.parse import urlsplit

_OF_PROXIES = ("Sec-Fetch-Site", "Via")
"""Headers that no script can set, and that show that there is a proxy in between.

Browsers send ``Sec-Fetch-Site`` to ``https:`` only, and to ``localhost``. Here ``https:`` has
arrived as plain HTTP, so a proxy has shown a certificate for the name.
"""


def is_cross_origin(headers: Mapping[str, str]) -> bool:
    """Whether a page of another origin has sent a request.

    The rules of Go's `http.CrossOriginProtection`: browsers say so in ``Sec-Fetch-Site``, older
    ones by an ``Origin`` other than the host that they connect to; other clients send neither.
    """
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("Origin")
    return origin is not None and origin.partition("://")[2] != headers.get("Host")


def is_rebound(headers: Mapping[str, str], local_address: str) -> bool:
    """Whether a request may come from a site whose name resolves to this machine.

    Only a connection to a loopback address can tell: on others, a service is reached under names
    that it does not know. An attacker has a name with a dot, in a public domain.

    Args:
        headers: of the request; it came by plain HTTP.
        local_address: to which the client has connected.
    """
    if not _is_loopback(local_address) or any(name in headers for name in _OF_PROXIES):
        return False
    try:
        host = urlsplit(f"//{headers.get('Host', '')}").hostname or ""
    except ValueError:
        return True
    host = host.removesuffix(".")
    names = ("localhost", "localhost.localdomain", gethostname().lower())
    if "." not in host or host in names or host.endswith(".localhost"):
        return False
    return _address(host) is None


def _is_loopback(host: str) -> bool:
    address = _address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return address is not None and (mapped or address).is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
