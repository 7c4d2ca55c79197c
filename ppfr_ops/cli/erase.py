"""``ppfr erase``: take the protection off, with the owner's key."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.console import console
from ppfr_ops.errors import UserError, describe
from ppfr_ops.release.signing import load_public_key
from ppfr_ops.store.files import inside
from ppfr_ops.store.lease import Lease
from ppfr_ops.vault import Vault, audit, load_key
from ppfr_ops.vault.erasing import erase
from ppfr_ops.vault.recovery import REASONS, Count, Failure, Opened, RestoreRequest

EXAMPLES = """
\b
Examples:
  # all originals, as Parquet files of record_id and image
  ppfr erase shared/ --vault /safe/vault --key /safe/key --out back/
  # two records, as picture files
  ppfr erase shared/ --vault /safe/vault --key /safe/key --out back/ --files \\
      --record 9f2c… --record 41d0…
  # all of one person, by the pseudonym in the column identity
  ppfr erase shared/ --vault /safe/vault --key /safe/key --out back/ --person 5f0c…

Exit codes: 0 finished; 2 refused (wrong key, wrong vault); 3 finished, but some could not be had.
"""


PUBLIC_KEY = click.option(
    "--public-key",
    metavar="FILE",
    help="Of the owner's signature: only what it vouches for says which record is whose.",
)
WHO = click.option("--who", metavar="NAME", help="For the audit log. Default: the login name.")


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("output")
@click.option("--vault", "url", required=True, metavar="URL", help="As given to the run.")
@click.option(
    "--key",
    "where",
    required=True,
    metavar="FILE",
    help="The owner's master key (or MODULE:NAME of a key service, docs/vault.md).",
)
@click.option("--out", "target", required=True, metavar="FOLDER", help="For the originals.")
@click.option(
    "--record",
    "records",
    multiple=True,
    metavar="ID",
    help="Only this record, or photograph (record_id, source_id); repeatable.",
)
@click.option(
    "--person",
    "people",
    multiple=True,
    metavar="PSEUDONYM",
    help="Only this person's records (column identity); repeatable.",
)
@PUBLIC_KEY
@click.option("--files", "as_files", is_flag=True, help="A file for each original, not Parquet.")
@WHO
def main(
    output: str,
    url: str,
    where: str,
    target: str,
    records: tuple[str, ...],
    people: tuple[str, ...],
    public_key: str | None,
    as_files: bool,
    who: str | None,
) -> int:
    """Give the originals of OUTPUT's records back, byte for byte, from the vault.

    An original comes back only under the key that it was sealed with, and only where OUTPUT still
    holds the picture that was published of it. What cannot be had is listed, with the reason, in
    dead_letters.parquet; nothing of it is written. The vault's audit log says who erased what.
    """
    for place, name in ((output, "the output"), (url, "the vault")):
        if inside(target, place):
            raise UserError(f"--out must not lie inside {name}")
    wish = RestoreRequest(frozenset(records), frozenset(people))
    vault = Vault(url)
    who = who or audit.login()
    service = load_key(where)
    with locked(vault):
        signer = None if public_key is None else load_public_key(public_key)
        opened = Opened(output, vault, service, signer)
        if not wish.all and not opened.find(wish):
            raise UserError("the output has no such record or person")
        audit.append(vault.files, who, "erase", _which(wish), "begun")

        def progress(unit: str, count: Count) -> None:
            if console.is_terminal:
                console.print(f"{unit}: {count.given:,} originals", end="\r")

        failures: list[Failure] = []
        count = Count()
        try:
            count, failures = erase(opened, wish, target, as_files=as_files, progress=progress)
            outcome = f"{count.given} given back, {len(failures)} not"
        except BaseException as error:
            outcome = f"broken off: {describe(error)}"
            raise
        finally:
            audit.append(vault.files, who, "erase", _which(wish), outcome)
    report(failures)
    console.print(f"{count.given:,} originals, {count.size:,} bytes, in {target}", markup=False)
    return 3 if count.failures else 0


def _which(wish: RestoreRequest) -> str | list[str]:
    return "all" if wish.all else sorted(wish.records | wish.people)


@contextlib.contextmanager
def locked(vault: Vault) -> Iterator[None]:
    """The vault to oneself, what a death interrupted brought to an end."""
    vault.require()
    with Lease(vault.files) as lease:
        vault.fence = lease.fence
        vault.recover()
        yield


def report(failures: Sequence[Failure]) -> None:
    """A line for what is wrong: an original, or several of a unit with one and the same fate."""
    alike = Counter((failure.unit, failure.code) for failure in failures)
    first = {(failure.unit, failure.code): failure for failure in reversed(failures)}
    for (unit, code), count in alike.items():
        what = first[unit, code].entry if count == 1 else f"{count:,} originals of unit {unit}"
        console.print(f"Error: {what}: {REASONS[code]}", markup=False, soft_wrap=True)
