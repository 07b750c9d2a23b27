"""Start: signals are heard from the first moment on, then all the rest is loaded."""

import os
import signal
import sys
from types import FrameType

_LASTING = ("serve", "demo", "simulate")


def main() -> int:
    """Run the command that the command line names; the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    from exporter.commands import main as cli  # noqa: PLC0415 - takes a moment, in which a signal may come

    return cli.main()


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Nothing has begun: to end is all there is to do, as `exporter.commands.main` would."""
    command = next((word for word in sys.argv[1:2] if not word.startswith("-")), "serve")
    os._exit(0 if command in _LASTING else 130)


if __name__ == "__main__":
    sys.exit(main())
