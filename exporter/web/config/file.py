"""The file that ``web.config.file`` names, in the format of Prometheus's exporter-toolkit.

What the toolkit's own check (``promtool check web-config``) refuses is refused here, too, and more:
what Python's TLS cannot do, what is no longer safe, and what would do something else than it seems.
docs/web-configuration.md has the list.
"""

import os
import re
import ssl
from collections.abc import Iterator
from typing import Any, NamedTuple

from exporter.settings.problems import (
    InvalidValueError,
    OptionPath,
    dotted,
    key,
    nearest,
    printable,
    problem,
    type_name,
)
from exporter.settings.yaml import Document, InvalidYamlError, parse
from exporter.web.config.keys import (
    CIPHERS,
    CURVES,
    KEYS,
    TLS_SERVER,
    USERS,
    KeyTree,
    Leaf,
    bcrypt_hash,
)
from exporter.web.config.model import (
    LoadedConfig,
    Pem,
    Rate,
    Tls,
    WebConfig,
    WebConfigError,
    content,
)
from exporter.web.config.tls import make_context

OPTION = "web.config.file"
_MAPPING = 'valid: "KEY: VALUE" lines, with a blank after the colon'
_USER = re.compile(r"[^:\x00-\x1f\x7f]+")


# --- the document ---------------------------------------------------------------------------------


class ParsedConfig(NamedTuple):
    """What a file says by itself.

    Attributes:
        config: None: there are problems.
        problems: where, what, and the line from 1, None: not known.
    """

    config: WebConfig | None
    problems: list[tuple[str, str, int | None]]


def read(text: str, folder: str) -> ParsedConfig:
    """A web configuration; the files that it names are not looked at.

    Args:
        text: YAML.
        folder: to which paths are relative.
    """
    try:
        document = parse(text)
    except InvalidYamlError as error:
        return ParsedConfig(None, [("", str(error), error.place.line if error.place else None)])
    reader = _Reader(document)
    if reader.problems:
        return ParsedConfig(None, reader.problems)
    try:
        return ParsedConfig(_config(reader.values, folder), [])
    except WebConfigError as flaw:
        path = tuple(flaw.key.split("."))
        return ParsedConfig(None, [(flaw.key, flaw.wrong, document.lines.get(path))])


