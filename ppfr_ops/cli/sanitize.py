"""``ppfr sanitize``: sanitize a face dataset, on this machine or on Ray Data."""

from typing import Any

import click

from ppfr_ops.cli.options import Grouped, collect, options_of, sanitize_options
from ppfr_ops.engines.local import do_without_pandas, needed, nursery
from ppfr_ops.engines.options import EngineOptions
from ppfr_ops.sanitize.photographs.covering import with_cover, with_metrics

EXAMPLES = """
\b
Examples:
  # the embedded sample
  ppfr sample faces/ && ppfr sanitize --input faces/ --output shared/
  # a Hugging Face dataset, measured with two FR models, identities as pseudonyms
  (umask 077; openssl rand -hex 32 > key)
  ppfr sanitize --input 'data/*.parquet' --output shared/ \\
      --fr dlib=dlib.onnx --fr r50=r50.onnx,convention=arcface,channels=bgr \\
      --identity-column identity --identity-key-file key --keep-column age
  # a tree of aligned crops, one folder a person, stronger method
  ppfr sanitize --input crops/ --output shared/ --identity-column folder \\
      --identity-key-file key --method signed-field --method-option grid=14
  # photographs: every head covered in place, and a list of those that a person should look at
  ppfr sanitize --input photos/ --output shared/ --faces detect --output-faces in-place \\
      --background blur --review-out owner/queue.csv
  # a dataset in object storage that grows, every night; what was deleted there is taken back
  ppfr sanitize --input s3://faces/in --output s3://faces/out --identity-key-file key \\
      --incremental --propagate-deletions
  # what would happen, on a sample, without writing anything
  ppfr sanitize --input tars/ --output shared/ --dry-run

Interrupted or killed? Run the same command again: it resumes.
Exit codes: 0 finished; 1 failed, go on with the same command; 2 wrong usage or input;
3 finished, but with more dead letters than allowed, or short of the policy.
"""


@click.command(cls=Grouped, epilog=EXAMPLES)
@sanitize_options
@options_of(EngineOptions)
def main(dry_run: bool, as_json: bool, **values: Any) -> int:
    """Turn a dataset of aligned faces, or of photographs, into one that can be shared.

    OUTPUT/release is for others: pictures, and a manifest that can be signed. OUTPUT/evidence is
    for you alone: what was measured on every record, dead letters, and the ledger of what is done.
    """
    chosen = EngineOptions(**{name: values.pop(name) for name in EngineOptions.model_fields})
    options = collect(values)
    do_without_pandas()
    if chosen.chosen == "local" and not dry_run:
        # It imports what a worker needs while we do.
        whole = with_metrics(with_cover(options))
        nursery.start(needed(whole.method, whole.metrics))
    from ppfr_ops.cli.console import show
    from ppfr_ops.engines.running import run

    return show(lambda tell: run(options, chosen, listener=tell, dry_run=dry_run), as_json)
