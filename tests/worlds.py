"""Made worlds for the stages of an evaluation: drawn people, small FR models, four methods.

``Shown`` publishes the face itself under a little noise: everything is found. ``Virtual`` draws a
picture from key and label: nothing of the face is in it. ``Turned`` exchanges blocks of pixels as
the key says: nobody finds anybody without the key, and known pairs give it away.
"""

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ppfr_ops import sample
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.lab.evaluate.data import FaceSet, Pairs
from ppfr_ops.lab.evaluate.publishing import Publisher
from ppfr_ops.lab.evaluate.run import Run
from ppfr_ops.lab.evaluate.settings import Settings
from ppfr_ops.lab.evaluate.templates import EmbeddingCache
from ppfr_ops.methods.base import Anonymizer, Context
from ppfr_ops.recognizers import Recognizer, RecognizerSpec

PEOPLE, PHOTOS = 30, 2

SMALL = Settings(
    disclosure_faces=4,
    look_faces=24,
    attack_steps=2,
    side_steps=1,
    attacks=("unet",),
    batch=8,
    test_faces=4,
    group_faces=40,
    student_pairs=32,
    inference_faces=200,
    inference_steps=30,
    linker_pairs=300,
    linker_steps=60,
    known_pairs=(16, 256),
    regeneration_faces=64,
    regeneration_steps=25,
    regeneration_tests=60,
    training_steps=20,
    benchmark_steps=(2, 20),
)


class Small(torch.nn.Module):
    """A made FR model: the picture, reduced and centred."""

    def __init__(self, block: int) -> None:
        super().__init__()
        self.block = block

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        small = torch.nn.functional.avg_pool2d(faces, self.block).flatten(1)
        return torch.nn.functional.normalize(small - small.mean(1, keepdim=True), dim=1)


class Shown(Anonymizer):
    @property
    def draw_size(self) -> int:
        return 4

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        return np.clip(faces + 3 * draws[:, :3].reshape(-1, 1, 1, 3), 0, 255).astype(np.uint8)


class Virtual(Shown):
    secrets: ClassVar = {"release-key": "32 bytes"}
    wants: ClassVar = ("identity",)
    identity: str = "virtual"

    def anonymize_with(self, faces: Faces, draws: NDArray[np.float32], context: Context) -> Faces:
        key, out = self.secret("release-key"), np.empty_like(faces)
        for i, label in enumerate(context["identity"]):
            who = faces[i].tobytes() if label is None else label.encode()
            seed = hashlib.sha256(key + who).digest()
            rng = np.random.default_rng(np.frombuffer(seed, "<u4"))
            out[i] = np.kron(rng.integers(40, 216, (14, 14, 3)), np.ones((8, 8, 1)))
        return self.anonymize(out, draws)


class Others(Shown):
    """Publishes the face of somebody else in the batch."""

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        return super().anonymize(np.roll(faces, 1, 0), draws)


class Turned(Shown):
    secrets: ClassVar = {"release-key": "32 bytes"}
    identity: str = "keyed"

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        key = hashlib.sha256(self.secret("release-key")).digest()
        order = np.random.default_rng(np.frombuffer(key, "<u4")).permutation(49)
        tiles = faces.reshape(-1, 7, 16, 7, 16, 3).swapaxes(2, 3).reshape(-1, 49, 16, 16, 3)
        turned = tiles[:, order].reshape(-1, 7, 7, 16, 16, 3).swapaxes(2, 3)
        return super().anonymize(np.ascontiguousarray(turned.reshape(faces.shape)), draws)


def people(count: int, photos: int, seed: int) -> tuple[Faces, list[str]]:
    """Photos of drawn people, ``photos`` of each in a row, under noise; and who they are."""
    rng = np.random.default_rng(seed)
    base = sample.faces(count, seed=seed, identities=count)
    noise = rng.normal(0, 12, (count, photos, 112, 112, 3))
    images = np.clip(base[:, None] + noise, 0, 255).astype(np.uint8)
    names = [f"person{p:03d}" for p in range(count) for _ in range(photos)]
    return images.reshape(-1, 112, 112, 3), names


def face_set(images: Faces, who: list[str] | None, **attributes: list[int | None]) -> FaceSet:
    names = [f"face{i:04d}" for i in range(len(images))]
    origins = [("made", i) for i in range(len(images))]
    return FaceSet(images, names, who, attributes, origins, [None] * len(images))


class World:
    """A gallery of drawn people, pairs in four folds, faces to attack with, two FR models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        images, who = people(PEOPLE, PHOTOS, 1)
        self.gallery = face_set(images, who)
        first = PHOTOS * np.arange(PEOPLE)
        another = (first + PHOTOS) % len(images)
        self.pairs = Pairs(
            np.r_[first, first],
            np.r_[first + 1, another],
            np.repeat([True, False], PEOPLE),
            np.r_[np.arange(PEOPLE) % 4, np.arange(PEOPLE) % 4],
        )
        base, _ = people(80, 4, 2)
        male = np.arange(len(base)) // 4 % 2
        base = np.clip(base + (50 * male - 25)[:, None, None, None], 0, 255).astype(np.uint8)
        self.attack = face_set(base, None, gender=[int(m) for m in male])
        self.identities = face_set(*people(8, 8, 3))
        for name, block in (("coarse", 14), ("fine", 7)):
            torch.jit.script(Small(block)).save(str(folder / f"{name}.pt"))

    def run(self, method: Anonymizer | None, out: Path, **changes: Any) -> Run:
        models: dict[str, Any] = {
            name: (Recognizer(RecognizerSpec(name, str(self.folder / f"{name}.pt")), 1), role)
            for name, role in (("coarse", "surrogate"), ("fine", "black_box"))
        }
        return Run(
            self.gallery,
            self.pairs,
            models,
            self.attack,
            None if method is None else Publisher(method),
            changes.pop("published", None),
            SMALL.model_copy(update=changes),
            out,
            EmbeddingCache(None, lambda line: None),
            lambda line: None,
            identities=self.identities,
        )
