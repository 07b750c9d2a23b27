"""Types of options: which values flags, variables and YAML may give, and what they become."""

import contextlib
import ipaddress
import json
import math
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias, get_args
from urllib.parse import quote, unquote, urlsplit

from pydantic import GetCoreSchemaHandler, Secret
from pydantic_core import CoreSchema, core_schema

from exporter.settings import durations
from exporter.settings.problems import (
    InvalidValueError,
    invalid_value,
    quoted,
    quoted_path,
    unknown_word,
)
from exporter.settings.secret_values import IN_QUOTES, is_in_quotes, stripped
from exporter.settings.small_file import open_file

_LONGEST_DURATION = 100 * 365 * 86_400.0
_DURATIONS = "30s, 5m, 1h30m, 7d or seconds"
_LARGEST_NUMBER = 999_999_999
_WHOLE = "[0-9]{1,9}"
_DECIMAL = r"[0-9]{1,9}(\.[0-9]{1,9})?"
BOOLEAN_WORDS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(
    ("false", "no", "off", "0"), False
)
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?")
_PORTS = range(65_536)

JsonSchema: TypeAlias = dict[str, Any]
_STRING: JsonSchema = {"type": "string", "minLength": 1}


def _matching(pattern: str) -> JsonSchema:
    """Strings that match a pattern, apart from surrounding blanks."""
    return {"type": "string", "pattern": rf"^\s*({pattern})\s*$"}


def _or_number(pattern: str, kind: str, at_least: float, at_most: float) -> JsonSchema:
    """A number, or a string that matches a pattern."""
    return _matching(pattern) | {"type": [kind, "string"], "minimum": at_least, "maximum": at_most}


@dataclass(frozen=True, kw_only=True)
class OptionType:
    """The type of an option, given in the annotation of its field.

    Attributes:
        name: for people.
        parse: converts a string or a value read from YAML, or raises `InvalidValueError`.
            None = pydantic validates the value by its annotation.
        hidden: the value is never shown.
        flag: may be set on the command line, where process lists show it.
        many: takes several values.
        path: names a file; in the configuration file, relative to its directory.
        schema: JSON Schema that all values from YAML obey which `parse` accepts. Not everything
            that it allows is accepted.
    """

    name: str
    parse: Callable[[Any], Any] | None
    hidden: bool = False
    flag: bool = True
    many: bool = False
    path: bool = False
    schema: JsonSchema = field(default_factory=dict, compare=False)

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Validate by parsing alone."""
        if self.parse is None:
            return handler(source)
        return core_schema.no_info_plain_validator_function(self.take)

    def take(self, value: Any) -> object:
        """Parse a value; a hidden one may be wrapped in a `Secret`."""
        bare = value.get_secret_value() if isinstance(value, Secret) else value
        return self.parse(bare) if self.parse else bare


class Address(NamedTuple):
    """An address to listen on; host "" = all interfaces, port 0 = any free port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


# --- numbers --------------------------------------------------------------------------------------


def duration(*, at_least: float) -> OptionType:
    """A duration, in seconds."""

    def parse(value: Any) -> float:
        text = f"{value:.9f}" if _is_number(value) and math.isfinite(value) else value
        seconds = durations.parse(text.strip()) if isinstance(text, str) else None
        if seconds is None:
            raise invalid_value(value, "duration", _DURATIONS)
        if not at_least <= seconds <= _LONGEST_DURATION:
            size = "short" if seconds < at_least else "long"
            lowest, highest = durations.show(at_least), durations.show(_LONGEST_DURATION)
            raise InvalidValueError(
                f"duration {quoted(value)} is too {size}; use {lowest} to {highest}"
            )
        return seconds

    schema = _or_number(durations.PATTERN, "number", at_least, _LONGEST_DURATION)
    return OptionType(name="duration", parse=parse, schema=schema)


