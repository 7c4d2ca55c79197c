"""``annex.html``: the release's part of a data protection impact assessment, in plain words.

By mode and clause: the question, the attack that was tried, what came of it, when, and who has to
decide. Texts of others are named by number, not quoted. Figures are those of the evaluation and of
the intruder's record; what was not measured is said to be so.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ppfr_ops.contracts.evaluation import Evaluation
from ppfr_ops.contracts.intruder import Attempt, IntruderRecord, luck
from ppfr_ops.contracts.manifest import ReleaseManifest
from ppfr_ops.release.documents.cards import Publication, rendered
from ppfr_ops.release.documents.modes import mode_of
from ppfr_ops.release.documents.required import Required
from ppfr_ops.release.figures import Release
from ppfr_ops.store.folder import EVIDENCE, Folder
from ppfr_ops.words import counted

OWNER, OFFICER = "controller", "data protection officer"
_NOT = "not measured"
_MEANS = {
    "sizes": "by how many pictures a person has",
    "sizes and kept columns": "by that and the values of the kept columns",
    "shards": "by which files of the release a person's pictures lie in",
    "order": "by the order of the pictures in the release",
    "all of these, a guess at everybody": "by all of that together, a name for everybody",
}


def _means(attempt: Attempt) -> str:
    """What the intruder did, in words."""
    return _MEANS.get(
        attempt.means.removeprefix("structure, "),
        "by comparing faces with a face recognition (FR) model",
    )


def read_intruder(folder: Folder, release: ReleaseManifest) -> IntruderRecord | None:
    """What ``ppfr intruder`` found on this very release; None: nothing that can be read."""
    found = folder.model(IntruderRecord, EVIDENCE, "intruder.json")
    return found if found is not None and found.release == release.release else None


@dataclass(frozen=True)
class Row:
    """A clause."""

    clause: str
    question: str
    tried: str
    found: str
    meaning: str
    date: str
    decides: str


def render(
    release: Release,
    publication: Publication,
    passed: bool,
    why: str,
    required: list[Required],
    evaluation: Evaluation | None,
    intruder: IntruderRecord | None,
) -> str:
    """The page.

    Args:
        passed, why, required: the report's verdict, and what it comes from.
        evaluation: of this very method; None: there is none.
        intruder: what ``ppfr intruder`` found; None: it was not run.
    """
    mode = mode_of(release.manifest)
    wp216 = list(_wp216(release, evaluation))
    tests = {
        "evaluation of the method": evaluation,
        "motivated intruder test": intruder,
        "audit of the differential privacy": release.audited,
    }
    return rendered(
        "annex.html.j2",
        publication=publication,
        manifest=release.manifest,
        mode=mode,
        passed=passed,
        why=why,
        required=required,
        wp216=wp216,
        intruder=intruder,
        ico=_ico(intruder),
        means=_means,
        luck=luck,
        tried=[name for name, found in tests.items() if found is not None],
        controller=OWNER,
        officer=OFFICER,
        photographs=release.manifest.options.get("output_faces") == "in-place",
        kept=[str(name) for name in release.manifest.options.get("keep_columns", [])],
        unmeasured=[row.question for row in wp216 if row.found == _NOT],
    )


# -- WP216 ----------------------------------------------------------------------------------


def _wp216(release: Release, evaluation: Evaluation | None) -> Iterator[Row]:
    """The three criteria of Opinion 05/2014."""
    date = "" if evaluation is None else evaluation.created[:10]
    yield _singled_out(release, evaluation, date)
    linkage = (evaluation.linkage or {}) if evaluation is not None else {}
    best = max(linkage.items(), key=lambda item: item[1].rank1, default=None)
    yield Row(
        "WP216, criterion 2: linkability",
        "Can two records, or a record and a photo, be told to be of one person?",
        "face recognition (FR) models compare published pictures with a gallery that holds another "
        "photo of each person",
        _NOT
        if best is None
        else f"the best model ({best[0]}) puts the right person first for "
        f"{_share(best[1].rank1)} of {best[1].probes:,} pictures among {best[1].people:,} people; "
        f"by chance {_share(best[1].chance)}",
        "Nobody tried whether a picture leads to the person; the controller can (ppfr evaluate)."
        if best is None
        else "At chance, the pictures link to nobody. Above chance, so many people can be found by "
        "anyone who has a photo of them.",
        date if best is not None else "",
        OFFICER,
    )
    inferred = evaluation.inference if evaluation is not None else None
    told = [
        f"{name} is told rightly of {_share(found.network.balanced_accuracy)} (by guessing "
        f"{_share(found.chance)}; from the originals "
        f"{_share(found.network_original.balanced_accuracy)})"
        for name, found in (inferred.attributes.items() if inferred is not None else ())
    ]
    yield Row(
        "WP216, criterion 3: inference",
        "Can anything be told of a person that was not to be told?",
        "a network is trained to read sex, age group and ethnicity from published pictures",
        "; ".join(told) or _NOT,
        "The share is the mean over the groups (balanced accuracy). As by guessing: the pictures "
        "tell nothing of it."
        if told
        else "Nobody tried what can be told of a person; the controller can (ppfr evaluate).",
        date if told else "",
        OFFICER,
    )


def _singled_out(release: Release, evaluation: Evaluation | None, date: str) -> Row:
    parts, tried, dated = [], ["counting, by number of pictures and kept columns"], ""
    alone = release.singled
    if alone is not None:
        dated = release.manifest.finished_at[:10]
        parts.append(
            f"of {alone.people:,} people {alone.singled_out:,} stand alone by how many pictures "
            f"they have and by the values of the kept columns; the smallest group with the same in "
            f"both has {counted(alone.structure_k, 'person', 'people')}"
        )
    structure = evaluation.structure if evaluation is not None else None
    if structure is not None:
        tried.append("the structure attack, by all that a release shows but its pictures")
        parts.append(
            f"the best structure attack names {_share(structure.worst)} of {structure.people:,} "
            "people rightly"
        )
        dated = date
    linkage = (evaluation.linkage or {}) if evaluation is not None else {}
    rates = [found.singling_out for found in linkage.values() if found.singling_out is not None]
    if rates:
        chance = next(iter(linkage.values())).singling_out_chance
        tried.append("FR models on the pictures")
        parts.append(
            f"by FR models {_share(max(rates))} of the attacks that single out succeed; up to "
            f"{_share(chance)} do by chance"
        )
        dated = date
    return Row(
        "WP216, criterion 1: singling out",
        "Can somebody's records be told from everybody else's?",
        "; ".join(tried),
        "; ".join(parts) or _NOT,
        "Anyone who knows how many photos of a person went in, and what the kept columns say of "
        "them, finds the records of a person who stands alone. In a group, they are one of the "
        "group; the larger, the better.",
        dated,
        OFFICER,
    )


# -- ICO ---------------------------------------------------------------------


def _ico(found: IntruderRecord | None) -> Row:
    return Row(
        "ICO, anonymisation guidance (March 2025): motivated intruder test",
        "Would somebody who wants to, with photos of likely people and usual means, find anybody?",
        "ppfr intruder: FR models and the structure of the release against candidates with names"
        if found is not None
        else "ppfr intruder OUTPUT --candidates FACES --fr NAME=PATH",
        _NOT if found is None else found.in_words,
        "Not how many names are given counts, but how many are right. Names given at random are "
        "right sometimes, too: more right names than that are people who can be found.",
        "" if found is None else found.date,
        OWNER,
    )


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"
