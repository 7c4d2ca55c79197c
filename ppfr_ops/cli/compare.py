"""``ppfr compare``: several evaluations side by side, one table and one plot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.terminal import echo
from ppfr_ops.errors import UserError, fault

EXAMPLES = """
\b
Examples:
  ppfr compare eval/blur eval/highpass eval/signed-field
  ppfr compare eval/* --out comparison     # comparison/table.md, table.parquet, plane.png
"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the table and the plot.")
def main(folders: tuple[Path, ...], out: Path | None) -> None:
    """Put evaluations side by side; FOLDERS hold an evaluation.json each.

    Prints a table in Markdown. Figures of different test faces, attack steps or modes are not
    comparable: the table names the steps, and a line says when the data differ.
    """
    documents = [_read(folder) for folder in folders]
    rows = [_row(document) for document in documents]
    text = _markdown(rows)
    echo(text)
    for warning in _differences(documents):
        echo(f"! {warning}", err=True)
    if out is not None:
        _write(rows, text, out)
        echo(f"written to {out}", err=True)


def _read(folder: Path) -> Any:
    from pydantic import ValidationError

    from ppfr_ops.contracts.evaluation import Evaluation

    path = folder / "evaluation.json" if folder.is_dir() else folder
    try:
        return Evaluation.model_validate_json(path.read_text())
    except (OSError, UnicodeDecodeError):
        raise UserError(f"no evaluation.json in {folder}") from None
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise UserError(
            f"{path} is no evaluation of this version: {place}: {fault(error)}"
        ) from None


def _row(document: Any) -> dict[str, Any]:
    head = document.headline
    black = [u for u in (document.utility or {}).values() if u.role == "black_box"]
    tars = [u.protected_protected.tar["0.001"] for u in black]
    row: dict[str, Any] = {
        "label": document.label,
        "identity": document.identity,
        "tar": sum(tars) / len(tars) if tars else None,  # documents of version 1 have it too
    }
    for name, found in (document.utility or {}).items():
        mark = "*" if found.role == "black_box" else ""
        row[f"{name}{mark}"] = found.protected_protected.accuracy
    row["accuracy"] = head.black_box_accuracy
    row["unchanged_far"] = head.unchanged_far
    row["original_accuracy"] = head.original_accuracy
    row["eye"] = head.eye_accuracy
    row["linker"] = head.linker_same_photo
    row["linker_other"] = head.linker_another_photo
    row["regenerated"] = head.regenerated
    row["inference"] = head.inference_above_chance
    row["other_release"] = head.other_release_accuracy
    row["disclosure"] = head.disclosure
    row["other_person"] = document.disclosure.other_person.mean if document.disclosure else None
    row["draw_similarity"] = head.draw_similarity
    row["rank1"] = head.rank1
    row["rank1_student"] = head.rank1_student
    row["d_sys"] = head.d_sys
    row["rec_ssim"] = head.rec_ssim
    row["rec_psnr"] = document.recovery.rec_psnr if document.recovery else None
    row["recovery_gain"] = head.recovery_gain
    row["floor_ssim"] = document.recovery.floor_ssim if document.recovery else None
    best = document.recovery.attackers[document.recovery.best] if document.recovery else None
    row["steps"] = best.steps if best else None
    row["flattened"] = best.flattened if best else None
    row["mode"] = document.mode
    return row


_LEGEND = (
    "* black box: accuracy. tar (at FAR 1e-3), accuracy: published with published, mean over the "
    "black boxes; original_accuracy: with originals. unchanged_far, eye, linker, regenerated, "
    "inference (above chance), other_release: the worst over models, sizes or attributes."
)


def _markdown(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    names = [name for name in names if any(row.get(name) is not None for row in rows)]
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in names) + " |" for row in rows]
    return "\n".join(lines) + "\n\n" + _LEGEND


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _differences(documents: list[Any]) -> list[str]:
    parts: dict[str, Callable[[Any], object]] = {
        "the galleries differ: the rows are not comparable": lambda each: each.gallery.sha256,
        "the FR models differ": lambda each: tuple(
            each.models[name].sha256 for name in sorted(each.models)
        ),
        "the image encodings differ": lambda each: each.encoding,
        "the numbers of pairs differ": lambda each: str(each.settings.get("pairs_per_fold")),
    }
    return [text for text, of in parts.items() if len(set(map(of, documents))) > 1]


def _write(rows: list[dict[str, Any]], text: str, out: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ppfr_ops.lab.evaluate.plots import privacy_utility_plane

    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text + "\n")
    names = list(dict.fromkeys(name for row in rows for name in row))
    pq.write_table(
        pa.table({name: [row.get(name) for row in rows] for name in names}), out / "table.parquet"
    )
    privacy_utility_plane(rows, out / "plane.png")