class _Reader:
    """Walks through a document along the tree of keys."""

    def __init__(self, document: Document) -> None:
        self.problems: list[tuple[str, str, int | None]] = []
        self.values: dict[str, Any] = {}
        self._lines = document.lines
        for path, _ in document.twice:
            self._complain(path, "is there twice; valid: once")
        if document.value is not None:
            self.values = self._mapping(document.value, KEYS, ())

    def _complain(self, path: OptionPath, wrong: str) -> None:
        shown = dotted(tuple(part if isinstance(part, int) else key(part) for part in path))
        self.problems.append((shown, wrong, self._lines.get(path)))

    def _mapping(self, value: object, level: KeyTree, path: OptionPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if not isinstance(value, dict):
            self._complain(path, f"{type_name(value)} where a mapping belongs; {_MAPPING}")
            return found
        for name, inner in value.items():
            here = (*path, str(name))
            known = level.get(name) if isinstance(name, str) else None
            if path == (USERS,):
                self._user(found, name, inner)
            elif known is None:
                self._unknown(here, str(name), level)
            elif isinstance(known, dict):
                found[name] = {} if inner is None else self._mapping(inner, known, here)
            elif inner is not None:
                self._value(found, name, inner, known, here)
        return found

    def _value(
        self, found: dict[str, Any], name: str, value: object, known: Leaf, path: OptionPath
    ) -> None:
        try:
            found[name] = known(value)
        except InvalidValueError as error:
            self._complain(path, str(error))

    def _user(self, found: dict[str, Any], name: object, value: object) -> None:
        path = (USERS, str(name))
        if isinstance(name, str) and _USER.fullmatch(name):
            self._value(found, name, value, bcrypt_hash, path)
        else:
            wrong = "is no user; valid: text without a colon, in quotes if it looks like a number"
            self._complain(path, wrong)

    def _unknown(self, path: OptionPath, name: str, level: KeyTree) -> None:
        meant = nearest(name, level)
        if meant:
            meant = dotted((*path[:-1], meant))
        else:
            everywhere = {str(inner[-1]): dotted(inner) for inner in _paths(KEYS)}
            near = nearest(name, everywhere)
            meant = everywhere[near] if near else None
        hint = f"did you mean {meant}?" if meant else f"valid: {', '.join(level)}"
        self._complain(path, f"unknown; {hint}")


def _paths(level: KeyTree, path: OptionPath = ()) -> Iterator[OptionPath]:
    for name, inner in level.items():
        yield (*path, name)
        if isinstance(inner, dict):
            yield from _paths(inner, (*path, name))


def _config(values: dict[str, Any], folder: str) -> WebConfig:
    """What the values mean together.

    Raises:
        WebConfigError: they do not go together.
    """
    headers = values.get("http_server_config", {}).get("headers", {})
    return WebConfig(
        tls=_tls(values[TLS_SERVER], folder) if values.get(TLS_SERVER) else None,
        users=values.get(USERS, {}),
        headers={name: value for name, value in headers.items() if value},
        rate=_rate(values.get("rate_limit", {})),
    )


def _rate(values: dict[str, Any]) -> Rate | None:
    interval, burst = values.get("interval", 0.0), values.get("burst", 0)
    if interval and not burst:
        raise WebConfigError("rate_limit.burst", "0 would refuse every request; valid: 1 or more")
    return Rate(interval, burst) if interval else None


def _tls(values: dict[str, Any], folder: str) -> Tls:
    certificate = _needed(values, "cert", folder)
    private_key = _needed(values, "key", folder)
    client_ca = _given(values, "client_ca", folder)
    client_auth = values.get("client_auth_type", ssl.CERT_NONE)
    _check_clients(client_ca, client_auth, values.get("client_allowed_sans"))
    lowest, highest = (
        values.get("min_version", ssl.TLSVersion.TLSv1_2),
        values.get("max_version", ssl.TLSVersion.TLSv1_3),
    )
    if lowest > highest:
        wrong = "TLS12 is below min_version TLS13; valid: TLS13"
        raise WebConfigError(f"{TLS_SERVER}.max_version", wrong)
    suites = values.get("cipher_suites", [])
    ciphers = tuple(CIPHERS[name] for name in suites if name in CIPHERS)
    if suites and not ciphers:  # nothing is left for TLS 1.2
        lowest = ssl.TLSVersion.TLSv1_3
        if highest < lowest:
            wrong = "has none for max_version TLS12; valid: one of TLS_ECDHE_*"
            raise WebConfigError(f"{TLS_SERVER}.cipher_suites", wrong)
    curves = values.get("curve_preferences", [])
    if len(curves) > 1:
        wrong = "Python's TLS takes one; valid: one, or none for the usual ones"
        raise WebConfigError(f"{TLS_SERVER}.curve_preferences", wrong)
    return Tls(
        certificate=certificate,
        private_key=private_key,
        client_ca=client_ca,
        client_auth=client_auth,
        client_sans=frozenset(values.get("client_allowed_sans", ())),
        min_version=lowest,
        max_version=highest,
        ciphers=ciphers,
        our_order=values.get("prefer_server_cipher_suites", True),
        curve=CURVES[curves[0]] if curves else None,
    )


def _check_clients(
    client_ca: Pem | None, client_auth: ssl.VerifyMode, sans: list[str] | None
) -> None:
    if client_auth != ssl.CERT_NONE and client_ca is None:
        wrong = "required with this client_auth_type: who signs the certificates of clients"
        raise WebConfigError(f"{TLS_SERVER}.client_ca_file", wrong)
    if client_auth == ssl.CERT_NONE and client_ca is not None:
        wrong = "is not used with NoClientCert; valid: client_auth_type RequireAndVerifyClientCert"
        raise WebConfigError(client_ca.key, wrong)
    if sans is not None and client_auth != ssl.CERT_REQUIRED:
        wrong = "needs client_auth_type RequireAndVerifyClientCert"
        raise WebConfigError(
            f"{TLS_SERVER}.client_allowed_sans", f"{wrong}; valid: both, or neither"
        )
    if sans == []:
        raise WebConfigError(
            f"{TLS_SERVER}.client_allowed_sans", "the list is empty; valid: at least one name"
        )


def _given(values: dict[str, Any], name: str, folder: str) -> Pem | None:
    file, text = values.get(f"{name}_file"), values.get(name)
    if file and text:
        raise WebConfigError(
            f"{TLS_SERVER}.{name}", f"{name}_file is given, too; valid: only one of the two"
        )
    if file:
        path = os.path.join(folder, file)  # noqa: PTH118 - "a" stays "a"
        return Pem(f"{TLS_SERVER}.{name}_file", path)
    return Pem(f"{TLS_SERVER}.{name}", text=text) if text else None


def _needed(values: dict[str, Any], name: str, folder: str) -> Pem:
    found = _given(values, name, folder)
    if found is None:
        raise WebConfigError(
            f"{TLS_SERVER}.{name}_file", f"required for TLS, or {name}; valid: a path"
        )
    return found


# --- the files ------------------------------------------------------------------------------------


class WebFile:
    """A web configuration and the files that it names, as they are now and as they change.

    All of them are read at every look: it takes as long as asking for their times would, and no
    change is missed (symlinks swapped by Kubernetes, files rewritten within one tick). A change
    counts once two looks have found the same: files that belong together are seldom replaced at
    one moment, and one may be half written.

    Args:
        path: of the file.
        origin: what named it.
    """

    def __init__(self, path: str, origin: str | None = None) -> None:
        self._path = path
        self._origin = origin or f"file {printable(path)}"
        self._parsed: tuple[bytes, ParsedConfig] = (b"", read("", ""))
        self._judged: list[bytes | str] = []
        self._suspected: list[bytes | str] = []

    def load(self) -> LoadedConfig:
        """The files as they are now."""
        self._judged = self._suspected = self._state()
        return self._judge()

    def look(self) -> LoadedConfig | None:
        """The files, if they have changed since they were judged last, and are at rest."""
        before, self._suspected = self._suspected, self._state()
        if self._suspected == self._judged or self._suspected != before:
            return None
        self._judged = self._suspected
        return self._judge()

    def _state(self) -> list[bytes | str]:
        """What is in all files; of those that cannot be read, why."""
        try:
            text = content(self._path)
        except WebConfigError as flaw:
            return [flaw.wrong]
        tls = config.tls if (config := self._parse(text).config) else None
        pems = [tls.certificate, tls.private_key, tls.client_ca] if tls else []
        return [text, *(_content(pem) for pem in pems if pem)]

    def _parse(self, text: bytes) -> ParsedConfig:
        if text != self._parsed[0]:
            self._parsed = text, self._read(text)
        return self._parsed[1]

    def _read(self, text: bytes) -> ParsedConfig:
        try:
            decoded = text.decode("utf-8-sig")
        except UnicodeDecodeError:
            return ParsedConfig(None, [("", "is not UTF-8 text; valid: a YAML file", None)])
        return read(decoded, os.path.dirname(self._path))  # noqa: PTH120 - "" stays ""

    def _judge(self) -> LoadedConfig:
        text = self._judged[0]
        if isinstance(text, str):
            return LoadedConfig(None, None, (problem(OPTION, text, self._origin),))
        config, problems = self._parse(text)
        if config is None:
            return LoadedConfig(None, None, tuple(self._line(*each) for each in problems))
        try:
            context = make_context(config.tls) if config.tls else None
        except WebConfigError as flaw:
            return LoadedConfig(config, None, (self._line(flaw.key, flaw.wrong, None),))
        return LoadedConfig(config, context, ())

    def _line(self, where: str, wrong: str, line: int | None) -> str:
        origin = f"file {printable(self._path)}" + (f", line {line}" if line else "")
        return problem(f"{OPTION}: {where}" if where else OPTION, wrong, origin)


def check_file(path: str, origin: str) -> tuple[str, ...]:
    """What is wrong with a web configuration and the files that it names, a line each.

    Args:
        path: of the file.
        origin: what named it.
    """
    return WebFile(path, origin).load().problems


def _content(pem: Pem) -> bytes | str:
    try:
        return pem.read()
    except WebConfigError as flaw:
        return flaw.wrong
