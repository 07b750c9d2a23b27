"""The file that ``web.config.file`` names, in the format of Prometheus's exporter-toolkit.

Rejects what the toolkit's own check (``promtool check web-config``) rejects, and more: what the TLS
of Python cannot do, what is no longer secure, and what would not do what it seems to do.
docs/web-configuration.md has the list.
"""

import os
import ssl
from typing import Any, NamedTuple

from exporter.settings.problems import InvalidValueError, printable, problem
from exporter.settings.small_file import read_file
from exporter.settings.tree import TreeReader, shown
from exporter.settings.yaml import InvalidYamlError, parse
from exporter.web.config.keys import CIPHERS, CURVES, KEYS, TLS_SERVER, USERS
from exporter.web.config.model import LoadedConfig, Pem, Rate, Tls, WebConfig, WebConfigError
from exporter.web.config.tls import make_context

OPTION = "web.config.file"


# --- the document ---------------------------------------------------------------------------------


class ParsedConfig(NamedTuple):
    """The content of a web configuration, without the files that it names.

    Attributes:
        config: None = there are problems.
        problems: key, what is wrong, and the line (from 1; None = unknown).
    """

    config: WebConfig | None
    problems: list[tuple[str, str, int | None]]


def read(content: bytes, folder: str) -> ParsedConfig:
    """Parse a web configuration. Does not read the files that it names.

    Args:
        content: YAML.
        folder: that relative paths start from.
    """
    try:
        document = parse(content)
    except InvalidYamlError as error:
        line = error.position.line if error.position else None
        return ParsedConfig(None, [("", f"invalid YAML: {error}", line)])
    reader = TreeReader(document, KEYS)
    if reader.problems:
        lines = document.lines
        return ParsedConfig(
            None, [(shown(path), wrong, lines.get(path)) for path, wrong in reader.problems]
        )
    try:
        return ParsedConfig(_config(reader.values, folder), [])
    except WebConfigError as error:
        path = tuple(error.key.split("."))
        return ParsedConfig(None, [(error.key, error.wrong, document.lines.get(path))])


