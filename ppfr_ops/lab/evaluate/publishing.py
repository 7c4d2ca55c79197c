"""What is published of a face, given a method; and what an attacker who holds the method can see.

Everything is measured on what is published, which is the image decoded from the encoded bytes.

A method may take a key: then whom a picture shows depends on it (and on identity labels), and a
release is a world of its own. :meth:`Publisher.under` gives the method in such a world. Anyone who
holds the method has keys of their own, but not the release's; a method without keys is the same
everywhere. So a stage publishes probes in the release's world and lets attackers make their pairs
in others, and need not know which kind of method it judges.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import FACE_SIZE, Faces, chunks
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.lab.evaluate.attacks.networks import Publish, View
from ppfr_ops.lab.evaluate.streams import stream
from ppfr_ops.methods.base import Anonymizer

Labels = Sequence[str | None]
"""Who is in the pictures; None: a person of their own."""

PAIRS_A_KEY = 64
"""Pairs that an attacker makes under one key of their own before taking another."""


@dataclass(frozen=True)
class Publisher:
    """y = decode(encode(A(x, r))), in one world."""

    anonymizer: Anonymizer
    encoding: Encoding = field(default_factory=Encoding)

    @property
    def keyed(self) -> bool:
        """Whether the method takes a key, with these options."""
        return bool(self.anonymizer.needed_secrets())

    @property
    def identity(self) -> str | None:
        """Identity mode: ``virtual``, ``original``; None: no such choice."""
        value = getattr(self.anonymizer, "identity", None)
        return None if value is None else str(value)

    def under(self, key: bytes) -> "Publisher":
        """The method in the release under ``key``, 32 bytes; each secret is derived from it."""
        if not self.keyed:
            return self
        roles = self.anonymizer.needed_secrets()
        derived = {role: hashlib.sha256(key + role.encode()).digest() for role in roles}
        secrets = derived if len(roles) > 1 else dict.fromkeys(roles, key)
        return replace(self, anonymizer=self.anonymizer.with_secrets(secrets))

    def elsewhere(self, rng: np.random.Generator) -> "Publisher":
        """The method under a key of the attacker's own."""
        return self.under(rng.bytes(32)) if self.keyed else self

    def __call__(
        self, faces: Faces, draws: NDArray[np.float32], labels: Labels | None = None
    ) -> Faces:
        return self.encoding.round_trip(self.picture(faces, draws, labels))

    def picture(
        self, faces: Faces, draws: NDArray[np.float32], labels: Labels | None = None
    ) -> Faces:
        """The same before the encoding."""
        who = [None] * len(faces) if labels is None else list(labels)
        return self.anonymizer(faces, draws, self.anonymizer.context_of(faces, who))

    def draws(self, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Draws of the evaluation's own, reproducible; ``count x draw_size``."""
        return rng.standard_normal((count, self.anonymizer.draw_size), dtype=np.float32)

    def publish(
        self, faces: Faces, rng: np.random.Generator, labels: Labels | None = None, size: int = 32
    ) -> Faces:
        """Many faces, each with a draw of its own, ``size`` at a time."""
        parts = [
            self(
                faces[part],
                self.draws(len(faces[part]), rng),
                None if labels is None else labels[part],
            )
            for part in chunks(len(faces), size)
        ]
        return np.concatenate(parts) if parts else faces.copy()

    def pairs(self, faces: Faces, rng: np.random.Generator) -> Faces:
        """Published pictures of other people's faces as an attacker makes them, a new key for
        every :data:`PAIRS_A_KEY` of them."""
        parts = chunks(len(faces), PAIRS_A_KEY if self.keyed else len(faces))
        return np.concatenate([self.elsewhere(rng).publish(faces[part], rng) for part in parts])

    def fresh(self) -> Publish:
        """The standard attacker: the method is known, every picture has a draw of its own."""
        return lambda faces, _, rng: self.elsewhere(rng)(faces, self.draws(len(faces), rng))

    def beside(
        self, probe: Faces, faces: Faces, labels: Labels | None, rng: np.random.Generator
    ) -> View:
        """Pictures, and beside each what its draw makes of ``probe`` (uint8 ``112 x 112 x 3``)
        under a key of the attacker's own; ``N x 112 x 112 x 6``."""
        draws = self.draws(len(faces), rng)
        probes = np.broadcast_to(probe, faces.shape).copy()
        theirs = self.elsewhere(rng)
        return np.concatenate([self(faces, draws, labels), theirs.picture(probes, draws)], -1)

    def averaged(
        self, pictures: int, rng: np.random.Generator, faces: Faces, labels: Labels | None = None
    ) -> View:
        """Mean and standard deviation over ``pictures`` published images of every face; float32
        ``N x 112 x 112 x 6``, the deviation times two."""
        total = np.zeros(faces.shape, np.float32)
        squares = np.zeros(faces.shape, np.float32)
        for _ in range(pictures):
            seen = self(faces, self.draws(len(faces), rng), labels).astype(np.float32)
            total += seen
            squares += seen * seen
        mean = total / pictures
        spread = np.sqrt(np.maximum(squares / pictures - mean * mean, 0))
        return np.concatenate([mean, 2 * spread], -1)


def texture_probe(mean_face: Faces, seed: int) -> Faces:
    """The mean face under white noise (standard deviation 32), so that every frequency of a
    leaked draw's effect shows; uint8 ``112 x 112 x 3``."""
    noise = stream(seed, "attack: the probe's texture").normal(0, 32, (FACE_SIZE, FACE_SIZE, 3))
    return np.clip(np.rint(mean_face + noise), 0, 255).astype(np.uint8)
