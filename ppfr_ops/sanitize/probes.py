"""Probes: photos that the holder of a release's key publishes into the release's world.

Of people who do not exist, a photo matches nobody in the release. Published under the release's
key it does, on any recogniser, and still does not show the person. Without the key it cannot be
done: another key makes another world.
"""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from ppfr_ops.contracts.manifest import Method
from ppfr_ops.draws import system_draws
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import FACE_SIZE
from ppfr_ops.imaging.codec import Encoding, ImageError, decode
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.methods.registry import create, methods, shown_to_given
from ppfr_ops.sanitize.identity import ROLE
from ppfr_ops.source.plan import read_unit
from ppfr_ops.source.units import Plan


def method_of(made: Method, key: bytes, load_method: str | None = None) -> Anonymizer:
    """The method of a release, with its key.

    Args:
        load_method: ``module:Class`` that may be imported, if the release names it.

    Raises:
        UserError: the release names code that nobody here named, or the method here is another
            than the one that made the release, or the release shows the people themselves, so that
            any photo is a probe already, or a probe would spend privacy.
    """
    if made.name not in methods() and made.name != load_method:
        raise UserError(
            f"the release names a method of its own ({made.name!a}), which is code; "
            "--load-method says that it may run"
        )
    method = create(made.name, shown_to_given(made.name, made.options))
    if method.digest() != made.digest:
        raise UserError("the release was made by another version of its method")
    if ROLE not in method.needed_secrets():
        raise UserError("the release shows the people themselves: any photo can be searched in it")
    if (method.reads_faces or method.kept_look) and method.guarantee() is not None:
        raise UserError(
            f"a probe by {made.name} would tell of the photo, and no account be charged for it: "
            "publish the photos with ppfr sanitize, with the release's own "
            "--identity-key-file and --privacy-account, under the labels of the people they show"
        )
    return method.with_secrets({ROLE: key})


def people_asked_for(plan: Plan, label: str | None, hide: Callable[[str], str]) -> Counter[str]:
    """Photos of a plan by whose they are, as pseudonyms; empty: nobody says whose.

    Args:
        label: of all of them; None: the plan's identity column says it.
        hide: labels to pseudonyms.
    """
    if label is not None:
        return Counter({hide(label): plan.rows})
    found: Counter[str] = Counter()
    for unit in plan.units:
        table = read_unit(plan, unit)
        whose = table["identity"].to_pylist() if "identity" in table.column_names else []
        found.update("" if name is None else hide(name) for name in whose)
        found[""] += 0 if whose else table.num_rows
    return +found


def probes(
    method: Anonymizer,
    plan: Plan,
    encoding: Encoding,
    label: str | None,
    hide: Callable[[str], str],
) -> Iterator[tuple[int, bytes | str]]:
    """Publish every row of a plan.

    Args:
        plan: of aligned faces.
        label: whose photos they are; None: the plan's identity column says it.
        hide: labels to the pseudonyms of the release.

    Yields:
        Number of the row in the plan, and the encoded picture or a reason code.
    """
    number = 0
    for unit in plan.units:
        table = read_unit(plan, unit)
        for row in table.to_pylist():
            number += 1
            if row["image"] is None:
                yield number, "no_bytes"
                continue
            try:
                face = decode(row["image"], size=(FACE_SIZE, FACE_SIZE))[None]
            except ImageError as error:
                yield number, error.code
                continue
            whose = row.get("identity") if label is None else label
            if whose is not None and not method.reads_faces:
                whose = hide(whose)
            context = method.context_of(face, [whose])
            draws = system_draws([""], method.draw_size, 0)
            yield number, encoding.encode(np.asarray(method(face, draws, context)[0]))
