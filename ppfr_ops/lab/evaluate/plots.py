"""Pictures of an evaluation for people to read; drawn from the tables, never from faces."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

_KINDS = {
    "original": ("before", "0.55"),
    "protected_protected": ("protected with protected", "C0"),
    "protected_original": ("protected with original", "C1"),
}


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _columns(folder: Path, name: str) -> dict[str, NDArray[Any]] | None:
    path = folder / "tables" / f"{name}.parquet"
    if not path.is_file():
        return None
    table = pq.read_table(path)
    return {column: table.column(column).to_numpy() for column in table.column_names}


def draw_all(document: dict[str, Any], folder: Path) -> None:
    """ROC curves, score distributions, disclosure histogram and recovery curves, as PNG files in
    ``folder/plots``."""
    models = list(document["utility"] or {})
    scores = _columns(folder, "scores")
    if models and scores is not None:
        figure, axes = plt.subplots(1, len(models), figsize=(4.2 * len(models), 4), squeeze=False)
        for axis, model in zip(axes[0], models, strict=True):
            for kind, (label, colour) in _KINDS.items():
                far, tar, _ = roc_curve(scores["same"], scores[f"{model}_{kind}"])
                axis.plot(np.maximum(far, 1e-4), tar, color=colour, label=label)
            axis.set(xscale="log", xlim=(1e-4, 1), ylim=(0, 1.01), xlabel="FAR", title=model)
            axis.grid(alpha=0.3)
        axes[0][0].set_ylabel("TAR")
        axes[0][0].legend(loc="upper left", fontsize=8)
        _save(figure, folder / "plots" / "roc.png")

        figure, axes = plt.subplots(
            2, len(models), figsize=(4.2 * len(models), 5.2), squeeze=False, sharex="col"
        )
        same = scores["same"].astype(bool)
        for column, model in enumerate(models):
            for row, kind in enumerate(("original", "protected_protected")):
                values, axis = scores[f"{model}_{kind}"], axes[row][column]
                bins = np.linspace(values.min(), values.max(), 60).tolist()
                axis.hist(values[~same], bins, alpha=0.6, density=True, label="impostor")
                axis.hist(values[same], bins, alpha=0.6, density=True, label="genuine")
                axis.set_title(f"{model}, {'before' if row == 0 else 'after'}", fontsize=10)
            axes[1][column].set_xlabel("similarity")
        axes[0][0].legend(fontsize=8)
        _save(figure, folder / "plots" / "scores.png")

    table = _columns(folder, "disclosure")
    if table is not None:
        figure, axis = plt.subplots(figsize=(6, 3.6))
        bins = np.linspace(0, 1, 61).tolist()
        axis.hist(
            table["other_person"], bins, alpha=0.5, color="0.6", label="another person's face"
        )
        axis.hist(table["disclosure"], bins, alpha=0.7, color="C0", label="what is published")
        axis.set(xlabel="disclosure (0 nothing, 1 everything seen)", ylabel="faces")
        axis.legend(fontsize=8)
        _save(figure, folder / "plots" / "disclosure.png")

    recovery = document["recovery"]
    if recovery:
        figure, axis = plt.subplots(figsize=(6, 3.6))
        for name, attacker in recovery["attackers"].items():
            steps = [point["step"] for point in attacker["curve"]]
            axis.plot(steps, [point["val_ssim"] for point in attacker["curve"]], label=name)
        axis.axhline(recovery["floor_ssim"], color="0.5", ls=":", label="mean face (test faces)")
        axis.set(xlabel="attack steps", ylabel="SSIM of recovered held-back faces")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
        _save(figure, folder / "plots" / "recovery.png")


def privacy_utility_plane(rows: list[dict[str, Any]], path: Path) -> None:
    """All methods in two planes: black-box accuracy against recovery and against disclosure.

    Args:
        rows: ``label``, ``accuracy``, ``rec_ssim``, ``floor_ssim``, ``disclosure`` and
            ``other_person`` each; None where not measured.
    """
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True)
    planes = (
        ("rec_ssim", "floor_ssim", "recovered SSIM (left is safer)", "mean face"),
        ("disclosure", "other_person", "disclosure (left is safer)", "another person's face"),
    )
    for axis, (x, floor, label, floor_name) in zip(axes, planes, strict=True):
        shown = [row for row in rows if row[x] is not None and row["accuracy"] is not None]
        for i, row in enumerate(shown):
            axis.scatter(row[x], row["accuracy"], color=f"C{i % 10}", zorder=3)
            axis.annotate(
                row["label"],
                (row[x], row["accuracy"]),
                textcoords="offset points",
                xytext=(5, 4),
                fontsize=8,
            )
        floors = [row[floor] for row in rows if row[floor] is not None]
        if floors:
            axis.axvline(float(np.mean(floors)), color="0.5", ls=":", label=floor_name)
            axis.legend(fontsize=8, loc="lower right")
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("verification accuracy, black boxes (up is more useful)")
    _save(figure, path)


def face_grid(rows: list[tuple[str, NDArray[np.uint8]]], path: Path) -> None:
    """Rows of faces, uint8 ``N x H x W x 3`` each with a title. Shows people: only on request."""
    count = len(rows[0][1])
    figure, axes = plt.subplots(
        len(rows), count, figsize=(1.2 * count, 1.35 * len(rows)), squeeze=False
    )
    for line, (title, faces) in zip(axes, rows, strict=True):
        for axis, face in zip(line, faces, strict=True):
            axis.imshow(face)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(title, fontsize=8)
    _save(figure, path)
