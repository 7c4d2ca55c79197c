"""What a surrogate is worth by the number of queries, and whether it predicts the target on what is
published.

A target that is here plays the endpoint: every query goes through the account. The surrogate and
the target are compared on pairs of people that nothing was fitted on. Beside every figure stands
the baseline: the public recognisers without a query. Of TorchScript files the head reads what the
last layer reads, too; of ONNX files templates only, as heads did before.

    python bench/distill.py --faces faces.parquet --target faceres=faceres.onnx \\
        --fr dlib=dlib.ts.pt --fr mobileface=mobileface.ts.pt --gallery lfw_aligned \\
        --pairs lfw_pairs.parquet --pairs-per-fold 50 --cache templates/
"""

import argparse
import hashlib
import tempfile
from pathlib import Path

import numpy as np

from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.lab.distill import collecting, heads
from ppfr_ops.lab.distill.reading import Reader
from ppfr_ops.lab.distill.scoring import of_scores
from ppfr_ops.lab.evaluate.data import read_faces, read_pairs
from ppfr_ops.lab.evaluate.protocol import fold_accuracies
from ppfr_ops.lab.evaluate.publishing import Publisher
from ppfr_ops.lab.evaluate.templates import EmbeddingCache
from ppfr_ops.lab.queries.account import QueryAccount
from ppfr_ops.lab.queries.answers import Answers
from ppfr_ops.lab.queries.asking import QueryClient
from ppfr_ops.methods.registry import create
from ppfr_ops.recognizers import Recognizer, RecognizerSpec


class Known:
    """An access to a target whose templates of all faces are known; counts what it is asked."""

    def __init__(self, faces: np.ndarray, templates: np.ndarray) -> None:
        digests = [hashlib.sha256(face.tobytes()).digest() for face in faces]
        self._templates = dict(zip(digests, templates, strict=True))
        self.asked = 0

    def template(self, picture: bytes, number: int) -> list[float]:
        self.asked += 1
        return self._of(picture).tolist()

    def score(self, a: bytes, b: bytes, number: int) -> float:
        self.asked += 1
        return float(self._of(a) @ self._of(b))

    def _of(self, picture: bytes) -> np.ndarray:
        return self._templates[hashlib.sha256(Encoding("png").decode(picture).tobytes()).digest()]


def main() -> None:
    options = arguments()
    cache = EmbeddingCache(options.cache, print)
    inside = EmbeddingCache(options.cache and options.cache / "inside", print)
    models = [Reader(RecognizerSpec.parse(text), 1) for text in options.fr]
    target = Recognizer(RecognizerSpec.parse(options.target), 1)
    faces = collecting.in_order(read_faces(options.faces, "faces").images)
    gallery = read_faces(options.gallery, "gallery")
    pairs = read_pairs(options.pairs, gallery).first(options.pairs_per_fold)
    index = pairs.images()
    a, b = np.searchsorted(index, pairs.a), np.searchsorted(index, pairs.b)
    shown = gallery.images[index]
    labels = None if gallery.identities is None else [gallery.identities[i] for i in index]

    def scores_of(templates: np.ndarray) -> np.ndarray:
        return (templates[a] * templates[b]).sum(1, dtype=np.float64)

    answers = cache.embed(target, faces, "faces")
    truth = scores_of(cache.embed(target, shown, "gallery"))

    def features_of(seen: np.ndarray, what: str) -> heads.Features:
        read = [(inside if m.sizes[1] else cache).embed(m, seen, what) for m in models]
        return heads.Features.of(read, [m.sizes for m in models])

    public, read = features_of(faces, "faces"), features_of(shown, "gallery")
    names = "+".join(model.name for model in models)
    print(f"{len(a)} pairs of {len(index)} faces; public: {names}; {len(faces)} faces to ask with")
    for size in range(1, len(models) + 1):
        without = heads.Features(read.parts[:size]).baseline(a, b)
        what = "+".join(model.name for model in models[:size])
        print(f"without a query, {what}: Spearman {heads.spearman(without, truth):.4f}")
    head = None
    for access, budget in [("template", n) for n in options.budgets] + [
        ("score", n) for n in options.score_budgets
    ]:
        known = Known(faces, answers)
        with tempfile.TemporaryDirectory() as folder:
            account = QueryAccount(Path(folder) / "account.jsonl", "bench", budget)
            asker = QueryClient(known, account, Answers(Path(folder) / "answers.sqlite"))
            if access == "template":
                places, told = collecting.templates(asker, faces[:budget])
                head, fit = heads.of_templates(public.keep(places), told, options.seconds)
                made = head
            else:
                count = min(len(faces), budget // collecting.PARTNERS)
                known_of = public.keep(slice(count))
                to_ask = collecting.pairs_to_ask(np.concatenate(known_of.parts, axis=1), budget)
                scored = collecting.scores(asker, faces, to_ask)
                made, fit = of_scores(known_of, scored)
        done = heads.run(made, read.joined)
        print(
            f"{access}, {budget} queries allowed, {account.spent} counted, {known.asked} received: "
            f"Spearman {heads.spearman(scores_of(done), truth):.4f} "
            f"(on what was held back {fit.spearman:.4f}, without a query {fit.baseline:.4f})",
            flush=True,
        )
    if options.methods and head is not None:
        transfer(options, cache, features_of, target, head, shown, labels, pairs, scores_of)


def transfer(options, cache, features_of, target, head, shown, labels, pairs, scores_of) -> None:
    """The surrogate's verdict on what methods publish, and the target's own."""
    verdicts = []
    for text in options.methods:
        name, *changes = text.split(",")
        given = dict(change.split("=") for change in changes)
        publisher = Publisher(create(name, given), Encoding("jpeg", 95))
        rng = np.random.default_rng(0)
        # one release: one key for all its pictures
        world = publisher.under(rng.bytes(32))
        published = world.publish(shown, rng, labels)
        mine = scores_of(heads.run(head, features_of(published, text).joined))
        theirs = scores_of(cache.embed(target, published, text))
        accuracy = [
            float(fold_accuracies(s, pairs.same, pairs.folds).mean()) for s in (mine, theirs)
        ]
        verdicts.append(accuracy)
        print(
            f"{text}: accuracy by the surrogate {accuracy[0]:.4f}, by the target "
            f"{accuracy[1]:.4f}; Spearman of their scores {heads.spearman(mine, theirs):.4f}",
            flush=True,
        )
    mine, theirs = np.array(verdicts).T
    print(
        f"over {len(mine)} methods: rank correlation of accuracies "
        f"{heads.spearman(mine, theirs):.3f}; best by the surrogate "
        f"{options.methods[int(mine.argmax())]}, "
        f"by the target {options.methods[int(theirs.argmax())]}"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--faces", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--fr", action="append", required=True)
    parser.add_argument("--gallery", required=True)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--pairs-per-fold", type=int, default=600)
    parser.add_argument("--budgets", type=int, nargs="*", default=[500, 1000, 2000, 4000])
    parser.add_argument("--score-budgets", type=int, nargs="*", default=[20000])
    parser.add_argument("--methods", nargs="*", default=[], metavar="NAME[,KEY=VALUE]")
    parser.add_argument("--seconds", type=float, default=60, help="for a head's network")
    parser.add_argument("--cache", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
