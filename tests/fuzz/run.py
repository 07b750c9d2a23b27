"""Mutated answers and requests for as long as is wanted: `make fuzz`, or

``python tests/fuzz/run.py [seconds] [first number] [most answers]``

Ends with 1 at the first case that goes wrong, and prints its number: the same number is the same
case again.
"""

import asyncio
import itertools
import logging
import resource
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from fuzz.answers import Answers
from fuzz.requests import Requests

MOST_MEGABYTES = 500
_SHARE_OF_ANSWERS = 0.8
_REQUESTS_PER_ANSWER = 1 / _SHARE_OF_ANSWERS - 1
"""In seconds."""


def main(seconds=60.0, first=1, most=float("inf")):
    logging.getLogger("exporter").addHandler(logging.NullHandler())
    logging.getLogger("exporter").propagate = False
    began = time.monotonic()
    answers, requests = Answers(), Requests()
    number = first = int(first)
    until = began + float(seconds) * _SHARE_OF_ANSWERS
    while time.monotonic() < until and number - first < float(most):
        try:
            answers.run(number)
        except Exception:  # noqa: BLE001 - that is what it looks for
            _say(f"answer {number}:\n{traceback.format_exc()}")
            return 1
        number += 1
    _say(f"{number - first} mutated answers in {time.monotonic() - began:.0f} s")
    _show(answers.counts)

    until = time.monotonic() + (time.monotonic() - began) * _REQUESTS_PER_ANSWER
    numbers = itertools.takewhile(lambda _: time.monotonic() < until, itertools.count(first))
    asyncio.run(requests.run(numbers))
    _say(f"{requests.counts.total()} mutated requests")
    _show(requests.counts)

    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    _say(f"peak memory {megabytes:.0f} MB")
    return int(megabytes > MOST_MEGABYTES)


def _show(counts):
    for name, count in sorted(counts.items()):
        _say(f"  {name}: {count}")


def _say(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
