"""People named by what the set tells, of releases made for the purpose: fresh draws of one release,
found groups in place of labels, versions that grow and lose rows, all of them together.

PYTHONPATH=tests python bench/structure.py ../shared/data/ids_aligned --draws 5
PYTHONPATH=tests python bench/structure.py ../shared/data/lfw_aligned --photos 4 --grow
python bench/structure.py ../shared/data/lfw_aligned --method stochastic-local --pictures [--found]

The default method is the tests' cheap one: but for the pictures, no figure depends on the method.
"""

import argparse
import secrets
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ppfr_ops import run
from ppfr_ops.lab.evaluate.structure import Attacked, in_words, structure_attack
from ppfr_ops.sanitize.groups import GroupOptions, group_input
from ppfr_ops.sanitize.options import SanitizeOptions

FILES = 4


def write(folder: Path, parts: list[pa.Table]) -> None:
    folder.mkdir()
    for number, part in enumerate(parts):
        pq.write_table(part, folder / f"part-{number}.parquet", row_group_size=1000)


def release(asked: argparse.Namespace, source: Path, output: Path, **more: object) -> Path:
    chosen = {
        "method": asked.method,
        "metrics": "none",
        "mapping": str(output) + ".map.parquet",
        "unit_rows": 500,
        "keep_columns": tuple(asked.keep),
    } | more
    if asked.method == "stochastic-local":
        chosen["identity"] = "virtual"
    if asked.found:  # as ppfr group and --groups: with pseudonyms, by which people may be named
        chosen["groups"] = f"{output}.groups.csv"
        group_input(GroupOptions(input=str(source), output=str(chosen["groups"])))
    else:
        chosen["identity_column"] = "identity"
    done = run(SanitizeOptions(input=str(source), output=str(output), **chosen))
    assert done.exit_code == 0, done
    return output


def grown(asked: argparse.Namespace, rows: pa.Table, folder: Path) -> Attacked:
    """A first version, three that have more rows, and one of which a row in twenty was taken back;
    what of each is left for the attacker."""
    cuts = [0, *(np.linspace(0.55, 1.0, 4) * len(rows)).astype(int).tolist()]
    parts = [rows.slice(a, b - a) for a, b in pairwise(cuts)]
    versions = [parts[:n] for n in range(1, 5)]
    stay = np.random.default_rng().random(len(rows)) >= 0.05
    left = [
        part.filter(pa.array(stay[a : a + len(part)])) for a, part in zip(cuts, parts, strict=False)
    ]
    versions.append(left)
    seen, source, key = [], folder / "in", folder / "key"
    key.write_text(secrets.token_hex(32))
    key.chmod(0o600)
    for number, version in enumerate(versions):
        shutil.rmtree(source, ignore_errors=True)
        write(source, version)
        kept = folder / f"source-{number}"
        shutil.copytree(source, kept)
        grows = {"incremental": bool(number), "identity_key_file": str(key)}
        output = release(asked, source, folder / "out", **grows)
        shutil.copytree(output / "release", folder / f"release-{number}")
        seen.append((str(folder / f"release-{number}"), str(kept)))
    return Attacked(*seen[-1], str(folder / "out.map.parquet"), earlier=tuple(seen[:-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--method", default="nobody:Stripes")
    parser.add_argument("--photos", type=int, default=1, help="of a person, at least")
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--grow", action="store_true")
    parser.add_argument("--found", action="store_true", help="groups are found, not labels")
    parser.add_argument("--pictures", action="store_true")
    parser.add_argument("--keep", nargs="*", default=[])
    asked = parser.parse_args()
    table = pq.read_table(asked.source)
    labels = table["identity"].to_numpy(zero_copy_only=False).astype(str)
    _, people, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    some = np.flatnonzero(sizes[people] >= asked.photos)
    for draw in range(asked.draws):
        folder = Path(tempfile.mkdtemp(prefix="structure-"))
        rows = table.take(np.random.default_rng().permutation(some))
        if asked.grow:
            attacked = grown(asked, rows, folder)
        else:
            cuts = np.linspace(0, len(rows), FILES + 1).astype(int).tolist()
            write(folder / "in", [rows.slice(a, b - a) for a, b in pairwise(cuts)])
            output = release(asked, folder / "in", folder / "out")
            attacked = Attacked(
                str(output), str(folder / "in"), str(output) + ".map.parquet", "identity",
                asked.pictures,
            )  # fmt: skip
        found = structure_attack(attacked, lambda line: print(line, flush=True))
        print(
            f"draw {draw}: {found.people:,} people, {found.pseudonyms:,} pseudonyms, "
            f"{found.records:,} records, structure_k {found.structure_k}",
            flush=True,
        )
        if asked.pictures:
            for row in found.attacks:
                print("   ", in_words(row, found.people))
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
