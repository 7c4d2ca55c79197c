"""What an attacker can see of a face, given a method: its published image, once or many times.

Everything is measured on what is published, which is the image decoded from the encoded bytes.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.evaluate.attacks.recovery import Publish, View
from ppfr_ops.imaging.arrays import FACE_SIZE, Faces
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.methods.base import Anonymizer


@dataclass(frozen=True)
class Publisher:
    """y = decode(encode(A(x, r)))."""

    anonymizer: Anonymizer
    encoding: Encoding = field(default_factory=Encoding)

    def __call__(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        return self.encoding.round_trip(self.anonymizer(faces, draws))

    def draws(self, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Draws of the evaluation's own, reproducible; ``count x draw_size``."""
        return rng.standard_normal((count, self.anonymizer.draw_size), dtype=np.float32)

    def fresh(self) -> Publish:
        """The standard attacker: the method is known, every picture has a draw of its own."""

        def view(faces: Faces, index: NDArray[np.int64], rng: np.random.Generator) -> View:
            return self(faces, self.draws(len(faces), rng))

        return view

    def fixed(self, seed: int) -> Publish:
        """Everything is published with one and the same draw."""
        draw = self.draws(1, np.random.default_rng([seed, 4]))

        def view(faces: Faces, index: NDArray[np.int64], rng: np.random.Generator) -> View:
            return self(faces, np.repeat(draw, len(faces), 0))

        return view

    def leaked(self, probe: Faces) -> Publish:
        """The draw of every record is known to the attacker, who uses it to publish a face of
        his own, ``probe`` (uint8 ``112 x 112 x 3``), and lays the result beside the record."""

        def view(faces: Faces, index: NDArray[np.int64], rng: np.random.Generator) -> View:
            draws = self.draws(len(faces), rng)
            probes = np.broadcast_to(probe, faces.shape).copy()
            return np.concatenate([self(faces, draws), self.anonymizer(probes, draws)], -1)

        return view

    def averaged(self, pictures: int, rng: np.random.Generator, faces: Faces) -> View:
        """Mean and standard deviation over ``pictures`` published images of every face; float32
        ``N x 112 x 112 x 6``, the deviation times two."""
        total = np.zeros(faces.shape, np.float32)
        squares = np.zeros(faces.shape, np.float32)
        for _ in range(pictures):
            seen = self(faces, self.draws(len(faces), rng)).astype(np.float32)
            total += seen
            squares += seen * seen
        mean = total / pictures
        spread = np.sqrt(np.maximum(squares / pictures - mean * mean, 0))
        return np.concatenate([mean, 2 * spread], -1)


def texture_probe(mean_face: Faces, seed: int) -> Faces:
    """The mean face under white noise (standard deviation 32), so that every frequency of a
    leaked draw's effect shows; uint8 ``112 x 112 x 3``."""
    noise = np.random.default_rng([seed, 5]).normal(0, 32, (FACE_SIZE, FACE_SIZE, 3))
    return np.clip(np.rint(mean_face + noise), 0, 255).astype(np.uint8)
