"""``ppfr intruder``: the motivated intruder's test, with its record."""

from typing import Any

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.terminal import echo, log
from ppfr_ops.errors import UserError

EXAMPLES = """
\b
Examples:
  # the most that an intruder can have: the input itself; the mapping counts the right names
  ppfr intruder protected/ --candidates 'faces/' --mapping owner/mapping.parquet \\
      --fr dlib=dlib.onnx --fr sface=sface.onnx
  # photos of likely people, without knowing who is in the release
  ppfr intruder protected/ --candidates staff.parquet --fr sface=sface.onnx
"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("output")
@click.option(
    "--candidates",
    required=True,
    type=click.Path(exists=True),
    help="Photos of people with names: aligned faces, Parquet.",
)
@click.option("--identity-column", default="identity", help="Of the candidates: names.")
@click.option(
    "--mapping",
    type=click.Path(exists=True),
    help="The owner's mapping, where the candidates are the input: counts the right names.",
)
@click.option(
    "--fr", multiple=True, metavar="NAME=PATH", help="An FR model of the intruder's; repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="The record as a JSON document.")
def main(output: str, as_json: bool, **options: Any) -> int:
    """Name people in the release of OUTPUT as somebody would who has the release alone, photos with
    names, and FR models: by the structure of the set, and by the pictures.

    Writes evidence/intruder.json, which ppfr report puts into the annex to the impact assessment.
    For the line-up sheet, which a person looks at: ppfr lineup. Exit codes: 0 done, 2 wrong input.
    """
    from ppfr_ops.lab.evaluate.intruder import intrude
    from ppfr_ops.recognizers import Recognizer, RecognizerSpec
    from ppfr_ops.store.folder import EVIDENCE, RELEASE, Folder

    folder = Folder(output)
    if not folder.exists(RELEASE, "manifest.json"):
        raise UserError("no release/manifest.json: not an output, or its run has not finished")
    models = [Recognizer(RecognizerSpec.parse(text)) for text in options["fr"]]
    record = intrude(
        output, options["candidates"], models, options["mapping"], options["identity_column"], log
    )
    folder.put((record.model_dump_json(indent=1) + "\n").encode(), EVIDENCE, "intruder.json")
    echo(record.model_dump_json(indent=1) if as_json else record.in_words)
    return 0
