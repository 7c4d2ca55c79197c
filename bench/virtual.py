"""Virtual and keyed identities: who recognises whom? Prints JSON lines, one measurement each.

LFW pairs, every published picture with a draw of its own, JPEG quality 95, keys from the operating
system. Per FR model: protected-protected, protected-original (originals at full size and at 56, 28
and 20 px), two releases under one key and under two, rank 1 among all originals; then likeness of
two draws, disclosure, and known pairs as a curve.

    python bench/virtual.py --faces DATA/lfw_aligned --pairs DATA/lfw_pairs.parquet \\
        --fr dlib=MODELS/dlib.onnx --fr faceres=MODELS/faceres.onnx --share 0.25 --cache /tmp/cache

``--cache``: a folder for the originals' templates. They are biometric data; delete it.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from ppfr_ops.draws import system_draws
from ppfr_ops.imaging.measures import disclosure
from ppfr_ops.lab.evaluate.protocol import threshold_at_far, verify
from ppfr_ops.memory import keep_freed_memory
from ppfr_ops.methods.base import Context
from ppfr_ops.methods.stochastic_local import StochasticLocal
from ppfr_ops.recognizers import Embeddings, Recognizer, RecognizerSpec

Faces = NDArray[np.uint8]
SIZES = (56, 28, 20)
DIRECTIONS = 160
"""Principal ones of the published templates, that known pairs are learned in."""
KNOWN = (16, 32, 64, 128, 256, 512, 2048)


def show(**entry: Any) -> None:
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in entry.items()}
    print(json.dumps(rounded), flush=True)


def read(folder: Path) -> tuple[Faces, list[str], NDArray[Any]]:
    """Faces, paths and identities of a folder of Parquet files."""
    faces, paths, people = [], [], []
    for file in sorted(folder.glob("*.parquet")):
        for row in pq.read_table(file, columns=["image", "identity"]).to_pylist():
            image = cv2.imdecode(np.frombuffer(row["image"]["bytes"], np.uint8), cv2.IMREAD_COLOR)
            faces.append(image[..., ::-1])
            paths.append(row["image"]["path"])
            people.append(row["identity"])
    return np.stack(faces), paths, np.array(people)


def coded(faces: Faces) -> Faces:
    """Through JPEG, quality 95."""
    out = []
    for face in faces:
        _, data = cv2.imencode(".jpg", face[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        out.append(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
    return np.stack(out)


def coarse(faces: Faces, side: int) -> Faces:
    """Reduced to ``side`` px by areas and back up by cubic interpolation."""
    full = faces.shape[1]
    small = (cv2.resize(f, (side, side), interpolation=cv2.INTER_AREA) for f in faces)
    return np.stack([cv2.resize(f, (full, full), interpolation=cv2.INTER_CUBIC) for f in small])


class Bench:
    """The pairs at hand, the originals' templates and what is measured against them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.faces, paths, self.people = read(arguments.faces)
        self.cache: Path | None = arguments.cache
        self.models = [
            Recognizer(RecognizerSpec.parse(text), arguments.threads) for text in arguments.fr
        ]
        where = {path: index for index, path in enumerate(paths)}
        table = pq.read_table(arguments.pairs).to_pandas()
        every = max(1, round(1 / arguments.share))
        table = table[table.groupby(["fold", "same"]).cumcount() % every == 0]
        self.a = np.array([where[path] for path in table["a"]])
        self.b = np.array([where[path] for path in table["b"]])
        self.same, self.folds = table["same"].to_numpy(bool), table["fold"].to_numpy()
        self.used = np.unique(np.concatenate([self.a, self.b]))
        self.at = {face: place for place, face in enumerate(self.used)}
        self.first, self.second = (
            np.array([self.at[i] for i in side]) for side in (self.a, self.b)
        )
        self.original = {model.name: self.templates(model, "all") for model in self.models}
        self.small = {
            (model.name, side): self.templates(model, str(side))
            for model in self.models
            for side in arguments.sizes
        }
        self.sizes = arguments.sizes

    def templates(self, model: Recognizer, what: str) -> Embeddings:
        """Of all originals, or of those in the pairs at ``what`` px."""
        name = f"{model.name}-{what}-{len(self.used)}.npy" if what != "all" else f"{model.name}.npy"
        file = self.cache / name if self.cache else None
        if file is not None and file.exists():
            return np.load(file)
        faces = self.faces if what == "all" else coarse(self.faces[self.used], int(what))
        found = model.embed(faces)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, found)
        return found

    def publish(self, method: StochasticLocal) -> Faces:
        """The faces of the pairs, published with fresh draws."""
        faces = self.faces[self.used]
        draws = system_draws([""] * len(faces), method.draw_size)
        if method.identity == "virtual":
            return coded(method(faces, draws, Context({"identity": list(self.people[self.used])})))
        return coded(method(faces, draws))

    def verified(self, one: Embeddings, other: Embeddings) -> dict[str, float]:
        scores = np.einsum("nd,nd->n", one[self.first], other[self.second])
        found = verify(scores, self.same, self.folds)
        return {"accuracy": found.accuracy, "auc": found.auc, "tar": found.tar["0.001"]}

    def across(self, one: Embeddings, other: Embeddings) -> tuple[NDArray[Any], NDArray[Any]]:
        """Scores of all genuine and all impostor comparisons of two sets of the used faces."""
        people = np.unique(self.people[self.used], return_inverse=True)[1]
        alike = people[:, None] == people[None, :]
        scores = one @ other.T
        return scores[alike & ~np.eye(len(alike), dtype=bool)], scores[~alike]

    def recognition(self, mode: str, first: dict[str, Embeddings]) -> None:
        """Protected-protected and protected-original, every FR model."""
        for model in self.models:
            name, seen = model.name, first[model.name]
            real = self.original[name][self.used]
            threshold = threshold_at_far(self.across(real, real)[1], 1e-3)
            genuine, impostor = self.across(seen, seen)
            own = threshold_at_far(impostor, 1e-3)
            show(
                mode=mode,
                what="protected-protected",
                fr=name,
                **self.verified(seen, seen),
                originals=self.verified(real, real)["accuracy"],
                tar_all_impostors=float((genuine >= own).mean()),
                impostors_above_originals_threshold=float((impostor >= threshold).mean()),
                genuine_above_it=float((genuine >= threshold).mean()),
            )
            against = {"112": self.verified(seen, real)["accuracy"]}
            for side in self.sizes:
                against[str(side)] = self.verified(seen, self.small[name, side])["accuracy"]
            hits = (seen @ self.original[name].T).argmax(1)
            scores = seen @ self.original[name].T
            scores[np.arange(len(seen)), self.used] = -np.inf
            other = self.people[scores.argmax(1)] == self.people[self.used]
            show(
                mode=mode,
                what="protected-original",
                fr=name,
                **{f"accuracy_{side}px": value for side, value in against.items()},
                rank1_same_photo=float((hits == self.used).mean()),
                rank1_another_photo=float(other.mean()),
            )

    def known_pairs(self, mode: str, seen: dict[str, Embeddings]) -> None:
        """Learn from n pairs of original and published what templates to expect of a face.

        Ridge regression in kernels of degree one and two and their mix (for codes by quadratic
        forms the second is the best predictor that there is), from the templates of every FR model
        to the published templates of every one; the best attacker counts.
        """
        rng = np.random.default_rng(0)
        faces = {k: _unit(v - v.mean(0)) for k, v in self.original.items()}
        faces["all"] = _unit(np.concatenate(list(faces.values()), 1))
        pictures = np.concatenate([_unit(v - v.mean(0)) for v in seen.values()], 1)
        pictures = _unit(pictures @ np.linalg.eigh(pictures.T @ pictures)[1][:, -DIRECTIONS:])
        kernels = {"1": lambda c: c, "2": lambda c: c * c, "1+2": lambda c: (c + c * c) / 2}
        for count in (count for count in KNOWN if count < len(self.used) / 2):
            known = rng.choice(len(self.used), count, replace=False)
            others = np.flatnonzero(~np.isin(self.people[self.used], self.people[self.used][known]))
            target = self.used[others]
            best: dict[str, tuple[float, str]] = {"same": (0.0, ""), "another": (0.0, "")}
            for source, x in faces.items():
                gram, gallery = (
                    x[self.used[known]] @ x[self.used[known]].T,
                    x @ x[self.used[known]].T,
                )
                for degree, kernel in kernels.items():
                    for ridge in (0.1, 1.0):
                        weights = np.linalg.solve(
                            kernel(gram) + ridge * np.eye(count), pictures[known]
                        )
                        scores = pictures[others] @ _unit(kernel(gallery) @ weights).T
                        label = f"{source}, degree {degree}, ridge {ridge}"
                        same = float((scores.argmax(1) == target).mean())
                        scores[np.arange(len(target)), target] = -np.inf
                        hit = self.people[scores.argmax(1)] == self.people[target]
                        several = np.isin(
                            self.people[target], _several(self.people)
                        )  # who has no other photo cannot be found by one
                        best["same"] = max(best["same"], (same, label))
                        best["another"] = max(best["another"], (float(hit[several].mean()), label))
            show(
                mode=mode,
                what="known pairs",
                pairs=count,
                rank1_same_photo=best["same"][0],
                rank1_another_photo=best["another"][0],
                attacker=best["another"][1],
                gallery=len(self.people),
            )


