"""``python -m ppfr_ops.cli``."""

from ppfr_ops.cli import main

main()
