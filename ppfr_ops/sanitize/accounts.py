"""A run and the privacy account of the people in it: who would overdraw, and what is charged."""

from collections import Counter
from collections.abc import Sequence

from ppfr_ops.errors import UserError
from ppfr_ops.privacy import Guarantee, Loss
from ppfr_ops.sanitize.job import Job
from ppfr_ops.sanitize.run_context import pseudonyms
from ppfr_ops.source.plan import READ_ERROR, Unit, read_unit
from ppfr_ops.store.account import HERE, Account, Balance, Charge
from ppfr_ops.store.folder import Folder
from ppfr_ops.store.ledger import Ledger, Tables


def account_of(job: Job) -> Account | None:
    """The account that a run charges; None: the method promises nothing, or nobody is named."""
    if job.build_method().guarantee() is None or not job.options.identity_column:
        return None
    shared = job.options.privacy_account
    return (
        Account(Folder(job.options.output), HERE) if shared is None else Account(Folder(shared), ())
    )


def charge(
    job: Job, account: Account | None, ledger: Ledger, unit: str, copy: str, tables: Tables
) -> None:
    """Charge what is about to be committed.

    Args:
        account: of :func:`account_of`; the same for all units, and it need not be read anew.

    Raises:
        UserError: somebody would overdraw, or have more photos in the release than were said:
            nothing of the unit may be published.
    """
    given = job.build_method().guarantee()
    if account is None or given is None:
        return
    noted = tables.records["identity"].to_pylist()
    if job.build_method().kept_look:  # is paid for when it is noted, not when it is dealt out
        if tables.look is None:
            return
        noted = [code and code.hex() for code in tables.look["person"].to_pylist()]
    people = Counter(name for name in noted if name is not None)
    if given.unit == "person" and people.total() != tables.records.num_rows:
        raise UserError("epsilon is per person, and a record has no identity")
    release = ledger.ids.release()
    made = Charge(
        pure=given.loss.pure,
        square=given.loss.square,
        delta=_delta(given),
        records=dict(people),
        name=f"{release}-{copy}",
        release=release,
        unit=unit,
    )
    budget = job.options.privacy_budget

    def allowed(balance: Balance, charge: Charge) -> None:
        if given.unit == "person":
            _refuse_photos(balance.photos_with(charge), given)
        if budget is not None and (over := overdrawn(balance, people, given, budget)):
            raise UserError(
                f"{len(over)} people would overdraw --privacy-budget {budget:g}: another run has "
                "spent of the account since this one began"
            )

    checked = budget is not None or given.unit == "person"
    account.charge(made, allowed if checked else None)


def refuse_overdrawn(job: Job, todo: Sequence[int]) -> None:
    """Find out, before any work, whether what is to be done fits everybody's budget. Reads the
    input once more.

    Raises:
        UserError: somebody would overdraw, or has more photos than were said; who and how much.
    """
    account, given = account_of(job), job.build_method().guarantee()
    budget = job.options.privacy_budget
    if account is None or given is None or job.pseudonym_key is None:
        return
    if given.unit == "person":
        _refuse_photos(_people(job, job.plan.units)[0], given)
    if budget is None:
        return
    people, unnamed = _people(job, [job.plan.units[number] for number in todo])
    if unnamed:
        raise UserError(f"--privacy-budget: {unnamed} rows have no identity that could be charged")
    over = overdrawn(account.balance(), people, given, budget)
    if over:
        who, before, after = over[0]
        raise UserError(
            f"--privacy-budget {budget:g}: {len(over)} of {len(people)} people would overdraw; "
            f"person {who[:16]}… has spent {before:.4g} and would come to {after:.4g} with "
            f"{people[who]} records more (epsilon, at delta {_delta(given):g}); nothing was done"
        )


def _refuse_photos(people: Counter[str], given: Guarantee) -> None:
    """Raises UserError: somebody has more photos than epsilon covers."""
    who, count = max(people.items(), key=lambda item: item[1], default=("", 0))
    if count > given.photos:
        raise UserError(
            f"person {who[:16]}… has {count} photos, and epsilon was said to cover "
            f"{given.photos}: --method-option photos={count}"
        )


def overdrawn(
    balance: Balance, people: Counter[str], given: Guarantee, budget: float
) -> list[tuple[str, float, float]]:
    """Who would overdraw, with epsilon before and after, worst first."""
    balance.delta = min(balance.delta, _delta(given)) if balance.charges else _delta(given)
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
