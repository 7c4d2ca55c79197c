"""``ppfr verify``: does an output hold what its manifest says, and nothing else?"""

import json
from typing import Any

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.terminal import echo
from ppfr_ops.errors import UserError

EXAMPLES = """
\b
Examples:
  ppfr verify protected/
  ppfr verify s3://bucket/protected --public-key owner.pub --json
  # against the input: every row accounted for, 200 records drawn at random measured again
  ppfr verify protected/ --against 'data/*.parquet' --identity-key-file key --fr dlib=dlib.onnx
  # make a pair of keys; sign a finished output (or at once: ppfr sanitize --signing-key owner.key)
  openssl genpkey -algorithm ed25519 -out owner.key
  openssl pkey -in owner.key -pubout -out owner.pub
  ppfr verify protected/ --sign owner.key
"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("output")
@click.option("--public-key", help="PEM: the manifest must bear this key's signature.")
@click.option(
    "--min-version",
    type=click.IntRange(min=1),
    metavar="N",
    help="The release's version, at least: tells an older one that was put in its place.",
)
@click.option("--sign", "signing_key", help="PEM: sign the manifest if all holds.")
@click.option(
    "--timestamp",
    metavar="URL",
    help="Have the signature stamped by a time stamping authority (RFC 3161). Needs "
    "--timestamp-root.",
)
@click.option(
    "--timestamp-root",
    metavar="FILE",
    help="PEM: certificates of whom to believe a time stamp; the signature must bear one.",
)
@click.option(
    "--against",
    metavar="INPUT",
    help="The input as the run had it: is every row of it published or a dead letter, and are the "
    "metrics those of the pictures?",
)
@click.option(
    "--sample",
    type=click.IntRange(min=0),
    default=200,
    help="Records that --against measures again.",
)
@click.option(
    "--fr",
    multiple=True,
    metavar="NAME=PATH",
    help="An FR model of the run, to measure with again; repeatable.",
)
@click.option("--image-column", help="As given to the run.")
@click.option("--identity-column", help="As given to the run: are the pseudonyms right?")
@click.option("--identity-from", metavar="LEVEL|PATTERN", help="As given to the run.")
@click.option("--labels", metavar="FILE", help="As given to the run.")
@click.option("--identity-key-file", metavar="FILE", help="As given to the run.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of lines.")
def main(
    output: str,
    public_key: str | None,
    min_version: int | None,
    signing_key: str | None,
    timestamp: str | None,
    timestamp_root: str | None,
    against: str | None,
    sample: int,
    fr: tuple[str, ...],
    image_column: str | None,
    identity_column: str | None,
    identity_from: str | None,
    labels: str | None,
    identity_key_file: str | None,
    as_json: bool,
) -> int:
    """Check a release, or an OUTPUT with its release and its evidence: every file by name, bytes
    and sha256, nothing else there, rows, schema, no id twice, no column outside the allow-list, no
    metadata in any picture, counts that add up, and the signature if a key is given. With
    --against, the input is read again, too.

    One line for each finding, naming file and reason. Exit codes: 0 all holds, 1 it does not,
    2 there is nothing to verify.
    """
    from ppfr_ops.recognizers import Recognizer, RecognizerSpec
    from ppfr_ops.release.findings import Finding
    from ppfr_ops.release.signing import load_public_key, load_signing_key, sign
    from ppfr_ops.release.timestamp import timestamped
    from ppfr_ops.release.verify import manifest_of, verify
    from ppfr_ops.sanitize.audit import Audit, audit
    from ppfr_ops.sanitize.prepare import read_key
    from ppfr_ops.source.plan import Columns, told_by

    if (identity_column or identity_from) and not identity_key_file:
        raise UserError("--identity-column and --identity-from need --identity-key-file")
    if against is None and (fr or identity_key_file or image_column or labels):
        raise UserError("--fr, --image-column, --labels and --identity-key-file go with --against")
    if timestamp and not timestamp_root:
        raise UserError("--timestamp needs --timestamp-root: whom to believe")
    found: Audit | None = None
    private = load_signing_key(signing_key) if signing_key else None
    public = load_public_key(public_key) if public_key else None
    key = read_key(identity_key_file) if identity_key_file else None
    models = [Recognizer(RecognizerSpec.parse(text)) for text in fr]
    findings = list(verify(output, public, min_version or 0))
    # What is damaged is known already; what it says of the input would only confuse.
    if against is not None and not findings:
        columns = told_by(Columns(image_column, identity_column), identity_from, labels)
        found = audit(output, against, columns, key=key, recognizers=models, sample=sample)
        findings = found.findings
    if private is not None and not findings:
        sign(output, private)
    stamped = None
    if timestamp_root is not None:
        stamped = timestamped(output, timestamp_root, None if findings else timestamp)
        if isinstance(stamped, str):
            findings.append(Finding("manifest.sig", stamped))
    manifest = manifest_of(output)
    version = None if manifest is None else manifest.version
    if as_json:
        document: dict[str, Any] = {
            "holds": not findings,
            "version": version,
            "signature": "not checked" if public is None else "checked",
            "against": None if found is None else {"rows": found.rows, "measured": found.measured},
            "findings": [{"file": f.file, "reason": f.reason} for f in findings],
        }
        echo(json.dumps(document, indent=2))
    else:
        for finding in findings:
            echo(str(finding))
        if not findings:
            echo("; ".join(_said(manifest, found, public is not None, stamped)))
    return 1 if findings else 0


def _said(manifest: Any, found: Any, signed: bool, stamped: Any) -> list[str]:
    """That all holds, and what was looked at."""
    from ppfr_ops.imaging.credentials import can_check

    said = ["all holds" + (f" (version {manifest.version})" if manifest is not None else "")]
    if found is not None:
        said.append(f"all {found.rows:,} rows of the input are accounted for")
        said.append(f"{found.measured:,} records measured again")
    if stamped is not None:
        said.append(f"signed before {stamped:%Y-%m-%d %H:%M:%S} UTC")
    if not signed:
        said.append("without --public-key nobody vouches for it")
    if manifest is not None and manifest.options.get("c2pa") and not can_check():
        said.append("of Content Credentials the form alone was checked (the extra c2pa is missing)")
    return said