def _several(people: NDArray[Any]) -> NDArray[Any]:
    names, counts = np.unique(people, return_counts=True)
    return names[counts > 1]


def _unit(rows: NDArray[Any]) -> NDArray[Any]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def privacy(bench: Bench, mode: str, method: StochasticLocal, published: Faces) -> None:
    """Disclosure of the first 200 pictures, and how alike two draws of a face are."""

    def tensor(faces: Faces) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(faces)).permute(0, 3, 1, 2).float() / 255

    some = bench.used[:200]
    faces, labels = bench.faces[some], Context({"identity": list(bench.people[some])})
    again = coded(method(faces, system_draws([""] * len(some), method.draw_size), labels))
    shown = disclosure(tensor(faces), tensor(published[:200])).numpy()
    alike = disclosure(tensor(published[:200]), tensor(again)).numpy()
    show(
        mode=mode,
        what="privacy",
        disclosure=float(shown.mean()),
        disclosure_p99=float(np.quantile(shown, 0.99)),
        draw_similarity=float(alike.mean()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--fr", action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--mode", action="append", choices=["virtual", "keyed"])
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--share", type=float, default=1.0, help="of the pairs of every fold")
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--whole", action="store_true", help="keyed: the release is all faces, not those of pairs"
    )
    parser.add_argument("--cache", type=Path)
    parser.add_argument(
        "--two-keys",
        action="store_true",
        help="two more releases: under the same key, as probes are, and under another",
    )
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    bench = Bench(arguments)
    show(what="set", pairs=len(bench.a), faces=len(bench.used), gallery=len(bench.faces))
    for mode in arguments.mode or ["virtual", "keyed"]:
        options = dict(text.split("=", 1) for text in arguments.option)
        method = StochasticLocal.model_validate({"identity": mode, **options})
        if method.gathers():
            release = bench.faces if arguments.whole else bench.faces[bench.used]
            began = time.process_time()
            method = method.with_crowd(method.features(release))
            took = 1000 * (time.process_time() - began) / len(release)
            show(mode=mode, what="speed of the first look", ms_a_face=took)
            method.forget()
        key = os.urandom(32)
        began = time.process_time()
        published = bench.publish(method.with_secrets({"identity-key": key}))
        show(
            mode=mode, what="speed", ms_a_face=1000 * (time.process_time() - began) / len(published)
        )
        seen = {model.name: model.embed(published) for model in bench.models}
        bench.recognition(mode, seen)
        bench.known_pairs(mode, seen)
        privacy(bench, mode, method.with_secrets({"identity-key": key}), published)
        if arguments.two_keys:
            for what, other in (("same key", key), ("another key", os.urandom(32))):
                release = bench.publish(method.with_secrets({"identity-key": other}))
                for model in bench.models:
                    found = model.embed(release)
                    show(
                        mode=mode,
                        what=what,
                        fr=model.name,
                        **bench.verified(seen[model.name], found),
                    )


if __name__ == "__main__":
    main()
