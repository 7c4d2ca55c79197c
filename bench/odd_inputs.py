"""Inputs as people bring them: labels, folders, formats, pictures, boxes and photographs.

    python bench/odd_inputs.py                    # all, about three minutes on two cores
    python bench/odd_inputs.py --only boxes       # cases whose name begins so

Every case is made of drawn faces of nobody, read by the real command, and held to the same: no
traceback; rows = records and dead letters; a refusal is one line that shows no label; with exit
code 0 every label has its own person, nobody shares one, what was left out is said, the release
holds what ``ppfr verify`` asks, and no face of a photograph is bare that is not in the review
queue. Prints a table; exits with 1 if a case fails.
"""

import csv
import json
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow.parquet as pq
from click.testing import CliRunner
from odd_cases import LABELS, TREES, Case
from odd_more import MORE
from odd_pictures import PICTURES

from ppfr_ops.cli.sanitize import main as sanitize
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import decode
from ppfr_ops.release.verify import verify

CASES = [*LABELS, *TREES, *PICTURES, *MORE]
HELD = 0.9
"""Share of what is seen of a face that has to be changed."""


@dataclass
class Outcome:
    """What became of a case."""

    code: int | None
    text: str
    error: BaseException | None = None
    counts: dict[str, Any] = field(default_factory=dict)
    people: tuple[int, ...] = ()


def command(case: Case, folder: Path) -> Outcome:
    """Run the command on a case."""
    source, output = folder / "in", folder / "out"
    source.mkdir()
    options = {"input": str(source), "output": str(output), "method": "pixelate"}
    options |= {"metrics": "none", "engine": "local", "actors": "1"}
    options |= case.make(source)
    line = []
    for name, value in options.items():
        if value is None:
            continue
        flag = "--" + name.replace("_", "-")
        values = value if isinstance(value, tuple) else (value,)
        line += [flag] if value is True else [part for each in values for part in (flag, str(each))]
    done = CliRunner().invoke(sanitize, line, standalone_mode=False)
    error = done.exception
    if isinstance(error, click.ClickException):
        return Outcome(error.exit_code, error.format_message())
    if isinstance(error, UserError):
        return Outcome(error.exit_code, str(error))
    if error is not None:
        return Outcome(None, done.output, error)
    found = Outcome(done.return_value, done.output)
    manifest = output / "evidence" / "manifest.json"
    if manifest.exists():
        found.counts = json.loads(manifest.read_text())["counts"]
    names: Counter[str | None] = Counter()
    for shard in output.rglob("release/data/*.parquet"):
        names.update(row.get("identity") for row in pq.read_table(shard).to_pylist())
    alone = names.pop(None, 0)  # who has no label is a person of their own
    found.people = (1,) * alone + tuple(sorted(names.values()))
    return found


def faults(case: Case, found: Outcome, folder: Path) -> list[str]:
    """What does not hold."""
    if found.error is not None:
        return [f"crash: {''.join(traceback.format_exception(found.error))[-600:]}"]
    wrong = []
    if "Traceback" in found.text:
        wrong.append("a traceback was printed")
    if case.refused is not None:
        if found.code != 2 or not re.search(case.refused, found.text):
            wrong.append(f"not refused with {case.refused!r}")
        if "\n" in found.text.strip():
            wrong.append("a refusal of several lines")
        return wrong
    if case.published and found.code != 0:
        wrong.append("not published")
    if case.said is not None and not re.search(case.said, " ".join(found.text.split())):
        wrong.append(f"{case.said!r} was not said")
    counts = found.counts
    if counts:
        there = counts["rows_in"] + counts["extra_faces"]
        if there != counts["records"] + counts["dead_letters"] + counts["left_out"]:
            wrong.append("counts do not add up")
        if case.rows is not None and counts["rows_in"] != case.rows:
            wrong.append(f"{counts['rows_in']} rows of {case.rows}")
        if case.dead is not None and counts["dead_letters_by_code"] != case.dead:
            wrong.append(f"dead letters {counts['dead_letters_by_code']}, not {case.dead}")
        wrong += [f"verify: {each}" for each in list(verify(str(folder / "out")))[:2]]
    if found.code == 0 and case.people is not None and sorted(found.people) != sorted(case.people):
        wrong.append(f"people {found.people}, not {case.people}")
    return wrong + bare(folder)


def bare(folder: Path) -> list[str]:
    """Faces that are bare and in no queue, of cases that say in ``masks.npz`` where faces are."""
    truth = folder / "masks.npz"
    queue, files = folder / "queue.csv", folder / "out" / "release" / "photographs"
    if not truth.exists() or not files.exists():
        return []
    with queue.open() as file:
        listed = {Path(row["source"]).name for row in csv.DictReader(file)}
    wrong = []
    with np.load(truth) as masks:
        for name in {key.partition("|")[0] for key in masks}:
            published = sorted(files.rglob(f"{Path(name).stem}*"))
            if not published or name in listed:
                continue
            now = decode(published[0].read_bytes())
            before = decode((folder / "in" / name).read_bytes())
            changed = (np.abs(now.astype(int) - before) > 6).any(2)
            for key in masks:
                if key.startswith(f"{name}|") and changed[masks[key]].mean() < HELD:
                    share = changed[masks[key]].mean()
                    wrong.append(f"{key}: {share:.0%} of the face is changed, in no queue")
    return wrong


@click.command()
@click.option("--only", default="", help="Cases whose name begins so.")
@click.option("--jobs", default=2, show_default=True, help="Cases at a time.")
@click.option("--keep", is_flag=True, help="Keep the folders of cases that fail.")
def main(only: str, jobs: int, keep: bool) -> int:
    began = time.monotonic()
    chosen = [case.name for case in CASES if case.name.startswith(only)]
    print("| case | exit | rows, records, dead | people | holds |\n| --- | --- | --- | --- | --- |")
    failed = 0
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for line, held in pool.map(partial(tried, keep=keep), chosen):
            failed += not held
            print(line, flush=True)
    seconds = time.monotonic() - began
    print(f"\n{len(chosen)} cases in {seconds:.0f} s, {failed} failed")
    return int(failed > 0)


def tried(name: str, keep: bool) -> tuple[str, bool]:
    """A line of the table, and whether all holds."""
    case = next(case for case in CASES if case.name == name)
    folder = Path(tempfile.mkdtemp(prefix="odd-"))
    found = command(case, folder)
    wrong = faults(case, found, folder)
    if not (wrong and keep):
        shutil.rmtree(folder)
    counts = found.counts
    rows = "" if not counts else f"{counts['rows_in']}, {counts['records']}, "
    dead = ", ".join(f"{n} {code}" for code, n in counts.get("dead_letters_by_code", {}).items())
    people = " ".join(map(str, found.people)) if len(found.people) < 13 else len(found.people)
    holds = "yes" if not wrong else "**NO**: " + "; ".join([*wrong, str(folder) if keep else ""])
    said = f" ({' '.join(found.text.split())[:110]})" if not counts or wrong else ""
    return f"| {name} | {found.code} | {rows}{dead or 0}{said} | {people} | {holds} |", not wrong


if __name__ == "__main__":
    sys.exit(main(standalone_mode=False))
