"""The command-line options that every engine's sanitize command shares."""

from collections.abc import Callable
from typing import Any

import click
from pydantic import ValidationError

from pipelines.cli import Refused
from ppfr_ops.job import SanitizeOptions

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
        default=1000,
        show_default=True,
        help="Rows of a unit, at most: what is held in memory, and what a crash costs.",
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
        "--seed",
        type=int,
        help="Reproducible draws, for tests ONLY: who knows the seed can undo the method.",
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
        Refused: an option has a wrong form.
    """
    values = dict(values)
    pairs = [text.partition("=") for text in values.pop("method_options")]
    if any(not equals for _, equals, _ in pairs):
        raise Refused("--method-option: expected KEY=VALUE")
    values["method_options"] = {name: value for name, _, value in pairs}
    values["overwrite"] = not values.pop("resume")
    try:
        return SanitizeOptions.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise Refused(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
