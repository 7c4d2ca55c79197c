"""``ppfr vault``: what an owner does to the vault besides erasing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.console import console
from ppfr_ops.cli.erase import PUBLIC_KEY, WHO, locked, report
from ppfr_ops.cli.terminal import echo
from ppfr_ops.errors import UserError
from ppfr_ops.release.signing import load_public_key
from ppfr_ops.vault import KeyService, Vault, WrongKey, audit, load_key, shares
from ppfr_ops.vault.erasing import check
from ppfr_ops.vault.keys import read_master, write_new
from ppfr_ops.vault.recovery import Opened, RestoreRequest
from ppfr_ops.vault.sealing import Refused
from ppfr_ops.vault.shards import Damaged

EXAMPLES = """
\b
Examples:
  umask 077; openssl rand -hex 32 > /safe/key
  ppfr sanitize --input faces/ --output shared/ --method signed-field \\
      --vault /safe/vault --vault-key /safe/key
  ppfr vault verify shared/ --vault /safe/vault --key /safe/key
  ppfr vault revoke shared/ --vault /safe/vault --record 9f2c…
  ppfr vault rotate --vault /safe/vault --key /safe/key --new-key /safe/new
  ppfr vault split --key /safe/key --shares 5 --needed 3 --out shares/
  ppfr vault join shares/share-1 shares/share-3 shares/share-4 --out /safe/key
"""

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_VAULT = click.option("--vault", "url", required=True, metavar="URL", help="The vault.")


def _key(name: str, text: str) -> Callable[[Any], Any]:
    variable = name.removeprefix("--").replace("-", "_")
    return click.option(name, variable, required=True, metavar="FILE", help=text)


@click.group(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Look after the vault that keeps the originals: prove, revoke, rotate, share the key."""


@main.command(cls=Command)
@click.argument("output")
@_VAULT
@_key("--key", "The owner's master key.")
@click.option("--head", metavar="DIGEST", help="Of the audit log, noted earlier: is it in there?")
@WHO
def verify(output: str, url: str, key: str, head: str | None, who: str | None) -> int:
    """Prove that every record published in OUTPUT can be had back, without showing one.

    Every original is opened in memory and forgotten; the audit log's chain is checked. Exit codes:
    0 all can be had, but for those that were revoked; 1 some cannot; 2 refused.
    """

    vault = Vault(url)
    service = load_key(key)
    with locked(vault):
        entries = audit.read(vault.files)
        if head is not None and head not in {entry["digest"] for entry in entries}:
            raise UserError("the audit log has no entry of that digest: its end was cut off")
        count, failures = check(Opened(output, vault, service))
        outcome = f"{count.given} open, {count.revoked} revoked, {count.failures} do not"
        last = audit.append(vault.files, who or audit.login(), "verify", "all", outcome)
    report([failure for failure in failures if failure.code != "revoked"])
    echo(
        f"{count.given:,} originals can be had, {count.revoked:,} were revoked, "
        f"{count.failures:,} cannot be had"
    )
    echo(f"audit log: {last['number']:,} entries, the last {last['digest']}")
    return 1 if count.failures else 0