def _config(values: dict[str, Any], folder: str) -> WebConfig:
    """Build the configuration from the values.

    Raises:
        WebConfigError: the values conflict.
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
        raise WebConfigError("rate_limit.burst", "0 would reject every request; use 1 or more")
    return Rate(interval, burst) if interval else None


def _tls(values: dict[str, Any], folder: str) -> Tls:
    certificate = _required_pem(values, "cert", folder)
    private_key = _required_pem(values, "key", folder)
    client_ca = _pem(values, "client_ca", folder)
    client_auth = values.get("client_auth_type", ssl.CERT_NONE)
    _check_clients(client_ca, client_auth, values.get("client_allowed_sans"))
    min_version = values.get("min_version", ssl.TLSVersion.TLSv1_2)
    max_version = values.get("max_version", ssl.TLSVersion.TLSv1_3)
    if min_version > max_version:
        wrong = "TLS12 is lower than min_version TLS13; use TLS13"
        raise WebConfigError(f"{TLS_SERVER}.max_version", wrong)
    suites = values.get("cipher_suites", [])
    ciphers = tuple(CIPHERS[name] for name in suites if name in CIPHERS)
    if suites and not ciphers:  # no cipher is left for TLS 1.2
        min_version = ssl.TLSVersion.TLSv1_3
        if max_version < min_version:
            wrong = "no cipher for max_version TLS12; use at least one of TLS_ECDHE_*"
            raise WebConfigError(f"{TLS_SERVER}.cipher_suites", wrong)
    curves = values.get("curve_preferences", [])
    if len(curves) > 1:
        wrong = "Python's TLS supports only one curve; list one, or none for the defaults"
        raise WebConfigError(f"{TLS_SERVER}.curve_preferences", wrong)
    return Tls(
        certificate=certificate,
        private_key=private_key,
        client_ca=client_ca,
        client_auth=client_auth,
        client_sans=frozenset(values.get("client_allowed_sans", ())),
        min_version=min_version,
        max_version=max_version,
        ciphers=ciphers,
        prefer_server_ciphers=values.get("prefer_server_cipher_suites", True),
        curve=CURVES[curves[0]] if curves else None,
    )


def _check_clients(
    client_ca: Pem | None, client_auth: ssl.VerifyMode, sans: list[str] | None
) -> None:
    if client_auth != ssl.CERT_NONE and client_ca is None:
        wrong = "required with this client_auth_type; use a file of CA certificates"
        raise WebConfigError(f"{TLS_SERVER}.client_ca_file", wrong)
    if client_auth == ssl.CERT_NONE and client_ca is not None:
        wrong = "has no effect with NoClientCert; use client_auth_type RequireAndVerifyClientCert"
        raise WebConfigError(client_ca.key, wrong)
    if sans is not None and client_auth != ssl.CERT_REQUIRED:
        wrong = "requires client_auth_type RequireAndVerifyClientCert; set both or neither"
        raise WebConfigError(f"{TLS_SERVER}.client_allowed_sans", wrong)
    if sans == []:
        wrong = "the list is empty; add at least one name"
        raise WebConfigError(f"{TLS_SERVER}.client_allowed_sans", wrong)


def _pem(values: dict[str, Any], name: str, folder: str) -> Pem | None:
    file, text = values.get(f"{name}_file"), values.get(name)
    if file and text:
        wrong = f"{name}_file is also set; set only one of them"
        raise WebConfigError(f"{TLS_SERVER}.{name}", wrong)
    if file:
        path = os.path.join(folder, file)  # noqa: PTH118 - "a" stays "a"
        return Pem(f"{TLS_SERVER}.{name}_file", path)
    return Pem(f"{TLS_SERVER}.{name}", text=text) if text else None


def _required_pem(values: dict[str, Any], name: str, folder: str) -> Pem:
    found = _pem(values, name, folder)
    if found is None:
        raise WebConfigError(f"{TLS_SERVER}.{name}_file", f"required for TLS, unless {name} is set")
    return found


# --- the files ------------------------------------------------------------------------------------


class WebFile:
    """A web configuration and the files that it names, loaded and reloaded.

    Every check reads all files: it takes as long as reading their modification times would, and no
    change is missed (symlinks swapped by Kubernetes, files rewritten within one clock tick). A
    change takes effect when two consecutive checks have read the same: files that belong together
    are rarely replaced at the same moment, and one may be half written.

    Args:
        path: of the file.
        origin: what named it.
    """

    def __init__(self, path: str, origin: str | None = None) -> None:
        self._path = path
        self._origin = origin or f"file {printable(path)}"
        self._parsed: tuple[bytes, ParsedConfig] = (b"", read(b"", ""))
        self._loaded: list[bytes | str] = []
        self._last_seen: list[bytes | str] = []

    def load(self) -> LoadedConfig:
        """Load the files as they are now."""
        self._loaded = self._last_seen = self._contents()
        return self._load()

    def look(self) -> LoadedConfig | None:
        """Load the files if they have changed since the last load and are no longer changing."""
        before, self._last_seen = self._last_seen, self._contents()
        if self._last_seen == self._loaded or self._last_seen != before:
            return None
        self._loaded = self._last_seen
        return self._load()

    def _contents(self) -> list[bytes | str]:
        """The contents of all files; for a file that cannot be read, the reason."""
        try:
            content = read_file(self._path)
        except InvalidValueError as error:
            return [str(error)]
        tls = config.tls if (config := self._parse(content).config) else None
        pems = [tls.certificate, tls.private_key, tls.client_ca] if tls else []
        return [content, *(_content(pem) for pem in pems if pem)]

    def _parse(self, content: bytes) -> ParsedConfig:
        if content != self._parsed[0]:
            self._parsed = content, read(content, os.path.dirname(self._path))  # noqa: PTH120 - "" stays ""
        return self._parsed[1]

    def _load(self) -> LoadedConfig:
        content = self._loaded[0]
        if isinstance(content, str):
            return LoadedConfig(None, None, (problem(OPTION, content, self._origin),))
        config, problems = self._parse(content)
        if config is None:
            return LoadedConfig(None, None, tuple(self._line(*each) for each in problems))
        try:
            context = make_context(config.tls) if config.tls else None
        except WebConfigError as error:
            return LoadedConfig(config, None, (self._line(error.key, error.wrong, None),))
        return LoadedConfig(config, context, ())

    def _line(self, key: str, wrong: str, line: int | None) -> str:
        origin = f"file {printable(self._path)}" + (f", line {line}" if line else "")
        return problem(f"{OPTION}: {key}" if key else OPTION, wrong, origin)


def check_file(path: str, origin: str) -> tuple[str, ...]:
    """The problems of a web configuration and of the files that it names, one line each.

    Args:
        path: of the file.
        origin: what named it.
    """
    return WebFile(path, origin).load().problems


def _content(pem: Pem) -> bytes | str:
    try:
        return pem.read()
    except WebConfigError as error:
        return error.wrong