def whole(*, at_least: int) -> OptionType:
    """A whole number."""
    digits = _number("whole number", _WHOLE, at_least)
    return OptionType(
        name="whole number",
        parse=lambda value: int(digits(value)),
        schema=_or_number(_WHOLE, "integer", at_least, _LARGEST_NUMBER),
    )


def number(*, at_least: float) -> OptionType:
    """A number."""
    digits = _number("number", _DECIMAL, at_least)
    return OptionType(
        name="number",
        parse=lambda value: float(digits(value)),
        schema=_or_number(_DECIMAL, "number", at_least, _LARGEST_NUMBER),
    )


def _number(noun: str, pattern: str, at_least: float) -> Callable[[Any], str]:
    def digits(value: Any) -> str:
        text = str(value).strip() if isinstance(value, str) or _is_number(value) else ""
        if not re.fullmatch(pattern, text) or float(text) < at_least:
            wrong = f"expected a {noun} from {at_least} to {_LARGEST_NUMBER}, got {quoted(value)}"
            raise InvalidValueError(wrong)
        return text

    return digits


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _boolean(value: Any) -> bool:
    text = str(value).strip().lower() if isinstance(value, str | int) else ""
    if text not in BOOLEAN_WORDS:
        raise InvalidValueError(f"expected true or false, got {quoted(value)}")
    return BOOLEAN_WORDS[text]


BOOLEAN = OptionType(
    name="true or false",
    parse=_boolean,
    schema=_matching("|".join(f"(?i:{word})" for word in BOOLEAN_WORDS))
    | {"type": ["boolean", "integer", "string"], "minimum": 0, "maximum": 1},
)


# --- text -----------------------------------------------------------------------------------------


def text(
    noun: str = "string", hint: str = "", pattern: str = ".+", *, hidden: bool = False
) -> OptionType:
    """One line of text that matches a pattern; surrounding blanks are removed."""
    hint = hint or "one line of text, in quotes in YAML if it looks like a number"

    def parse(value: Any) -> str:
        found = stripped(value) if isinstance(value, str) else ""
        if is_in_quotes(found):
            raise InvalidValueError(IN_QUOTES)
        if not found.isprintable() or not re.fullmatch(pattern, found):
            raise invalid_value(value, noun, hint, hidden=hidden)
        return found

    return OptionType(name=noun, parse=parse, hidden=hidden, schema=_matching(pattern))


def choice(literal: Any, **aliases: str) -> OptionType:
    """One of the words of a ``Literal``, or another name for one."""
    words: tuple[str, ...] = get_args(literal)

    def parse(value: Any) -> str:
        # YAML 1.1 reads "none" as a string, but "off" as false: only strings are accepted.
        found = value.strip().lower() if isinstance(value, str) else value
        found = aliases.get(found, found) if isinstance(found, str) else found
        if found not in words:
            raise unknown_word(value, words)
        return str(found)

    schema = _matching("|".join(f"(?i:{word})" for word in (*words, *aliases)))
    return OptionType(name="one of " + ", ".join(words), parse=parse, schema=schema)


PROJECT_ID = text("project ID", "letters and digits, in quotes in YAML", "[0-9A-Za-z_-]{1,64}")


def several(
    one: OptionType, noun: str, plural: str, *, separator: str = ",", may_be_empty: bool = False
) -> OptionType:
    """Values of a type: separated by commas, repeated, or a list in YAML or JSON.

    Args:
        one: the type.
        noun: one value, for people.
        plural: several values, for people.
        separator: regular expression that matches the commas.
        may_be_empty: whether an empty list is valid.
    """

    def parse(value: Any) -> tuple[object, ...]:
        given = value if isinstance(value, list) else [value]
        given = [each for one_or_more in given for each in _listed(one_or_more)]
        parts = [
            p
            for each in given
            for p in (re.split(separator, each) if isinstance(each, str) else [each])
        ]
        if not parts and not may_be_empty:
            raise InvalidValueError(f"the list is empty; add at least one {noun}")
        found = tuple(one.take(part) for part in parts)
        for position, each in enumerate(found):
            if each in found[:position]:
                raise InvalidValueError(f"duplicate {noun} {quoted(str(each))}")
        return found

    # One string may contain several values, separated by commas.
    item: JsonSchema = {"anyOf": [_STRING, one.schema]}
    schema: JsonSchema = {
        "anyOf": [
            *item["anyOf"],
            {"type": "array", "items": item, "minItems": 0 if may_be_empty else 1},
        ]
    }
    return replace(one, name=f"list of {plural}", parse=parse, many=True, schema=schema)


