"""Who holds another photo of a person and an FR model, do they find that person?"""

from typing import Any

import numpy as np

from ppfr_ops.contracts.evaluation import Linkage, Student
from ppfr_ops.lab.evaluate.linkage import StudentAttack, figures, linkage_sets, rank1
from ppfr_ops.lab.evaluate.run import NEEDS_METHOD, Run
from ppfr_ops.lab.evaluate.stages.base import Skip, stage


@stage("published probes against originals, with and without a student")
def linkage(run: Run) -> dict[str, Linkage]:
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
    rows: list[Any] = []
    seed = run.settings.seed
    for name in run.names:
        before, after = seen[name]
        gallery, probes = before[sets.gallery], after[sets.probes]
        more = [after[list(part)] for part in sets.calibration]
        found = figures(gallery, probes, sets, more, seed)
        photos = before[sets.probes]
        same = rank1(photos @ probes.T, np.arange(len(probes)))
        plain = rank1(gallery @ photos.T, sets.probe_rows)
        student = None
        if name in students:
            others = [seen[n][1][sets.probes] for n in run.names]
            guess = students[name].guess(probes, others)
            taught = figures(students[name].gallery(gallery), guess, sets, [], seed)
            student = Student(
                pairs=run.settings.student_pairs,
                rank1=taught["rank1"],
                d_sys=taught["d_sys"],
                rank1_without=found["rank1"],
            )
        rows += [(name, int(size), value) for size, value in found["linking"].items()]
        result[name] = Linkage(
            **found, rank1_same_photo=same, rank1_original=plain, student=student
        )
    columns = zip(("model", "people", "linking"), zip(*rows, strict=True), strict=True)
    run.table("linkage", dict(columns))
    return result


def _students(run: Run) -> dict[str, StudentAttack]:
    if run.publisher is None or run.attack_faces is None:
        run.skip("student", NEEDS_METHOD)
        return {}
    rng = run.stream("linkage: faces that teach the student")
    count = min(run.settings.student_pairs, len(run.training))
    faces = run.training[rng.choice(len(run.training), count, replace=False)]
    published = run.publisher.pairs(faces, run.stream("published: the student's pairs"))
    seen = {name: run.embed(name, published, "student") for name in run.names}
    return {
        name: StudentAttack(
            list(seen.values()), own, run.embed(name, faces, "student"), run.settings.seed
        )
        for name, own in seen.items()
    }
