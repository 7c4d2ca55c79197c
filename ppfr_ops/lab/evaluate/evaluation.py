"""From a run of the stages to ``evaluation.json``."""

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel

from ppfr_ops.contracts.evaluation import Data, Evaluation, Headline, Model, Utility
from ppfr_ops.errors import UserError
from ppfr_ops.lab.evaluate.data import pixels_sha256
from ppfr_ops.lab.evaluate.released import read_release_folder
from ppfr_ops.lab.evaluate.remarks import remarks, told_by_the_set
from ppfr_ops.lab.evaluate.run import Run, write_text
from ppfr_ops.lab.evaluate.settings import Mode
from ppfr_ops.lab.evaluate.stages import stages
from ppfr_ops.lab.evaluate.structure import Attacked, structure_attack
from ppfr_ops.lab.evaluate.summary import real_gap
from ppfr_ops.lab.evaluate.templates import Log
from ppfr_ops.version import __version__

_SIZED = (
    *("structure", "eye", "inference", "linker", "regeneration", "releases"),
    *("training", "benchmark", "leak"),
)
"""Stages whose part says how much they did."""


def facts(run: Run, encoding: str) -> dict[str, Any]:
    """What makes an evaluation this one and no other: digests and settings, nothing of the data."""
    publisher = run.publisher
    return {
        "method_digest": publisher.anonymizer.digest() if publisher else None,
        "gallery": run.gallery.sha256(),
        "attack_faces": run.attack_faces.sha256() if run.attack_faces else None,
        "identities": run.identities.sha256() if run.identities else None,
        "published": None if run.given is None else pixels_sha256(run.given),
        "models": {name: (model.spec.digest(), role) for name, (model, role) in run.models.items()},
        "encoding": encoding,
        "settings": run.settings.model_dump(mode="json"),
        "pairs": run.all_pairs,
    }


def evaluate(
    run: Run, label: str, known: dict[str, Any], mode: Mode, wanted: Collection[str] | None = None
) -> Evaluation:
    """Run the stages and put their parts together.

    Args:
        label: its name in tables.
        known: :func:`facts` of the run.
        mode: which settings these are.
        wanted: names of the stages to run; None: all. What an earlier run of the same evaluation
            measured is there in any case.
    """
    parts: dict[str, Any] = {}
    for name, stage in stages().items():
        if wanted is not None and name not in wanted and not run.measured(name):
            run.skipped[name] = "not asked for"
            parts[name] = None
        else:
            parts[name] = stage.part_of(run)
    anonymizer = run.publisher.anonymizer if run.publisher else None
    return _document(
        parts,
        label=label,
        method=anonymizer.name if anonymizer else None,
        options=anonymizer.options() if anonymizer else {},
        method_digest=known["method_digest"],
        draw_size=anonymizer.draw_size if anonymizer else None,
        identity=run.publisher.identity if run.publisher else None,
        encoding=known["encoding"],
        mode=mode,
        did=_did(run, parts),
        skipped=run.skipped,
        seed=run.settings.seed,
        settings=known["settings"],
        models={
            name: Model(
                role=role,
                sha256=known["models"][name][0],
                convention=model.spec.convention,
                channels=model.spec.channels,
            )
            for name, (model, role) in run.models.items()
        },
        gallery=Data(faces=len(run.gallery), sha256=known["gallery"]),
        attack_faces=Data(faces=len(run.attack_faces), sha256=known["attack_faces"])
        if run.attack_faces
        else None,
        seconds=run.seconds,
        headline=headline(run, parts),
        remarks=remarks(run, parts),
    )


def alone(attacked: Attacked, label: str | None, log: Log) -> Evaluation:
    """The document of the stage ``structure`` and no other, which needs no recogniser.

    Raises:
        UserError: something cannot be read.
    """
    started = time.monotonic()
    part = structure_attack(attacked, log)
    told = read_release_folder(attacked.release).manifest
    method = None if told is None else told.method
    needed = (name for name, one in Headline.model_fields.items() if one.is_required())
    figures: dict[str, Any] = {
        **dict.fromkeys(needed),
        "fr_accuracy": {},
        "named_by_structure": part.worst,
    }
    return _document(
        {**dict.fromkeys(stages()), "structure": part},
        label=label or "structure",
        method=method.name if method else None,
        options=dict(method.options) if method else {},
        method_digest=method.digest if method else None,
        draw_size=None,
        encoding="",
        mode="custom",
        did=[sizes("structure", part)],
        skipped={name: "not asked for" for name in stages() if name != "structure"},
        seed=0,
        settings={},
        models={},
        gallery=Data(faces=part.records, sha256=""),
        attack_faces=None,
        seconds={"structure": round(time.monotonic() - started, 1)},
        headline=Headline.model_validate(figures),
        remarks=told_by_the_set(part),
    )


