"""Whom the pictures of a run show: what the options come to, and where the key comes from.

Methods that can show somebody else declare the secret ``identity-key`` and a field ``identity``.
Their key is the owner's (``--identity-key-file``); a run without one makes a key for its release
and keeps it with the evidence, where later runs find it.
"""

import os
from dataclasses import replace

from ppfr_ops.errors import UserError
from ppfr_ops.keys import derive
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.methods.registry import create, find
from ppfr_ops.sanitize import release_plan
from ppfr_ops.sanitize.job import Job
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.photographs.covering import with_cover, with_metrics
from ppfr_ops.store.folder import EVIDENCE
from ppfr_ops.store.ids import new_secret
from ppfr_ops.store.ledger import LEDGER, Ledger

ROLE = "identity-key"
KEY = (*LEDGER, "release_key.json")
_FIELDS = {
    "identity": "cannot show another person",
    "variation": "cannot show another person",
    "keep_look": "draws no look (natural does)",
    "look_epsilon": "draws no look (natural does)",
}


def resolved(options: SanitizeOptions, whole: bool = True) -> SanitizeOptions:
    """The options with ``--identity``, ``--variation``, ``--keep-look`` and ``--look-epsilon`` as
    options of the method.

    Args:
        whole: whether a release is made at once, and not a batch by anyone who calls.

    Raises:
        UserError: the method shows nobody else, or the labels are missing.
    """
    options = _for_original(with_metrics(with_cover(options)))
    method = find(options.method)
    chosen = dict(options.method_options)
    for name, cannot in _FIELDS.items():
        value, flag = getattr(options, name), f"--{name.replace('_', '-')}"
        if value is None or (value == "virtual" and _always_virtual(method)):
            continue
        if ROLE not in method.secrets or name not in method.model_fields:
            raise UserError(f"{flag}: method {options.method} {cannot}")
        if chosen.get(name, str(value)) != str(value):
            raise UserError(f"{flag} and --method-option {name} say different things")
        chosen[name] = str(value)
    chooses = ROLE in method.secrets and "identity" in method.model_fields
    if chooses and chosen.setdefault("identity", "virtual") == "virtual":
        chosen.setdefault("variation", "0")
    people = _always_virtual(method) or chosen.get("identity") == "virtual"
    if people and not whole and options.identity_column is None:
        raise UserError(
            "in one pass nobody can tell which photos show the same person: identity_column names "
            "the column that says it (ppfr group finds who seems to be the same), or "
            "identity='original' shows the people themselves"
        )
    return options.model_copy(update={"method_options": chosen})


def _always_virtual(method: type[Anonymizer]) -> bool:
    return ROLE in method.secrets and "identity" not in method.model_fields


def _for_original(options: SanitizeOptions) -> SanitizeOptions:
    """The options with a method that can show the people themselves, if that is asked of the usual
    one."""
    shown = options.identity or options.method_options.get("identity")
    if shown != "original" or options.method != type(options).model_fields["method"].default:
        return options
    return options.model_copy(update={"method": "stochastic-local"})


def makes_key(options: SanitizeOptions) -> bool:
    """Whether the run needs a key that nobody gave it."""
    if options.identity_key_file is not None:
        return False
    needed = create(options.method, options.method_options).needed_secrets()
    given = ROLE in options.secrets or "PPFR_SECRET_IDENTITY_KEY" in os.environ
    return options.identity_column is not None or (ROLE in needed and not given)


def secrets_with(
    method: Anonymizer, secrets: dict[str, bytes], key: bytes | None
) -> dict[str, bytes]:
    """The method's secrets; the identity key, where none was given, is the owner's ``key``, which
    serves for pseudonyms too (the method derives its own from it)."""
    if ROLE in method.needed_secrets() and ROLE not in secrets and key is not None:
        return {**secrets, ROLE: key}
    return secrets


def with_release_key(job: Job, ledger: Ledger) -> Job:
    """The job with the key that its release has, or gets now; for a run that has something to do.

    Raises:
        UserError: the key was discarded.
    """
    if not makes_key(job.options):
        return job
    key = release_key(ledger)
    if key is None:
        if ledger.committed_ids():
            raise UserError(
                "the key of this release was discarded, so nothing can be added to it; "
                "--overwrite begins a new release"
            )
        ledger.create({"key": new_secret(job.options.seed).hex()}, *KEY)
        if ledger.local:
            os.chmod(ledger.path(*KEY), 0o600)
        key = release_key(ledger)
        if key is None:
            raise UserError("the key of the release cannot be kept in the output")
    return with_key(job, key)


def with_key(job: Job, key: bytes) -> Job:
    """The job with a key of its release: for pseudonyms, and for the method."""
    method = create(job.options.method, job.options.method_options)
    given = {role: secret for role, secret in job.secrets.items() if role != ROLE or not job.own}
    job = replace(job, secrets=secrets_with(method, given, key))
    named = job.options.identity_column or job.independent
    return replace(job, pseudonym_key=derive(key, "pseudonyms") if named else None)


def throw_away(ledger: Ledger) -> None:
    """Remove all by which somebody could tell whose picture is whose: the secret of the ids and
    draws, the key of the people, what was noted of rows, and the plan. The secret goes first, and
    what is left in its place says that the rest has to follow; so this can be begun again."""
    ledger.throw_away()
    ledger.remove(*KEY)
    for name in ledger.names(EVIDENCE, "set_aside"):
        ledger.remove(EVIDENCE, "set_aside", name)
    for entry in list(ledger.entries().values()):
        if "look" in entry.shards:
            ledger.drop(entry, "look")
    release_plan.forget(ledger)


def release_key(ledger: Ledger) -> bytes | None:
    """The key that a release keeps with its evidence; None: it has none, or none any more."""
    try:
        return bytes.fromhex(str((ledger.read(*KEY) or {})["key"]))
    except (KeyError, ValueError):
        return None
