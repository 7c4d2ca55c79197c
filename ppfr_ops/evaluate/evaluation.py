"""The protocol: utility, disclosure, diversity, linkage, recovery attacks and groups of a method.

:class:`Evaluation` runs it stage by stage; each stage leaves a JSON file, so that a run that was
stopped goes on where it was. Faces stay in memory, only figures are written.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ppfr_ops.errors import UserError
from ppfr_ops.evaluate.attacks.recovery import (
    NETS,
    CurvePoint,
    Publish,
    RecoveryAttack,
    flattened,
    mean_face,
    to_tensor,
)
from ppfr_ops.evaluate.linkage import linkage, linkage_sets, train_student
from ppfr_ops.evaluate.plots import face_grid
from ppfr_ops.evaluate.protocol import Verification, pair_scores, threshold_at_far, verify
from ppfr_ops.evaluate.publishing import Publisher, texture_probe
from ppfr_ops.imaging.arrays import FACE_SIZE, Faces
from ppfr_ops.imaging.codec import ImageError, decode
from ppfr_ops.imaging.measures import disclosure, luminance, psnr, ssim
from ppfr_ops.recognizers import Embeddings, Recognizer

Log = Callable[[str], None]
STANDARD = (*NETS, "templates")
"""Attackers that hold the method, and a fresh draw for every picture."""

GROUP_ATTRIBUTES = ("age", "gender", "ethnicity")
_AGES = ((0, 12), (13, 19), (20, 34), (35, 49), (50, 64), (65, 200))
_NAMES = {
    "gender": {0: "male", 1: "female"},
    "ethnicity": {0: "White", 1: "Black", 2: "Asian", 3: "Indian", 4: "other"},
}


class Settings(BaseModel):
    """How much is measured. The presets are :data:`QUICK` and :data:`FULL`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    seed: int = 0
    pairs_per_fold: int | None = Field(default=None, ge=2, description="None: all")
    disclosure_faces: int = Field(default=2000, ge=2)
    attack_steps: int = Field(default=3000, ge=1)
    attack_seconds: float | None = Field(default=None, gt=0)
    side_steps: int = Field(
        default=1000, ge=1, description="steps of the averaging, fixed and leaked forms"
    )
    attacks: tuple[str, ...] = ("unet", "residual", "templates", "averaging", "fixed", "leaked")
    batch: int = Field(default=32, ge=1)
    test_faces: int = Field(default=500, ge=2)
    pictures: int = Field(default=32, ge=2, description="K of the averaging attack")
    averaging_faces: int = Field(default=4096, ge=64)
    student_pairs: int = Field(default=256, ge=8)
    group_faces: int = Field(default=964, ge=2)


FULL = Settings()
QUICK = Settings(
    pairs_per_fold=100,
    disclosure_faces=500,
    attack_steps=200,
    side_steps=100,
    attacks=("unet",),
    test_faces=200,
    averaging_faces=128,
    group_faces=300,
)


@dataclass(frozen=True)
class FaceSet:
    """Aligned faces in memory.

    ``images`` uint8 ``N x 112 x 112 x 3`` RGB; ``names`` only to resolve pairs, never written out;
    ``identities`` where the data has them; ``attributes`` integer columns, None for a missing
    label.
    """

    images: Faces
    names: list[str]
    identities: list[str] | None
    attributes: dict[str, list[int | None]]
    origins: list[tuple[str, int]]
    """File and row; never written out."""

    def __len__(self) -> int:
        return len(self.images)

    def sha256(self) -> str:
        return pixels_sha256(self.images)

    def keep(self, mask: NDArray[np.bool_]) -> "FaceSet":
        """Only the faces where ``mask`` is True."""

        def some(values: list[Any]) -> list[Any]:
            return [value for value, kept in zip(values, mask, strict=True) if kept]

        return FaceSet(
            self.images[mask],
            some(self.names),
            None if self.identities is None else some(self.identities),
            {name: some(values) for name, values in self.attributes.items()},
            some(self.origins),
        )


def pixels_sha256(images: Faces) -> str:
    """sha256 of the decoded pixels, hex."""
    return hashlib.sha256(images.tobytes()).hexdigest()


def _decode(rows: list[dict[str, Any] | None], what: str) -> Faces:
    images = np.empty((len(rows), FACE_SIZE, FACE_SIZE, 3), np.uint8)
    for i, row in enumerate(rows):
        try:
            images[i] = decode((row or {}).get("bytes") or b"", size=(FACE_SIZE, FACE_SIZE))
        except ImageError as error:
            detail = f" ({error.detail})" if error.detail else ""
            raise UserError(
                f"{what}, row {i}: {error.code.replace('_', ' ')}{detail}, needed: an aligned face "
                f"of {FACE_SIZE}x{FACE_SIZE} px"
            ) from None
    return images


