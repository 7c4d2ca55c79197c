"""Pairs that attackers make: faces of others, and what the method publishes for them.

All attackers draw from one pool, for publishing is what costs. It is made in chunks, each under a
key of the attacker's own and with a random stream of its own, so that a longer pool begins with the
shorter one, and a chunk's templates are computed once for all who use it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.lab.evaluate.data import FaceSet
from ppfr_ops.lab.evaluate.publishing import PAIRS_A_KEY, Publisher
from ppfr_ops.lab.evaluate.templates import EmbeddingCache
from ppfr_ops.recognizers import Embeddings, Recognizer

Streams = Callable[[str, int], np.random.Generator]

TESTED = 3
"""Of ten faces, so many are the last of the pool: anyone who trains on the first 70 % can be tested
on them."""


@dataclass
class Pool:
    """Pairs without end, of faces of others than those that are judged: after the last face it
    begins again, with other keys and draws."""

    faces: FaceSet
    method: Publisher
    stream: Streams
    cache: EmbeddingCache
    order: NDArray[np.int64] = field(init=False)
    """Rows of ``faces``, in the order of the pool."""
    _chunks: list[Faces] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        rows = np.arange(len(self.faces))
        last = rows % 10 >= 10 - TESTED
        self.order = np.concatenate([rows[~last], rows[last]])

    @property
    def first(self) -> int:
        """Faces before those that are kept for tests."""
        return int((np.arange(len(self.faces)) % 10 < 10 - TESTED).sum())

    def keys(self, count: int) -> int:
        """Keys that ``count`` pairs take; 0 for a method without."""
        return -(-count // PAIRS_A_KEY) if self.method.keyed else 0

    def rows(self, count: int) -> NDArray[np.int64]:
        """Rows of ``faces`` of the first ``count`` pairs."""
        return np.resize(self.order, count)

    def _chunk_rows(self, number: int) -> NDArray[np.int64]:
        places = np.arange(number * PAIRS_A_KEY, (number + 1) * PAIRS_A_KEY)
        return self.order[places % len(self.order)]

    def originals(self, count: int) -> Faces:
        """The first ``count`` originals, uint8 ``N x 112 x 112 x 3``."""
        return self.faces.images[self.rows(count)]

    def _chunk(self, number: int) -> Faces:
        while len(self._chunks) <= number:
            rng = self.stream("published: attackers' pairs", len(self._chunks))
            part = self.faces.images[self._chunk_rows(len(self._chunks))]
            self._chunks.append(self.method.elsewhere(rng).publish(part, rng))
        return self._chunks[number]

    def published(self, count: int) -> Faces:
        """What was published for them."""
        parts = [self._chunk(number) for number in range(-(-count // PAIRS_A_KEY))]
        return np.concatenate(parts)[:count]

    def templates(self, model: Recognizer, count: int) -> tuple[Embeddings, Embeddings]:
        """Templates of originals and of what was published; ``N x D`` each."""
        before, after = [], []
        for number in range(-(-count // PAIRS_A_KEY)):
            rows = self._chunk_rows(number)
            before.append(self.cache.embed(model, self.faces.images[rows], "others"))
            after.append(self.cache.embed(model, self._chunk(number), "others, published"))
        return np.concatenate(before)[:count], np.concatenate(after)[:count]
