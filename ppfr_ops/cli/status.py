"""``ppfr status``: what an output holds, what is still to be done, and when it last ran."""

from collections import Counter
from typing import Any

import click
from pydantic import BaseModel
from rich.table import Table

from ppfr_ops.cli import Command
from ppfr_ops.cli.terminal import SafeConsole, echo
from ppfr_ops.contracts.ledger import is_shard
from ppfr_ops.errors import UserError
from ppfr_ops.sanitize.release_plan import missing_shards
from ppfr_ops.store import lease
from ppfr_ops.store.account import Account
from ppfr_ops.store.folder import Folder
from ppfr_ops.store.ledger import LEDGER, Ledger
from ppfr_ops.store.storage import RetryingFileSystem, StoreError

EXAMPLES = """
\b
Examples:
  ppfr status shared/
  ppfr status s3://faces/out --json | jq .units_pending

Exit codes: 0 complete; 1 failed; 2 there is no such output; 3 something is pending.
"""


_HIGHEST = 5
"""People that are named, by pseudonym."""


class Privacy(BaseModel):
    """The account of what people have spent."""

    people: int
    records: int
    delta: float
    highest_epsilon: float
    highest: list[tuple[str, int, float]]
    """Pseudonym, records and epsilon of those who have spent most."""


class OutputStatus(BaseModel):
    """What ``--json`` prints."""

    units_published: int
    units_pending: int
    """Of the last plan; an input that has grown since is not looked at."""
    records: int
    dead_letters: int
    dead_letters_by_code: dict[str, int]
    deleted_upstream: int
    """Units whose source is gone and that are still published."""
    taken_back: int
    """Units whose source is gone and that were removed."""
    interrupted: int
    """Units on which work began and did not end."""
    privacy: Privacy | None
    """Null where nothing was charged to anybody."""
    run: str
    """none, alive, dead, or unknown: held by a process that is not on this machine."""
    last_started: str | None
    last_finished: str | None
    last_exit_code: int | None
    engine: str | None


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("output")
@click.option(
    "--privacy-account", metavar="URL", help="The account that OUTPUT shares with others."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON, on stdout.")
def main(output: str, privacy_account: str | None, as_json: bool) -> int:
    """Say what OUTPUT holds: published, pending, dead, and when it last ran. Changes nothing."""
    try:
        status = look(output, privacy_account)
    except StoreError as error:
        raise UserError(f"the output: {error}") from None
    if as_json:
        echo(status.model_dump_json(indent=1))
    else:
        _show(status)
    return 3 if status.units_pending else 0


def look(output: str, privacy_account: str | None = None) -> OutputStatus:
    """Read the ledger of an output.

    Raises:
        UserError: there is none.
        StoreError: the store does not let us in.
    """
    ledger = Ledger(output)
    if isinstance(ledger.fs, RetryingFileSystem):
        ledger.fs.check(ledger.root)
    if ledger.read(*LEDGER, "run.json") is None:
        raise UserError("there is no output of ppfr sanitize")
    entries = ledger.entries()
    tombstones = ledger.tombstones()
    last = _last(ledger)
    codes: Counter[str] = Counter()
    records = 0
    for entry in entries.values():
        codes.update(entry.dead_letters)
        records += entry.records
    kept = len(tombstones.keys() & entries.keys())
    shards = sum(map(is_shard, entries))
    pending = max(0, (last["units"] or 0) - (len(entries) - shards - kept))
    interrupted = {name.rpartition(".")[0] for name in ledger.names(*LEDGER, "attempts")}
    return OutputStatus(
        units_published=len(entries),
        units_pending=pending + len(missing_shards(ledger, entries)),
        records=records,
        dead_letters=codes.total(),
        dead_letters_by_code=dict(codes.most_common()),
        deleted_upstream=kept,
        taken_back=sum(stone.removed for stone in tombstones.values()),
        interrupted=len(interrupted - entries.keys()),
        privacy=_privacy(
            Account(ledger) if privacy_account is None else Account(Folder(privacy_account), ())
        ),
        run=lease.holder(ledger),
        last_started=last["started"],
        last_finished=last["finished"],
        last_exit_code=last["exit_code"],
        engine=last["engine"],
    )


def _privacy(account: Account) -> Privacy | None:
    balance = account.balance()
    if not balance.losses:
        return None
    spent = {loss: loss.epsilon(balance.delta) for loss in set(balance.losses.values())}
    order = sorted(balance.losses.items(), key=lambda item: (-spent[item[1]], item[0]))
    return Privacy(
        people=len(order),
        records=balance.records.total(),
        delta=balance.delta,
        highest_epsilon=spent[order[0][1]],
        highest=[(who, balance.records[who], spent[loss]) for who, loss in order[:_HIGHEST]],
    )


def _last(ledger: Ledger) -> dict[str, Any]:
    """What is noted of the last run; null what is not noted, or damaged."""
    noted = ledger.read(*LEDGER, "last.json") or {}
    kinds = {"units": int, "exit_code": int, "started": str, "finished": str, "engine": str}
    return {
        name: noted.get(name) if isinstance(noted.get(name), kind) else None
        for name, kind in kinds.items()
    }


def _show(status: OutputStatus) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    codes = ", ".join(f"{count:,} {code}" for code, count in status.dead_letters_by_code.items())
    running = {
        "none": "nobody at work",
        "alive": "a run is at work",
        "dead": "a run died; the same command resumes it",
        "unknown": "a run holds the lease, from another machine; it may be dead",
    }
    finished = status.last_finished or "not"
    rows = {
        "published": f"{status.records:,} records in {status.units_published:,} units",
        "pending": f"{status.units_pending:,} units"
        + (f", {status.interrupted:,} of them begun" if status.interrupted else ""),
        "dead letters": f"{status.dead_letters:,}" + (f": {codes}" if codes else ""),
        "deleted upstream": f"{status.taken_back:,} units taken back, "
        f"{status.deleted_upstream:,} still published",
        "now": running[status.run],
        "last run": f"{status.last_started or 'never'} on {status.engine}, finished: {finished}"
        + (f", exit code {status.last_exit_code}" if status.last_finished else ""),
    }
    if status.privacy is not None:
        spent = status.privacy
        rows["privacy account"] = (
            f"{spent.people:,} people, {spent.records:,} records; most: epsilon "
            f"{spent.highest_epsilon:.4g} at delta {spent.delta:g}, by {spent.highest[0][0][:16]}…"
        )
    for name, text in rows.items():
        table.add_row(name, text)
    SafeConsole(highlight=False, width=120).print(table)
