"""Job script: check an output, as ``ppfr verify`` does."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # a checkout need not be installed

from ppfr_ops.cli import run
from ppfr_ops.cli.verify import main

if __name__ == "__main__":
    run(main)
