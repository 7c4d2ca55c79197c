"""``ppfr certify``: how far published pictures can change before FR decides otherwise."""

from pathlib import Path
from typing import Any

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.options import options_of, validated
from ppfr_ops.cli.terminal import echo, log
from ppfr_ops.errors import UserError
from ppfr_ops.lab.certify.options import CertifyOptions

EXAMPLES = """
\b
Examples:
  # photos of a person match each other, and go on to, within a radius
  ppfr certify protected/ --fr robust=robust/surrogate.onnx --identity-column identity --sigma 0.25
  # a method that breaks recognition: nothing within the radius makes it match the original
  ppfr certify blurred/ --fr sface=sface.onnx --claim non-match --threshold 0.3 \\
      --originals faces/ --mapping owner/mapping.parquet
"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("output")
@click.option("--fr", required=True, metavar="NAME=PATH[,…]", help="FR model that decides.")
@click.option(
    "--identity-column",
    default="identity",
    help="Column of the release that says whose a picture is.",
)
@click.option(
    "--enrol",
    metavar="NAME=PATH",
    help="FR model by which clean pictures are enrolled, whose templates are comparable with those "
    "of --fr: enrolment.ts.pt of ppfr distill --noise. Without: --fr, on noisy copies.",
)
@click.option("--originals", help="Hold records against the photos they were made of; Parquet.")
@click.option("--mapping", type=click.Path(exists=True), help="The owner's, of --originals.")
@options_of(CertifyOptions)
@click.option("--threads", type=click.IntRange(1), default=1)
def main(
    output: str,
    fr: str,
    identity_column: str,
    enrol: str | None,
    originals: str | None,
    mapping: str | None,
    threads: int,
    **values: Any,
) -> int:
    """Prove, record by record, how far a published picture can be disturbed before the decision of
    an FR model changes: randomized smoothing (Cohen et al. 2019).

    Certificates go to OUTPUT/evidence/certificates/; ppfr report shows them. A network that was
    trained under noise (ppfr distill --noise) is certified far wider than one that was not.
    """
    import numpy as np
    import torch

    from ppfr_ops.lab.certify.certifying import Certifier
    from ppfr_ops.recognizers import Recognizer, RecognizerSpec
    from ppfr_ops.release.certificates import FOLDER, in_words

    torch.set_num_threads(threads)
    options = validated(CertifyOptions, values)
    model = Recognizer(RecognizerSpec.parse(fr), threads)
    subject = _subject(output, identity_column, originals, mapping, options.records)
    folder = Path(output) / "evidence" / FOLDER / f"{model.name}-{options.claim}"
    rng = np.random.default_rng()  # seeded by the operating system
    enrolment = None if enrol is None else Recognizer(RecognizerSpec.parse(enrol), threads)
    document = Certifier(model, options, subject, folder, rng, log, enrolment).run()
    for line in in_words(document):
        echo(line)
    log(f"{document.seconds_per_record:.3f} s a record: {folder.name}/ in the evidence")
    return 0


def _subject(
    output: str, column: str, originals: str | None, mapping: str | None, records: int | None
) -> Any:
    import numpy as np

    from ppfr_ops.lab.certify.certifying import Subject
    from ppfr_ops.lab.evaluate.data import evenly, places_of, read_faces, read_released

    release = Path(output) / "release"
    if not release.is_dir():
        raise UserError(f"{Path(output).name} is no output of ppfr sanitize: it has no release/")
    ids, faces, people = read_released(str(release / "data"), column)
    places = np.arange(len(ids))
    gallery = None
    if originals is not None:
        gallery = read_faces(originals, "originals")
        places = places_of(ids, mapping, gallery, log)
        who = gallery.identities
        people = [None if who is None or place < 0 else who[place] for place in places]
    chosen = np.array(evenly(len(ids), records or len(ids)))
    kept = chosen[places[chosen] >= 0]
    return Subject(
        [ids[i] for i in kept],
        faces[kept],
        [people[i] for i in kept],
        None if gallery is None else gallery.images[places[kept]],
        len(chosen) - len(kept),
    )
