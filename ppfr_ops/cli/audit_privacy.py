"""``ppfr audit-privacy``: how much privacy a method certainly does not give."""

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.options import key_values
from ppfr_ops.cli.terminal import echo, log
from ppfr_ops.contracts.privacy_audit import DOCUMENT, PrivacyAudit
from ppfr_ops.errors import UserError
from ppfr_ops.sanitize.privacy_audit import audit
from ppfr_ops.store.folder import EVIDENCE, Folder

EXAMPLES = """
\b
Examples:
  # a method, before it is used
  ppfr audit-privacy --method dp-eigenface --method-option epsilon=2 --method-option noise=laplace
  # what was published as PEEP has it, at a claimed epsilon of 0.5
  ppfr audit-privacy --method dp-eigenface --method-option epsilon=0.5 --method-option claim=peep
  # the method of a release; ppfr report then shows the bound beside the claim
  ppfr audit-privacy protected/

A lower bound says what was shown, not what is true: a claim that is not broken is not proven by it.
Exit codes: 0 the claim stands; 2 wrong usage or input; 3 it was broken.
"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("output", required=False)
@click.option("--method", help="Method to audit, instead of that of an output.")
@click.option("--method-option", "method_options", multiple=True, metavar="KEY=VALUE",
              help="An option of the method. Repeatable.")  # fmt: skip
@click.option("--trials", type=click.IntRange(100, 10_000_000), default=10_000,
              help="Pictures of each of the two neighbours.")  # fmt: skip
@click.option("--confidence", type=click.FloatRange(0.5, 1, max_open=True), default=0.95,
              help="Of the bound.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="As JSON, on stdout.")
def main(
    output: str | None,
    method: str | None,
    method_options: tuple[str, ...],
    trials: int,
    confidence: float,
    as_json: bool,
) -> int:
    """Bound epsilon from below, by telling two worst-case neighbours apart in the pictures that the
    sanitizer makes of them. With OUTPUT the bound is kept in its evidence."""
    if (output is None) == (method is None):
        raise UserError("give an OUTPUT or a --method")
    chosen = key_values("--method-option", "KEY=VALUE", method_options)
    folder = None
    if output is not None:
        if method_options:
            raise UserError("--method-option goes with --method")
        folder = Folder(output)
        method, chosen = _method_of(folder)
    assert method is not None
    found = audit(method, chosen, trials, confidence)
    if folder is not None:
        folder.put(found.model_dump_json(indent=1).encode(), EVIDENCE, DOCUMENT)
    if as_json:
        echo(found.model_dump_json(indent=1))
    else:
        _show(found)
    return 0 if found.holds else 3


def _method_of(folder: Folder) -> tuple[str, dict[str, str]]:
    """Name and options of the method that made an output."""
    from ppfr_ops.contracts.manifest import Manifest
    from ppfr_ops.methods.registry import create, methods, shown_to_given

    document = folder.read(EVIDENCE, "manifest.json")
    if document is None:
        raise UserError("there is no finished output of ppfr sanitize")
    made = Manifest.model_validate(document).method
    if made.name not in methods():  # what a file names is not imported
        raise UserError("the method of the output is none of the program's: name it by --method")
    options = shown_to_given(made.name, made.options)
    if create(made.name, options).digest() != made.digest:
        raise UserError("the output was made by another version or other weights of its method")
    return made.name, options


def _show(found: PrivacyAudit) -> None:
    log(
        f"{found.method}: claimed epsilon {found.claimed_epsilon:g}, delta {found.delta:g}; at "
        f"least {found.epsilon_at_least:.3f} with confidence {found.confidence:g} "
        f"({found.hits} hits and {found.false_alarms} false alarms of {found.counted} each)"
    )
    if found.vector_epsilon_at_least is not None:
        log(
            f"the noised vector alone: at least {found.vector_epsilon_at_least:.3f} "
            f"({found.vector_trials:,} of each)"
        )
    if found.unsound:
        log(f"UNSOUND: {found.unsound}")
    elif not found.holds:
        log("BROKEN: the bound is above the claim")
