"""Encrypted matching on Ray: a gallery spread over actors, their results put together encrypted.

A partition is a range of blocks of records, or with ``slices`` > 1 a part of the dimensions of such
a range; parts of the same records are added up under encryption, ranges are strung together. An
actor sees what the server sees: its part of the gallery, and ciphertexts of the probe. It holds no
key, and what it returns is still unmasked and stays with the server.
"""

import logging
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from ..match.bfv import Buffer, ParameterError, ring, seeded_bytes
from ..match.gallery import Gallery
from ..match.packing import Integers, Layout
from ..match.scores import PackedGallery, products, read_probe
from ..match.server import padded


class _Partition:
    """An actor: records' numbers ``first * m .. last * m`` of a range of blocks, packed."""

    def __init__(self, templates: Integers, layout: Layout) -> None:
        self._layout = layout
        self._packed = PackedGallery.pack(templates, layout)

    def spent(self) -> float:
        """Processor seconds of this actor so far; answered once it is ready."""
        return time.process_time()

    def scores(self, probe: bytes) -> list[np.ndarray]:
        """Words of the encrypted scores, ``2 x 2 x N`` a block."""
        bfv = ring()
        ciphertexts = read_probe(probe, self._layout)
        return [bfv.words(result) for result in products(ciphertexts, self._packed)]


class RayScorer:
    """A :class:`~ppfr_ops.match.server.Scorer` over Ray actors; starts Ray if nobody has.

    Args:
        partitions: ranges of blocks, one or more actors each.
        slices: parts that the dimensions are cut into.

    Raises:
        ValueError: fewer blocks than partitions, or fewer slices of dimensions than parts.
    """

    def __init__(self, gallery: Gallery, partitions: int, slices: int = 1) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        self._ray = ray
        if not ray.is_initialized():
            ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
        count, dimensions = gallery.templates.shape
        self.layout = padded(Layout.smallest(count, dimensions))
        if not 1 <= partitions <= self.layout.blocks or not 1 <= slices <= self.layout.slices:
            raise ValueError(
                f"{self.layout.blocks} blocks and {self.layout.slices} slices: no more partitions"
            )
        actor = ray.remote(num_cpus=0.5)(_Partition)
        width = self.layout.slice_width
        self._parts: list[list[tuple[slice, Any]]] = []
        for blocks in np.array_split(np.arange(self.layout.blocks), partitions):
            step = self.layout.per_block
            rows = gallery.templates[blocks[0] * step : (blocks[-1] + 1) * step]
            self._parts.append([])
            for cut in np.array_split(np.arange(self.layout.slices), slices):
                part = rows[:, cut[0] * width : (cut[-1] + 1) * width]
                layout = Layout(len(blocks) * step, part.shape[1], width)
                span = slice(cut[0] * seeded_bytes(), (cut[-1] + 1) * seeded_bytes())
                self._parts[-1].append((span, actor.remote(part, layout)))
        self.spent()

    def spent(self) -> list[float]:
        """Processor seconds of every actor so far."""
        workers = [worker for part in self._parts for _, worker in part]
        return list(self._ray.get([worker.spent.remote() for worker in workers]))

    def __call__(self, probe: Buffer) -> Iterator[seal.Ciphertext]:
        """A ciphertext a block. Raises ParameterError: a probe of a wrong size."""
        if len(probe) != self.layout.slices * seeded_bytes():
            raise ParameterError("a probe of a wrong size")
        view, bfv = memoryview(probe), ring()
        asked = [
            [worker.scores.remote(bytes(view[span])) for span, worker in part]
            for part in self._parts
        ]
        for part in asked:
            first, *others = self._results(part)
            for index, words in enumerate(first):
                total = bfv.ciphertext(words)
                for other in others:
                    bfv.evaluator.add_inplace(total, bfv.ciphertext(other[index]))
                yield total

    def _results(self, asked: list[Any]) -> list[list[np.ndarray]]:
        try:
            return list(self._ray.get(asked))
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ParameterError):
                raise ParameterError("a ciphertext word is not below its modulus") from None
            raise RuntimeError("a partition failed") from None
