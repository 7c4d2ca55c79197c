"""Train the learned anonymizer: ``ppfr train`` or ``python pipelines/train.py``."""

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import yaml
from pydantic import ValidationError

from ppfr_ops.cli import Command
from ppfr_ops.cli.terminal import echo
from ppfr_ops.errors import fault

DEFAULT = Path(__file__).parents[1] / "methods" / "stochastic_local" / "weights" / "small.yaml"
"""Settings to begin with."""


def read_faces(folder: Path, column: str) -> np.ndarray:
    """All faces of a folder of Parquet files, uint8 ``M x 112 x 112 x 3``, in file order."""
    import cv2
    import pyarrow.parquet as pq

    files = sorted(folder.glob("*.parquet")) if folder.is_dir() else [folder]
    faces = []
    for file in files:
        for cell in pq.read_table(file, columns=[column])[column].to_pylist():
            data = cell["bytes"] if isinstance(cell, dict) else cell
            image = cv2.imdecode(np.frombuffer(data or b"\0", np.uint8), cv2.IMREAD_COLOR)
            if image is not None and image.shape == (112, 112, 3):
                faces.append(image[..., ::-1])
    if not faces:
        raise click.UsageError(f"no 112x112 faces in column {column!r} of {folder.name}")
    return np.stack(faces)


def plot_losses(log: Path, picture: Path) -> None:
    """Loss curves and validation as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    checks = [line["validation"] for line in lines if "validation" in line]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for phase in dict.fromkeys(line["phase"] for line in steps):
        part = [line for line in steps if line["phase"] == phase]
        left.plot([x["step"] for x in part], [x["loss"] for x in part], label=phase)
    left.set(xlabel="step", ylabel="loss", yscale="log", title="training loss")
    for key in [k for k in (checks[-1] if checks else {}) if k not in ("step", "score")]:
        right.plot([c["step"] for c in checks], [c[key] for c in checks], label=key)
    right.set(xlabel="step", ylabel="value", title="validation (faces kept back)")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.savefig(picture, dpi=120)
    plt.close(figure)


@click.command(
    cls=Command,
    epilog="Example: ppfr train --faces DATA/utk_aligned --fr dlib=MODELS/dlib.ts.pt "
    "--fr mobileface=MODELS/mobileface.ts.pt --out runs/small",
)
@click.option(
    "--faces",
    "folders",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    multiple=True,
    help="Parquet file or folder with aligned 112x112 faces; repeatable.",
)
@click.option("--image-column", default="image")
@click.option(
    "--fr",
    "surrogates",
    multiple=True,
    required=True,
    metavar="NAME=PATH",
    help="Differentiable surrogate (TorchScript); repeatable; the dlib network first.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option(
    "--config",
    type=click.Path(exists=True, path_type=Path),
    help="Settings of the run, YAML. The default is small.yaml, the first of "
    "the four runs that the shipped weights come from; each of the others went on from the one "
    "before, with --init (docs/stochastic-local.md).",
)
@click.option(
    "--init",
    type=click.Path(exists=True, path_type=Path),
    help="Begin with the generator of these weights (safetensors).",
)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change one setting.")
@click.option("--resume/--overwrite", default=True, help="Continue from the checkpoint in --out.")
@click.option(
    "--accept-distilled",
    is_flag=True,
    help="Accept surrogates that ppfr distill made of a black box; weights that are trained so are "
    "for yourself: measured on that black box they mean nothing.",
)
@click.option("--threads", default=0, help="CPU threads; 0: all.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
def main(
    folders: tuple[Path, ...],
    image_column: str,
    surrogates: tuple[str, ...],
    out: Path,
    config: Path | None,
    init: Path | None,
    changes: tuple[str, ...],
    resume: bool,
    accept_distilled: bool,
    threads: int,
    device: Any,
) -> None:
    """Train the learned method, stochastic-local.

    Kill it whenever you like: the same command resumes from the last checkpoint (every two
    minutes). OUT gets log.jsonl, losses.png, checkpoint.pt and best.safetensors, which
    `ppfr sanitize --method-option weights=OUT/best.safetensors` uses.
    """
    import torch

    from ppfr_ops.lab.training.stochastic_local import TrainConfig, Trainer
    from ppfr_ops.recognizers import RecognizerSpec, refuse_marked

    config = config or DEFAULT
    try:
        settings = yaml.safe_load(config.read_text()) or {}
        settings |= {k: yaml.safe_load(v) for k, _, v in (c.partition("=") for c in changes)}
        parsed = TrainConfig.model_validate(settings)
        specs = [RecognizerSpec.parse(text) for text in surrogates]
        missing = [spec.path for spec in specs if not Path(spec.path).is_file()]
        if missing:
            raise ValueError(f"no surrogate at {missing[0]}")
        for spec in [] if accept_distilled else specs:
            refuse_marked(spec, "not for weights that others get (--accept-distilled)")
    except ValidationError as error:
        first = error.errors()[0]
        raise click.UsageError(f"{config.name}: {first['loc'][0]}: {fault(error)}") from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    out.mkdir(parents=True, exist_ok=True)
    log_file, checkpoint = out / "log.jsonl", out / "checkpoint.pt"
    if not resume:
        for old in (log_file, checkpoint):
            old.unlink(missing_ok=True)
    images = np.concatenate([read_faces(folder, image_column) for folder in folders])
    echo(f"{len(images)} faces, surrogates {', '.join(s.name for s in specs)}, {device}")

    def log(entry: dict[str, Any]) -> None:
        with log_file.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        echo(json.dumps(entry))
        if "validation" in entry:
            plot_losses(log_file, out / "losses.png")

    try:
        paths = {spec.name: Path(spec.path) for spec in specs}
        trainer = Trainer(parsed, images, paths, device)
        if init is not None and not checkpoint.exists():
            trainer.start_from(init)
        best = trainer.run(out, log)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    echo(f"best: {json.dumps(best)}; weights: {out / 'best.safetensors'}")