ALL = "all"
"""The word for everything that there is."""


def several_or_all(one: OptionType, noun: str, plural: str) -> OptionType:
    """As `several`, or the word ``all`` alone."""
    listed = several(one, noun, plural)

    def parse(value: Any) -> object:
        found = listed.take(value)
        if isinstance(found, tuple) and ALL in found and len(found) > 1:
            raise InvalidValueError(f"{ALL} includes everything; remove it or the other {plural}")
        return found

    return replace(listed, name=f"list of {plural}", parse=parse)


def _listed(value: Any) -> list[Any]:
    """The items of a JSON list, which is how other programs take lists from the environment."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError):
            return [*json.loads(value)]  # not JSON: the address [::]:9978
    return [value]


def _workspace(value: Any) -> object:
    """YAML reads the ID of the default workspace as a number."""
    return _WORKSPACE.take("0" if _is_number(value) and value == 0 else value)


_WORKSPACE = text(
    "workspace ID", '"0" or an ID of letters, digits, "-" and "_"', "[0-9A-Za-z_-]{1,64}"
)
WORKSPACE = replace(_WORKSPACE, parse=_workspace, schema={"enum": [0]})
PROJECT = text("project", "a name or ID of letters, digits, - and _", "[0-9A-Za-z_-]{1,64}")


# --- URLs and addresses ---------------------------------------------------------------------------

_URL_FORM = "http:// or https:// with a host, and optionally a port and a path"
_PROXY_FORM = (
    "http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with special characters percent-encoded "
    "(# is %23)"
)


def _url(value: Any) -> str:
    """An http(s) URL without user, query and fragment; a trailing slash is removed."""
    found = value.strip() if isinstance(value, str) else ""
    if is_in_quotes(found):
        raise InvalidValueError(IN_QUOTES)
    if "@" in found:
        raise invalid_value(value, "base URL", f"{_URL_FORM}, without a user name", hidden=True)
    _split(found, value, "base URL", _URL_FORM, hidden=False)
    if re.search(r"[?#\\]", found):
        raise invalid_value(value, "base URL", f"{_URL_FORM}, without query or fragment")
    return found.rstrip("/")


def _iam_url(value: Any) -> str:
    """A base URL; what every request adds is removed, because other programs want it here."""
    return re.sub(r"(?i)/v3(\.0|/auth|/auth/tokens)?$", "", _url(value))


def without_path(url: str) -> str:
    """The scheme and the host of a URL; what is not a URL stays as it is."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme and parts.netloc:
            return f"{parts.scheme}://{parts.netloc}"
    return url


def parse_proxy(value: Any) -> str:
    """Parse the URL of an HTTP proxy; ``http://`` may be left out.

    Raises:
        InvalidValueError: the URL is not valid. Never shows it, because it may contain a password.
    """
    found = value.strip() if isinstance(value, str) else ""
    if is_in_quotes(found):
        raise InvalidValueError(IN_QUOTES)
    if found.lower().startswith("socks"):
        raise InvalidValueError(
            f"SOCKS proxies are not supported; use an HTTP proxy, {_PROXY_FORM}"
        )
    found = found if "://" in found else f"http://{found}"
    parts = _split(found, value, "proxy URL", _PROXY_FORM, hidden=True)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise invalid_value(value, "proxy URL", _PROXY_FORM, hidden=True)
    user, at, server = parts.netloc.rpartition("@")
    user = ":".join(quote(unquote(part), safe="!$&'()*+,;=") for part in user.split(":", 1))
    return f"{parts.scheme}://{user}{at}{server}"


