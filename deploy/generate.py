"""Write what the deployments take from the code, or --check that it is current.

- The schema of `config` in the chart's values.schema.json, from the options, so that helm refuses
  a misspelled option.
- The version, from exporter/__init__.py, wherever it is needed: chart, manifests, Dockerfile.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from exporter import __version__
from exporter.settings.options import Option, options

HERE = Path(__file__).parent
CHART = HERE / "helm/modelarts-exporter"

SET_BY_THE_CHART = {"state.file", "web.listen_address", "web.config.file"}
"""Options that the chart derives from other values."""

VERSION_LINES = (
    (CHART / "Chart.yaml", r"^version: (.+)$"),
    (CHART / "Chart.yaml", r'^appVersion: "(.+)"$'),
    (HERE.parent / "Dockerfile", r"^ARG VERSION=(.+)$"),
    *(
        (path, r"^ +image: modelarts-exporter:(\S+)")
        for path in sorted((HERE / "kubernetes").glob("*.yaml"))
        if "image: modelarts-exporter:" in path.read_text()
    ),
)
"""Files with the version, and regular expressions whose group is the version."""


def group_schema(found: Sequence[Option], depth: int = 0) -> dict[str, Any]:
    """The schema of a mapping.

    Args:
        found: all options in it.
        depth: number of leading parts of their paths that lead to the mapping.
    """
    properties: dict[str, Any] = {}
    for name in dict.fromkeys(option.path[depth] for option in found):
        inside = [option for option in found if option.path[depth] == name]
        if len(inside[0].path) == depth + 1:
            properties[name] = {"description": inside[0].help} | inside[0].type.schema
        else:
            properties[name] = group_schema(inside, depth + 1)
    return {"type": "object", "additionalProperties": False, "properties": properties}


def values_schema() -> str:
    """The chart's values.schema.json with the current options."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    found = [each for each in options() if each.in_file and each.name not in SET_BY_THE_CHART]
    config = group_schema(found)
    required = [each.path[1] for each in found if each.path[0] == "target" and each.default == ""]
    schema["definitions"]["target"] = config["properties"]["target"]
    config["properties"]["target"] = {"$ref": "#/definitions/target"}
    # The environment may complete the only target, but not the items of a list.
    config["properties"]["targets"] = {
        "type": "array",
        "minItems": 1,
        "items": {"allOf": [{"$ref": "#/definitions/target"}, {"required": required}]},
    }
    config["not"] = {"required": ["target", "targets"]}
    schema["properties"]["config"] = config
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def files() -> dict[Path, str]:
    """Everything that is generated, by path."""
    texts = {CHART / "values.schema.json": values_schema()}
    for path, pattern in VERSION_LINES:
        text = texts.get(path) or path.read_text()
        match = re.search(pattern, text, re.MULTILINE)
        if match is None:
            raise SystemExit(f"{path.name} has no line {pattern}")
        texts[path] = text[: match.start(1)] + __version__ + text[match.end(1) :]
    return texts


def stale() -> Iterator[tuple[Path, str]]:
    """The files that differ from what would be generated now, and their new content."""
    for path, text in files().items():
        if path.read_text() != text:
            yield path, text


def main(arguments: Sequence[str]) -> int:
    """Write or check the files. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if a file is stale"
    )
    check = parser.parse_args(arguments).check
    found = list(stale())
    for path, text in found:
        if check:
            print(f"{path.name} is stale: run python deploy/generate.py", file=sys.stderr)
        else:
            path.write_text(text)
            print(f"{path.name} written")
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