@main.command(cls=Command)
@click.argument("output")
@_VAULT
@click.option("--record", "records", multiple=True, metavar="ID", help="Repeatable.")
@click.option("--person", "people", multiple=True, metavar="PSEUDONYM", help="Repeatable.")
@click.option("--from-file", type=_FILE, help="Record ids, one a line.")
@click.option("--all", "everything", is_flag=True, help="Every record.")
@click.option(
    "--key",
    metavar="FILE",
    help="The master key: nothing is destroyed unless all keys in the vault are its own.",
)
@PUBLIC_KEY
@WHO
def revoke(
    output: str,
    url: str,
    records: tuple[str, ...],
    people: tuple[str, ...],
    from_file: Path | None,
    everything: bool,
    key: str | None,
    public_key: str | None,
    who: str | None,
) -> int:
    """Destroy the keys of records or people, for good: nobody can have the originals back.

    Needs no key; with --key it is found out if somebody who can write to the vault put the keys of
    one record in the place of another's. Of faces cut out of a photograph the key is the
    photograph's: it goes for everybody in it. Copies of the vault elsewhere (backups, versions,
    snapshots) still open under the old master until it is rotated and destroyed (docs/vault.md).
    Exit codes: 0 done; 1 of some the vault has no key that can be read; 2 refused.
    """

    names = set(records)
    if from_file is not None:
        names |= set(from_file.read_text("utf-8").split())
    if everything == bool(names or people):
        raise UserError("give --record, --person or --from-file, or --all")
    vault = Vault(url)
    with locked(vault):
        wish = RestoreRequest(frozenset(names), frozenset(people))
        signer = None if public_key is None else load_public_key(public_key)
        service = None if key is None else load_key(key)
        opened = Opened(output, vault, service, signer)
        if service is not None:
            opened.refuse_foreign()
        entries = opened.find(wish)
        if not entries:
            raise UserError("the output has no such record or person")
        who = who or audit.login()
        audit.append(vault.files, who, "revoke", sorted(entries), "begun")
        count = vault.revoke(entries)
        audit.append(vault.files, who, "revoke", f"{len(entries)} entries", f"{count} destroyed")
    lost = len(opened.not_held)
    already = len(entries) - count - lost
    console.print(
        f"{count:,} keys destroyed" + (f", {already:,} were gone already" if already else "")
    )
    if lost:
        console.print(
            f"of {lost:,} the vault has no key, or none that can be read: should a damaged file of "
            "it come back, they are destroyed before anything else is done"
        )
    if key is None:
        console.print(
            "whether the keys destroyed were those of these records is the vault's word: --key, or "
            "ppfr vault verify, finds out"
        )
    return 1 if lost else 0


@main.command(cls=Command)
@_VAULT
@_key("--key", "The master key of the vault now.")
@_key("--new-key", "The new master key.")
@WHO
def rotate(url: str, key: str, new_key: str, who: str | None) -> int:
    """Wrap all keys anew under another master. What is sealed is not touched.

    Killed on the way, the vault is as before, or done: run it again with the same options.
    """

    vault = Vault(url)
    old, new = load_key(key), load_key(new_key)
    with locked(vault):
        done = _opens(vault, new) and not _opens(vault, old)
        who = who or audit.login()
        if not done:
            audit.append(vault.files, who, "rotate", "all", "begun")
        try:
            count = (vault.complete_rotation if done else vault.rotate)(old, new)
        except WrongKey:
            raise
        except (Refused, Damaged):
            raise UserError(
                "a key of the vault is damaged (ppfr vault verify says which); nothing was changed"
            ) from None
        if done and not count:
            console.print("the vault has the new key already")
            return 0
        audit.append(vault.files, who, "rotate", "all", f"{count} keys")
    console.print(f"{count:,} keys wrapped anew; the old master opens nothing here any more")
    return 0


def _opens(vault: Vault, service: KeyService) -> bool:
    try:
        vault.require().key(service)
    except WrongKey:
        return False
    return True


@main.command(cls=Command)
@_key("--key", "The master.")
@click.option("--shares", "of", type=int, required=True, metavar="N", help="How many to make.")
@click.option("--needed", type=int, required=True, metavar="K", help="How many open.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for share-1, share-2, …; give each to somebody else, then delete them.",
)
def split(key: str, of: int, needed: int, out: Path) -> int:
    """Split a master among N people, any K of whom can put it together (Shamir)."""

    made = shares.split(read_master(key), needed, of)
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    for share in made:
        write_new(str(out / f"share-{share.number}"), str(share))
    console.print(f"{len(made)} shares, of which {needed} open")
    return 0


@main.command(cls=Command)
@click.argument("paths", metavar="SHARE...", nargs=-1, required=True, type=_FILE)
@click.option("--out", required=True, metavar="FILE", help="For the master; mode 0600.")
def join(paths: tuple[Path, ...], out: str) -> int:
    """Put a master together from its shares."""

    try:
        texts = [path.read_text("ascii") for path in paths]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"a share cannot be read ({type(error).__name__})") from None
    write_new(out, shares.join([shares.parse(text) for text in texts]).hex() + "\n")
    console.print("the master key was put together from its shares")
    return 0
