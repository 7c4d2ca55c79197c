"""``ppfr evaluate``: the whole protocol on one method or one sanitized dataset."""

import os

# Waiting threads must not spin: on a shared machine that costs several times the work itself.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import time
from pathlib import Path
from typing import Any

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.options import key_values
from ppfr_ops.cli.terminal import echo, log
from ppfr_ops.errors import UserError

EXAMPLES = """
\b
Examples:
  # a first look, in minutes
  ppfr evaluate --method signed-field --quick \\
      --gallery lfw_aligned --pairs lfw_pairs.parquet --attack-faces utk_aligned \\
      --fr dlib=dlib.onnx --fr mobileface=mobileface.onnx --black-box faceres=faceres.onnx \\
      --out eval/signed-field
  # the real thing, other options of the method; stop it and start it again as you like
  ppfr evaluate --method highpass --method-option sigma=4 --full … --out eval/highpass-4
  # what ppfr sanitize wrote; with --method too, so that attackers can train
  ppfr evaluate --sanitized out/ --mapping owner/mapping.parquet --gallery originals/ \\
      --pairs pairs.parquet … --out eval/mine
  # who is named by what a release shows besides its pictures?
  ppfr evaluate --stages structure --release out/ --source originals/ \\
      --mapping owner/mapping.parquet --out eval/structure
  # fail (exit code 3) unless it is good enough
  ppfr evaluate … --require 'rec_ssim<=0.55' --require 'black_box_accuracy>=0.9'
"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.option("--method", help="Name of the anonymizer.")
@click.option(
    "--method-option", "method_options", multiple=True, metavar="KEY=VALUE", help="Repeatable."
)
@click.option(
    "--sanitized",
    type=click.Path(exists=True),
    help="Sanitized faces instead of (or, with --method, beside) a method; Parquet.",
)
@click.option(
    "--mapping",
    type=click.Path(exists=True),
    help="The owner's mapping of --sanitized or --release (ppfr sanitize --mapping): "
    "which record is which face.",
)
@click.option("--gallery", help="Original faces with pairs, Parquet; only measured.")
@click.option("--pairs", "pairs_path", help="Parquet: a, b, same, fold.")
@click.option(
    "--release",
    type=click.Path(exists=True),
    help="A release for the stage structure, with --source: who is named by what the set tells? "
    "With --stages structure nothing else is needed; --mapping says how many are named rightly.",
)
@click.option(
    "--source",
    type=click.Path(exists=True),
    help="What --release was made of, with labels and the kept columns; Parquet.",
)
@click.option(
    "--earlier",
    type=(click.Path(exists=True), click.Path(exists=True)),
    multiple=True,
    metavar="RELEASE SOURCE",
    help="An earlier version of --release, and what it was made of: the attacker has all of them. "
    "Repeatable, oldest first.",
)
@click.option(
    "--source-identity", default="identity", help="Column of --source that says who is in a row."
)
@click.option(
    "--structure-pictures",
    is_flag=True,
    help="In the stage structure look at templates of the published pictures, too; slow.",
)
@click.option("--attack-faces", help="Faces of other people that the attackers train on, Parquet.")
@click.option(
    "--fr",
    "surrogates",
    multiple=True,
    metavar="NAME=PATH[,…]",
    help="FR model that had a part in training. Repeatable. Options: convention=arcface, "
    "channels=bgr.",
)
@click.option(
    "--black-box",
    "black_boxes",
    multiple=True,
    metavar="NAME=PATH[,…]",
    help="FR model that had none; the headline is their mean. Repeatable.",
)
@click.option(
    "--identities",
    help="Photos of other people with a column identity, Parquet: what the release is worth to "
    "anyone who trains on it.",
)
@click.option("--stages", help="Comma-separated, of those that --dry-run names; default: all.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for results.")
@click.option("--quick", "mode", flag_value="quick", help="Minutes: fewer pairs, a short attack.")
@click.option("--full", "mode", flag_value="full", default=True, help="Everything (default).")
@click.option(
    "--attacks",
    help="Comma-separated: unet, residual, templates, averaging, fixed, leaked; or none.",
)
@click.option("--attack-steps", type=click.IntRange(1), help="Steps of the main attackers.")
@click.option("--side-steps", type=click.IntRange(1), help="Of averaging, fixed and leaked.")
@click.option("--attack-seconds", type=float, help="Wall clock of each attacker, at most.")
@click.option("--test-faces", type=click.IntRange(2), help="Gallery faces the attack is tested on.")
@click.option("--averaging-faces", type=click.IntRange(64), help="Training faces of averaging.")
@click.option("--pairs-per-fold", type=click.IntRange(2), help="Only the first of every fold.")
@click.option(
    "--setting",
    "sizes",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any other size of ppfr_ops.lab.evaluate.settings, such as linker_pairs=5000. Repeatable.",
)
@click.option("--format", "image_format", default="jpeg", help="jpeg, png or webp.")
@click.option("--quality", default=95, help="JPEG quality.")
@click.option("--seed", default=0, help="Of draws, attackers and samples.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="Keep templates here between runs. They are biometric data: a place of your own.",
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads; default: all.")
@click.option(
    "--show-faces", is_flag=True, help="Also grids of faces: original, published, recovered."
)
@click.option("--label", help="Name in tables and plots; default: method and options.")
@click.option("--require", "requirements", multiple=True, metavar="NAME<=VALUE", help="Or exit 3.")
@click.option("--force", is_flag=True, help="Start over where --out holds another evaluation.")
@click.option("--dry-run", is_flag=True, help="Check the input, say what would be done, stop.")
@click.pass_context
def main(context: click.Context, **options: Any) -> None:
    """Measure what is published: does recognition still work, what does a person see, what does an
    attacker get back?

    Writes evaluation.json, tables as Parquet and plots to --out. Exit codes: 0 done, 2 wrong
    input, 3 done but a requirement was missed.
    """

    context.exit(_run(**options))


_COMPARE = {"<=": lambda a, b: a <= b, ">=": lambda a, b: a >= b}


def _requirement(text: str) -> tuple[str, str, float]:
    from ppfr_ops.contracts.evaluation import Headline

    for sign in _COMPARE:
        name, found, value = text.partition(sign)
        if found:
            known = [key for key in Headline.model_fields if not key.startswith("fr_")]
            if name.strip() not in known:
                raise UserError(f"--require {text}: there are {', '.join(known)}")
            try:
                return name.strip(), sign, float(value)
            except ValueError:
                break
    raise UserError(f"--require {text}: expected NAME<=VALUE or NAME>=VALUE")


def _models(
    surrogates: tuple[str, ...], black_boxes: tuple[str, ...], threads: int
) -> dict[str, Any]:
    import numpy as np

    from ppfr_ops.recognizers import Recognizer, RecognizerSpec, refuse_marked

    models: dict[str, Any] = {}
    for role, texts in (("surrogate", surrogates), ("black_box", black_boxes)):
        for text in texts:
            try:
                spec = RecognizerSpec.parse(text)
                if spec.name in models:
                    raise UserError(f"FR model {spec.name!r} is given twice")
                model = Recognizer(spec, threads)
                if role == "black_box":
                    refuse_marked(spec, "void as --black-box; it may be an --fr")
                rng = np.random.default_rng(0)
                model.embed(rng.integers(0, 256, (2, 112, 112, 3), dtype=np.uint8))
            except UserError:
                raise
            except (ValueError, FileNotFoundError) as error:
                raise UserError(" ".join(str(error).split())) from None
            except Exception:
                raise UserError(
                    f"FR model {text.partition('=')[0]!r} cannot take N x 3 x 112 x 112 faces"
                ) from None
            models[spec.name] = (model, role)
    if not models:
        raise UserError("no FR model: give --fr NAME=PATH or --black-box NAME=PATH")
    return models


def _publisher(options: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    """The method, if there is one, and its options as they were given."""
    from ppfr_ops.imaging.codec import Encoding
    from ppfr_ops.lab.evaluate.publishing import Publisher
    from ppfr_ops.methods.registry import create

    if not options["method"] and not options["sanitized"]:
        raise UserError("give --method NAME or --sanitized DIR")
    if options["method_options"] and not options["method"]:
        raise UserError("--method-option needs --method")
    given = key_values("--method-option", "KEY=VALUE", options["method_options"])
    try:
        encoding = Encoding(options["image_format"], options["quality"])
        if not options["method"]:
            return None, given
        return Publisher(create(options["method"], given), encoding), given
    except UserError:
        raise
    except (ValueError, OSError) as error:
        raise UserError(" ".join(str(error).split())) from None


def _attacked(options: dict[str, Any]) -> Any:
    """What the stage ``structure`` is to look at; None: nothing."""
    from ppfr_ops.lab.evaluate.structure import Attacked

    if not options["release"]:
        return None
    if not options["source"]:
        raise UserError("--release needs --source")
    return Attacked(
        options["release"],
        options["source"],
        options["mapping"],
        options["source_identity"],
        options["structure_pictures"],
        tuple(options["earlier"]),
    )


def _prepare(options: dict[str, Any], settings: Any, publisher: Any, threads: int) -> Any:
    """Read what is to be judged."""
    from ppfr_ops.lab.evaluate.data import read_faces, read_pairs, read_sanitized
    from ppfr_ops.lab.evaluate.run import Run
    from ppfr_ops.lab.evaluate.templates import EmbeddingCache

    gallery = read_faces(options["gallery"], "gallery")
    pairs = read_pairs(options["pairs_path"], gallery)
    published = None
    if options["sanitized"]:
        published, there = read_sanitized(options["sanitized"], options["mapping"], gallery, log)
        if not there.all():
            log(f"{(~there).sum()} of {len(gallery)} faces were not published: left out")
            published, gallery, pairs = published[there], gallery.keep(there), pairs.keep(there)
    attack_faces = identities = None
    if options["attack_faces"]:
        attack_faces = read_faces(options["attack_faces"], "attack faces")
        if len(attack_faces) < 10 * settings.batch:
            raise UserError(
                f"attack faces: {len(attack_faces)}, needed: {10 * settings.batch} at least"
            )
    if options["identities"]:
        identities = read_faces(options["identities"], "identities")
        if identities.identities is None:
            raise UserError("identities: no column identity")
    return Run(
        gallery,
        pairs,
        _models(options["surrogates"], options["black_boxes"], threads),
        attack_faces,
        publisher,
        published,
        settings,
        options["out"],
        EmbeddingCache(options["cache"], log),
        log,
        options["show_faces"],
        identities,
        attacked=_attacked(options),
    )


def _stages(text: str | None) -> list[str] | None:
    from ppfr_ops.lab.evaluate.stages import stages

    if text is None:
        return None
    wanted, known = [name for name in text.split(",") if name], stages()
    for name in wanted:
        if name not in known:
            raise UserError(f"unknown stage {name!r}; there are: {', '.join(known)}")
    return wanted


def _plan(run: Any, label: str, wanted: list[str] | None) -> None:
    """Say what would be measured."""
    from ppfr_ops.lab.evaluate.stages import Skip, stages
    from ppfr_ops.lab.evaluate.stages.recovery import chosen

    log(f"{label}: would measure {len(run.pairs.a)} pairs with {', '.join(run.names)}")
    for name, stage in stages().items():
        if wanted is None or name in wanted:
            log(f"  {name}: {stage.about}")
    try:
        for attacker in chosen(run):
            log(f"  attack {attacker.name}")
    except Skip as reason:
        log(f"  not recovery: {reason}")


def _run(**options: Any) -> int:
    import torch

    from ppfr_ops.lab.evaluate.evaluation import alone, claim, evaluate, facts, withdraw
    from ppfr_ops.lab.evaluate.plots import draw_all
    from ppfr_ops.lab.evaluate.settings import settings_of
    from ppfr_ops.memory import keep_freed_memory

    started = time.monotonic()
    keep_freed_memory()
    threads = options["threads"] or os.cpu_count() or 1
    torch.set_num_threads(threads)
    settings, mode = settings_of(options["mode"], options)
    requirements = [_requirement(text) for text in options["requirements"]]
    wanted = _stages(options["stages"])
    if options["release"] and wanted == ["structure"]:
        document = alone(_attacked(options), options["label"], log)
        return _written(document, options["out"], requirements, started)
    for name in ("gallery", "pairs_path"):
        if not options[name]:
            raise UserError(f"give --{name.removesuffix('_path')}")
    publisher, given = _publisher(options)
    run = _prepare(options, settings, publisher, threads)
    label = options["label"] or " ".join(
        [options["method"] or "sanitized", *(f"{k}={v}" for k, v in given.items())]
    )
    if options["dry_run"]:
        _plan(run, label, wanted)
        return 0
    out: Path = options["out"]
    known = facts(run, f"{options['image_format']} {options['quality']}")
    claim(out, known, options["force"])
    try:
        document = evaluate(run, label, known, mode, wanted)
    except UserError:
        withdraw(out)
        raise
    draw_all(document.model_dump(), out)
    return _written(document, out, requirements, started)


def _written(document: Any, out: Path, requirements: list[Any], started: float) -> int:
    """Write the document, say what is in it, and hold it against what is required."""
    from ppfr_ops.lab.evaluate.run import write_text
    from ppfr_ops.lab.evaluate.summary import summary

    write_text(out / "evaluation.json", document.model_dump_json(indent=2) + "\n")
    for line in summary(document):
        echo(line)
    log(f"done in {time.monotonic() - started:.0f} s: {out / 'evaluation.json'}")
    missed = [
        f"{name} is {value if value is None else round(value, 4)}, required {sign} {bound:g}"
        for name, sign, bound in requirements
        if (value := getattr(document.headline, name)) is None or not _COMPARE[sign](value, bound)
    ]
    for line in missed:
        log(f"missed: {line}")
    return 3 if missed else 0
