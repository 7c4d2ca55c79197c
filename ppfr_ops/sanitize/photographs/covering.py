"""What covers the heads of photographs that are published whole: the options, completed."""

from typing import Any

from ppfr_ops.errors import UserError
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.sanitize.options import SanitizeOptions

METHOD = "cover"
"""The method behind the covers that show nothing of anybody."""

VIRTUAL = "portrait"
"""The method behind those that show somebody new."""


def with_cover(options: SanitizeOptions) -> SanitizeOptions:
    """The options with ``--cover`` as a method and its options. Loads no method.

    Raises:
        UserError: it goes with other options than those that were given.
    """
    photographs = options.photographs
    if photographs is None:
        return options
    if photographs.output_faces == "crops":
        if photographs.cover is not None:
            raise UserError("--cover goes with --output-faces in-place")
        return options
    usual = type(options).model_fields["method"].default
    named = options.method != usual or bool(options.method_options)
    cover = photographs.cover or ("method" if named else "blur")
    photographs = photographs.model_copy(update={"cover": cover})
    update: dict[str, Any] = {"photographs": photographs}
    if cover != "method":
        method = VIRTUAL if cover == "virtual" else METHOD
        chosen = {} if cover == "virtual" else {"style": str(cover)}
        if named and (options.method, options.method_options) != (method, chosen):
            raise UserError(
                f"--cover {cover} needs no method; --cover method puts what {options.method} makes "
                "of a face into the photograph"
            )
        update |= {"method": method, "method_options": chosen}
    return options.model_copy(update=update)


def with_metrics(options: SanitizeOptions) -> SanitizeOptions:
    """The options with a level of metrics."""
    asked = options.fr or options.policy or options.max_disclosure
    level = "none" if options.method in (METHOD, VIRTUAL) and not asked else "full"
    return options.model_copy(update={"metrics": options.metrics or level})


def check_shown(options: SanitizeOptions, method: Anonymizer, bounded: bool) -> None:
    """Refuse a method that says nothing of how much it shows: a face in its own surroundings is
    recognised by them, and by less.

    Args:
        bounded: whether the owner bounds what a record may disclose.

    Raises:
        UserError: which cover to take instead.
    """
    photographs = options.photographs
    if photographs is None or photographs.output_faces == "crops" or bounded:
        return
    shows_others = "identity-key" in method.needed_secrets()
    if method.name == METHOD or method.disclosure_limit is not None or shows_others:
        return
    raise UserError(
        f"method {method.name} in place sets no limit to what it shows of a face; choose --cover "
        "blur, mosaic or solid, or say with --max-disclosure how much may be seen (1: all)"
    )
