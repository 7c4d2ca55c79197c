# /// script
# requires-python = ">=3.11,<3.13"
# dependencies = ["ppfr-sanitizer", "huggingface_hub>=1"]
# ///
"""Sanitize a dataset of the Hugging Face Hub, as one file: here, on any machine, or every night.

    uv run examples/hub_job.py --input hf://datasets/OWNER/FACES/data --output protected/ \\
        --identity-column identity
    hf jobs scheduled uv run @daily examples/hub_job.py --input … --output hf://buckets/OWNER/safe

Where there is no uv: pip install ppfr-sanitizer huggingface_hub, and python instead of uv run. All
options of ``ppfr sanitize`` are taken; the last line on stdout is JSON for whatever called it.
"""

import json
import sys

from ppfr_ops.cli.options import collect
from ppfr_ops.cli.sanitize import main as sanitize
from ppfr_ops.engines.options import EngineOptions
from ppfr_ops.engines.running import run


def main() -> int:
    with sanitize.make_context("hub_job", sys.argv[1:]) as context:
        values = dict(context.params)
    dry_run = values.pop("dry_run")
    values.pop("as_json")
    engine = EngineOptions(**{name: values.pop(name) for name in EngineOptions.model_fields})
    result = run(collect(values), engine, dry_run=dry_run)
    counts = result.counts
    told = {"exit_code": result.exit_code, "release": result.release, "problems": result.problems}
    if counts is not None:
        told |= {"records": counts.records, "dead_letters": counts.dead_letters}
    print(json.dumps(told))
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
