"""From options to a job: check them, plan the units, digest what the output depends on."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ppfr_ops.contracts import OF_A_UNIT, VERSIONS
from ppfr_ops.contracts.dead_letters import REASONS
from ppfr_ops.contracts.manifest import PROMISE
from ppfr_ops.contracts.metrics import METRICS, is_measure
from ppfr_ops.contracts.policy import Policy, parse
from ppfr_ops.contracts.records import FACE_COLUMNS, RESERVED_COLUMNS
from ppfr_ops.errors import UserError
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.methods.registry import create
from ppfr_ops.options import digest, shaping
from ppfr_ops.release.signing import load_signing_key
from ppfr_ops.review.verdicts import read_verdicts
from ppfr_ops.sanitize.alignment import aligned
from ppfr_ops.sanitize.groups import people_of, read_groups
from ppfr_ops.sanitize.identity import makes_key, resolved, secrets_with
from ppfr_ops.sanitize.increments import allowed_deletions
from ppfr_ops.sanitize.job import Job
from ppfr_ops.sanitize.marking import INVISIBLE, read_marks
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.photographs.covering import check_shown
from ppfr_ops.sanitize.photographs.output import with_form
from ppfr_ops.source.coarsening import parse as parse_coarsening
from ppfr_ops.source.listing import said, split_version
from ppfr_ops.source.paths import IDENTITY
from ppfr_ops.source.plan import Columns, Plan, plan, told_by
from ppfr_ops.store.files import inside
from ppfr_ops.store.private import read_long, read_private, stretched
from ppfr_ops.vault import Vault, load_key
from ppfr_ops.vault.keys import HOW_TO
from ppfr_ops.vault.recovery import SETTING as VAULT_SETTING

MIN_KEY_BYTES = 16


def prepare(options: SanitizeOptions) -> Job:
    """Check the options, plan the units, and digest what the output depends on.

    Raises:
        UserError: anything that the user has to change; one line.
    """
    options = resolved(_named_by_path(options))
    _check_combinations(options)
    check_columns(options)
    _check_photographs(options)
    _check_places(options)
    for spec in options.recognizer_specs():
        if not os.path.isfile(spec.path):
            raise UserError(f"FR model {spec.name!r}: no such file (--fr)")
    file = options.identity_key_file
    key = None if file is None else owner_key(read_key(file), options.seed is not None)
    policy = _read_policy(options)
    verdicts = None if options.verdicts is None else read_verdicts(options.verdicts)
    if options.signing_key is not None:
        load_signing_key(options.signing_key)
    method = create(options.method, options.method_options)
    secrets = secrets_with(method, read_secrets(options.secrets, method), key)
    stand_in = secrets_with(method, secrets, os.urandom(32) if makes_key(options) else None)
    own = stand_in != secrets
    method = method.with_secrets(stand_in)
    check_method(options, method, policy)
    marks = read_marks(options, method)
    chosen = _planned(options, method, key)
    if options.strict and chosen.left_out:
        raise UserError(f"--strict: of the input would be left out: {said(chosen.left_out)}")
    options = with_form(options, chosen)
    notices: tuple[str, ...] = ()
    if options.photographs is None:
        template, said_of_it = aligned(options, method, chosen)
        options = options.model_copy(update={"align": template})
        notices = (said_of_it,) if said_of_it else ()
    settings = _settings(options, chosen, method, key, policy, marks.get(INVISIBLE))
    settings |= {f"secret {role}": mark(secret) for role, secret in secrets.items()}
    vault = None
    if options.vault is not None and options.vault_key is not None:
        vault = Vault(options.vault).access(load_key(options.vault_key))
        settings[VAULT_SETTING] = vault.release
    people = people_of(options.groups, chosen) if options.photographs and options.groups else None
    job = Job(
        options, chosen, key, method.digest(), settings, policy, verdicts, people, vault,
        secrets=stand_in | marks, notices=notices,
    )  # fmt: skip
    if options.identity_column is None and not job.independent:
        return replace(job, own=own)
    return replace(job, own=own, pseudonym_key=os.urandom(32) if key is None else key)


def _planned(options: SanitizeOptions, method: Anonymizer, key: bytes | None) -> Plan:
    return plan(
        options.input,
        told_by(
            Columns(
                options.image_column,
                options.identity_column,
                options.keep_columns,
                {} if options.photographs is None else options.photographs.given,
                coarse=options.coarsen,
            ),
            options.identity_from,
            options.labels,
        ),
        format=options.input_format,
        unit_rows=options.rows_per_unit,
        least_units=options.least_units,
        key=key,
        limit=options.limit,
        by_bytes=method.guarantee() is None,
    )


def _named_by_path(options: SanitizeOptions) -> SanitizeOptions:
    """The options with the column that ``--identity-from`` makes."""
    if options.identity_from is None:
        return options
    if options.identity_column not in (None, IDENTITY):
        raise UserError("--identity-from and --identity-column say different things")
    return options.model_copy(update={"identity_column": IDENTITY})


def _settings(
    options: SanitizeOptions,
    chosen: Plan,
    method: Anonymizer,
    key: bytes | None,
    policy: Policy | None,
    pattern: bytes | None,
) -> dict[str, str]:
    """Digests of what shapes the output, by what the user would have to change: every option that
    is declared to, as its value or, where the value only names something, as what it names."""
    named: dict[str, Any] = {
        "--method": method.digest(),
        "--method-option": method.digest(),
        "--fr": [[spec.name, spec.digest()] for spec in options.recognizer_specs()],
        "--keep-column": [[item.name, str(item.type)] for item in chosen.keep],
        "--identity-key-file": "" if key is None else mark(key),
        "--c2pa": options.c2pa is not None,
        "--invisible-mark": "" if pattern is None else mark(pattern),
        "--max-disclosure": options.max_disclosure or method.disclosure_limit,
        "--policy": None if policy is None else policy.model_dump(include={"record", "redraws"}),
        "--seed": "system" if options.seed is None else "seeded",
    }
    if options.groups is not None:
        said = sorted((*place, name or "") for place, name in read_groups(options.groups).items())
        named["--groups"] = mark(json.dumps(said).encode())
    if options.photographs is not None:
        named["--detector"] = options.photographs.detector_digest()
    values = {name: digest(value) for name, value in {**shaping(options), **named}.items()}
    kind = "aligned" if options.photographs is None else "detect"
    schemas = " ".join(f"{name}/{VERSIONS[name]}" for name in OF_A_UNIT)
    return {"schemas": schemas, "--faces": kind, "input": chosen.digest(), **values}


def mark(secret: bytes) -> str:
    """A digest that tells another key; slow, so that guesses are."""
    return stretched(secret, "which key this is").hex()[:16]


def check_method(
    options: SanitizeOptions, method: Anonymizer, policy: Policy | None = None
) -> None:
    """Find out whether a method goes with the options: for commands and steps alike.

    Raises:
        UserError: why not.
    """
    if method.kind != "picture":
        raise UserError(f"method {method.name}: it publishes a {method.kind}, not pictures")
    bound = options.max_disclosure is not None or (policy is not None and policy.record)
    if bound and not method.reads_faces:
        raise UserError(
            "neither --max-disclosure nor a policy's bounds on records go with pictures that "
            "depend on no face: whether one is published would depend on a photo it has nothing to "
            "do with; bound the release as a whole (policy, dataset)"
        )
    if bound and not method.redrawable:
        raise UserError(
            f"method {method.name} publishes every record as first drawn: neither "
            "--max-disclosure nor a policy's bounds on records can hold one back"
        )
    check_soundness(method, options.accept_unsound)
    check_shown(options, method, bool(bound))
    _check_privacy(options, method)
    _check_independent(options, method)
    clash = sorted({item.name for item in method.record_figures} & set(options.keep_columns))
    if clash:
        raise UserError(f"--keep-column {clash[0]}: the method adds a column of that name")
    for name in method.needed_context():
        named = options.identity_column is not None or options.photographs is not None
        if name == "identity" and not named and method.reads_faces:
            raise UserError(f"method {method.name}: needs --identity-column")


def check_soundness(method: Anonymizer, accepted: bool) -> None:
    """Refuse a method whose claim does not hold, unless that was accepted.

    Raises:
        UserError: why it does not hold.
    """
    given = method.guarantee()
    if given is not None and given.unsound and not accepted:
        raise UserError(f"method {method.name}: {given.unsound}; --accept-unsound uses it anyway")


def _check_independent(options: SanitizeOptions, method: Anonymizer) -> None:
    independent = not method.reads_faces and options.photographs is None
    if options.discard_key and (method.kept_look or not independent):
        raise UserError(
            "--discard-key: pictures that are made from faces, or keep a look, can be held against "
            "them, key or no key; it goes with aligned faces and --identity virtual"
        )
    drawn = independent or (options.photographs and options.photographs.cover == "virtual")
    if options.groups is not None and (not drawn or options.identity_column is not None):
        raise UserError("--groups goes with virtual people (--cover virtual) without labels")
    if independent and options.vault is not None:
        raise UserError(
            "--vault: no picture of this release is of a photo, so there is none to give back for "
            "it; keep the input"
        )
    if options.mapping is not None and options.discard_key:
        raise UserError(
            "--mapping records who is whom, --discard-key destroys it: give one of them"
        )
    if options.incremental and options.size_rounding == "split":
        raise UserError("--size-rounding split: a release that grows takes add or drop")


def _check_privacy(options: SanitizeOptions, method: Anonymizer) -> None:
    given = method.guarantee()
    undeclared = sorted(PROMISE - {item.name for item in method.release_figures})
    if given is not None and (undeclared or method.redrawable):
        what = f"declares no figure {undeclared[0]}" if undeclared else "may be drawn again"
        raise UserError(f"method {method.name}: promises differential privacy, and {what}")
    if given is not None and options.photographs is not None:
        raise UserError(
            f"method {method.name}: what a detector finds depends on the photograph, which its "
            "guarantee does not cover; give aligned faces"
        )
    measures = [name for name in options.keep_columns if is_measure(name)]
    if given is not None and measures:
        raise UserError(
            f"--keep-column {measures[0]}: a measure of the original, by its name, which the "
            f"guarantee of {method.name} does not cover"
        )
    if given is not None and given.unit == "person" and options.identity_column is None:
        raise UserError(f"method {method.name}: unit person needs --identity-column")
    for name, value in (
        ("--privacy-budget", options.privacy_budget),
        ("--privacy-account", options.privacy_account),
    ):
        if value is None:
            continue
        if given is None:
            raise UserError(f"{name}: method {method.name} promises no differential privacy")
        if options.identity_key_file is None or options.identity_column is None:
            raise UserError(
                f"{name} needs --identity-column and --identity-key-file: an account of people is "
                "by pseudonyms that outlast a release"
            )


def _check_combinations(options: SanitizeOptions) -> None:
    if options.discard_key and not makes_key(options):
        raise UserError(
            "--discard-key is for a key that the run makes; delete your own key yourself"
        )
    unknown = sorted(set(options.retry_dead_letters) - REASONS.keys())
    if unknown:
        raise UserError(
            f"--retry-dead-letters {unknown[0]}: no such code; see {', '.join(REASONS)}"
        )
    if options.incremental and options.identity_key_file is None:
        raise UserError(
            "--incremental needs --identity-key-file: ids have to survive a growing input, and "
            "must not tell names (make a key with: umask 077; openssl rand -hex 32 > FILE)"
        )
    if options.incremental and (options.limit is not None or options.overwrite):
        raise UserError("--incremental goes with neither --limit nor --overwrite")
    if options.propagate_deletions and not options.incremental:
        raise UserError("--propagate-deletions needs --incremental")
    if options.allow_deletions is not None:
        if not options.incremental:
            raise UserError("--allow-deletions needs --incremental")
        allowed_deletions(options.allow_deletions, 0)
    if (options.vault is None) != (options.vault_key is None):
        raise UserError(f"--vault goes with --vault-key ({HOW_TO})")


def check_columns(options: SanitizeOptions) -> None:
    """Find out whether the columns go together: for commands and steps alike.

    Raises:
        UserError: why not.
    """
    names = [spec.name for spec in options.recognizer_specs()]
    if len(set(names)) < len(names):
        raise UserError("--fr: two models have the same name")
    photographs = options.photographs
    crops = photographs is not None and photographs.output_faces == "crops"
    reserved = RESERVED_COLUMNS.union(FACE_COLUMNS if crops else ())
    clash = sorted(reserved & set(options.keep_columns))
    if clash:
        raise UserError(f"--keep-column {clash[0]}: the output has a column of that name already")
    for text in options.coarsen:
        kept = parse_coarsening(text)
        if kept.way is None or kept.name not in options.keep_columns:
            raise UserError(f"--coarsen {text}: expected NAME:bins=WIDTH or so, of a --keep-column")
    if options.identity_column == "":
        raise UserError("--identity-column: the name of a column is missing")
    if options.identity_column in options.keep_columns:
        raise UserError("the identity column leaves as pseudonyms only; do not keep it as it is")


def read_secrets(files: Mapping[str, str], method: Anonymizer) -> dict[str, bytes]:
    """What the method needs, by role: from files, else from ``PPFR_SECRET_ROLE``.

    Raises:
        UserError: a file cannot be read, or others can read it, or the method takes no such secret.
    """
    secrets = {}
    for role in method.secrets:
        text = os.environ.get(f"PPFR_SECRET_{role.replace('-', '_').upper()}")
        if text is not None:
            secrets[role] = text.strip().encode()
    for role, path in files.items():
        secrets[role] = read_private(path, f"--secret-file {role}: the file").strip()
    return secrets


def read_key(path: str) -> bytes:
    """The owner's key of the pseudonyms.

    Raises:
        UserError: no readable file, one that others can read, or too short.
    """
    return read_long(path, "the identity key", MIN_KEY_BYTES)


def owner_key(secret: bytes, seeded: bool) -> bytes:
    """What pseudonyms and ids are made with. A seeded run is a test and takes the secret as it is,
    so that a seed goes on giving the same pictures."""
    return secret if seeded else stretched(secret, "identities")


def _read_policy(options: SanitizeOptions) -> Policy | None:
    if options.policy is None:
        return None
    try:
        policy = parse(Path(options.policy).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the policy cannot be read ({type(error).__name__})") from None
    names = [spec.name for spec in options.recognizer_specs()]
    for metric in policy.record:
        model = metric.removeprefix("id_cosine_")
        if model != metric and model not in names:
            raise UserError(f"policy, record.{metric}: there is no --fr {model}=…")
        slow = metric in METRICS and METRICS[metric].slow
        if options.metrics == "none" or (slow and options.metrics == "basic"):
            raise UserError(f"policy, record.{metric}: not measured by --metrics {options.metrics}")
    return policy


def _check_photographs(options: SanitizeOptions) -> None:
    chosen = options.photographs
    if chosen is None:
        names = ("verdicts", "detections_out", "review_out")
        given = [name for name in names if getattr(options, name) is not None]
        if given:
            raise UserError(f"--{given[0].replace('_', '-')} goes with --faces detect")
        return
    if chosen.output_faces == "crops" and chosen.no_face == "pass":
        raise UserError("--no-face pass goes with --output-faces in-place")
    if chosen.output_faces == "crops" and chosen.background != "keep":
        raise UserError("--background goes with --output-faces in-place")
    if chosen.landmarks_column is not None and chosen.boxes_column is None:
        raise UserError("--landmarks-column goes with --boxes-column")


def _check_places(options: SanitizeOptions) -> None:
    source = split_version(options.input)[0].partition("*")[0]
    if _overlap(options.output, source):
        raise UserError("input and output must not lie inside each other")
    for name, path in (
        ("the mapping", options.mapping),
        ("the file of groups", options.groups),
        ("the identity key", options.identity_key_file),
        ("the signing key", options.signing_key),
        ("the key of the certificate", options.c2pa_key),
        ("the key of the invisible mark", options.invisible_mark),
        ("the review queue", options.review_out),
        ("the verdicts", options.verdicts),
        ("--detections-out", options.detections_out),
        ("the vault", options.vault),
        ("the privacy account", options.privacy_account),
        ("the vault's key", options.vault_key),
        *(("a secret", path) for path in options.secrets.values()),
    ):
        if path is not None and inside(path, options.output):
            raise UserError(f"{name} must not lie inside the output: it is for the owner alone")
    mapping = options.mapping
    if mapping and "://" not in mapping and not Path(mapping).absolute().parent.is_dir():
        raise UserError("--mapping: there is no such folder to write it to")
    if options.vault is not None and options.vault_key is not None:
        if inside(options.vault_key, options.vault):
            raise UserError("the vault's key must not lie inside the vault")
        if _overlap(options.vault, source) or inside(options.output, options.vault):
            raise UserError("vault, input and output must not lie inside each other")


def _overlap(one: str, other: str) -> bool:
    return inside(one, other) or inside(other, one)
