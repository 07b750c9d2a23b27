"""Random lives for as long as is wanted: `make soak`, or

``python tests/model_based/soak.py [seconds] [first seed] [steps of a life]``

Prints a line for every tenth life, and what was done at the end. Ends with 1 at the first failure,
which is shrunk first.
"""

import logging
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from model_based.steps import Told, config_of, explained, failure, steps_of

SAID_EVERY = 10


def main(seconds=600.0, first=1_000_000, length=250):
    logging.getLogger("exporter").setLevel(logging.ERROR)
    logging.getLogger("exporter").propagate = False
    began = time.monotonic()
    total, seed = Counter(), int(first)
    while (passed := time.monotonic() - began) < float(seconds):
        told = Told()
        config, steps = config_of(seed), steps_of(seed, int(length))
        if (error := failure(config, steps, told)) is not None:
            _say(explained(config, steps, error))
            return 1
        total += told.rig.counts
        total["steps"] += told.position
        total["requests"] += told.rig.wire.requests
        total["jobs nobody could see"] += told.rig.oracle.unseen()
        seed += 1
        if (seed - int(first)) % SAID_EVERY == 0:
            _say(f"seeds {first} to {seed - 1}: {total['steps']} steps in {passed:.0f} s")
    _say(f"no failure: seeds {first} to {seed - 1}")
    for name, count in sorted(total.items()):
        _say(f"  {name}: {count}")
    return 0


def _say(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
