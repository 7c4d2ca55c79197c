"""Who holds another photo of a person and an FR model, do they find that person?"""

from dataclasses import asdict
from typing import Any

import numpy as np

from ppfr_ops.contracts.evaluation import Linkage, Student
from ppfr_ops.lab.evaluate.linkage import (
    LinkageSets,
    StudentAttack,
    linkage,
    linkage_sets,
    train_student,
)
from ppfr_ops.lab.evaluate.run import Run
from ppfr_ops.lab.evaluate.stages.base import Skip, Stage, register


@register("linkage", dict[str, Linkage])
class LinkageStage(Stage[dict[str, Linkage]]):
    about = "published probes against originals, with and without a student"

    def measure(self, run: Run) -> dict[str, Linkage]:
        if run.gallery.identities is None:
            raise Skip("the gallery has no column identity")
        index = run.pairs.images()
        try:
            sets = linkage_sets([run.gallery.identities[i] for i in index])
        except ValueError as error:
            raise Skip(str(error)) from None
        seen = {name: run.embeddings(name, index) for name in run.names}
        students = _students(run)
        result: dict[str, Linkage] = {}
        rows: list[dict[str, Any]] = []
        seed = run.settings.seed
        for name in run.names:
            before, after = seen[name]
            gallery, probes = before[sets.gallery], after[sets.probes]
            more = [after[list(part)] for part in sets.calibration]
            found = linkage(gallery, probes, sets, more, seed)
            same = linkage(before[sets.probes], probes, _same(sets), [], seed)
            plain = linkage(gallery, before[sets.probes], sets, [], seed)
            student = None
            if name in students:
                others = [seen[n][1][sets.probes] for n in run.names]
                guess = students[name].guess(probes, others)
                taught = linkage(students[name].gallery(gallery), guess, sets, [], seed)
                student = Student(
                    pairs=run.settings.student_pairs,
                    rank1=taught.rank1,
                    d_sys=taught.d_sys,
                    rank1_without=found.rank1,
                )
            rows += [
                {"model": name, "people": int(size), "linking": value}
                for size, value in found.linking.items()
            ]
            result[name] = Linkage(
                **asdict(found),
                rank1_same_photo=same.rank1,
                rank1_original=plain.rank1,
                student=student,
            )
            run.log(
                f"  {name}: finds {found.rank1:.1%} among {len(gallery)} people "
                f"(unprotected {plain.rank1:.1%}), D_sys {found.d_sys:.3f}"
            )
        run.table("linkage", {key: [row[key] for row in rows] for key in rows[0]})
        return result


def _students(run: Run) -> dict[str, StudentAttack]:
    if run.publisher is None or run.attack_faces is None:
        run.skip("student", "needs the method and attack faces")
        return {}
    rng = run.stream("linkage: faces that teach the student")
    count = min(run.settings.student_pairs, len(run.training))
    faces = run.training[rng.choice(len(run.training), count, replace=False)]
    published, _ = run.publisher.pairs(faces, run.stream("published: the student's pairs"))
    seen = {n: run.cache.embed(run.model(n), published, "student") for n in run.names}
    return {
        name: train_student(
            list(seen.values()),
            seen[name],
            run.cache.embed(run.model(name), faces, "student"),
            run.settings.seed,
        )
        for name in run.names
    }


def _same(sets: LinkageSets) -> LinkageSets:
    """The gallery of the very photos that were published."""
    rows = np.arange(len(sets.probes))
    return LinkageSets(sets.probes, sets.probes, rows, tuple(() for _ in rows))
