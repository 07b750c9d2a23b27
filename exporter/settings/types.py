"""Kinds of values: what flags, variables and YAML may say for an option, and what becomes of it."""

import contextlib
import ipaddress
import json
import math
import re
import ssl
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args
from urllib.parse import urlsplit

from pydantic import GetCoreSchemaHandler, Secret, SecretStr
from pydantic_core import CoreSchema, core_schema

from exporter.settings import durations
from exporter.settings.problems import InvalidValueError, invalid_value, nearest, quoted

_LONGEST_DURATION = 100 * 365 * 86_400.0
_DURATIONS = "30s, 5m, 1h30m, 7d, or seconds"
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True} | {
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?")
_PORTS = range(65_536)


@dataclass(frozen=True, kw_only=True)
class OptionType:
    """What an option takes; stands in the annotation of its field.

    Attributes:
        name: what people call it.
        parse: takes a string or what YAML made of it, returns the value or raises
            `InvalidValueError`. None: as the annotation says.
        hidden: the value is never shown.
        flag: may be given on the command line, where process lists show it.
        many: takes several values.
        path: names a file; in the configuration file, relative to its directory.
    """

    name: str
    parse: Callable[[Any], Any] | None
    hidden: bool = False
    flag: bool = True
    many: bool = False
    path: bool = False

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Parsing is all the validation there is."""
        if self.parse is None:
            return handler(source)
        return core_schema.no_info_plain_validator_function(self.take)

    def take(self, value: Any) -> object:
        """Parse a value, also one in a wrapping that hides it."""
        bare = value.get_secret_value() if isinstance(value, Secret) else value
        return self.parse(bare) if self.parse else bare


class Address(NamedTuple):
    """Where to listen; host "" = all interfaces, port 0 = any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


# --- numbers --------------------------------------------------------------------------------------


def duration(*, at_least: float) -> OptionType:
    """Seconds, written as a duration."""

    def parse(value: Any) -> float:
        text = f"{value:.9f}" if _is_number(value) and math.isfinite(value) else value
        seconds = durations.parse(text.strip()) if isinstance(text, str) else None
        if seconds is None:
            raise invalid_value(value, "duration", _DURATIONS)
        if not at_least <= seconds <= _LONGEST_DURATION:
            size = "short" if seconds < at_least else "long"
            lowest, highest = durations.show(at_least), durations.show(_LONGEST_DURATION)
            raise InvalidValueError(f"{quoted(value)} is too {size}; valid: {lowest} to {highest}")
        return seconds

    return OptionType(name="duration", parse=parse)


def whole(*, at_least: int) -> OptionType:
    """A whole number."""

    def parse(value: Any) -> int:
        text = str(value).strip() if isinstance(value, str) or _is_number(value) else ""
        if not re.fullmatch("[0-9]{1,9}", text) or int(text) < at_least:
            raise invalid_value(
                value, f"whole number from {at_least}", f"{at_least}, {at_least + 1}, ..."
            )
        return int(text)

    return OptionType(name="whole number", parse=parse)


def number(*, at_least: float) -> OptionType:
    """A number."""

    def parse(value: Any) -> float:
        text = str(value).strip() if isinstance(value, str) or _is_number(value) else ""
        found = float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else -1.0
        if found < at_least:
            raise invalid_value(value, f"number from {at_least}", f"{at_least}, 2.5, 10, ...")
        return found

    return OptionType(name="number", parse=parse)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _boolean(value: Any) -> bool:
    text = str(value).strip().lower() if isinstance(value, str | int) else ""
    if text not in _BOOLEANS:
        raise invalid_value(value, "yes or no", "true, false")
    return _BOOLEANS[text]


BOOLEAN = OptionType(name="true or false", parse=_boolean)


# --- texts ----------------------------------------------------------------------------------------


def text(
    noun: str = "text", valid: str = "text", pattern: str = ".+", *, hidden: bool = False
) -> OptionType:
    """A text of one line that fits a pattern; blanks around it do not count."""
    if pattern == ".+":
        valid = f"{valid} of one line, in YAML in quotes if it looks like a number"

    def parse(value: Any) -> str:
        found = value.strip() if isinstance(value, str) else ""
        if not found.isprintable() or not re.fullmatch(pattern, found):
            raise invalid_value(value, noun, valid, hidden=hidden)
        return found

    return OptionType(name=noun, parse=parse, hidden=hidden)


def choice(literal: Any) -> OptionType:
    """One of the words of a ``Literal``."""
    words: tuple[str, ...] = get_args(literal)
    listed = ", ".join(words)

    def parse(value: Any) -> str:
        # YAML 1.1 reads "none" as text, but "off" as false: only texts are taken.
        found = value.strip().lower() if isinstance(value, str) else ""
        if found not in words:
            near = nearest(found, words)
            hint = f"; did you mean {near}?" if near else ""
            raise InvalidValueError(f"{quoted(value)} is no choice; valid: {listed}{hint}")
        return found

    return OptionType(name="one of " + listed, parse=parse)


def _secret(value: Any) -> SecretStr:
    if not isinstance(value, str):
        raise invalid_value(value, "secret", "text of one line, in YAML in quotes", hidden=True)
    inner = value.removesuffix("\n").removesuffix("\r")
    if not inner.strip():
        raise InvalidValueError("is empty; valid: text of one line")
    if not inner.isprintable():
        raise InvalidValueError(
            "has a line break or a control character inside; valid: text of one line"
        )
    return SecretStr(value)


SECRET = OptionType(name="secret", parse=_secret, hidden=True, flag=False)


def several(one: OptionType, noun: str, plural: str) -> OptionType:
    """One or more values of a kind: separated by commas, repeated, or a list in YAML or JSON."""

    def parse(value: Any) -> tuple[object, ...]:
        given = value if isinstance(value, list) else [value]
        given = [each for one_or_more in given for each in _listed(one_or_more)]
        parts = [
            p for each in given for p in (each.split(",") if isinstance(each, str) else [each])
        ]
        if not parts:
            raise InvalidValueError(f"the list is empty; valid: at least one {noun}")
        found = tuple(one.take(part) for part in parts)
        for position, each in enumerate(found):
            if each in found[:position]:
                raise InvalidValueError(
                    f"{quoted(str(each))} is there twice; valid: every {noun} once"
                )
        return found

    return replace(one, name=f"list of {plural}", parse=parse, many=True)


def _listed(value: Any) -> list[Any]:
    """What a text that is a list in JSON says, as other programs want it in the environment."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError):
            return [*json.loads(value)]  # an IPv6 address is none: "[::]:9978"
    return [value]


def _workspace(value: Any) -> object:
    """YAML takes the id of the default workspace for a number."""
    return _WORKSPACE.take("0" if _is_number(value) and value == 0 else value)


_WORKSPACE = text(
    "workspace id", '"0", or an id of letters, digits, "-" and "_"', "[0-9A-Za-z_-]{1,64}"
)
WORKSPACE = replace(_WORKSPACE, parse=_workspace)


# --- places ---------------------------------------------------------------------------------------


def _url(value: Any) -> str:
    """An http(s) URL without user, query and fragment; a slash at its end is dropped."""
    noun, valid = "base URL", "http:// or https://, a host, perhaps a port and a path"
    found = value.strip() if isinstance(value, str) else ""
    if "@" in found:
        raise invalid_value(value, noun, f"{valid}, and no user", hidden=True)
    _split(found, value, noun, valid, hidden=False)
    if re.search(r"[?#\\]", found):
        raise invalid_value(value, noun, f"{valid}, without query and fragment")
    return found.rstrip("/")


def _proxy(value: Any) -> str:
    noun, valid = "proxy", "http://HOST:PORT or http://USER:PASSWORD@HOST:PORT"
    found = value.strip() if isinstance(value, str) else ""
    parts = _split(found, value, noun, valid, hidden=True)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise invalid_value(value, noun, valid, hidden=True)
    return found


def _split(found: str, value: Any, noun: str, valid: str, *, hidden: bool) -> Any:
    """The parts of a sound http(s) URL.

    Raises:
        InvalidValueError: it is none.
    """
    try:
        parts = urlsplit(found)
        port, host = parts.port, parts.hostname or ""
        sound = parts.scheme in {"http", "https"} and port != 0 and _is_host(host)
    except ValueError:  # a port that is no number, half an IPv6 address
        sound = False
    if not sound or not found.isascii() or re.search(r"\s|[^ -~]", found):
        raise invalid_value(value, noun, valid, hidden=hidden)
    return parts


def _is_host(host: str) -> bool:
    try:
        return bool(_HOST.fullmatch(host)) or bool(ipaddress.IPv6Address(host))
    except ValueError:
        return False


URL = OptionType(name="URL", parse=_url)
PROXY = OptionType(name="URL", parse=_proxy, hidden=True)


def _address(value: Any) -> Address:
    match = re.fullmatch(r"(\[[^\[\]]+\]|[^\[\]:]*):([0-9]{1,5})", str(value).strip())
    host, port = match.groups() if match and isinstance(value, str) else ("?", "")
    bare = host.strip("[]")
    if host and not (_is_host(bare) and (":" in bare) == host.startswith("[")):
        raise invalid_value(
            value, "address to listen on", "HOST:PORT, [IPV6]:PORT, or :PORT for all interfaces"
        )
    if int(port) not in _PORTS:
        raise InvalidValueError(f"{quoted(value)} has port {port}; valid: 0 to {_PORTS[-1]}")
    return Address(bare, int(port))


ADDRESS = OptionType(name="address", parse=_address)


def _telemetry_path(value: Any) -> str:
    found = value.strip() if isinstance(value, str) else ""
    segments = found.split("/")[1:]
    sound = re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", found)
    if not sound or segments[0] == "-" or {".", ".."} & set(segments):
        raise invalid_value(
            value, "path for metrics", "such as /metrics; not / and nothing below /-/"
        )
    return found


TELEMETRY_PATH = OptionType(name="path", parse=_telemetry_path)


# --- files ----------------------------------------------------------------------------------------


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise invalid_value(value, "path of a file", "the path of a file")
    return value


def _readable(value: Any) -> str:
    path = _path(value)
    try:
        # Opening a named pipe would block for ever.
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise InvalidValueError(
                f"{quoted(path)} is no regular file; valid: a file that can be read"
            )
        with Path(path).open("rb"):
            return path
    except OSError as error:
        reason = error.strerror or "error"
        raise InvalidValueError(
            f"{quoted(path)} cannot be read: {reason}; valid: a readable file"
        ) from None


def _ca_file(value: Any) -> str:
    path = _readable(value)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except (ssl.SSLError, OSError, ValueError):
        raise InvalidValueError(
            f"{quoted(path)} holds no certificate; valid: a file in PEM format"
        ) from None
    return path


PATH = OptionType(name="path", parse=_path, path=True)
"""Of a file that need not be there yet."""

READABLE = OptionType(name="path", parse=_readable, path=True)
"""Of a file that is there and can be opened now; its content is not looked at."""

CA_FILE = OptionType(name="path", parse=_ca_file, path=True)

TARGETS = OptionType(name="list of targets", parse=None, flag=False)
