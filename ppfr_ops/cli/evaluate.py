"""``ppfr evaluate``: the whole protocol on one method or one sanitized dataset."""

import os

# Waiting threads must not spin: on a shared machine that costs several times the work itself.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ppfr_ops.cli import Command
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
    help="The owner's mapping of --sanitized (ppfr sanitize --mapping); without it rows are "
    "matched by their order.",
)
@click.option("--gallery", required=True, help="Original faces with pairs, Parquet; only measured.")
@click.option("--pairs", "pairs_path", required=True, help="Parquet: a, b, same, fold.")
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
    "--format", "image_format", default="jpeg", show_default=True, help="jpeg, png or webp."
)
@click.option("--quality", default=95, show_default=True, help="JPEG quality.")
@click.option("--seed", default=0, show_default=True, help="Of draws, attackers and samples.")
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

    try:
        context.exit(_run(**options))
    except UserError as error:
        raise UserError(" ".join(str(error).split())) from None


def _log(line: str) -> None:
    click.echo(line, err=True)


def _settings(mode: str, options: dict[str, Any]) -> tuple[Any, str]:
    from pydantic import ValidationError

    from ppfr_ops.evaluate.evaluation import FULL, QUICK, Settings

    base = QUICK if mode == "quick" else FULL
    names = (
        "seed",
        "attack_steps",
        "side_steps",
        "attack_seconds",
        "test_faces",
        "averaging_faces",
        "pairs_per_fold",
    )
    changes = {name: options[name] for name in names if options[name] is not None}
    if options["attacks"] is not None:
        wanted = [name for name in options["attacks"].split(",") if name not in ("", "none")]
        unknown = set(wanted) - set(FULL.attacks)
        if unknown:
            raise UserError(
                f"unknown attack {min(unknown)!r}; there are: {', '.join(FULL.attacks)}, none"
            )
        changes["attacks"] = tuple(wanted)
    try:
        settings = Settings.model_validate({**base.model_dump(), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{first['loc'][0]}: {first['msg']}") from None
    same = settings.model_dump(exclude={"seed"}) == base.model_dump(exclude={"seed"})
    return settings, mode if same else "custom"


_COMPARE = {"<=": lambda a, b: a <= b, ">=": lambda a, b: a >= b}


def _requirement(text: str) -> tuple[str, str, float]:
    from ppfr_ops.contracts.evaluation import Headline

    for sign in _COMPARE:
        name, found, value = text.partition(sign)
        if found:
            known = [key for key in Headline.model_fields if key != "fr_accuracy"]
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

    from ppfr_ops.recognizers import Recognizer, RecognizerSpec

    models: dict[str, Any] = {}
    for role, texts in (("surrogate", surrogates), ("black_box", black_boxes)):
        for text in texts:
            try:
                spec = RecognizerSpec.parse(text)
                if spec.name in models:
                    raise UserError(f"FR model {spec.name!r} is given twice")
                model = Recognizer(spec, threads)
                rng = np.random.default_rng(0)
                model.embed(rng.integers(0, 256, (2, 112, 112, 3), dtype=np.uint8))
            except UserError:
                raise
            except (ValueError, FileNotFoundError) as error:
                raise UserError(str(error)) from None
            except Exception:
                raise UserError(
                    f"FR model {text.partition('=')[0]!r} cannot take N x 3 x 112 x 112 faces"
                ) from None
            models[spec.name] = (model, role)
    if not models:
        raise UserError("no FR model: give --fr NAME=PATH or --black-box NAME=PATH")
    return models


def _run(**options: Any) -> int:
    import torch

    from ppfr_ops.evaluate.evaluation import (
        EmbeddingCache,
        Evaluation,
        pixels_sha256,
        read_faces,
        read_pairs,
        read_sanitized,
        write_text,
    )
    from ppfr_ops.evaluate.publishing import Publisher
    from ppfr_ops.imaging.codec import Encoding
    from ppfr_ops.memory import keep_freed_memory
    from ppfr_ops.methods.registry import create

    started = time.monotonic()
    keep_freed_memory()
    threads = options["threads"] or os.cpu_count() or 1
    torch.set_num_threads(threads)
    settings, mode = _settings(options["mode"], options)
    requirements = [_requirement(text) for text in options["requirements"]]
    if not options["method"] and not options["sanitized"]:
        raise UserError("give --method NAME or --sanitized DIR")
    if options["method_options"] and not options["method"]:
        raise UserError("--method-option needs --method")
    publisher, method_options = None, {}
    try:
        encoding = Encoding(options["image_format"], options["quality"])
        if options["method"]:
            for text in options["method_options"]:
                key, equals, value = text.partition("=")
                if not equals:
                    raise UserError(f"--method-option {text}: expected KEY=VALUE")
                method_options[key] = value
            publisher = Publisher(create(options["method"], method_options), encoding)
    except UserError:
        raise
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from None
    gallery = read_faces(options["gallery"], "gallery")
    pairs = read_pairs(options["pairs_path"], gallery)
    published = None
    if options["sanitized"]:
        published, there = read_sanitized(options["sanitized"], options["mapping"], gallery)
        if not there.all():
            _log(f"{(~there).sum()} of {len(gallery)} faces were not published: left out")
            published, gallery, pairs = published[there], gallery.keep(there), pairs.keep(there)
    attack_faces = None
    if options["attack_faces"]:
        attack_faces = read_faces(options["attack_faces"], "attack faces")
        if len(attack_faces) < 10 * settings.batch:
            raise UserError(
                f"attack faces: {len(attack_faces)}, needed: {10 * settings.batch} at least"
            )
    models = _models(options["surrogates"], options["black_boxes"], threads)

    label = options["label"] or " ".join(
        [options["method"] or "sanitized", *(f"{k}={v}" for k, v in method_options.items())]
    )
    out: Path = options["out"]
    digests = {name: model.spec.digest() for name, (model, _) in models.items()}
    facts: dict[str, Any] = {
        "method_digest": publisher.anonymizer.digest() if publisher else None,
        "gallery": gallery.sha256(),
        "attack_faces": attack_faces.sha256() if attack_faces else None,
        "published": pixels_sha256(published) if published is not None else None,
        "models": {name: (digests[name], role) for name, (_, role) in models.items()},
        "encoding": f"{encoding.format} {encoding.quality}",
        "settings": settings.model_dump(mode="json"),
        "pairs": len(pairs.a),
    }
    if options["dry_run"]:
        plan = Evaluation(
            gallery, pairs, models, attack_faces, publisher, published, settings, out,
            EmbeddingCache(None, _log), _log,
        )  # fmt: skip
        _log(f"{label}: would measure {len(plan.pairs.a)} pairs with {', '.join(models)}")
        for name in plan.attack_names():
            _log(f"  attack {name}")
        for name, reason in plan.skipped.items():
            _log(f"  not {name}: {reason}")
        return 0
    _claim(out, facts, options["force"])
    cache = EmbeddingCache(options["cache"], _log)
    run = Evaluation(
        gallery, pairs, models, attack_faces, publisher, published, settings, out, cache, _log,
        options["show_faces"],
    )  # fmt: skip
    try:
        document = _measure(run, label, facts, mode)
    except UserError:
        _withdraw(out)
        raise
    write_text(out / "evaluation.json", document.model_dump_json(indent=2) + "\n")
    from ppfr_ops.evaluate.plots import draw_all

    draw_all(document.model_dump(), out)
    _summary(document)
    _log(f"done in {time.monotonic() - started:.0f} s: {out / 'evaluation.json'}")
    missed = [
        f"{name} is {value if value is None else round(value, 4)}, required {sign} {bound:g}"
        for name, sign, bound in requirements
        if (value := getattr(document.headline, name)) is None or not _COMPARE[sign](value, bound)
    ]
    for line in missed:
        _log(f"missed: {line}")
    return 3 if missed else 0


def _claim(out: Path, facts: dict[str, Any], force: bool) -> None:
    """Go on with what an earlier run of the same evaluation left in ``out``, or start over."""
    import json
    import shutil

    from ppfr_ops.evaluate.evaluation import write_text

    mark = out / "stages" / "facts.json"
    wanted = json.loads(json.dumps(facts))
    if mark.is_file() and json.loads(mark.read_text()) == wanted:
        return
    if out.exists() and any(out.iterdir()):
        if not force or not (mark.is_file() or (out / "evaluation.json").is_file()):
            raise UserError(
                f"{out} holds something else; choose another --out"
                + (" or start over with --force" if mark.is_file() else "")
            )
        for name in ("stages", "tables", "plots", "checkpoints"):
            shutil.rmtree(out / name, ignore_errors=True)
        (out / "evaluation.json").unlink(missing_ok=True)
    write_text(mark, json.dumps(wanted))


def _withdraw(out: Path) -> None:
    """Leave nothing of a run that wrong input ended, unless a stage of it is worth going on."""
    import shutil

    stages = [path.name for path in (out / "stages").iterdir()]
    if stages == ["facts.json"] and not (out / "checkpoints").exists():
        shutil.rmtree(out / "stages")
        shutil.rmtree(out / "tables", ignore_errors=True)
        if not any(out.iterdir()):
            out.rmdir()


def _measure(run: Any, label: str, facts: dict[str, Any], mode: str) -> Any:
    from importlib.metadata import version

    import numpy as np
    import torch

    from ppfr_ops import __version__
    from ppfr_ops.contracts.evaluation import Evaluation as Document

    utility = run.stage("utility", run.utility)
    seen = run.stage("disclosure", run.disclosure)
    diversity = run.stage("diversity", run.diversity) if run.publisher else run.diversity()
    linkage = run.stage("linkage", run.linkage)
    attackers: dict[str, Any] = {}
    held: list[float] | None = None
    for name in run.attack_names():
        found = dict(run.stage(f"recovery_{name}", lambda name=name: run.recovery(name)))
        back = found.pop("held_rec_ssim", None)
        fresh = [a for a in attackers.values() if a["knows"] == "fresh"]
        if back is not None and all(found["rec_ssim"] >= a["rec_ssim"] for a in fresh):
            held = back
        attackers[name] = found
    recovery = None
    if attackers:
        floor = run.floor()
        standard = {n: a for n, a in attackers.items() if a["knows"] == "fresh"} or attackers
        best = max(standard, key=lambda n: standard[n]["rec_ssim"])
        recovery = {
            **{f"floor_{name}": value for name, value in floor.items()},
            "test_faces": min(run.settings.test_faces, len(run.gallery)),
            "best": best,
            **{key: standard[best][key] for key in ("rec_ssim", "rec_psnr", "recovery_gain")},
            "attackers": attackers,
        }
    groups = run.stage("groups", lambda: run.groups(held))
    black = [n for n, (_, role) in run.models.items() if role == "black_box"]
    accuracy = {n: u["protected_protected"]["accuracy"] for n, u in utility.items()}
    lead = black[0] if black else next(iter(run.models))
    headline = {
        "black_box_accuracy": float(np.mean([accuracy[n] for n in black])) if black else None,
        "fr_accuracy": accuracy,
        "disclosure": seen["disclosure"]["mean"],
        "disclosure_p99": seen["disclosure"]["p99"],
        "rec_ssim": recovery["rec_ssim"] if recovery else None,
        "recovery_gain": recovery["recovery_gain"] if recovery else None,
        "draw_similarity": diversity["draw_similarity"] if diversity else None,
        "rank1": linkage[lead]["rank1"] if linkage else None,
        "rank1_student": linkage[lead]["student"]["rank1"]
        if linkage and linkage[lead]["student"]
        else None,
        "d_sys": linkage[lead]["d_sys"] if linkage else None,
    }
    anonymizer = run.publisher.anonymizer if run.publisher else None
    did = [
        f"verification over {len(run.pairs.a)} pairs in {len(set(run.pairs.folds.tolist()))} folds",
        f"disclosure on {seen['faces']} faces",
        *(
            f"{a['knows']} attack: {a['net']}, {a['steps']} steps of {run.settings.batch} faces"
            for a in attackers.values()
        ),
    ]
    return Document.model_validate(
        {
            "label": label,
            "method": anonymizer.name if anonymizer else None,
            "options": anonymizer.options() if anonymizer else {},
            "method_digest": facts["method_digest"],
            "draw_size": anonymizer.draw_size if anonymizer else None,
            "encoding": facts["encoding"],
            "mode": mode,
            "did": did,
            "skipped": run.skipped,
            "seed": run.settings.seed,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {
                "ppfr-sanitizer": __version__,
                "python": platform.python_version(),
                **{name: version(name) for name in ("torch", "onnxruntime", "numpy")},
            },
            "machine": {
                "processor": platform.machine(),
                "cores": str(os.cpu_count()),
                "threads": str(torch.get_num_threads()),
                "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
            },
            "settings": facts["settings"],
            "models": {
                name: {
                    "role": role,
                    "sha256": facts["models"][name][0],
                    "convention": model.spec.convention,
                    "channels": model.spec.channels,
                }
                for name, (model, role) in run.models.items()
            },
            "gallery": {"faces": len(run.gallery), "sha256": facts["gallery"]},
            "attack_faces": {"faces": len(run.attack_faces), "sha256": facts["attack_faces"]}
            if run.attack_faces
            else None,
            "seconds": run.seconds,
            "headline": headline,
            "utility": utility,
            "disclosure": seen,
            "diversity": diversity,
            "linkage": linkage,
            "recovery": recovery,
            "groups": groups,
            "remarks": _remarks(linkage, recovery, attackers, anonymizer),
        }
    )


def _remarks(linkage: Any, recovery: Any, attackers: dict[str, Any], anonymizer: Any) -> list[str]:
    remarks = []
    if linkage:
        rates = {
            name: (found["rank1"], (found["student"] or {}).get("rank1", 0.0))
            for name, found in linkage.items()
        }
        name = max(rates, key=lambda n: max(rates[n]))
        found, (plain, taught) = linkage[name], rates[name]
        remarks.append(
            f"Linkable: whoever holds another photo of a person and the FR model {name} finds that "
            f"person among {found['people']} in {max(plain, taught):.1%} of cases"
            + (f", taught by {found['student']['pairs']} known pairs" if taught > plain else "")
            + f" (unprotected {found['rank1_original']:.1%}, chance {found['chance']:.2%}). What "
            "is published remains personal data unless this is at chance."
        )
    for name, attacker in attackers.items():
        rise = attacker["rise_in_last_fifth"]
        if rise is None:
            remarks.append(f"The attacker {name} ran for too few steps to say anything.")
        elif not attacker["flattened"]:
            remarks.append(
                f"The attacker {name} was still improving when it stopped "
                f"(+{rise:.3f} SSIM in the last fifth): more steps get "
                "more back."
            )
        best = max(attacker["curve"], key=lambda point: point["val_ssim"])
        if best["val_ssim"] - attacker["curve"][-1]["val_ssim"] > 0.02:
            remarks.append(
                f"The attacker {name} was best at step {best['step']} and fell from there: it "
                "learned its training faces by heart. More faces (--attack-faces, and "
                "--averaging-faces for averaging) may get more back."
            )
    if "leaked" in attackers:
        gain = attackers["leaked"]["rec_ssim"] - recovery["rec_ssim"]
        if gain > 0.01:
            says = f"gets {gain:.3f} SSIM more back: that is what the randomness protects"
        else:
            says = f"gets no more back ({gain:+.3f} SSIM): the randomness is not what protects"
        remarks.append(f"With the record's own draw leaked the attacker {says}. Keep no draw.")
    if anonymizer is not None and anonymizer.draw_size == 0:
        remarks.append("The method takes no draws: everything it hides rests on the method alone.")
    return remarks


def _summary(document: Any) -> None:
    head = document.headline
    click.echo(f"{document.label} ({document.mode}: {'; '.join(document.did)})")
    for name, found in document.utility.items():
        click.echo(
            f"  {name:<12} accuracy {found.original.accuracy:.4f} -> "
            f"{found.protected_protected.accuracy:.4f} ({found.role.replace('_', ' ')})"
        )
    click.echo(
        f"  disclosure   {head.disclosure:.3f} "
        f"(another person's face {document.disclosure.other_person.mean:.3f})"
    )
    if document.diversity:
        click.echo(f"  two draws    {head.draw_similarity:.3f} alike")
    if document.recovery:
        for name, attacker in document.recovery.attackers.items():
            click.echo(
                f"  {name:<12} recovers SSIM {attacker.rec_ssim:.3f}, {attacker.rec_psnr:.1f} dB "
                f"in {attacker.steps} steps (floor {document.recovery.floor_ssim:.3f})"
            )
    if document.groups and document.groups.largest_gaps:
        gap = document.groups.largest_gaps[0]
        click.echo(
            f"  largest gap  {gap.measure} by {gap.attribute}: {gap.lowest_group} {gap.lowest:.3f}"
            f" to {gap.highest_group} {gap.highest:.3f}"
        )
    for remark in document.remarks:
        click.echo(f"  ! {remark}")
