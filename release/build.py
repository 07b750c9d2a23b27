"""Build what a release consists of, from the last commit: wheel, sdist, chart and checksums.

Two builds of a commit are equal byte for byte, if Python and zlib are the same: times are that of
the commit, and the work tree, its file modes and its path play no role.
"""

import argparse
import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHART = "deploy/helm/modelarts-exporter"


def git(repository: Path, *arguments: str) -> bytes:
    """The output of a git command. The owner of the repository may be another user."""
    command = ["git", "-c", "safe.directory=*", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def export(repository: Path, folder: Path) -> None:
    """Write the files of the last commit, with its name in exporter/__init__.py."""
    # By tar, because tarfile of Python 3.11.2 (Debian 12) has no filter="data".
    archive = git(repository, "archive", "HEAD")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)


def build_packages(source: Path, destination: Path, time: int) -> None:
    """Build wheel and sdist."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel"]
    environ = os.environ | {"SOURCE_DATE_EPOCH": str(time)}
    subprocess.run([*command, "-d", str(destination)], cwd=source, env=environ, check=True)


def chart_files(folder: Path) -> Iterator[Path]:
    """The files that belong to the chart, as `helm package` has them."""
    lines = (folder / ".helmignore").read_text().split()
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(
            fnmatch(part, line.rstrip("/")) for part in parts for line in lines
        ):
            yield path


def build_chart(folder: Path, destination: Path, version: str, time: int) -> None:
    """Pack the chart. `helm package` would write the current time."""
    packed = destination / f"{folder.name}-{version}.tgz"
    with (
        packed.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=time) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in chart_files(folder):
            content = path.read_bytes()  # of the linked file, if it is a link
            entry = tarfile.TarInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}")
            entry.size, entry.mtime, entry.mode = len(content), time, 0o644
            archive.addfile(entry, io.BytesIO(content))


def write_checksums(destination: Path) -> None:
    """Write SHA256SUMS, for `sha256sum --check`."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(destination.iterdir())
    ]
    (destination / "SHA256SUMS").write_text("".join(lines))


def build(repository: Path, destination: Path) -> None:
    """Build everything into an empty folder."""
    time = int(git(repository, "log", "-1", "--format=%ct"))
    with tempfile.TemporaryDirectory() as name:
        source = Path(name).resolve()
        export(repository, source)
        build_packages(source, destination, time)
        (wheel,) = destination.glob("*.whl")
        build_chart(source / CHART, destination, wheel.name.split("-")[1], time)
    write_checksums(destination)


def main(arguments: Sequence[str]) -> int:
    """Build, and list what was built. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--repository", type=Path, default=ROOT, help="default: this checkout")
    parser.add_argument("destination", type=Path, help="a folder that is empty or does not exist")
    options = parser.parse_args(arguments)
    options.destination.mkdir(parents=True, exist_ok=True)
    if any(options.destination.iterdir()):
        parser.error(f"{options.destination} is not empty")
    if git(options.repository, "status", "--porcelain"):
        print("Uncommitted changes are not part of the release.", file=sys.stderr)
    build(options.repository, options.destination.resolve())
    print((options.destination / "SHA256SUMS").read_text(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
