"""The command-line options that every engine's sanitize command shares."""

from collections.abc import Callable
from typing import Any

import click
from pydantic import ValidationError

from ppfr_ops.errors import UserError
from ppfr_ops.sanitize.job import SanitizeOptions
from ppfr_ops.sanitize.photographs.pictures import PhotographOptions

_PHOTOGRAPHS = (
    click.option(
        "--output-faces",
        type=click.Choice(["crops", "in-place"]),
        default="crops",
        show_default=True,
        help="Of photographs: a record a face, aligned; or the whole picture, heads covered.",
    ),
    click.option(
        "--no-face",
        type=click.Choice(["quarantine", "drop", "pass"]),
        default="quarantine",
        show_default=True,
        help="A photograph in which no face is found: dead letter, left out, or (in-place only) "
        "published AS IT IS.",
    ),
    click.option(
        "--background",
        type=click.Choice(["keep", "blur", "black"]),
        default="keep",
        show_default=True,
        help="In-place: what is not a head may tell who it is, too.",
    ),
    click.option(
        "--face-threshold",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        default=0.2,
        show_default=True,
        help="Score from which on something is taken for a face.",
    ),
    click.option(
        "--face-sure",
        type=click.FloatRange(0, 1),
        default=0.35,
        show_default=True,
        help="Faces of a lower score are pixelated rather than given to the method.",
    ),
    click.option(
        "--smallest-face",
        type=click.FloatRange(min=1),
        default=32,
        show_default=True,
        metavar="PX",
        help="And so are smaller ones.",
    ),
    click.option(
        "--thorough",
        is_flag=True,
        help="Always look twice (enlarged, shrunk, mirrored, turned), not only where the first "
        "look finds nothing.",
    ),
    click.option(
        "--detector",
        default="centerface",
        show_default=True,
        metavar="MODULE:NAME",
        help="A detector of your own (docs/faces.md).",
    ),
    click.option(
        "--boxes-column",
        metavar="NAME",
        help="Boxes that are known, [[x0, y0, x1, y1], …] in px; nothing else counts as a face "
        "then. WebDataset: a key of the sample's json.",
    ),
    click.option(
        "--landmarks-column",
        metavar="NAME",
        help="Their five landmarks, [[[x, y], …], …]; the detector is not asked at all then.",
    ),
    click.option(
        "--keep-regions-column",
        metavar="NAME",
        help="Boxes whose faces are to be left alone.",
    ),
)