def _table(path: str, what: str) -> tuple[pa.Table, list[tuple[str, int]]]:
    """A Parquet file or folder, and the file and row that every row comes from."""
    try:
        files = sorted(pads.dataset(path, format="parquet").files)
        tables = [pq.read_table(file) for file in files]
        table = pa.concat_tables(tables, promote_options="default")
    except (OSError, ValueError):
        raise UserError(f"{what}: no readable Parquet data in {path}") from None
    if "image" not in table.column_names or not pa.types.is_struct(
        table.schema.field("image").type
    ):
        raise UserError(f"{what}: no column image: struct<bytes, path> in {path}")
    if table.num_rows == 0:
        raise UserError(f"{what}: no faces in {path}")
    origins = [(f, row) for f, part in zip(files, tables, strict=True) for row in range(len(part))]
    return table, origins


def read_faces(path: str, what: str) -> FaceSet:
    """Aligned faces from a Parquet file or folder (``image: struct<bytes, path>``, and where there
    are any ``identity``, ``age``, ``gender``, ``ethnicity``).

    Raises:
        UserError: nothing there, no such columns, or a picture that is no aligned face.
    """
    table, origins = _table(path, what)
    rows = table.column("image").to_pylist()
    identities = table.column("identity").to_pylist() if "identity" in table.column_names else None
    attributes = {
        name: table.column(name).to_pylist()
        for name in GROUP_ATTRIBUTES
        if name in table.column_names
    }
    names = [(row or {}).get("path") or "" for row in rows]
    return FaceSet(_decode(rows, what), names, identities, attributes, origins)


def read_sanitized(
    path: str, mapping: str | None, gallery: FaceSet
) -> tuple[Faces, NDArray[np.bool_]]:
    """What ``ppfr sanitize`` published for the gallery.

    Args:
        path: its output folder (or any Parquet folder with ``record_id`` and ``image``).
        mapping: its mapping, ``record_id``, ``source``, ``row``; None: by the order of the records,
            which must be as many as the gallery has faces.
        gallery: the originals.

    Returns:
        uint8 ``N x 112 x 112 x 3`` in the order of the gallery, and ``N``: False where nothing was
        published.

    Raises:
        UserError: not readable, or not of this gallery.
    """
    data = Path(path) / "data"
    table, _ = _table(str(data) if data.is_dir() else path, "sanitized")
    if "record_id" not in table.column_names:
        raise UserError("sanitized: no column record_id")
    table = table.sort_by("record_id")
    if mapping is None:
        if len(table) != len(gallery):
            raise UserError(
                f"sanitized: {len(table)} records, but the gallery has {len(gallery)} faces; "
                "--mapping says which is which"
            )
        return _decode(table.column("image").to_pylist(), "sanitized"), np.ones(len(gallery), bool)
    try:
        owner = pq.read_table(mapping, columns=["record_id", "source", "row"])
    except (OSError, ValueError, KeyError):
        raise UserError("mapping: no readable record_id, source, row") from None
    places = {(Path(file).name, row): i for i, (file, row) in enumerate(gallery.origins)}
    if len(places) < len(gallery):
        raise UserError("mapping: files of the gallery share a name")
    found = {
        record: places.get((Path(source).name, row))
        for record, source, row in zip(
            *(owner.column(name).to_pylist() for name in ("record_id", "source", "row")),
            strict=True,
        )
    }
    known = [found.get(record) for record in table.column("record_id").to_pylist()]
    mine = np.flatnonzero([place is not None for place in known])
    if len(mine) == 0:
        raise UserError("mapping: no record of --sanitized comes from the gallery")
    published = np.zeros_like(gallery.images)
    there = np.zeros(len(gallery), bool)
    where = np.array([known[i] for i in mine])
    published[where] = _decode(table.column("image").take(pa.array(mine)).to_pylist(), "sanitized")
    there[where] = True
    return published, there


