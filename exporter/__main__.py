"""Entry point: handle signals first, then import everything else."""

import os
import signal
import sys
from types import FrameType

_SERVICES = ("serve", "demo", "simulate")


def main() -> int:
    """Run the command of the command line and return the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _exit)
    from exporter.commands import main as cli  # noqa: PLC0415 - slow, and a signal may come

    return cli.main()


def _exit(_number: int, _frame: FrameType | None) -> None:
    """Exit with the code that `exporter.commands.main` would use; nothing is running yet."""
    command = next((word for word in sys.argv[1:2] if not word.startswith("-")), "serve")
    os._exit(0 if command in _SERVICES else 130)


if __name__ == "__main__":
    sys.exit(main())
