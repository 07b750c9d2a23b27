"""Tables of bad configurations with the exact messages about them, in YAML files beside the tests.

A file maps section names to lists of cases. A case gives the input under keys that its test
defines, and the messages under ``problems``.
"""

import os
from pathlib import Path

import pytest
import yaml

_UPDATE = "UPDATE_MESSAGES"


class _Dumper(yaml.SafeDumper):
    """Writes block mappings, and texts of several lines as blocks."""

    def increase_indent(self, flow=False, indentless=False):  # noqa: FBT002 - PyYAML's signature
        return super().increase_indent(flow, False)


class _Words(list):
    """Written on one line."""


def _text(dumper, text):
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(
    _Words, lambda dumper, words: dumper.represent_sequence("tag:yaml.org,2002:seq", words, True)
)


def dumped(sections):
    """The sections as YAML."""
    written = {
        section: [
            {k: _Words(v) if k == "arguments" else v for k, v in case.items()} for case in cases
        ]
        for section, cases in sections.items()
    }
    return yaml.dump(written, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=10_000)


class MessageTable:
    """A table of cases; compares the messages, or takes them over if UPDATE_MESSAGES=1 is set."""

    def __init__(self, path):
        self._path = Path(path)
        self._content = self._path.read_text()
        self._sections = yaml.safe_load(self._content)

    def params(self):
        """The cases for ``pytest.mark.parametrize``."""
        return [
            pytest.param(case, id=f"{section}: {self._id(case)}")
            for section, cases in self._sections.items()
            for case in cases
        ]

    @staticmethod
    def _id(case):
        shown = case.get("name") or next(repr(v) for k, v in case.items() if k != "problems")
        return shown[:80]

    def check(self, case, problems):
        """Compare the messages about a case with those of the table."""
        if os.environ.get(_UPDATE) == "1":
            case["problems"] = problems
        else:
            assert problems == case["problems"]

    def save(self):
        """Write the messages that were taken over; the comment at the top stays."""
        if os.environ.get(_UPDATE) != "1":
            return
        comment = [line for line in self._content.splitlines(keepends=True) if line[:1] == "#"]
        self._path.write_text("".join(comment) + dumped(self._sections))