@dataclass(frozen=True)
class Pairs:
    """Comparisons: indices into a gallery, ``same`` True for genuine, ``folds``."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    same: NDArray[np.bool_]
    folds: NDArray[np.int64]

    def images(self) -> NDArray[np.int64]:
        """Indices of all images that take part, sorted."""
        return np.unique(np.concatenate([self.a, self.b]))

    def keep(self, mask: NDArray[np.bool_]) -> "Pairs":
        """For a gallery of which only the faces where ``mask`` is True are left."""
        place = np.cumsum(mask) - 1
        rows = mask[self.a] & mask[self.b]
        return Pairs(place[self.a[rows]], place[self.b[rows]], self.same[rows], self.folds[rows])

    def first(self, per_fold: int) -> "Pairs":
        """At most ``per_fold`` pairs of every fold, genuine and impostor alternating."""
        keep: list[int] = []
        for fold in np.unique(self.folds):
            for same, count in ((True, per_fold - per_fold // 2), (False, per_fold // 2)):
                keep += list(np.flatnonzero((self.folds == fold) & (self.same == same))[:count])
        rows = np.sort(np.array(keep))
        return Pairs(self.a[rows], self.b[rows], self.same[rows], self.folds[rows])


def read_pairs(path: str, gallery: FaceSet) -> Pairs:
    """Pairs from a Parquet file ``a, b: string (image.path), same: bool, fold: int``.

    Raises:
        UserError: no such file or columns, images that the gallery lacks, one fold, or one kind.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid):
        raise UserError(f"pairs: no readable Parquet file {path}") from None
    lacking = {"a", "b", "same", "fold"} - set(table.column_names)
    if lacking:
        raise UserError(f"pairs: column {', '.join(sorted(lacking))} missing in {path}")
    index = {name: i for i, name in enumerate(gallery.names)}
    columns = {name: table.column(name).to_pylist() for name in ("a", "b", "same", "fold")}
    missing = {name for side in "ab" for name in columns[side] if name not in index}
    if missing:
        raise UserError(f"pairs: {len(missing)} of the images named are not in the gallery")
    if any(value is None for value in columns["same"] + columns["fold"]):
        raise UserError("pairs: same or fold is null in some rows")
    folds = np.array(columns["fold"], np.int64)
    same = np.array(columns["same"], bool)
    if len(np.unique(folds)) < 2:
        raise UserError("pairs: only one fold; the threshold needs at least two")
    if same.all() or not same.any():
        raise UserError("pairs: need both genuine (same) and impostor pairs")
    for fold in np.unique(folds):
        if same[folds == fold].all() or not same[folds == fold].any():
            raise UserError(f"pairs: fold {fold} has only one kind of pair")
    return Pairs(
        np.array([index[name] for name in columns["a"]]),
        np.array([index[name] for name in columns["b"]]),
        same,
        folds,
    )


class EmbeddingCache:
    """Templates by content digest: the model file's and the pixels'.

    Templates of faces are biometric data; without a folder they are kept in memory only.
    """

    def __init__(self, folder: Path | None, log: Log) -> None:
        self.folder, self.log = folder, log
        self._digests: dict[str, str] = {}

    def embed(self, model: Recognizer, faces: Faces, what: str) -> Embeddings:
        """Templates of ``faces``, float32 ``N x D``.

        Raises:
            UserError: the model gave NaN, infinity or a zero vector.
        """
        path = None
        if self.folder is not None:
            if model.name not in self._digests:
                self._digests[model.name] = model.spec.digest()
            spec = model.spec
            key = f"{self._digests[model.name]}|{spec.convention}|{spec.channels}|".encode()
            digest = hashlib.sha256(key + hashlib.sha256(faces.tobytes()).digest()).hexdigest()
            path = self.folder / f"{digest}.npy"
            if path.is_file():
                return np.asarray(np.load(path))
        started, parts = time.monotonic(), []
        for start in range(0, len(faces), 256):
            try:
                parts.append(model.embed(faces[start : start + 256], 32))
            except ValueError as error:
                raise UserError(str(error)) from None
            if time.monotonic() - started > 20:
                started = time.monotonic()
                self.log(f"  {model.name}, {what}: {start + len(parts[-1])} of {len(faces)} faces")
        result = np.concatenate(parts)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f"{path.name}.{os.getpid()}.tmp.npy")
            np.save(beside, result)
            os.replace(beside, path)
        return result