def _split(found: str, value: Any, noun: str, hint: str, *, hidden: bool) -> Any:
    """The parts of an http(s) URL.

    Raises:
        InvalidValueError: the URL is not valid.
    """
    try:
        parts = urlsplit(found)
        port, host = parts.port, parts.hostname or ""
        valid = parts.scheme in {"http", "https"} and port != 0 and _is_host(host)
    except ValueError:  # a port that is not a number, half an IPv6 address
        valid = False
    if not valid or not found.isascii() or re.search(r"\s|[^ -~]", found):
        raise invalid_value(value, noun, hint, hidden=hidden)
    return parts


def _is_host(host: str) -> bool:
    try:
        return bool(_HOST.fullmatch(host)) or bool(ipaddress.IPv6Address(host))
    except ValueError:
        return False


_HTTP_URL = _matching(r"[Hh][Tt][Tt][Pp][Ss]?://.+")
URL = OptionType(name="URL", parse=_url, schema=_HTTP_URL)
IAM_URL = OptionType(name="URL", parse=_iam_url, schema=_HTTP_URL)
PROXY = OptionType(name="URL", parse=parse_proxy, hidden=True, schema=_STRING)


def parse_address(text: str) -> Address:
    """Parse ``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT``.

    Raises:
        ValueError: the address is not valid.
    """
    match = re.fullmatch(r"(\[[^\[\]]+\]|[^\[\]:]*):([0-9]{1,5})", text)
    bracketed, port = match.groups() if match else ("?", "")
    host = bracketed.strip("[]")
    if bracketed and not (_is_host(host) and (":" in host) == bracketed.startswith("[")):
        raise invalid_value(text, *_ADDRESS)
    if int(port) not in _PORTS:
        raise InvalidValueError(f"invalid port {port} in {quoted(text)}; use 0 to {_PORTS[-1]}")
    return Address(host, int(port))


def _address(value: Any) -> Address:
    if not isinstance(value, str):
        raise invalid_value(value, *_ADDRESS)
    return parse_address(value.strip())


_ADDRESS = ("listen address", "HOST:PORT, [IPV6]:PORT, or :PORT for all interfaces")
ADDRESS = OptionType(name="address", parse=_address, schema=_STRING)


_PATH_SEGMENTS = "(/[A-Za-z0-9._~-]+)+"


def _telemetry_path(value: Any) -> str:
    found = value.strip() if isinstance(value, str) else ""
    segments = found.split("/")[1:]
    valid = re.fullmatch(_PATH_SEGMENTS, found)
    if not valid or segments[0] == "-" or {".", ".."} & set(segments):
        raise invalid_value(
            value, "metrics path", "a path such as /metrics, other than / and paths below /-/"
        )
    return found


TELEMETRY_PATH = OptionType(name="path", parse=_telemetry_path, schema=_matching(_PATH_SEGMENTS))


# --- files ----------------------------------------------------------------------------------------


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise invalid_value(value, "file path", "one line of text")
    if is_in_quotes(value.strip()):
        raise InvalidValueError(IN_QUOTES)
    return str(value)  # not `exporter.settings.secret_types.WrittenPath`


def _readable(value: Any) -> str:
    with open_file(path := _path(value)):
        return path


def _ca_file(value: Any) -> str:
    path = _readable(value)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except (ssl.SSLError, OSError, ValueError):
        wrong = f"{quoted_path(path)} contains no valid certificate; use a PEM file"
        raise InvalidValueError(wrong) from None
    return path


PATH = OptionType(name="path", parse=_path, path=True, schema=_STRING)
"""The path of a file that need not exist yet."""

CA_FILE = replace(PATH, parse=_ca_file)

GLOB = replace(PATH, name="pattern", parse=lambda value: _path(value).strip())
"""A pattern such as ``targets/*.yml`` for the paths of files."""

TARGETS = OptionType(name="list of targets", parse=None, flag=False)