def _document(parts: dict[str, Any], **facts: Any) -> Evaluation:
    """With when, where and by what it was made."""
    packages = {name: version(name) for name in ("torch", "onnxruntime", "numpy")}
    return Evaluation(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"ppfr-sanitizer": __version__, "python": platform.python_version(), **packages},
        machine={
            "processor": platform.machine(),
            "cores": str(os.cpu_count()),
            "threads": str(torch.get_num_threads()),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        },
        **facts,
        **parts,
    )


def _did(run: Run, parts: dict[str, Any]) -> list[str]:
    did = []
    if parts["utility"]:
        folds = len(set(run.pairs.folds.tolist()))
        did.append(f"verification over {len(run.pairs.a)} pairs in {folds} folds")
    if parts["disclosure"]:
        did.append(f"disclosure on {parts['disclosure'].faces} faces")
    did += [sizes(name, parts[name]) for name in _SIZED if parts[name]]
    if parts["recovery"]:
        did += [
            f"{a.knows} attack: {a.net}, {a.steps} steps of {run.settings.batch} faces"
            for a in parts["recovery"].attackers.values()
        ]
    return did


def sizes(name: str, part: BaseModel) -> str:
    """How much a stage did: its name and the whole numbers of its part, in words."""
    counts = {key: value for key, value in part if isinstance(value, int) and value is not True}
    return f"{name}: " + ", ".join(
        f"{value} {key.replace('_', ' ')}" for key, value in counts.items() if value
    )


def headline(run: Run, parts: dict[str, Any]) -> Headline:
    """The figures to compare methods by."""
    utility, recovery = parts["utility"] or {}, parts["recovery"]
    black = [utility[name] for name in run.black_boxes if name in utility]

    def over_black_boxes(figure: Callable[[Utility], float]) -> float | None:
        return float(np.mean([figure(found) for found in black])) if black else None

    lead = parts["linkage"][(run.black_boxes or run.names)[0]] if parts["linkage"] else None
    disclosure, diversity = parts["disclosure"], parts["diversity"]
    return Headline(
        black_box_tar=over_black_boxes(lambda u: u.protected_protected.tar["0.001"]),
        fr_tar={name: u.protected_protected.tar["0.001"] for name, u in utility.items()},
        unchanged_far=_worst(u.unchanged.far for u in utility.values()),
        black_box_accuracy=over_black_boxes(lambda u: u.protected_protected.accuracy),
        fr_accuracy={name: u.protected_protected.accuracy for name, u in utility.items()},
        original_accuracy=over_black_boxes(lambda u: u.protected_original.accuracy),
        original_tar=over_black_boxes(lambda u: u.protected_original.tar["0.001"]),
        disclosure=disclosure.disclosure.mean if disclosure else None,
        disclosure_p99=disclosure.disclosure.p99 if disclosure else None,
        rec_ssim=recovery.rec_ssim if recovery else None,
        recovery_gain=recovery.recovery_gain if recovery else None,
        draw_similarity=diversity.draw_similarity if diversity else None,
        rank1=lead.rank1 if lead else None,
        rank1_student=lead.student.rank1 if lead and lead.student else None,
        d_sys=lead.d_sys if lead else None,
        real_gap=real_gap(parts["training"]) if parts["training"] else None,
        rank_correlation=parts["benchmark"].rank_correlation if parts["benchmark"] else None,
        **_leaks(parts),
    )


def _worst(values: Iterable[float]) -> float | None:
    return max(values, default=None)


def _leaks(parts: dict[str, Any]) -> dict[str, float | None]:
    """The worst of what the later stages found."""
    names = ("linker", "eye", "regeneration", "inference", "releases")
    linker, eye, regeneration, inference, releases = (parts[name] for name in names)
    found = [linker.taught, *linker.untaught.values()] if linker else []
    views = [view for sizes in eye.models.values() for view in sizes.values()] if eye else []
    taken = regeneration.unseen.values() if regeneration else ()
    told = inference.attributes.values() if inference else ()
    across = releases.models.values() if releases else ()
    return {
        "named_by_structure": parts["structure"].worst if parts["structure"] else None,
        "linker_same_photo": _worst(f.same_photo for f in found),
        "linker_another_photo": _worst(f.another_photo for f in found),
        "eye_accuracy": _worst(v.protected_original.accuracy for v in views),
        "regenerated": _worst(t.same_photo for t in taken),
        "inference_above_chance": _worst(t.network.balanced_accuracy - t.chance for t in told),
        "other_release_accuracy": _worst(t.different_keys.accuracy for t in across),
    }


# -- its folder -----------------------------------------------------------------------------


def claim(out: Path, facts: dict[str, Any], force: bool) -> None:
    """Go on with what an earlier run of the same evaluation left in ``out``, or start over."""
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


def withdraw(out: Path) -> None:
    """Leave nothing of a run that wrong input ended, unless a stage of it is worth going on."""
    stages = [path.name for path in (out / "stages").iterdir()]
    if stages == ["facts.json"] and not (out / "checkpoints").exists():
        shutil.rmtree(out / "stages")
        shutil.rmtree(out / "tables", ignore_errors=True)
        if not any(out.iterdir()):
            out.rmdir()
