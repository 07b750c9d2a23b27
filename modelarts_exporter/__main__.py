"""Entry point: the same as that of `exporter`."""

import sys

from exporter.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
