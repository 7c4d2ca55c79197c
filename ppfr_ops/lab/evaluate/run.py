"""A run of the protocol on one method or one sanitized dataset.

:class:`Run` holds what the stages need and keeps what they found: each leaves a JSON file, so that
a run that was stopped goes on where it was. Faces stay in memory, only figures are written.
"""

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter

from ppfr_ops.imaging.arrays import Faces, in_chunks
from ppfr_ops.lab.evaluate.attacks.networks import mean_face
from ppfr_ops.lab.evaluate.data import FaceSet, Pairs, evenly
from ppfr_ops.lab.evaluate.measured import disclosures, likeness
from ppfr_ops.lab.evaluate.plots import face_grid
from ppfr_ops.lab.evaluate.pool import Pool
from ppfr_ops.lab.evaluate.protocol import pair_scores, threshold_at_far
from ppfr_ops.lab.evaluate.publishing import Labels, Publisher
from ppfr_ops.lab.evaluate.settings import Settings
from ppfr_ops.lab.evaluate.streams import key, stream
from ppfr_ops.lab.evaluate.structure import Attacked
from ppfr_ops.lab.evaluate.templates import EmbeddingCache, Log
from ppfr_ops.recognizers import Embeddings, Recognizer
from ppfr_ops.store.atomic import in_one_step

Role = Literal["surrogate", "black_box"]
P = TypeVar("P")

NEEDS_METHOD = "needs the method and attack faces"


class Skip(Exception):
    """A stage that cannot be measured here; the text says what it would need."""


class Kept(BaseModel):
    """What a stage leaves: its part of the document, or why there is none."""

    model_config = ConfigDict(extra="forbid")
    seconds: float
    result: Any
    skipped: dict[str, str] = {}


