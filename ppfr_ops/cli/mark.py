"""``ppfr mark``: read the invisible mark of a release."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.terminal import echo

EXAMPLES = """
\b
Examples:
  ppfr sanitize --input faces/ --output protected/ --invisible-mark mark.key
  ppfr mark read mark.key found-on-the-web.jpg
  ppfr mark read mark.key downloads/ --json
"""


_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
"""Of what is looked at in a folder."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXAMPLES)
def main() -> None:
    """The invisible mark that ppfr sanitize --invisible-mark puts into pictures (docs/marks.md)."""


@main.command("read", cls=Command, epilog=EXAMPLES)
@click.argument("keyfile", metavar="KEYFILE")
@click.argument("pictures", nargs=-1, required=True, type=click.Path(exists=True))
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of lines.")
def read(keyfile: str, pictures: tuple[str, ...], as_json: bool) -> int:
    """Say of PICTURES (files, folders of them, Parquet with a column image) whether they bear the
    mark of KEYFILE, and how likely it is that a picture without it would read like that.

    The last line is about all of them together: many that are too worn to be told one by one may be
    told as a set. Exit codes: 0 at least one is marked, or all together are; 1 none is; 2 wrong
    input.
    """
    from ppfr_ops.errors import UserError
    from ppfr_ops.imaging.decoding import ImageError, decode
    from ppfr_ops.imaging.invisible import FALSE_ALARM, THRESHOLD, InvisibleMark, chance, pooled
    from ppfr_ops.sanitize.marking import read_mark_key

    mark, found = InvisibleMark(read_mark_key(keyfile)), []
    for name, data in _opened(pictures):
        strength: float | None = None
        try:
            strength = read_here = mark.read(decode(data))
        except ImageError as error:
            said = f"cannot be read ({error.code})"
        else:
            verdict = "bears the mark" if read_here > THRESHOLD else "not told to bear the mark"
            rarely = f"once in {1 / chance(read_here):.2g}"
            said = f"{verdict}; a picture without it reads like this {rarely}"
        found.append((name, strength))
        if not as_json:
            echo(f"{name}: {said}")
    strengths = [strength for _, strength in found if strength is not None]
    if not strengths:
        raise UserError("there is no picture that can be read")
    together = pooled(strengths)
    marked = sum(strength > THRESHOLD for strength in strengths)
    if as_json:
        rows = [
            {"picture": name, "strength": s, "chance": s if s is None else chance(s)}
            for name, s in found
        ]
        told: dict[str, Any] = {"marked": marked, "read": len(strengths), "pooled": together}
        echo(json.dumps({**told, "threshold": THRESHOLD, "pictures": rows}, indent=2))
    else:
        echo(
            f"{marked} of {len(strengths)} are marked; different pictures without the mark would "
            f"read like these, all together, with a probability of {together:.1g} or less"
        )
    return 0 if marked or together < FALSE_ALARM else 1


def _opened(places: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Pictures by the name that they are told by."""
    import pyarrow.parquet as pq

    for place in map(Path, places):
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.suffix == ".parquet":
                file = pq.ParquetFile(path)
                if "image" not in file.schema_arrow.names:
                    continue
                batches = file.iter_batches(batch_size=64, columns=["image"])
                cells = (cell for batch in batches for cell in batch["image"].to_pylist())
                for number, cell in enumerate(cells):
                    yield f"{path} row {number}", (cell or {}).get("bytes") or b""
            elif path.is_file() and (path == place or path.suffix.lower() in _SUFFIXES):
                yield str(path), path.read_bytes()
