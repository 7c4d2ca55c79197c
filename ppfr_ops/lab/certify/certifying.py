"""Certificates of a release, a shard of records at a time; goes on where it was stopped."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ppfr_ops.contracts.certificates import CERTIFICATES_SCHEMA, RADII, Certification, CertifiedAt
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import Faces, chunks, in_chunks, unit
from ppfr_ops.lab.certify.options import CertifyOptions
from ppfr_ops.lab.certify.reencoding import brightness, jpeg_quality
from ppfr_ops.lab.certify.smoothing import (
    certificate,
    decided,
    enrolled,
    noisy_templates,
    reach,
    samples_for,
)
from ppfr_ops.options import digest, shaping
from ppfr_ops.recognizers import Embeddings, Recognizer, mark_of
from ppfr_ops.store.atomic import in_one_step

PART = 256
"""Records of a shard of certificates."""
JPEG_95 = 0.59
"""L2 by which a JPEG re-encoding of quality 95 disturbs a picture (median of 95 LFW faces)."""
_VOTES = 15
"""Noisy copies of a record that vote where the threshold is looked for."""
_PAIRS = 1_000_000
_ENOUGH = 10
"""Comparisons of different people for every one that the threshold may let match, at least."""
_SECONDS = b"seconds"


@dataclass(frozen=True)
class Subject:
    """Published faces, and what each is held against.

    ``ids`` record ids; ``faces`` uint8 ``N x 112 x 112 x 3``; ``people`` who it shows, as far as
    that is known; ``originals`` the photo that it was made of, or None: the others of the person;
    ``left_out`` records that were chosen and have no such photo.
    """

    ids: list[str]
    faces: Faces
    people: list[str | None]
    originals: Faces | None = None
    left_out: int = 0


class Certifier:
    """Certifies by one recogniser.

    Args:
        folder: of the certificates; its shards of an earlier run are kept.
        rng: of which people are compared, to find the threshold.
        log: takes a line of progress.
        enrolment: what clean pictures are enrolled by; None: noisy copies, by ``model``.

    Raises:
        UserError: the folder holds certificates of something else.
    """

    def __init__(
        self,
        model: Recognizer,
        options: CertifyOptions,
        subject: Subject,
        folder: Path,
        rng: np.random.Generator,
        log: Callable[[str], None],
        enrolment: Recognizer | None = None,
    ) -> None:
        self.enrolment = enrolment
        self.model, self.options, self.subject = model, options, subject
        self.folder, self.rng, self.log = folder, rng, log
        self._comparisons: int | None = None
        self._claim()

    def _claim(self) -> None:
        names = sorted(self.subject.ids)
        facts = {
            **shaping(self.options),
            "model": self.model.spec.digest(),
            "records": digest(names),
            "against": self._against,
            "noise": "rounded",
        }
        if self.enrolment is not None:
            facts["enrolment"] = self.enrolment.spec.digest()
        mark = self.folder / "facts.json"
        if mark.is_file() and json.loads(mark.read_text()) != facts:
            raise UserError(f"{self.folder.name} holds other certificates; move them away")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with in_one_step(str(mark)) as file:
            file.write(json.dumps(facts).encode())

    @property
    def _against(self) -> str:
        return "published" if self.subject.originals is None else "originals"

    def run(self) -> Certification:
        """All certificates, and the document about them.

        Raises:
            UserError: there is nothing to hold a record against, or no threshold can be found.
        """
        self._say_reach()
        references, valid = self._references()
        if not valid.any():
            raise UserError("no record has anything to be held against: no two of one person")
        threshold = self._threshold(references, valid)
        order = np.flatnonzero(valid)
        tables, seconds = [], 0.0
        for number, part in enumerate(chunks(len(order), PART)):
            path = self.folder / f"part-{number:05d}.parquet"
            if not path.is_file():
                self._part(path, order[part], references, threshold)
            tables.append(pq.read_table(path))
            seconds += float((tables[-1].schema.metadata or {}).get(_SECONDS, b"0"))
            self.log(f"{part.stop:,} of {len(order):,} records")
        left_out = int((~valid).sum()) + self.subject.left_out
        return self._document(pa.concat_tables(tables), threshold, seconds, left_out)

    def _say_reach(self) -> None:
        """Before any work: what these settings can prove at best."""
        options = self.options
        most = reach(options.samples, options.sigma, options.alpha)
        text = f"at most a radius of {most:.2f} can be proven by these settings"
        if most < JPEG_95:
            enough = samples_for(JPEG_95, options.sigma, options.alpha)
            way = f"--samples {enough}" if enough else "a greater --sigma"
            text += (
                f"; writing a picture again as JPEG of quality 95 disturbs it by {JPEG_95:g}, "
                f"which takes {way}"
            )
        self.log(text)

    def _part(
        self, path: Path, rows: NDArray[np.int64], references: Embeddings, threshold: float
    ) -> None:
        began = time.monotonic()
        found = [self._record(row, references[row], threshold) for row in rows]
        columns = {name: [record[name] for record in found] for name in CERTIFICATES_SCHEMA.names}
        table = pa.table(columns, schema=CERTIFICATES_SCHEMA)
        spent = {_SECONDS: f"{time.monotonic() - began:.3f}".encode()}
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **spent})
        with in_one_step(str(path), mode=0o600) as file:
            pq.write_table(table, file)

    def _record(
        self, row: int, reference: NDArray[np.float32], threshold: float
    ) -> dict[str, object]:
        options, face = self.options, self.subject.faces[row]
        match = options.claim == "match"
        templates = noisy_templates(self.model, face, options.sigma, options.samples)
        hits = int(decided(templates, reference, threshold, match).sum())
        found = certificate(hits, options.samples, options.sigma, options.alpha)

        def decides(faces: Faces) -> NDArray[np.bool_]:
            return decided(self.model.embed(faces), reference, threshold, match)

        return {
            "record_id": self.subject.ids[row],
            "radius": found.radius,
            "hits": hits,
            "at_least": found.at_least,
            "jpeg_quality": jpeg_quality(face, decides) if options.reencodings else None,
            "brightness": brightness(face, decides) if options.reencodings else None,
        }

    # --- what records are held against --------------------------------------------------------

    def _references(self) -> tuple[Embeddings, NDArray[np.bool_]]:
        """A template a record, float32 ``N x D``, and whether there is one.

        The enrolments are kept: a run that goes on must hold records against the same.
        """
        subject, options = self.subject, self.options
        path = self.folder / "enrolled.npy"
        if path.is_file():
            own = np.load(path)
        else:
            faces = subject.faces if subject.originals is None else subject.originals
            if self.enrolment is not None:
                own = self.enrolment.embed(faces)
            else:
                how = options.sigma, options.enrolment_samples
                own = np.stack([enrolled(self.model, face, *how) for face in faces])
            with in_one_step(str(path), mode=0o600) as file:
                np.save(file, own)
        if subject.originals is not None:
            return own, np.ones(len(own), bool)
        others, known = np.zeros_like(own), np.array([who is not None for who in subject.people])
        people = np.array([str(who) for who in subject.people])
        for who in np.unique(people[known]):
            rows = np.flatnonzero(known & (people == who))
            others[rows] = own[rows].sum(0) - own[rows]  # nothing, of the only one
        return unit(others), np.linalg.norm(others, axis=1) > 1e-6

    def _threshold(self, references: Embeddings, valid: NDArray[np.bool_]) -> float:
        """As given, or that of the false-accept rate: votes of a few noisy copies of a record,
        which serve for nothing else, against what records of other people are held against."""
        if self.options.threshold is not None:
            return self.options.threshold
        path = self.folder / "threshold.json"
        if path.is_file():
            threshold, self._comparisons = json.loads(path.read_text())
            return float(threshold)
        people = self.subject.people
        known = np.flatnonzero(valid & np.array([who is not None for who in people]))
        who = np.unique([str(people[row]) for row in known], return_inverse=True)[1]
        different = len(who) ** 2 - int((np.bincount(who) ** 2).sum()) if len(who) else 0
        needed = int(np.ceil(_ENOUGH / self.options.far))
        if different < needed:
            raise UserError(
                f"a threshold for a false-accept rate of {self.options.far:g} takes {needed:,} "
                f"comparisons of different people, and these records give {different:,}: give "
                "--threshold, or a greater --far"
            )
        faces, sigma = self.subject.faces[known], self.options.sigma
        votes = np.stack([noisy_templates(self.model, face, sigma, _VOTES) for face in faces])
        if different <= _PAIRS:
            a, b = np.nonzero(who[:, None] != who[None])
        else:
            a, b = self.rng.integers(0, len(known), (2, _PAIRS))
            a, b = a[who[a] != who[b]], b[who[a] != who[b]]

        def scores(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float32]:
            return np.median(np.einsum("pvd,pd->pv", votes[a], references[known[b]]), 1)

        impostors = in_chunks(scores, a, b, size=10_000)
        threshold = float(np.quantile(impostors, 1 - self.options.far, method="higher"))
        threshold, self._comparisons = float(np.nextafter(threshold, 2)), len(impostors)
        with in_one_step(str(path)) as file:
            file.write(json.dumps([threshold, self._comparisons]).encode())
        return threshold

    def _document(
        self, table: pa.Table, threshold: float, seconds: float, left_out: int
    ) -> Certification:
        radii = np.array([-1.0 if r is None else r for r in table["radius"].to_pylist()])
        options = self.options
        quality = [101 if q is None else q for q in table["jpeg_quality"].to_pylist()]
        steps = [-1 if b is None else b for b in table["brightness"].to_pylist()]
        tried, records = options.reencodings, len(radii) + left_out
        document = Certification(
            recognizer=self.model.name,
            recognizer_sha256=self.model.spec.digest(),
            surrogate=mark_of(self.model.spec.path) is not None,
            claim=options.claim,
            against=self._against,  # type: ignore[arg-type]
            threshold=threshold,
            far=options.far if options.threshold is None else None,
            sigma=options.sigma,
            samples=options.samples,
            enrolment_samples=options.enrolment_samples,
            enrolled_by_sha256=None if self.enrolment is None else self.enrolment.spec.digest(),
            alpha=options.alpha,
            threshold_comparisons=self._comparisons,
            reach=reach(options.samples, options.sigma, options.alpha),
            records=records,
            left_out=left_out,
            abstained=int((radii < 0).sum()),
            certified=[
                CertifiedAt(radius=r, share=int((radii >= r).sum()) / records) for r in RADII
            ],
            median_radius=float(np.median(radii[radii >= 0])) if (radii >= 0).any() else None,
            jpeg_quality=_shares(quality, (95, 75, 50, 30), records, below=True) if tried else {},
            brightness=_shares(steps, (10, 20, 40), records, below=False) if tried else {},
            seconds_per_record=seconds / max(len(radii), 1),
        )
        with in_one_step(str(self.folder / "certification.json")) as file:
            file.write(document.model_dump_json(indent=1).encode())
        return document


def _shares(
    values: list[int], marks: tuple[int, ...], records: int, below: bool
) -> dict[str, float]:
    found = np.array(values)
    return {str(m): int((found <= m if below else found >= m).sum()) / records for m in marks}