_OPTIONS = (
    click.option("--input", required=True, help="File, folder, glob or fsspec URL of the faces."),
    click.option("--output", required=True, help="Folder or fsspec URL for what is published."),
    click.option(
        "--input-format",
        type=click.Choice(["auto", "parquet", "images", "webdataset"]),
        default="auto",
        show_default=True,
    ),
    click.option(
        "--image-column",
        help="Column of the pictures: binary, or Hugging Face's image struct. "
        "WebDataset: extension of the member. Default: image, or the only one there is.",
    ),
    click.option(
        "--method", default="stochastic-local", show_default=True, help="See ppfr methods."
    ),
    click.option(
        "--method-option",
        "method_options",
        multiple=True,
        metavar="KEY=VALUE",
        help="An option of the method; repeatable.",
    ),
    click.option(
        "--fr",
        multiple=True,
        metavar="NAME=PATH",
        help="An FR model to measure with, ONNX or TorchScript; repeatable.",
    ),
    click.option(
        "--keep-column",
        "keep_columns",
        multiple=True,
        metavar="NAME",
        help="A column to copy as it is; repeatable. Nothing else of the input is copied.",
    ),
    click.option(
        "--identity-column",
        help="Column that says who it is; leaves as pseudonyms only. Trees of pictures: folder.",
    ),
    click.option(
        "--identity-key-file",
        help="Secret key of the pseudonyms (openssl rand -hex 32 > FILE). Keep it apart from the "
        "output.",
    ),
    click.option(
        "--output-format",
        type=click.Choice(["jpeg", "png", "webp"]),
        default="jpeg",
        show_default=True,
    ),
    click.option(
        "--quality",
        type=click.IntRange(1, 100),
        default=95,
        show_default=True,
        help="Of JPEG and WebP.",
    ),
    click.option(
        "--unit-rows",
        type=click.IntRange(1, 100_000),
        help="Rows of a unit, at most: what is held in memory, and what a crash costs. Default: "
        "1000, of photographs 200.",
    ),
    click.option("--batch-size", type=click.IntRange(1, 4096), default=32, show_default=True),
    click.option(
        "--max-disclosure",
        type=click.FloatRange(0, 1, min_open=True),
        help="Draw a record again that discloses more, and bury it if no draw helps. Default: the "
        "method's own limit (stochastic-local: 0.60).",
    ),
    click.option(
        "--max-dead-letter-rate",
        type=click.FloatRange(0, 1),
        default=0.01,
        show_default=True,
        help="Share of records that may fail before the exit code is 3.",
    ),
    click.option(
        "--policy",
        metavar="FILE",
        help="Thresholds, YAML (docs/policy.md): records that fall short are drawn again, then "
        "held back; the release as a whole decides verdict and exit code.",
    ),
    click.option(
        "--resume/--overwrite",
        "resume",
        default=True,
        help="Go on with what is there (the default), or remove it and begin anew.",
    ),
    click.option(
        "--incremental",
        is_flag=True,
        help="The input may have changed since the last run: do what is new or changed, and no "
        "more. Needs --identity-key-file.",
    ),
    click.option(
        "--propagate-deletions",
        is_flag=True,
        help="With --incremental: take back what was published of files that are gone.",
    ),
    click.option(
        "--metrics",
        type=click.Choice(["full", "basic", "none"]),
        default="full",
        show_default=True,
        help="basic leaves out disclosure and draw_similarity, which take most of the time.",
    ),
    click.option("--limit", type=click.IntRange(min=1), help="Only the first rows, that many."),
    click.option(
        "--mapping",
        metavar="FILE",
        help="Write record_id, source, row as Parquet, for the owner's safe.",
    ),
    click.option(
        "--signing-key",
        metavar="FILE",
        help="PEM, Ed25519: sign the manifest, which has the digest of every shard; ppfr verify "
        "--public-key checks it.",
    ),
    click.option(
        "--vault",
        metavar="URL",
        help="Keep every published record's original there, encrypted; ppfr erase gives it back "
        "to whoever has the key (docs/vault.md). Needs --vault-key.",
    ),
    click.option(
        "--vault-key",
        metavar="FILE",
        help="The owner's master key of the vault (openssl rand -hex 32 > FILE), or MODULE:NAME of "
        "a key service. Without it the originals in the vault are lost.",
    ),
    click.option(
        "--seed",
        type=int,
        help="Reproducible draws, for tests ONLY: who knows the seed can undo the method.",
    ),
    click.option(
        "--faces",
        type=click.Choice(["aligned", "detect"]),
        default="aligned",
        show_default=True,
        help="aligned: every picture is one face, 112x112. detect: photographs; find the faces.",
    ),
    *_PHOTOGRAPHS,
    click.option(
        "--detections-out",
        metavar="NAME",
        help="Write every face's box, landmarks, score and treatment as NAME.parquet and "
        "NAME.jsonl.",
    ),
    click.option(
        "--review-out",
        metavar="FILE",
        help="Write a CSV of the photographs that a person should look at, worst first; it names "
        "sources.",
    ),
    click.option(
        "--verdicts",
        metavar="FILE",
        help="That CSV, its column verdict filled in: ok, drop, or cover (boxes as "
        "[[x0, y0, x1, y1], …]). Does the units concerned anew.",
    ),
)


def sanitize_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: add the shared options. The command gets them as keywords; ``collect`` them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def collect(values: dict[str, Any]) -> SanitizeOptions:
    """The keywords of a command as options.

    Raises:
        UserError: an option has a wrong form.
    """
    values = dict(values)
    pairs = [text.partition("=") for text in values.pop("method_options")]
    if any(not equals for _, equals, _ in pairs):
        raise UserError("--method-option: expected KEY=VALUE")
    values["method_options"] = {name: value for name, _, value in pairs}
    values["overwrite"] = not values.pop("resume")
    detect = values.pop("faces") == "detect"
    photographs = {name: values.pop(name) for name in PhotographOptions.model_fields}
    if not detect:
        default = PhotographOptions().model_dump()
        changed = [name for name, value in photographs.items() if value != default[name]]
        if changed:
            raise UserError(f"--{changed[0].replace('_', '-')} goes with --faces detect")
    values["photographs"] = PhotographOptions(**photographs) if detect else None
    if values["unit_rows"] is None:
        values["unit_rows"] = 200 if detect else 1000
    try:
        return SanitizeOptions.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
