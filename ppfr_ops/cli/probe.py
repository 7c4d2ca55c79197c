"""``ppfr probe``: publish a photo under the key of a release."""

from pathlib import Path

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.console import console
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.keys import derive
from ppfr_ops.release.publish import owners_manifest, read_release
from ppfr_ops.sanitize.identity import release_key
from ppfr_ops.sanitize.prepare import owner_key, read_key
from ppfr_ops.sanitize.probe_account import BUDGET, ProbeAccount
from ppfr_ops.sanitize.probes import method_of, people_asked_for, probes
from ppfr_ops.sanitize.run_context import pseudonyms
from ppfr_ops.source.labels import label as label_of
from ppfr_ops.source.labels import spelled
from ppfr_ops.source.plan import plan, told_by
from ppfr_ops.source.units import Columns
from ppfr_ops.store.ledger import Ledger

EXAMPLES = """
\b
Examples:
  # under the release's own key, which its evidence/ holds
  ppfr probe protected/ --input wanted/ --out probes/
  # under the owner's key; in a release of virtual people a label says whose photos these are
  ppfr probe protected/ --identity-key-file key --label 'A. N.' --input wanted/ --out probes/

Probes are counted by person before they are made; over the budget none is.
Anyone who gets probes/ can search the release for the person, and does not see the photos.
Exit codes: 0 all published; 2 wrong usage or input; 3 some could not be.
"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("output")
@click.option(
    "--input", "source", required=True, help="File, folder or glob of aligned faces, 112x112."
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the published probes; they are numbered in the order of the input.",
)
@click.option(
    "--identity-key-file",
    metavar="FILE",
    help="The key that the release was made with.  [default: the one in OUTPUT/evidence]",
)
@click.option(
    "--label", help="Whose photos they are, as the identity column or folder of the input had it."
)
@click.option("--identity-column", help="Column of --input that says whose photo a row is.")
@click.option(
    "--identity-from",
    metavar="LEVEL|PATTERN",
    help="The same by the paths, as ppfr sanitize has it.",
)
@click.option("--labels", metavar="FILE", help="A table of labels, as ppfr sanitize has it.")
@click.option(
    "--load-method",
    metavar="MODULE:CLASS",
    help="A method of your own that made the release and may be run here; it is code.",
)
@click.option("--image-column", help="Column of the pictures, if it is not plain.")
@click.option(
    "--budget",
    type=click.IntRange(1),
    default=BUDGET,
    help="Photos of a person that may be published into this release's world, over all time; "
    "evidence/probes keeps count.",
)
def main(
    output: str,
    source: str,
    out: Path,
    identity_key_file: str | None,
    label: str | None,
    identity_column: str | None,
    identity_from: str | None,
    labels: str | None,
    load_method: str | None,
    image_column: str | None,
    budget: int,
) -> int:
    """Publish photos into the world of the release in OUTPUT, for the holder of its key.

    In a release of people who do not exist a photo matches nobody. A probe made with the release's
    key does, on any recogniser; made with another key it does not.
    """
    ledger = Ledger(output)
    told = read_release(ledger)
    if told is None:
        raise UserError("there is no release manifest in the output")
    if identity_key_file is not None:
        key = naming = owner_key(read_key(identity_key_file), seeded=False)
    elif (own := release_key(ledger)) is not None:
        key, naming = own, derive(own, "pseudonyms")
    else:
        raise UserError("the output holds no key of its own; give --identity-key-file")
    # Read as the release's own labels were: 1.0 is 1 in a column, and another one as a folder.
    by_paths = label is not None and owners_manifest(ledger).options.get("labelled_by_paths")
    whose = (spelled if by_paths else label_of)(label)
    if label is not None and whose is None:
        raise UserError("--label is empty, or of invisible characters")
    method = method_of(told.method, key, load_method)
    columns = told_by(Columns(image_column, identity_column), identity_from, labels)
    if method.needed_context() and whose is None and columns.identity is None:
        raise UserError("a release of virtual people: say whose photos these are, by --label")
    planned = plan(source, columns)
    encoding = Encoding(told.options.get("output_format", "jpeg"), told.options.get("quality", 95))
    asked = people_asked_for(planned, whose, pseudonyms(naming))
    ProbeAccount(output).charge(asked, budget)
    out.mkdir(parents=True, exist_ok=True)
    bad = 0
    for number, found in probes(method, planned, encoding, whose, pseudonyms(naming)):
        if isinstance(found, str):
            bad += 1
            console.print(f"probe {number}: {found}")
            continue
        (out / f"probe-{number:06d}{encoding.suffix}").write_bytes(found)
    console.print(f"{planned.rows - bad:,} probes in {out}", markup=False)
    return 3 if bad else 0
