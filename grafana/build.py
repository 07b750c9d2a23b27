"""Writes the dashboards of grafana/; with --check, tells whether they are current."""

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent

# Grafana imports and provisions dashboards of this kind; of the newer kind the SDK tells on import.
warnings.filterwarnings("ignore", "Prefer using dashboardv2", DeprecationWarning)
sys.path.insert(0, str(HERE))  # which PYTHONSAFEPATH leaves out

from fleet import fleet  # noqa: E402
from grafana_foundation_sdk.cog.encoder import JSONEncoder  # noqa: E402
from health import health  # noqa: E402
from job import job  # noqa: E402
from reliability import reliability  # noqa: E402


def pages() -> dict[Path, str]:
    """The file of each dashboard and its text."""
    boards = {"fleet": fleet(), "reliability": reliability(), "job": job(), "exporter": health()}
    return {
        HERE / f"{name}.json": json.dumps(
            board, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False
        )
        + "\n"
        for name, board in boards.items()
    }


def main(arguments: Sequence[str]) -> int:
    """Write the dashboards, or check them; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if one is stale")
    check = parser.parse_args(arguments).check
    found = {
        path: text
        for path, text in pages().items()
        if not path.is_file() or path.read_bytes() != text.encode()
    }
    for path, text in found.items():
        if check:
            print(f"grafana/{path.name} is stale: run python grafana/build.py", file=sys.stderr)
        else:
            path.write_bytes(text.encode())
            print(f"grafana/{path.name} written")
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
