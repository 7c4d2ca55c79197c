"""What a run has left for a person to look at, for the review page."""

from ppfr_ops.errors import UserError
from ppfr_ops.release.figures import read_all
from ppfr_ops.review.queue import doubts, faint_places, places
from ppfr_ops.review.serving import Item, read_queue
from ppfr_ops.review.verdicts import of_others
from ppfr_ops.sanitize.originals import planned
from ppfr_ops.store.ledger import Ledger


def items_of(
    output: str, source: str | None, key_file: str | None = None, queue: str | None = None
) -> list[Item]:
    """The photographs that a person should look at, worst first.

    Args:
        source, key_file: the run's input, and its key file, if it had one.
        queue: what ``--review-out`` wrote, instead of ``source``.

    Raises:
        UserError: neither or both were given, or they are not of this output.
    """
    if (source is None) == (queue is None):
        raise UserError("say what the photographs are: --input, as of the run (or --queue)")
    ledger = Ledger(output)
    found = read_all(ledger, ledger.entries().values(), "detections")
    boxes: dict[str, list[list[float]]] = {}
    columns = (found[name].to_pylist() for name in ("source_id", "box", "score", "treatment"))
    for name, box, score, treatment in zip(*columns, strict=True):
        if treatment != "covered_faint":
            boxes.setdefault(name, []).append([*box, score])
    faint = faint_places(found)
    others = of_others(ledger.entries().values())
    if source is None:
        return read_queue(str(queue), boxes, others, faint)
    _, manifest, plan, _ = planned(output, source, key_file)
    if "face_sure" not in manifest.options:
        raise UserError("the run was not of photographs (--faces detect)")
    letters = read_all(ledger, ledger.entries().values(), "dead_letters")
    doubted = doubts(found, letters, float(manifest.options["face_sure"]), (), others)
    where = places(doubted, plan)
    return [
        Item(
            each.source_id,
            each.reason,
            round(each.score, 3),
            *where[each.source_id],
            boxes.get(each.source_id, []),
            others.get(each.source_id, ""),
            faint.get(each.source_id, []),
        )
        for each in doubted
        if each.source_id in where
    ]