class Run:
    """One method (or one sanitized dataset) under the protocol.

    Args:
        gallery: the faces that are measured; never trained on.
        pairs: of the gallery.
        models: FR models by name, with their role, ``surrogate`` or ``black_box``.
        attack_faces: faces of other people, to train the attackers; a tenth is held back.
        publisher: the method; None when only ``published`` is known.
        published: what was published for the gallery; None: made by ``publisher``.
        settings: how much.
        folder: where stages, tables and checkpoints go.
        cache: of templates.
        log: takes a line of progress.
        show_faces: also draw grids of original, published and recovered faces.
        identities: photos of other people with identity labels, for the stage ``training``.
        attacked: the release that the stage ``structure`` looks at.
    """

    def __init__(
        self,
        gallery: FaceSet,
        pairs: Pairs,
        models: dict[str, tuple[Recognizer, Role]],
        attack_faces: FaceSet | None,
        publisher: Publisher | None,
        published: Faces | None,
        settings: Settings,
        folder: Path,
        cache: EmbeddingCache,
        log: Log,
        show_faces: bool = False,
        identities: FaceSet | None = None,
        attacked: Attacked | None = None,
    ) -> None:
        self.show_faces, self.identities, self.attacked = show_faces, identities, attacked
        self.gallery, self.models, self.publisher = gallery, models, publisher
        self.all_pairs = len(pairs.a)
        self.pairs = pairs.first(settings.pairs_per_fold) if settings.pairs_per_fold else pairs
        self.settings, self.folder, self.cache, self.log = settings, folder, cache, log
        self.skipped: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.kept: dict[str, Any] = {}
        self.attack_faces = attack_faces
        if attack_faces is not None:
            held = np.arange(len(attack_faces)) % 10 == 9
            self.training = attack_faces.images[~held]
            self.held = np.flatnonzero(held)
        self.given = published
        self._shown: dict[int, Faces] = {}

    # --- names, random streams, files ---------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """Names of the FR models."""
        return list(self.models)

    def model(self, name: str) -> Recognizer:
        return self.models[name][0]

    def role(self, name: str) -> Role:
        return self.models[name][1]

    @property
    def black_boxes(self) -> list[str]:
        return [name for name, (_, role) in self.models.items() if role == "black_box"]

    def stream(self, name: str, number: int = 0) -> np.random.Generator:
        """Random numbers for one purpose; see :mod:`ppfr_ops.lab.evaluate.streams`."""
        return stream(self.settings.seed, name, number)

    def checkpoint(self, name: str) -> Path:
        """Where the training of the part ``name`` is saved until its result is."""
        return self.folder / "checkpoints" / f"{name}.pt"

    def how(self, name: str, steps: int) -> dict[str, Any]:
        """How the network of the part ``name`` is trained: arguments of ``learning.fit``."""
        told = {"seed": self.settings.seed, "checkpoint": self.checkpoint(name), "log": self.log}
        return {"name": name, "steps": steps, **told}

    def show(self, name: str, **rows: Faces) -> None:
        """Draw ten faces of each row, if faces may be shown."""
        if self.show_faces:
            some = evenly(len(next(iter(rows.values()))), 10)
            grid = [(title, faces[some]) for title, faces in rows.items()]
            face_grid(grid, self.folder / "plots" / f"{name}.png")

    def table(self, name: str, columns: dict[str, Any]) -> None:
        """Write a table beside the document, in one step."""
        path = self.folder / "tables" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        with in_one_step(str(path)) as file:
            pq.write_table(pa.table(columns), file)

    # --- parts --------------------------------------------------------------------------------

    def keep(self, name: str, part: Any, measure: Callable[[], P]) -> P:
        """Measure, or read what an earlier run measured; what was skipped is kept with it.

        A checkpoint of the same name is deleted once the result is on disk, never before.
        """
        if name in self.kept:
            return self.kept[name]
        path = self._kept_in(name)
        adapter: TypeAdapter[P] = TypeAdapter(part)
        if path.is_file():
            self.log(f"{name}: done by an earlier run")
            kept = Kept.model_validate_json(path.read_text())
            found = adapter.validate_python(kept.result)
            self.skipped.update(kept.skipped)
        else:
            self.log(f"{name} …")
            started, before = time.monotonic(), dict(self.skipped)
            found = measure()
            new = {k: v for k, v in self.skipped.items() if before.get(k) != v}
            kept = Kept(
                seconds=round(time.monotonic() - started, 1),
                result=adapter.dump_python(found, mode="json"),
                skipped=new,
            )
            write_text(path, kept.model_dump_json())
        self.checkpoint(name).unlink(missing_ok=True)
        self.seconds[name], self.kept[name] = kept.seconds, found
        return found

    def measured(self, name: str) -> bool:
        """Whether an earlier run left what ``keep`` reads."""
        return self._kept_in(name).is_file()

    def _kept_in(self, name: str) -> Path:
        return self.folder / "stages" / f"{name}.json"

    def skip(self, name: str, reason: str) -> None:
        """Note that something is not measured, and why."""
        self.skipped[name] = reason
        self.log(f"  not {name}: {reason}")

    # --- what is published --------------------------------------------------------------------

    @property
    def method(self) -> Publisher:
        """The method, as everybody has it.

        Raises:
            Skip: there are only published faces.
        """
        if self.publisher is None:
            raise Skip("needs the method")
        return self.publisher

    @property
    def release_key(self) -> bytes:
        """The key of the release under evaluation: one of its own.

        Raises:
            Skip: it was published by others, under a key that is not here.
        """
        if self.given is not None and self.publisher is not None and self.publisher.keyed:
            raise Skip("needs the key of the release")
        return key(self.settings.seed, "the release")

    @cached_property
    def release(self) -> Publisher:
        """The method in the world of the release."""
        return self.method.under(self.release_key)

    def published(self, index: NDArray[np.int64]) -> Faces:
        """What is published for faces ``index`` of the gallery, each with a draw of its own; a
        face is published once, for the stage that asks first."""
        if self.given is not None:
            return self.given[index]
        new = np.array([i for i in index if i not in self._shown], np.int64)
        if len(new):
            self.log(f"  publishing {len(new)} faces of the gallery")
            pictures = self.publish_gallery(self.release, "published: the gallery", new)
            self._shown.update(zip(new.tolist(), pictures, strict=True))
        return np.stack([self._shown[int(i)] for i in index])

    def publish_gallery(self, world: Publisher, purpose: str, index: NDArray[np.int64]) -> Faces:
        """Faces ``index`` of the gallery in a world, every face with draws of its own for one
        purpose."""
        draws = [world.draws(1, self.stream(purpose, int(i))) for i in index]

        def publish(index: NDArray[np.int64], draws: NDArray[np.float32]) -> Faces:
            return world(self.gallery.images[index], draws, self.labels(index))

        return in_chunks(publish, index, np.concatenate(draws), size=32)

    @cached_property
    def pool(self) -> Pool:
        """Pairs that attackers make.

        Raises:
            Skip: there is no method, or nobody to publish.
        """
        if self.publisher is None or self.attack_faces is None:
            raise Skip(NEEDS_METHOD)
        return Pool(self.attack_faces, self.publisher, self.stream, self.cache)

    def labels(self, index: NDArray[np.int64]) -> Labels | None:
        """Identities of gallery faces, where there are any."""
        who = self.gallery.identities
        return None if who is None else [who[i] for i in index]

    def embed(self, name: str, faces: Faces, what: str) -> Embeddings:
        """Templates of faces by a model; ``what`` names them in progress lines."""
        return self.cache.embed(self.model(name), faces, what)

    def embeddings(self, name: str, index: NDArray[np.int64]) -> tuple[Embeddings, Embeddings]:
        """Templates of the gallery's faces ``index``, before and after."""
        before = self.embed(name, self.gallery.images[index], "originals")
        return before, self.embed(name, self.published(index), "published")

    def pair_places(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Faces of the gallery that take part in pairs, and the places in them of both sides."""
        index = self.pairs.images()
        a, b = (np.searchsorted(index, side) for side in (self.pairs.a, self.pairs.b))
        return index, a, b

    @cached_property
    def thresholds(self) -> dict[str, float]:
        """By FR model, the score of FAR 1e-3 on originals: what a recogniser in production has."""
        index, a, b = self.pair_places()
        found = {}
        for name in self.names:
            before = self.embed(name, self.gallery.images[index], "originals")
            impostors = pair_scores(before[a], before[b])[~self.pairs.same]
            found[name] = threshold_at_far(impostors, 1e-3)
        return found

    def matches(self, originals: Faces, faces: Faces, what: str) -> dict[str, float]:
        """Share of faces that FR takes for their originals, by model, at FAR 1e-3 on originals."""
        found = {}
        for name, threshold in self.thresholds.items():
            a, b = self.embed(name, originals, what), self.embed(name, faces, what)
            found[name] = float((pair_scores(a, b) >= threshold).mean())
        return found

    def strangers(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """For every face of ``index`` the place in ``index`` of one of another person."""
        count = len(index)
        other = (np.arange(count) + count // 2) % count
        if self.gallery.identities is not None:
            who = np.array(self.gallery.identities)[index]
            for shift in range(1, count):
                clash = who[other] == who
                if not clash.any():
                    break
                other[clash] = (other[clash] + shift) % count
        return other

    @cached_property
    def mean_face(self) -> Faces:
        """Of those that attackers train on, uint8 ``112 x 112 x 3``."""
        return mean_face(self.training)

    @cached_property
    def floor(self) -> dict[str, float]:
        """What the attacker who learned nothing gets on the test faces, with the mean training
        face in place of a recovered one: ``floor_ssim``, ``floor_psnr``, ``floor_disclosure``."""
        truth = self.gallery.images[evenly(len(self.gallery), self.settings.test_faces)]
        mean = np.broadcast_to(self.mean_face, truth.shape)
        like = {**likeness(truth, mean), "disclosure": disclosures(truth, mean)}
        names = ("ssim", "psnr", "disclosure")
        return {f"floor_{name}": float(like[name].mean()) for name in names}


def write_text(path: Path, text: str) -> None:
    """Write a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with in_one_step(str(path)) as file:
        file.write(text.encode())
