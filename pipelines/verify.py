"""``ppfr verify``: does an output hold what its manifest says, and nothing else?"""

import json
from typing import Any

import click

from pipelines.cli import Refused, run

EXAMPLES = """
\b
Examples:
  ppfr verify protected/
  ppfr verify s3://bucket/protected --public-key owner.pub --json
  # make a pair of keys; sign a finished output
  openssl genpkey -algorithm ed25519 -out owner.key
  openssl pkey -in owner.key -pubout -out owner.pub
  ppfr verify protected/ --sign owner.key
"""


@click.command(epilog=EXAMPLES)
@click.argument("output")
@click.option("--public-key", help="PEM, Ed25519: the manifest must bear this key's signature.")
@click.option("--sign", "signing_key", help="PEM, Ed25519: sign the manifest if all holds.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of lines.")
def main(output: str, public_key: str | None, signing_key: str | None, as_json: bool) -> int:
    """Check every shard of OUTPUT against manifest and ledger: rows, bytes, sha256, schema, no
    orphan, no id twice, no column outside the allow-list, no metadata in any picture, counts that
    add up, and the signature if a key is given.

    One line for each finding, naming file and reason. Exit codes: 0 all holds, 1 it does not,
    2 there is nothing to verify.
    """
    from ppfr_ops.verify import load_public_key, load_signing_key, sign, verify

    try:
        private = load_signing_key(signing_key) if signing_key else None
        public = load_public_key(public_key) if public_key else None
        findings = list(verify(output, public))
        if private is not None and not findings:
            sign(output, private)
    except ValueError as error:
        raise Refused(str(error)) from None
    if as_json:
        document: dict[str, Any] = {
            "holds": not findings,
            "signature": "not checked" if public is None else "checked",
            "findings": [{"file": f.file, "reason": f.reason} for f in findings],
        }
        click.echo(json.dumps(document, indent=2))
    else:
        for finding in findings:
            click.echo(str(finding))
        if not findings:
            click.echo(
                "all holds" + ("" if public else "; without --public-key nobody vouches for it")
            )
    return 1 if findings else 0


if __name__ == "__main__":
    run(main)
