"""Tamper with a vault and ask for everything back: what is refused, and what still comes?

    python bench/vault_tampered.py --output OUT --vault VAULT --key KEY --other ANOTHER_RUNS_VAULT

Every case works on a copy of the vault and asks by the command, as an owner would.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent.parent))

from ppfr_ops.vault.shards import read_sealed


def erased(output: str, vault: Path, key: str, folder: Path) -> str:
    """What the command says, its exit code and how many originals came back."""
    back = folder / "back"
    shutil.rmtree(back, ignore_errors=True)
    command = [sys.executable, "-m", "ppfr_ops.cli", "erase", output, "--vault", str(vault)]
    done = subprocess.run(
        [*command, "--key", key, "--out", str(back)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    files = [path for path in back.rglob("*.parquet") if "dead" not in path.name]
    came = sum(pq.read_metadata(path).num_rows for path in files)
    said = " | ".join((done.stdout + done.stderr).split("\n")).strip(" |")
    return f"exit code {done.returncode}, {came:,} came back, folder {back.exists()}: {said}"


def exchange(path: Path, pairs: list[tuple[bytes, bytes]]) -> None:
    """Exchange byte strings of equal lengths, each of which is in the file once."""
    data = bytearray(path.read_bytes())
    for one, other in pairs:
        here, there = data.index(one), data.index(other)
        data[here : here + len(one)], data[there : there + len(other)] = other, one
    path.write_bytes(data)


def first(vault: Path, what: str) -> Path:
    return min((vault / what).rglob("*.parquet"))


def flip(vault: Path) -> None:
    path = first(vault, "sealed")
    data = bytearray(path.read_bytes())
    _, sealed = next(read_sealed(path))
    data[data.index(sealed.text) + len(sealed.text) // 2] ^= 1
    path.write_bytes(data)


def swap_originals(vault: Path) -> None:
    path = first(vault, "sealed")
    rows = [sealed for _, sealed in read_sealed(path)]
    one = rows[0]
    other = next(row for row in rows[1:] if len(row.text) == len(one.text))
    names = ("nonce", "commitment", "text")
    exchange(path, [(getattr(one, name), getattr(other, name)) for name in names])


def swap_keys(vault: Path) -> None:
    path = first(vault, "keys")
    names = ["nonce", "wrapped"]
    one, other = pq.read_table(path, columns=names).to_pylist()[:2]
    exchange(path, [(one[name], other[name]) for name in names])


def cut(what: str) -> Callable[[Path], None]:
    def half(vault: Path) -> None:
        path = first(vault, what)
        os.truncate(path, path.stat().st_size // 2)

    return half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--output", "--vault", "--key", "--other"):
        parser.add_argument(name, required=True)
    arguments = parser.parse_args()
    cases: dict[str, Callable[[Path], None]] = {
        "untouched": lambda vault: None,
        "one bit of a sealed original": flip,
        "two originals swapped": swap_originals,
        "two wrapped keys swapped": swap_keys,
        "a sealed file, cut off": cut("sealed"),
        "a file of keys, cut off": cut("keys"),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case, tamper in cases.items():
            vault = folder / "vault"
            shutil.rmtree(vault, ignore_errors=True)
            shutil.copytree(arguments.vault, vault)
            tamper(vault)
            print(f"{case}: {erased(arguments.output, vault, arguments.key, folder)}", flush=True)
        wrong = folder / "wrong"
        wrong.write_text(os.urandom(32).hex())
        wrong.chmod(0o600)
        vault = Path(arguments.vault)
        print(f"wrong key: {erased(arguments.output, vault, str(wrong), folder)}")
        other = Path(arguments.other)
        print(f"another run's vault: {erased(arguments.output, other, arguments.key, folder)}")


if __name__ == "__main__":
    main()
