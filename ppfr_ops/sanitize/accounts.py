"""A run and the privacy account of the people in it: who would overdraw, and what is charged."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ppfr_ops.errors import UserError
from ppfr_ops.privacy import Guarantee, Loss
from ppfr_ops.sanitize.job import Job
from ppfr_ops.sanitize.kit import pseudonyms
from ppfr_ops.source.plan import READ_ERROR, Unit, read_unit
from ppfr_ops.store.account import HERE, Account, Balance
from ppfr_ops.store.folder import Folder
from ppfr_ops.store.lease import Lease
from ppfr_ops.store.ledger import Ledger, Tables


def account_of(job: Job) -> Account | None:
    """The account that a run charges; None: the method promises nothing, or nobody is named."""
    if job.build_method().guarantee() is None or not job.options.identity_column:
        return None
    shared = job.options.privacy_account
    return (
        Account(Folder(job.options.output), HERE) if shared is None else Account(Folder(shared), ())
    )


@contextmanager
def held(job: Job) -> Iterator[None]:
    """The account that a run shares with others, to itself."""
    if job.options.privacy_account is None:
        yield
        return
    with Lease(Folder(job.options.privacy_account)):
        yield


def charge(job: Job, ledger: Ledger, copy: str, tables: Tables) -> None:
    """Charge what is about to be committed.

    Args:
        copy: id of this copy of the unit.
    """
    account = account_of(job)
    given = job.build_method().guarantee()
    if account is None or given is None:
        return
    people = Counter(name for name in tables.records["identity"].to_pylist() if name is not None)
    account.charge(f"{ledger.ids.release()}-{copy}", given.loss, _delta(given), people)


def refuse_overdrawn(job: Job, todo: Sequence[int]) -> None:
    """Find out, before any work, whether what is to be done fits everybody's budget. Reads the
    input once more.

    Args:
        todo: numbers of the units.

    Raises:
        UserError: somebody would overdraw, or has more photos than were said; who and how much.
    """
    account, given = account_of(job), job.build_method().guarantee()
    budget = job.options.privacy_budget
    if account is None or given is None or job.pseudonym_key is None:
        return
    if given.unit == "person":
        people, _ = _people(job, job.plan.units)
        who, count = max(people.items(), key=lambda item: item[1], default=("", 0))
        if count > given.photos:
            raise UserError(
                f"person {who[:16]}… has {count} photos, and epsilon was said to cover "
                f"{given.photos}: --method-option photos={count}"
            )
    if budget is None:
        return
    people, unnamed = _people(job, [job.plan.units[number] for number in todo])
    if unnamed:
        raise UserError(f"--privacy-budget: {unnamed} rows say of nobody whom to charge")
    over = overdrawn(account.balance(), people, given, budget)
    if over:
        who, before, after = over[0]
        raise UserError(
            f"--privacy-budget {budget:g}: {len(over)} of {len(people)} people would overdraw; "
            f"person {who[:16]}… has spent {before:.4g} and would come to {after:.4g} with "
            f"{people[who]} records more (epsilon, at delta {_delta(given):g}); nothing was done"
        )


def overdrawn(
    balance: Balance, people: Counter[str], given: Guarantee, budget: float
) -> list[tuple[str, float, float]]:
    """Who would overdraw, with epsilon before and after, worst first."""
    balance.delta = min(balance.delta, _delta(given)) if balance.losses else _delta(given)
    found: dict[tuple[Loss, int], tuple[float, float]] = {}
    over = []
    for who, count in people.items():
        spent = balance.losses.get(who, Loss())
        if (spent, count) not in found:
            after = balance.epsilon(who, given.loss.times(count))
            found[spent, count] = balance.epsilon(who), after
        before, after = found[spent, count]
        if after > budget * (1 + 1e-9):
            over.append((who, before, after))
    return sorted(over, key=lambda item: (-item[2], item[0]))


def _people(job: Job, units: Sequence[Unit]) -> tuple[Counter[str], int]:
    """Rows by pseudonym, and rows of nobody."""
    assert job.pseudonym_key is not None
    hide = pseudonyms(job.pseudonym_key)
    people: Counter[str] = Counter()
    unnamed = 0
    for unit in units:
        table = read_unit(job.plan, unit).select(["identity", READ_ERROR])
        for row in table.to_pylist():
            if row[READ_ERROR] is not None:
                continue
            if row["identity"] is None:
                unnamed += 1
            else:
                people[hide(row["identity"])] += 1
    return people, unnamed


def _delta(given: Guarantee) -> float:
    """At which an account tells epsilon."""
    return given.delta or 1e-6
