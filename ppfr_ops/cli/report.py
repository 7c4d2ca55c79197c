"""``ppfr report``: report, dataset card, Croissant and lineage of a finished output."""

import json
import os
from pathlib import Path
from urllib import error, request

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.terminal import echo
from ppfr_ops.errors import UserError

EXAMPLES = """
\b
Examples:
  # report.html for the owner; README.md and croissant.json for those who receive the data
  ppfr report shared/ --name faces-2026 --license cc-by-nc-4.0
  # with the evaluation of the method, held against a policy of one's own, signature checked
  ppfr report shared/ --evaluation eval/evaluation.json --policy policy.yaml --public-key owner.pub
  # lineage, to a file or to a collector
  ppfr report shared/ --lineage lineage.ndjson
  ppfr report shared/ --lineage http://localhost:5000/api/v1/lineage

docs/policy.md has the form of a policy and what holds without one.
Exit codes: 0 it may be released; 1 failed; 2 wrong usage or input; 3 it must not be released.
"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("output")
@click.option("--evaluation", metavar="FILE", help="evaluation.json of the method.")
@click.option("--policy", "policy_file", metavar="FILE", help="YAML; see docs/policy.md.")
@click.option("--public-key", metavar="FILE", help="PEM: whose signature is expected.")
@click.option("--name", default="protected-faces", help="Of the dataset.")
@click.option("--license", "license_", metavar="SPDX", help="Licence of the release.")
@click.option("--creator", help="Who publishes it.")
@click.option("--url", help="Where it will be found.")
@click.option(
    "--report", "report_file", metavar="FILE", help="Default: OUTPUT/evidence/report.html."
)
@click.option(
    "--signing-key",
    metavar="FILE",
    help="PEM: sign the release with its card. Without it, the card and Croissant of a "
    "release that is signed already stay as they are.",
)
@click.option(
    "--load-method",
    metavar="MODULE:CLASS",
    help="Load this method, if it is the one the manifest names, to show what it does to drawn "
    "faces. Methods that are not part of the program are not loaded otherwise.",
)
@click.option("--lineage", metavar="FILE|URL", help="Append OpenLineage events, or post them.")
@click.option("--json", "as_json", is_flag=True, help="The verdict as a JSON document.")
def main(
    output: str,
    evaluation: str | None,
    policy_file: str | None,
    public_key: str | None,
    name: str,
    license_: str | None,
    creator: str | None,
    url: str | None,
    report_file: str | None,
    signing_key: str | None,
    load_method: str | None,
    lineage: str | None,
    as_json: bool,
) -> int:
    """Say whether OUTPUT may be released, and write what its owner and its receivers need:
    evidence/report.html, evidence/annex.html (for the impact assessment, a page of summary first);
    release/README.md (Hugging Face dataset card) and release/croissant.json.

    Verifies every file, holds the figures against the policy, and gives the reasons.
    """
    from ppfr_ops.contracts.policy import (
        DEFAULT,
        IN_PLACE,
        OF_NOBODY,
        WITH_PEOPLE,
        PolicyError,
        parse,
    )
    from ppfr_ops.release.certificates import read_all
    from ppfr_ops.release.documents import annex, cards, report
    from ppfr_ops.release.documents.annex import read_intruder
    from ppfr_ops.release.documents.required import requirements, verdict
    from ppfr_ops.release.figures import ReleaseError, assess, open_release, read_evaluation
    from ppfr_ops.release.publish import write_documents
    from ppfr_ops.release.signing import load_public_key, load_signing_key
    from ppfr_ops.release.verify import verify
    from ppfr_ops.store.folder import EVIDENCE
    from ppfr_ops.store.ledger import Ledger

    try:
        judged = (
            read_evaluation(_read(evaluation, "the evaluation")) if evaluation is not None else None
        )
        key = load_public_key(public_key) if public_key else None
        private = load_signing_key(signing_key) if signing_key else None
        release = open_release(output)
        default = DEFAULT if release.faces is None else DEFAULT + IN_PLACE
        if not release.manifest.options.get("reads_faces", True):
            default = OF_NOBODY + (WITH_PEOPLE if release.singled else "")
        policy = parse(_read(policy_file, "the policy") if policy_file else default)
        findings = list(verify(output, key))
    except (PolicyError, ReleaseError, ValueError) as problem:
        raise UserError(str(problem)) from None
    # Figures of another method say nothing about this release.
    fits = judged is not None and judged.method_digest == release.manifest.method.digest
    checks = assess(policy, release, judged if fits else None)
    required = requirements(findings, checks, release)
    passed, why = verdict(required, checks)
    publication = cards.Publication(name, license_, creator, url)
    signature = "valid, by the key given" if key else "there is one, not checked"
    if not release.signed:
        signature = "none: anyone who can write the files can change them unnoticed"
    elif key and any(finding.file in ("manifest.json", "manifest.sig") for finding in findings):
        signature = "not valid for the key given"
    ledger = Ledger(output)
    shown = judged if fits else None
    # Whether a bound on figures of originals holds is a figure of originals.
    stated = None if release.told.method.private else checks
    card = cards.dataset_card(release, publication, shown, stated)
    croissant = cards.croissant(release, publication, shown)
    page = report.render(
        release,
        publication,
        policy,
        checks,
        findings,
        judged,
        signature,
        load_method,
        read_all(ledger),
    )
    if report_file:
        Path(report_file).write_text(page, "utf-8")
    else:
        ledger.put(page.encode(), EVIDENCE, "report.html")
    intruder = read_intruder(ledger, release.told)
    sheet = annex.render(release, publication, passed, why, required, shown, intruder)
    ledger.put(sheet.encode(), EVIDENCE, "annex.html")
    if private is None and release.signed:
        told = "card and Croissant stay as they were signed; --signing-key writes them anew"
        echo(told, err=True)
    elif findings:
        # A manifest that is written anew would make what was found hold.
        echo("card and Croissant are not written: the files are not as they were", err=True)
    else:
        documents = {"README.md": card, "croissant.json": cards.as_json(croissant)}
        write_documents(ledger, documents, private)
    if lineage:
        _send(lineage, cards.lineage_events(release, publication, passed))
    if as_json:
        document = {
            "passed": passed,
            "reason": why,
            "checks": [check.model_dump() for check in checks],
            "findings": [finding.__dict__ for finding in findings],
        }
        echo(json.dumps(document, indent=2))
    else:
        for finding in findings:
            echo(str(finding))
        for check in checks:
            echo(f"{'met    ' if check.holds else 'NOT MET'}  {check}")
        echo(f"{'may be released' if passed else 'must not be released'}: {why}")
    return 0 if passed else 3


def _read(path: str, what: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        number = getattr(problem, "errno", None)
        reason = os.strerror(number) if number else "not text"
        raise UserError(f"{what} cannot be read: {reason}") from None


def _send(target: str, events: list[dict[str, object]]) -> None:
    """Post the events one by one to an HTTP endpoint, or append them to a file, one a line."""
    if not target.startswith(("http://", "https://")):
        with open(target, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(event) + "\n" for event in events)
        return
    for event in events:
        post = request.Request(
            target, json.dumps(event).encode(), {"Content-Type": "application/json"}
        )
        try:
            with request.urlopen(post, timeout=10):
                pass
        except (error.URLError, OSError) as problem:
            code = getattr(problem, "code", None)
            raise click.ClickException(
                f"the lineage endpoint refused the {event['eventType']} event"
                + (f" (HTTP {code})" if code else " or cannot be reached")
            ) from None
