"""Job script: sanitize a dataset on Apache Beam, as ``ppfr sanitize-beam`` does."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # a checkout need not be installed

from ppfr_ops.cli import run
from ppfr_ops.cli.sanitize_beam import main

if __name__ == "__main__":
    run(main)
