"""The proxy for a URL, from the option ``target.proxy`` or from the environment.

The variables mean the same as for programs in Go (``golang.org/x/net/http/httpproxy``), so for
nearly everything else in a cluster: upper case wins over lower case, a URL may lack its scheme, and
no proxy is used for this machine itself. In addition, ``ALL_PROXY`` is the last resort, and
brackets around an IPv6 address in ``NO_PROXY`` need no port.
"""

import contextlib
import ipaddress
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from exporter.settings.problems import InvalidValueError, problem
from exporter.settings.schema import TargetSettings
from exporter.settings.types import parse_proxy

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

OPTION = "target.proxy"
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_HOST_AND_PORT = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*):([0-9]+)")


@dataclass(frozen=True)
class Proxy:
    """A proxy.

    Attributes:
        url: may contain a password.
        origin: the option or variable that it comes from, for messages.
    """

    url: str = field(repr=False)
    origin: str


def proxy_for(url: str, option: str | None, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for a URL; None = connect directly.

    Args:
        url: absolute.
        option: the value of ``target.proxy``; it is used for every URL.
        environ: environment variables.

    Raises:
        InvalidValueError: the variable that applies has no usable value.
    """
    if option is not None:
        return Proxy(option, OPTION)
    parts = urlsplit(url)
    if _is_excluded(parts, _variable(environ, "NO_PROXY")[1]):
        return None
    for name in (f"{parts.scheme.upper()}_PROXY", "ALL_PROXY"):
        variable, value = _variable(environ, name)
        if value:
            return Proxy(parse_proxy(value), variable)
    return _system_proxy(parts)


def problems(targets: Iterable[TargetSettings], environ: Mapping[str, str]) -> Iterator[str]:
    """A line for each variable that would be used and has no usable value."""
    found = {}
    for target in targets:
        for url in (target.endpoint, target.iam_endpoint):
            try:
                proxy_for(url, target.proxy, environ)
            except InvalidValueError as error:
                found[_origin(url, environ)] = str(error)
    for variable, wrong in found.items():
        yield problem(OPTION, wrong, f"environment variable {variable}")


def _origin(url: str, environ: Mapping[str, str]) -> str:
    own, value = _variable(environ, f"{urlsplit(url).scheme.upper()}_PROXY")
    return own if value else _variable(environ, "ALL_PROXY")[0]


def _variable(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """The name and value of a variable, in upper case if it is set there."""
    for written in (name, name.lower()):
        if value := environ.get(written, "").strip():
            return written, value
    return name, ""


def _system_proxy(parts: SplitResult) -> Proxy | None:
    """The proxy in the settings of macOS; other systems have only the environment."""
    if sys.platform == "darwin" and not proxy_bypass(parts.hostname or ""):
        url = getproxies().get(parts.scheme)
        return Proxy(url, "the proxy in the system settings") if url else None
    return None


# --- NO_PROXY -------------------------------------------------------------------------------------


def _is_excluded(parts: SplitResult, no_proxy: str) -> bool:
    """True if no proxy must be used for a URL."""
    host = (parts.hostname or "").rstrip(".")
    port = str(parts.port or _DEFAULT_PORTS.get(parts.scheme, ""))
    address = _ip_address(host)
    if host == "localhost" or (address and address.is_loopback):
        return True
    entries = [entry.lower() for entry in re.split(r"[,\s]+", no_proxy) if entry]
    return any(_matches(entry, host, port, address) for entry in entries)


def _matches(entry: str, host: str, port: str, address: IpAddress | None) -> bool:
    """Whether an entry of NO_PROXY matches; one that is malformed matches nothing."""
    if entry == "*":
        return True
    if "/" in entry:
        with contextlib.suppress(ValueError):
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        return False
    if with_port := _HOST_AND_PORT.fullmatch(entry):
        entry, wanted = with_port.groups()
        if int(wanted) != int(port):
            return False
    name = entry.strip("[]").removeprefix("*")
    if own := _ip_address(name):
        return own == address
    domain = name.strip(".")
    with contextlib.suppress(UnicodeError):
        domain = domain.encode("idna").decode()
    if address or not domain:
        return False
    return host.endswith(f".{domain}") or (host == domain and not name.startswith("."))


def _ip_address(text: str) -> IpAddress | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
