"""Writes the dashboards in grafana/; with --check, verifies that they are up to date."""

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent

# Grafana imports and provisions this schema; the SDK warns on import about the newer one.
warnings.filterwarnings("ignore", "Prefer using dashboardv2", DeprecationWarning)
sys.path.insert(0, str(HERE))  # not added if PYTHONSAFEPATH is set

from fleet import fleet  # noqa: E402
from grafana_foundation_sdk.cog.encoder import JSONEncoder  # noqa: E402
from health import health  # noqa: E402
from job import job  # noqa: E402
from reliability import reliability  # noqa: E402


def dashboards() -> dict[Path, str]:
    """The path and content of each dashboard file."""
    boards = {"fleet": fleet(), "reliability": reliability(), "job": job(), "exporter": health()}
    return {
        HERE / f"{name}.json": json.dumps(
            board, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False
        )
        + "\n"
        for name, board in boards.items()
    }


def main(arguments: Sequence[str]) -> int:
    """Write or check the dashboards; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if a file is outdated"
    )
    check = parser.parse_args(arguments).check
    found = {
        path: text
        for path, text in dashboards().items()
        if not path.is_file() or path.read_bytes() != text.encode()
    }
    for path, text in found.items():
        if check:
            print(f"grafana/{path.name} is outdated: run python grafana/build.py", file=sys.stderr)
        else:
            path.write_bytes(text.encode())
            print(f"grafana/{path.name} written")
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