def _chunks(count: int, size: int = 64) -> Iterable[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def disclosures(originals: Faces, published: Faces) -> NDArray[np.float32]:
    """The disclosure measure of uint8 images; ``N``."""
    parts = [
        disclosure(to_tensor(originals[part]), to_tensor(published[part])).numpy()
        for part in _chunks(len(originals))
    ]
    return np.concatenate(parts)


def likeness(originals: Faces, other: Faces) -> dict[str, NDArray[np.float32]]:
    """``ssim``, ``psnr`` (dB) and ``lowfreq_corr`` (Pearson correlation of the luminances, average
    pooled by 8) of uint8 images; ``N`` each."""
    values: dict[str, list[NDArray[np.float32]]] = {"ssim": [], "psnr": [], "lowfreq_corr": []}
    for part in _chunks(len(originals)):
        a, b = to_tensor(originals[part]), to_tensor(other[part])
        values["ssim"].append(ssim(a, b).numpy())
        values["psnr"].append(psnr(a, b).numpy())
        low = []
        for image in (a, b):
            small = luminance(image).reshape(len(image), 14, 8, 14, 8).mean((2, 4)).flatten(1)
            centred = small - small.mean(1, keepdim=True)
            low.append(centred / centred.norm(dim=1, keepdim=True).clamp_min(1e-6))
        values["lowfreq_corr"].append((low[0] * low[1]).sum(1).numpy())
    return {name: np.concatenate(parts) for name, parts in values.items()}


def spread(values: NDArray[np.floating]) -> dict[str, float]:
    """Mean, 1st, 50th and 99th percentile and maximum."""
    p01, p50, p99 = np.percentile(values, [1, 50, 99])
    return {
        "mean": float(values.mean()),
        "p01": float(p01),
        "p50": float(p50),
        "p99": float(p99),
        "max": float(values.max()),
    }


def _rates(found: Verification) -> dict[str, Any]:
    return {key: getattr(found, key) for key in ("accuracy", "accuracy_std", "auc", "eer", "tar")}


def group_names(attribute: str, values: list[int | None]) -> list[str | None]:
    """Groups of faces by the values of ``age``, ``gender`` or ``ethnicity`` as UTKFace has them."""
    if attribute == "age":
        return [
            next(
                (f"{lo}-{hi}" if hi < 200 else f"{lo}+" for lo, hi in _AGES if lo <= v <= hi), None
            )
            if v is not None
            else None
            for v in values
        ]
    return [_NAMES[attribute].get(v, str(v)) if v is not None else None for v in values]


class Evaluation:
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
    """

    def __init__(
        self,
        gallery: FaceSet,
        pairs: Pairs,
        models: dict[str, tuple[Recognizer, Literal["surrogate", "black_box"]]],
        attack_faces: FaceSet | None,
        publisher: Publisher | None,
        published: Faces | None,
        settings: Settings,
        folder: Path,
        cache: EmbeddingCache,
        log: Log,
        show_faces: bool = False,
    ) -> None:
        self.show_faces = show_faces
        self.gallery, self.models, self.publisher = gallery, models, publisher
        self.pairs = pairs.first(settings.pairs_per_fold) if settings.pairs_per_fold else pairs
        self.settings, self.folder, self.cache, self.log = settings, folder, cache, log
        self.skipped: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.attack_faces = attack_faces
        if attack_faces is not None:
            held = np.arange(len(attack_faces)) % 10 == 9
            self.training = attack_faces.images[~held]
            self.held = np.flatnonzero(held)
        self._published = published
        self._second: Faces | None = None
        self._thresholds: dict[str, float] = {}
        self._floor: dict[str, float] = {}

    def _rng(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, 100 + purpose])

    def _publish(self, faces: Faces, purpose: int) -> Faces:
        assert self.publisher is not None
        rng = self._rng(purpose)
        parts = [
            self.publisher(faces[part], self.publisher.draws(len(faces[part]), rng))
            for part in _chunks(len(faces), 32)
        ]
        return np.concatenate(parts)

    @property
    def published(self) -> Faces:
        """What is published for the gallery, each face with a draw of its own."""
        if self._published is None:
            self.log(f"  publishing {len(self.gallery)} faces of the gallery")
            self._published = self._publish(self.gallery.images, 1)
        return self._published

    def stage(self, name: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Run a stage, or read what an earlier run of it left."""
        path = self.folder / "stages" / f"{name}.json"
        if path.is_file():
            self.log(f"{name}: done by an earlier run")
            stored = json.loads(path.read_text())
        else:
            self.log(f"{name} …")
            started = time.monotonic()
            result = run()
            stored = {"seconds": round(time.monotonic() - started, 1), "result": result}
            write_text(path, json.dumps(stored))
        self.seconds[name] = stored["seconds"]
        return stored["result"]

    def table(self, name: str, columns: dict[str, Any]) -> None:
        """Write a table beside the document, in one step."""
        path = self.folder / "tables" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + ".tmp")
        pq.write_table(pa.table(columns), beside)
        os.replace(beside, path)

    # --- stages -------------------------------------------------------------------------------

    def _embeddings(self, model: Recognizer, index: NDArray[np.int64]) -> tuple[Embeddings, ...]:
        """Templates of the gallery's faces ``index``, before and after."""
        before = self.cache.embed(model, self.gallery.images[index], "originals")
        after = self.cache.embed(model, self.published[index], "published")
        return before, after

    def utility(self) -> dict[str, Any]:
        """Verification before and after, per FR model."""
        index = self.pairs.images()
        place = np.full(len(self.gallery), -1)
        place[index] = np.arange(len(index))
        a, b = place[self.pairs.a], place[self.pairs.b]
        result: dict[str, Any] = {}
        scores: dict[str, Any] = {"same": self.pairs.same, "fold": self.pairs.folds}
        records: dict[str, Any] = {"face": index}
        for name, (model, role) in self.models.items():
            before, after = self._embeddings(model, index)
            kinds = {
                "original": pair_scores(before[a], before[b]),
                "protected_protected": pair_scores(after[a], after[b]),
                "protected_original": pair_scores(after[a], before[b]),
            }
            found = {
                kind: verify(s, self.pairs.same, self.pairs.folds) for kind, s in kinds.items()
            }
            for kind, values in kinds.items():
                scores[f"{name}_{kind}"] = values
            threshold = threshold_at_far(kinds["original"][~self.pairs.same], 1e-3)
            cosine = pair_scores(before, after)
            records[f"id_cosine_{name}"] = cosine
            records[f"id_match_{name}"] = cosine >= threshold
            result[name] = {
                "role": role,
                **{kind: _rates(values) for kind, values in found.items()},
                "id_cosine": float(cosine.mean()),
                "id_match": float((cosine >= threshold).mean()),
                "threshold": threshold,
            }
            self.log(
                f"  {name}: accuracy {found['original'].accuracy:.4f} before, "
                f"{found['protected_protected'].accuracy:.4f} after, "
                f"{found['protected_original'].accuracy:.4f} against originals"
            )
        self.table("scores", scores)
        self.table("identity", records)
        return result

    def disclosure(self) -> dict[str, Any]:
        """What a person sees, and the floors."""
        index = evenly(len(self.gallery), self.settings.disclosure_faces)
        x, y = self.gallery.images[index], self.published[index]
        other = self._strangers(index)
        values = disclosures(x, y)
        floor = disclosures(x, x[other])
        chance = disclosures(x, y[other])
        like = likeness(x, y)
        self.table(
            "disclosure",
            {
                "face": index,
                "disclosure": values,
                "other_person": floor,
                "other_published": chance,
                **like,
            },
        )
        self.log(f"  disclosure {values.mean():.3f} (another person's face: {floor.mean():.3f})")
        return {
            "faces": len(index),
            "disclosure": spread(values),
            "other_person": spread(floor),
            "other_published": spread(chance),
            **{name: float(part.mean()) for name, part in like.items()},
        }

    def _strangers(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
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

    def diversity(self) -> dict[str, Any] | None:
        """Two draws of one face, by the disclosure measure."""
        if self.publisher is None:
            self.skipped["diversity"] = "needs the method, to draw twice"
            return None
        index = evenly(len(self.gallery), self.settings.disclosure_faces)
        y, z = self.published[index], self._publish(self.gallery.images[index], 2)
        values = disclosures(y, z)
        other = disclosures(y, z[self._strangers(index)])
        self.table("diversity", {"face": index, "draw_similarity": values, "other_face": other})
        return {
            "faces": len(index),
            "draw_similarity": float(values.mean()),
            "other_face": float(other.mean()),
        }

    def linkage(self) -> dict[str, Any] | None:
        """Published probes against originals, with and without a student."""
        if self.gallery.identities is None:
            self.skipped["linkage"] = "the gallery has no column identity"
            return None
        index = self.pairs.images()
        try:
            sets = linkage_sets([self.gallery.identities[i] for i in index])
        except ValueError as error:
            self.skipped["linkage"] = str(error)
            return None
        seen = {name: self._embeddings(m, index) for name, (m, _) in self.models.items()}
        students = self._students()
        result: dict[str, Any] = {}
        rows: list[dict[str, Any]] = []
        for name in self.models:
            before, after = seen[name]
            gallery, probes = before[sets.gallery], after[sets.probes]
            more = [after[list(part)] for part in sets.calibration]
            found = linkage(gallery, probes, sets, more, self.settings.seed)
            same = linkage(before[sets.probes], probes, _same(sets), [], self.settings.seed)
            plain = linkage(gallery, before[sets.probes], sets, [], self.settings.seed)
            entry: dict[str, Any] = {
                **found,
                "people": len(gallery),
                "probes": len(probes),
                "rank1_same_photo": same["rank1"],
                "rank1_original": plain["rank1"],
                "singling_out": found.get("singling_out"),
                "singling_out_chance": found.get("singling_out_chance", float(np.exp(-1))),
                "singling_out_among": found.get("singling_out_among"),
                "student": None,
            }
            if name in students:
                student = students[name]
                guess = student.guess(probes, [seen[n][1][sets.probes] for n in self.models])
                taught = linkage(student.gallery(gallery), guess, sets, [], self.settings.seed)
                entry["student"] = {
                    "pairs": self.settings.student_pairs,
                    "rank1": taught["rank1"],
                    "d_sys": taught["d_sys"],
                    "rank1_without": found["rank1"],
                }
            linking = found["linking"]
            assert isinstance(linking, dict)
            for size, value in linking.items():
                rows.append({"model": name, "people": int(size), "linking": value})
            result[name] = entry
            self.log(
                f"  {name}: finds {found['rank1']:.1%} among {len(gallery)} people "
                f"(unprotected {plain['rank1']:.1%}), D_sys {found['d_sys']:.3f}"
            )
        self.table("linkage", {key: [row[key] for row in rows] for key in rows[0]})
        return result

    def _students(self) -> dict[str, Any]:
        if self.publisher is None or self.attack_faces is None:
            self.skipped["student"] = "needs the method and attack faces"
            return {}
        rng = self._rng(3)
        count = min(self.settings.student_pairs, len(self.training))
        faces = self.training[rng.choice(len(self.training), count, replace=False)]
        published = self._publish(faces, 4)
        seen = {n: self.cache.embed(m, published, "student") for n, (m, _) in self.models.items()}
        return {
            name: train_student(
                list(seen.values()),
                seen[name],
                self.cache.embed(model, faces, "student"),
                self.settings.seed,
            )
            for name, (model, _) in self.models.items()
        }

    def _thresholds_at_far(self) -> dict[str, float]:
        path = self.folder / "stages" / "utility.json"
        if not self._thresholds and path.is_file():
            stored = json.loads(path.read_text())["result"]
            self._thresholds = {name: entry["threshold"] for name, entry in stored.items()}
        return self._thresholds

    def _matches(self, originals: Faces, faces: Faces, what: str) -> dict[str, float]:
        matches = {}
        for name, threshold in self._thresholds_at_far().items():
            model = self.models[name][0]
            a = self.cache.embed(model, originals, what)
            b = self.cache.embed(model, faces, what)
            matches[name] = float((pair_scores(a, b) >= threshold).mean())
        return matches

    def attack_names(self) -> list[str]:
        """Attackers that make sense for this method; the others are noted as skipped."""
        if self.publisher is None or self.attack_faces is None:
            self.skipped["recovery"] = "needs the method and attack faces"
            return []
        names = []
        for name in self.settings.attacks:
            if name in STANDARD or self.publisher.anonymizer.draw_size > 0:
                names.append(name)
            else:
                self.skipped[f"recovery_{name}"] = "the method takes no draws: same as unet"
        return names

    def recovery(self, name: str) -> dict[str, Any]:
        """Train one attacker and measure it on the gallery (and on the held-back faces)."""
        assert self.publisher is not None and self.attack_faces is not None
        settings, publisher = self.settings, self.publisher
        tested = min(200, settings.test_faces) if name == "averaging" else settings.test_faces
        index = evenly(len(self.gallery), tested)
        truth = self.gallery.images[index]
        held = self.attack_faces.images[self.held]
        rng = self._rng(6)
        train, validation, pictures = self.training, held, 1
        # the models that the method was trained with are the attacker's too
        helpers = [model for model, role in self.models.values() if role == "surrogate"]
        helpers = helpers or [model for model, _ in self.models.values()]
        fresh = self.publisher.fresh()

        def templates(faces: Faces, rows: NDArray[np.int64], rng: np.random.Generator) -> Any:
            seen = np.asarray(fresh(faces, rows, rng))
            return seen, np.concatenate([model.embed(seen, 32) for model in helpers], 1)

        views: dict[str, Publish] = {
            "templates": templates,
            "fixed": self.publisher.fixed(settings.seed),
            "leaked": self.publisher.leaked(texture_probe(mean_face(self.training), settings.seed)),
        }
        view = views.get(name, fresh)
        if name == "averaging":
            pictures = settings.pictures
            train = train[evenly(len(train), settings.averaging_faces)]
            validation = held[evenly(len(held), 64)]
            self.log(f"  {pictures} pictures of each of {len(train) + len(validation)} faces")
            stored = np.concatenate(
                [
                    self.publisher.averaged(pictures, rng, faces[part])
                    for faces in (train, validation)
                    for part in _chunks(len(faces), 32)
                ]
            )

            def view(faces: Faces, rows: NDArray[np.int64], _: np.random.Generator) -> Any:
                return stored[rows]

        steps = settings.attack_steps if name in STANDARD else settings.side_steps
        width = templates(held[:1], self.held[:1], rng)[1].shape[1] if name == "templates" else 0
        attack = RecoveryAttack(
            name if name in NETS else "unet",
            channels=6 if name in ("averaging", "leaked") else 3,
            context=width,
            batch=settings.batch,
            seed=settings.seed,
        )

        def report(point: CurvePoint) -> None:
            self.log(
                f"  {name}: step {point.step} of {steps}, {point.seconds:.0f} s, "
                f"held-back SSIM {point.val_ssim:.4f}"
            )

        checkpoint = self.folder / "checkpoints" / f"{name}.pt"
        curve = attack.train(
            train, view, steps, validation, checkpoint, settings.attack_seconds, on_point=report
        )

        def see(faces: Faces, rows: NDArray[np.int64]) -> tuple[Any, Any]:
            seen: list[Any] = []
            known: list[Any] = []
            for part in _chunks(len(faces), 32):
                if name == "averaging":
                    found: Any = publisher.averaged(pictures, rng, faces[part])
                else:
                    found = view(faces[part], rows[part], rng)
                seen.append(found[0] if isinstance(found, tuple) else found)
                known.append(found[1] if isinstance(found, tuple) else None)
            return np.concatenate(seen), np.concatenate(known) if known[0] is not None else None

        shown, known = see(truth, index)
        recovered = attack.recover(shown, known)
        if self.show_faces:
            first = evenly(len(truth), 10)
            pictures_of = (
                ("original", truth),
                ("seen", np.clip(shown[..., :3], 0, 255).astype(np.uint8)),
                ("recovered", recovered),
            )
            grid = [(title, faces[first]) for title, faces in pictures_of]
            face_grid(grid, self.folder / "plots" / f"faces_{name}.png")
        like = likeness(truth, recovered)
        seen = disclosures(truth, recovered)
        self.table(
            f"recovery_{name}",
            {"face": index, "rec_ssim": like["ssim"], "rec_psnr": like["psnr"], "disclosure": seen},
        )
        flat, rise = flattened(curve)
        floor = self.floor()["ssim"]
        result = {
            "knows": name if name not in STANDARD else "fresh",
            "net": attack.net + ("+templates" if known is not None else ""),
            "parameters": attack.parameters,
            "steps": attack.step,
            "seconds": round(attack.seconds, 1),
            "training_faces": len(train),
            "pictures": pictures,
            "rec_ssim": float(like["ssim"].mean()),
            "rec_psnr": float(like["psnr"].mean()),
            "recovery_gain": float((like["ssim"].mean() - floor) / (1 - floor)),
            "disclosure": float(seen.mean()),
            "id_match": self._matches(truth, recovered, "recovered"),
            "flattened": flat,
            "rise_in_last_fifth": rise,
            "curve": [
                {key: value for key, value in asdict(point).items() if key != "loss"}
                for point in curve
            ],
        }
        if name in STANDARD and self.attack_faces.attributes:
            rows = self.held[evenly(len(self.held), settings.group_faces)]
            faces = self.attack_faces.images[rows]
            back = attack.recover(*see(faces, rows))
            result["held_rec_ssim"] = [float(v) for v in likeness(faces, back)["ssim"]]
        self.log(
            f"  {name}: SSIM {result['rec_ssim']:.4f}, {result['rec_psnr']:.2f} dB after "
            f"{attack.step} steps (floor {floor:.3f})"
        )
        checkpoint.unlink(missing_ok=True)
        return result

    def floor(self) -> dict[str, float]:
        """``ssim``, ``psnr`` and ``disclosure`` of the mean training face: the attacker who
        learned nothing."""
        if not self._floor:
            truth = self.gallery.images[evenly(len(self.gallery), self.settings.test_faces)]
            mean = np.broadcast_to(mean_face(self.training), truth.shape)
            like = likeness(truth, mean)
            self._floor = {name: float(like[name].mean()) for name in ("ssim", "psnr")}
            self._floor["disclosure"] = float(disclosures(truth, mean).mean())
        return self._floor

    def groups(self, recovered: list[float] | None) -> dict[str, Any] | None:
        """Utility, disclosure and recovery by group, on held-back training faces."""
        faces = self.attack_faces
        if faces is None or self.publisher is None or not faces.attributes:
            self.skipped["groups"] = "needs the method and attack faces with age, gender, ethnicity"
            return None
        rows = self.held[evenly(len(self.held), self.settings.group_faces)]
        x = faces.images[rows]
        y = self._publish(x, 5)
        # the stand-in for a second photo, where identities are not known
        mirrored = self._publish(np.ascontiguousarray(x[:, :, ::-1]), 6)
        scores: dict[str, NDArray[np.float32]] = {}
        cut: dict[str, float] = {}
        seen = disclosures(x, y)
        measures: dict[str, NDArray[Any]] = {"disclosure": seen}
        if recovered is not None:
            measures["rec_ssim"] = np.array(recovered)
            mean = np.broadcast_to(mean_face(self.training), x.shape)
            measures["rec_ssim_above_floor"] = measures["rec_ssim"] - likeness(x, mean)["ssim"]
        for name, threshold in self._thresholds_at_far().items():
            model = self.models[name][0]
            a = self.cache.embed(model, x, "groups")
            b = self.cache.embed(model, y, "groups")
            measures[f"id_match_{name}"] = pair_scores(a, b) >= threshold
            c = self.cache.embed(model, mirrored, "groups, mirrored")
            scores[name] = b @ c.T
            cuts = np.quantile(np.diag(scores[name]), np.linspace(0, 1, 201))
            cut[name] = max(cuts, key=lambda value: _balanced(scores[name], value))
        attributes: dict[str, dict[str, Any]] = {}
        gaps: dict[str, dict[str, Any]] = {}
        for attribute, values in faces.attributes.items():
            names = np.array(group_names(attribute, [values[i] for i in rows]), object)
            entry = {}
            for group in sorted({n for n in names if n is not None}):
                mask = names == group
                if mask.sum() < 20:  # too few to say anything
                    continue
                means = {key: float(value[mask].mean()) for key, value in measures.items()}
                entry[group] = {
                    "faces": int(mask.sum()),
                    "disclosure": means["disclosure"],
                    "rec_ssim": means.get("rec_ssim"),
                    "rec_ssim_above_floor": means.get("rec_ssim_above_floor"),
                    "id_match": {
                        key.removeprefix("id_match_"): value
                        for key, value in means.items()
                        if key.startswith("id_match_")
                    },
                    "accuracy": {
                        name: _balanced(matrix[np.ix_(mask, mask)], cut[name])
                        for name, matrix in scores.items()
                    },
                }
            attributes[attribute] = entry
            for key in (*measures, *(f"accuracy_{name}" for name in scores)):
                ranked = sorted((_measure(group, key), label) for label, group in entry.items())
                if len(ranked) > 1:
                    gap = {
                        "measure": key,
                        "attribute": attribute,
                        "lowest_group": ranked[0][1],
                        "lowest": ranked[0][0],
                        "highest_group": ranked[-1][1],
                        "highest": ranked[-1][0],
                        "gap": ranked[-1][0] - ranked[0][0],
                    }
                    if gap["gap"] >= gaps.get(key, {"gap": -1})["gap"]:
                        gaps[key] = gap
        ordered = sorted(gaps.values(), key=lambda gap: -gap["gap"])
        return {"faces": len(rows), "attributes": attributes, "largest_gaps": ordered}


def _measure(group: dict[str, Any], key: str) -> float:
    for kind in ("id_match", "accuracy"):
        if key.startswith(f"{kind}_"):
            return float(group[kind][key.removeprefix(f"{kind}_")])
    return float(group[key])


def _balanced(scores: NDArray[np.float32], threshold: float) -> float:
    """Mean of genuine (the diagonal of ``N x N``) and impostor accuracy at a threshold."""
    passed = scores >= threshold
    genuine = np.diag(passed).mean()
    impostor = (passed.sum() - np.diag(passed).sum()) / (passed.size - len(passed))
    return float((genuine + 1 - impostor) / 2)


def _same(sets: Any) -> Any:
    """The gallery of the very photos that were published."""
    rows = np.arange(len(sets.probes))
    return type(sets)(sets.probes, sets.probes, rows, tuple(() for _ in rows))


def evenly(count: int, wanted: int) -> NDArray[np.int64]:
    """At most ``wanted`` indices below ``count``, evenly spread."""
    if wanted >= count:
        return np.arange(count)
    return np.linspace(0, count - 1, wanted).round().astype(np.int64)


def write_text(path: Path, text: str) -> None:
    """Write a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text)
    os.replace(beside, path)
