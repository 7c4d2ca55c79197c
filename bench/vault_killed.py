"""Kill -9 at random while a vault is revoked from and rotated: what is lost, what still opens?

    python bench/vault_killed.py --output OUT --vault VAULT --key KEY --revoke 100 --kills 20

Works on a copy of the vault. Every round a child process revokes the records, or rotates to a new
master, and is killed after a random time; then the vault is opened as an owner would, and every
record is tried. A record that was not to be revoked must come back; one that was revoked, by the
vault's own word, must not open.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from ppfr_ops.vault import FileKey, Vault, WrongKey, read_master
from ppfr_ops.vault.recovery import Failure, Opened, RestoreRequest

_CHILD = """
import sys
from ppfr_ops.vault import FileKey, Vault, read_master
what, url, first, second = sys.argv[1:]
vault = Vault(url)
print("ready", flush=True)
sys.stdin.readline()
if what == "revoke":
    vault.revoke(open(first).read().split())
else:
    vault.rotate(FileKey(read_master(first)), FileKey(read_master(second)))
print("done", flush=True)
"""


def child(what: str, url: str, first: str, second: str = "") -> subprocess.Popen[str]:
    """A process that waits for a line to begin."""
    path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, what, url, first, second],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def killed(process: subprocess.Popen[str], after: float | None) -> tuple[bool, float]:
    """Let it begin, kill it after so many seconds (None: never); was it done, and when."""
    assert process.stdin is not None and process.stdout is not None
    began = time.monotonic()
    process.stdin.write("\n")
    process.stdin.flush()
    if after is not None:
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
    done = process.stdout.read() == "done\n"
    process.wait()
    return done, time.monotonic() - began


def tried(output: str, url: str, master: str) -> tuple[set[str], set[str], int]:
    """Records that open, that are revoked, and how many do neither."""
    vault = Vault(url)
    vault.recover()
    opened = Opened(output, vault, FileKey(read_master(master)))
    good, revoked, lost = set(), set(), 0
    for unit in opened.units:
        for entry, found in opened.originals(unit, RestoreRequest()):
            if not isinstance(found, Failure):
                good.add(entry)
            elif found.code == "revoked":
                revoked.add(entry)
            else:
                lost += 1
    return good, revoked, lost


def opens(url: str, master: str) -> bool:
    try:
        Vault(url).require().key(FileKey(read_master(master)))
    except WrongKey:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--output", "--vault", "--key"):
        parser.add_argument(name, required=True)
    parser.add_argument("--revoke", type=int, default=100)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = str(folder / "vault")
        shutil.copytree(arguments.vault, url)
        names, _, _ = tried(arguments.output, url, arguments.key)
        gone = set(rng.sample(sorted(names), arguments.revoke))
        opened = Opened(arguments.output, Vault(url), None)
        entries = opened.find(RestoreRequest(frozenset(gone)))  # as the vault calls them
        (folder / "gone").write_text("\n".join(sorted(entries)))
        print(f"{len(names):,} records, {len(gone)} to be revoked")

        def check(master: str) -> set[str]:
            good, revoked, lost = tried(arguments.output, url, master)
            assert lost == 0, f"{lost} records are lost"
            assert revoked in (set(), gone) and good == names - revoked
            return revoked

        _, whole = killed(child("revoke", _copy(url, folder), str(folder / "gone")), None)
        states = []
        for _ in range(arguments.kills):
            fresh = _copy(arguments.vault, folder)
            done, _ = killed(child("revoke", fresh, str(folder / "gone")), rng.uniform(0, whole))
            url = fresh
            states.append((done, bool(check(arguments.key))))
        print(
            f"revoke ({whole:.2f} s), {arguments.kills} kills: "
            f"{sum(not d for d, _ in states)} struck before it was done; afterwards "
            f"{sum(r for _, r in states)} times all revoked, "
            f"{sum(not r for _, r in states)} times none; 0 records lost, 0 revoked ones open"
        )

        Vault(url).revoke(entries)
        assert check(arguments.key) == gone
        keys = [arguments.key]
        _, whole = killed(child("rotate", _copy(url, folder), keys[0], _key(folder, 0)), None)
        struck = swapped = 0
        for number in range(1, arguments.kills + 1):
            new = _key(folder, number)
            done, _ = killed(child("rotate", url, keys[-1], new), rng.uniform(0, 1.1 * whole))
            struck += not done
            if opens(url, new):
                assert not opens(url, keys[-1])
                swapped += 1
                keys.append(new)
            assert check(keys[-1]) == gone
        print(
            f"rotate ({whole:.2f} s), {arguments.kills} kills: {struck} struck before it was "
            f"done; {swapped} times the new master opens, else the old one; each time "
            f"{len(names) - len(gone):,} records open and {len(gone)} do not"
        )


def _copy(url: str, folder: Path) -> str:
    target = tempfile.mkdtemp(dir=folder)
    shutil.copytree(url, target, dirs_exist_ok=True)
    return target


def _key(folder: Path, number: int) -> str:
    path = folder / f"key-{number}"
    path.write_text(os.urandom(32).hex())
    path.chmod(0o600)
    return str(path)


if __name__ == "__main__":
    main()
