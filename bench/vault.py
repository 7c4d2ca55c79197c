"""What the vault costs, in time and bytes a record, side by side with AES-256-GCM alone.

    python bench/vault.py --input DATA/lfw_aligned --method stochastic-local

Times are of the processor, not of the wall clock, so that a machine that others share disturbs them
little; a unit with a vault and one without take turns.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

sys.path.insert(0, str(Path(__file__).parent.parent))

from ppfr_ops.sanitize.job import Job
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.worker import Worker
from ppfr_ops.source.plan import read_unit
from ppfr_ops.store.ledger import Ledger
from ppfr_ops.vault import FileKey, Vault, read_master
from ppfr_ops.vault.recovery import Opened, RestoreRequest


def processor(work: Callable[[], object]) -> float:
    """Processor seconds of a call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def gcm_alone(originals: Iterable[bytes]) -> list[bytes]:
    sealed = []
    for original in originals:
        nonce = os.urandom(12)
        sealed.append(nonce + AESGCM(os.urandom(32)).encrypt(nonce, original, b"x" * 100))
    return sealed


def job(folder: Path, name: str, arguments: argparse.Namespace, vault: bool) -> Job:
    """A job whose output (and vault) are open."""
    key = folder / "key"
    key.write_text(os.urandom(32).hex())
    key.chmod(0o600)
    options = SanitizeOptions(
        input=arguments.input,
        output=str(folder / name),
        method=arguments.method,
        metrics=arguments.metrics,
        unit_rows=arguments.unit_rows,
        max_disclosure=1,
        vault=str(folder / f"{name}-vault") if vault else None,
        vault_key=str(key) if vault else None,
    )
    made = prepare(options)
    Ledger(options.output).open(made.settings)
    if made.vault is not None:
        Vault(made.vault.url).establish(made.vault)
    return made


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", required=True)
    parser.add_argument("--method", default="stochastic-local")
    parser.add_argument("--metrics", default="none", choices=["full", "basic", "none"])
    parser.add_argument("--unit-rows", type=int, default=1000)
    parser.add_argument("--units", type=int, default=4, help="2 or more; the first warms up")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain, kept = (job(folder, n, arguments, n == "kept") for n in ("plain", "kept"))
        workers = Worker(plain, arguments.threads), Worker(kept, arguments.threads)
        spent, rows, timed = [0.0, 0.0], 0, 0
        for number in range(min(arguments.units, len(plain.plan.units))):
            rows += plain.plan.units[number].rows
            for which in (0, 1) if number % 2 else (1, 0):  # take turns
                took = processor(lambda w=which, n=number: workers[w].process(n))
                spent[which] += took if number else 0.0  # the first unit warms up
            timed += plain.plan.units[number].rows if number else 0
        original = [
            data
            for number in range(min(arguments.units, len(plain.plan.units)))
            for data in read_unit(plain.plan, plain.plan.units[number])["image"].to_pylist()
        ]
        total = sum(map(len, original))
        alone = processor(lambda: gcm_alone(original))
        opened = Opened(
            str(folder / "kept"),
            Vault(str(folder / "kept-vault")),
            FileKey(read_master(str(folder / "key"))),
        )
        back: list[object] = []
        opening = processor(
            lambda: [back.extend(opened.originals(unit, RestoreRequest())) for unit in opened.units]
        )
        vault = size(folder / "kept-vault")
        micro = 1e6 / rows
        print(f"{rows} records, originals {total / rows:,.0f} bytes each")
        each = 1e6 / timed
        print(f"sanitize without a vault      {spent[0] * each:9.0f} us a record")
        print(
            f"sanitize with a vault         {spent[1] * each:9.0f} us a record, "
            f"ratio {spent[1] / spent[0]:.3f}"
        )
        print(f"  of which the vault          {(spent[1] - spent[0]) * each:9.0f} us a record")
        print(f"AES-256-GCM alone             {alone * micro:9.0f} us a record, 28 bytes")
        print(f"opening all, in memory        {opening * micro:9.0f} us a record")
        print(
            f"bytes of the vault            {vault / rows:9.0f} a record, "
            f"{vault / total:.3f} of the originals ({(vault - total) / rows:.0f} more)"
        )
        assert len(back) == rows and all(isinstance(found[1], bytes) for found in back)  # type: ignore[index]


if __name__ == "__main__":
    main()
