"""Entry point: handle signals first, then import everything else."""

import os
import signal
import sys
from types import FrameType

_SERVICES = ("serve", "demo", "simulate")
_RELOADING = ("serve", "demo")


def main() -> int:
    """Run the command of the command line and return the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _exit)
    if _command() in _RELOADING:
        terminals = [number for number in range(3) if os.isatty(number)]
        signal.signal(signal.SIGHUP, lambda *_: _exit_without_terminal(terminals))
    try:
        from exporter.commands import main as cli  # noqa: PLC0415 - slow, and a signal may come

        return cli.main()
    finally:
        # The result is known. Python restores the default action of all other handlers when it
        # ends, which takes a moment, and the action is to kill the process.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)


def _command() -> str:
    return next((word for word in sys.argv[1:2] if not word.startswith("-")), "serve")


def _exit(_number: int, _frame: FrameType | None) -> None:
    """Exit with the code that `exporter.commands.main` would use; nothing is running yet."""
    os._exit(0 if _command() in _SERVICES else 130)


def _exit_without_terminal(terminals: list[int]) -> None:
    """A SIGHUP: the terminal was closed, or there is a new configuration, which is read anyway."""
    if terminals and not any(map(os.isatty, terminals)):
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
