"""Can the very photo, or the person, be found among all originals by a strong attacker?"""

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.contracts.evaluation import KnownPairs, Linker
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.lab.evaluate.attacks.linker import Frame, Known, Search, Taught, known_pairs
from ppfr_ops.lab.evaluate.data import rows_of
from ppfr_ops.lab.evaluate.run import NEEDS_METHOD, Run
from ppfr_ops.lab.evaluate.stages.base import Skip, stage
from ppfr_ops.recognizers import Embeddings


def whole_people(identities: list[str], most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """At most ``most`` faces, all photos of some people; indices, sorted."""
    chosen: list[int] = []
    people = list(rows_of(identities).values())
    for place in rng.permutation(len(people)):
        if len(chosen) + len(people[place]) <= most:
            chosen += people[place]
    return np.array(sorted(chosen))


@stage("a network taught by pairs without end; known pairs of the release, as a curve")
def linker(run: Run) -> Linker:
    if run.publisher is None or run.attack_faces is None:
        raise Skip(NEEDS_METHOD)
    if run.gallery.identities is None:
        raise Skip("the gallery has no column identity")
    settings = run.settings
    rng = run.stream("linker: people to find")
    index = whole_people(run.gallery.identities, settings.linker_gallery, rng)
    names = [run.gallery.identities[i] for i in index]
    rng = run.stream("linker: people to find")
    wanted = whole_people(names, settings.linker_probes, rng)
    search = Search(np.unique(names, return_inverse=True)[1], wanted)
    originals = _templates(run, run.gallery.images[index], "linker: the gallery")
    probes = _templates(run, run.published(index[wanted]), "linker: the probes")

    both = [run.pool.templates(run.model(name), settings.linker_pairs) for name in run.names]
    faces, seen = [before for before, _ in both], [after for _, after in both]
    before, after = Frame.of(faces), Frame.of(seen)
    gallery, queries = before(originals), after(probes)
    untaught = {
        name: search.found(after.one(probes, i) @ before.one(originals, i).T)
        for i, name in enumerate(run.names)
    }
    network = Taught(after(seen), before(faces), **run.how("linker", settings.linker_steps))
    taught = search.found(network.guess(queries) @ gallery.T)
    return Linker(
        gallery=len(index),
        probes=len(wanted),
        probes_with_another_photo=int(search.another.sum()),
        training_pairs=len(seen[0]),
        keys=run.pool.keys(settings.linker_pairs),
        models=run.names,
        chance=search.chance,
        untaught=untaught,
        taught=taught,
        known_pairs=_curve(run, before, originals, probes, search),
    )


def _templates(run: Run, faces: Faces, what: str) -> list[Embeddings]:
    return [run.embed(name, faces, what) for name in run.names]


def _curve(
    run: Run, before: Frame, gallery: list[Embeddings], probes: list[Embeddings], search: Search
) -> list[KnownPairs]:
    """Known pairs of the release: other people's faces that were published in it."""
    sizes = [n for n in run.settings.known_pairs if n <= len(run.pool.order)]
    if not sizes:
        return []
    try:
        release = run.release
    except Skip as reason:
        run.skip("known_pairs", str(reason))
        return []
    faces = run.pool.originals(max(sizes))
    published = release.publish(faces, run.stream("published: known pairs"))
    originals = [run.pool.templates(run.model(name), len(faces))[0] for name in run.names]
    seen = _templates(run, published, "linker: known pictures")
    # the attacker centres by all pictures of the release, which are public
    after = Frame.of(probes)
    known = Known(
        after(seen), after(probes), _frames(run, before, originals), _frames(run, before, gallery)
    )
    return [known_pairs(known.first(size), search) for size in sizes]


def _frames(run: Run, frame: Frame, templates: list[Embeddings]) -> dict[str, NDArray[np.float32]]:
    """Originals in the frame of all FR models, and of each alone."""
    alone = {name: frame.one(templates, i) for i, name in enumerate(run.names)}
    return {"all": frame(templates), **(alone if len(alone) > 1 else {})}
