"""``ppfr lineup``: a blind test of whether people recognise people in what is published."""

from pathlib import Path
from typing import Any, Literal

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.options import key_values
from ppfr_ops.cli.terminal import echo, log
from ppfr_ops.errors import UserError

EXAMPLES = """
\b
Examples:
  # 100 trials, five candidates each, of what ppfr sanitize wrote
  ppfr lineup make --gallery originals/ --sanitized out/ --mapping owner/mapping.parquet \\
      --trials 100 --out evidence/lineup
  # open evidence/lineup/lineup.html (or sheets/*.png), choose, save the answers
  ppfr lineup score evidence/lineup --given given.txt --viewer "viewer 1"
  # the same viewer on originals, to know how good they are
  ppfr lineup make --gallery originals/ --originals --trials 20 --out evidence/lineup-originals
"""


@click.group(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Show a published picture and several photographs, one of them another photo of the person:
    does a viewer find the person?

    The page and the sheets hold originals: they are the owner's and belong to the evidence.
    """


@main.command(cls=Command)
@click.option("--gallery", required=True, help="Original faces with identity, Parquet.")
@click.option("--method", help="Publish with this method, under a key that is forgotten.")
@click.option(
    "--method-option", "method_options", multiple=True, metavar="KEY=VALUE", help="Repeatable."
)
@click.option("--sanitized", type=click.Path(exists=True), help="What ppfr sanitize wrote.")
@click.option("--mapping", type=click.Path(exists=True), help="The owner's mapping of it.")
@click.option("--originals", is_flag=True, help="Show originals, to learn what the viewer can do.")
@click.option("--trials", type=click.IntRange(1), default=100)
@click.option("--candidates", type=click.IntRange(2, 20), default=5)
@click.option("--seed", type=int, help="For tests; by default nobody can repeat the choice.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder; must not exist."
)
def make(**options: Any) -> None:
    """Write the test: a page, contact sheets, and the answers apart from both."""
    import secrets

    from ppfr_ops.contracts.lineup import Answers
    from ppfr_ops.lab.evaluate.data import read_faces
    from ppfr_ops.lab.evaluate.lineup import alike, draw_trials, page, sheets
    from ppfr_ops.lab.evaluate.run import write_text
    from ppfr_ops.lab.evaluate.streams import stream

    chosen = [name for name in ("method", "sanitized", "originals") if options[name]]
    if len(chosen) != 1:
        raise UserError("give one of --method, --sanitized and --originals")
    out: Path = options["out"]
    if out.exists():
        raise UserError(f"{out} exists; choose another --out")
    seed = secrets.randbits(63) if options["seed"] is None else options["seed"]
    gallery = read_faces(options["gallery"], "gallery")
    publish, gallery = _publisher(options, gallery, seed)
    trials = draw_trials(
        gallery, options["trials"], options["candidates"], stream(seed, "line-up: trials")
    )
    shown = publish([trial.probe for trial in trials])
    kind: Literal["published", "original"] = "original" if options["originals"] else "published"
    answers = Answers(
        candidates=options["candidates"],
        shown=kind,
        method=options["method"],
        alike=alike(gallery),
        answers=[trial.answer + 1 for trial in trials],
    )
    out.mkdir(parents=True, mode=0o700)
    (out / "sheets").mkdir()
    write_text(out / "lineup.html", page(trials, shown, gallery.images, kind))
    for number, sheet in enumerate(sheets(trials, shown, gallery.images), 1):
        sheet.save(out / "sheets" / f"sheet-{number:02d}.png")
    write_text(out / "answers.json", answers.model_dump_json(indent=1) + "\n")
    echo(
        f"{len(trials)} trials of {options['candidates']} candidates in {out}; the page and the "
        "sheets hold originals, answers.json tells who is who: keep all of it to yourself",
        err=True,
    )


def _publisher(options: dict[str, Any], gallery: Any, seed: int) -> tuple[Any, Any]:
    """What shows a photo of the gallery by its index, and the faces that there are pictures of."""
    import secrets

    import numpy as np

    from ppfr_ops.lab.evaluate.data import read_sanitized
    from ppfr_ops.lab.evaluate.publishing import Publisher
    from ppfr_ops.lab.evaluate.streams import key, stream
    from ppfr_ops.methods.registry import create

    if options["originals"]:
        return lambda rows: gallery.images[rows], gallery
    if options["sanitized"]:
        published, there = read_sanitized(options["sanitized"], options["mapping"], gallery, log)
        published, gallery = published[there], gallery.keep(there)
        return lambda rows: published[rows], gallery
    try:
        pairs = key_values("--method-option", "KEY=VALUE", options["method_options"])
        method = Publisher(create(options["method"], pairs))
    except (ValueError, OSError) as error:
        raise UserError(" ".join(str(error).split())) from None
    forgotten = key(seed, "line-up") if options["seed"] is not None else secrets.token_bytes(32)
    release = method.under(forgotten)

    def publish(rows: list[int]) -> Any:
        labels = [gallery.identities[i] for i in rows]
        return release.publish(
            gallery.images[np.array(rows)], stream(seed, "line-up: published"), labels
        )

    return publish, gallery


@main.command(cls=Command)
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--given",
    required=True,
    type=click.Path(exists=True, path_type=Path),
    help="The viewer's answers: numbers in the order of the trials, - for none.",
)
@click.option("--viewer", default="a viewer", help="Who looked; no real name.")
def score(folder: Path, given: Path, viewer: str) -> None:
    """Compare a viewer's answers with the truth; writes result.json beside it."""
    from pydantic import ValidationError

    from ppfr_ops.contracts.lineup import Answers
    from ppfr_ops.lab.evaluate.lineup import parse
    from ppfr_ops.lab.evaluate.lineup import score as scored
    from ppfr_ops.lab.evaluate.run import write_text

    try:
        answers = Answers.model_validate_json((folder / "answers.json").read_text())
    except (OSError, ValidationError):
        raise UserError(f"{folder}: no answers.json of a line-up") from None
    found = scored(answers, parse(given.read_text()), viewer)
    write_text(folder / "result.json", found.model_dump_json(indent=1) + "\n")
    echo(
        f"{found.viewer}: found {found.found} of {found.trials} ({found.rate:.2f}, 95 % interval "
        f"{found.low:.2f} to {found.high:.2f}); chance {found.chance:.2f}, p = {found.p_value:.3g}"
    )
