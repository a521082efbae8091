"""``python -m idemfs`` is ``idemfs`` where the script is not installed."""

from __future__ import annotations

import sys

from idemfs.cli.main import entry

if __name__ == "__main__":
    sys.exit(entry())
