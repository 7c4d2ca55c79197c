"""Encrypted matching on Ray: a gallery spread over actors, their results put together encrypted.

A partition is a range of blocks of records. An actor sees what the server sees: its part of the
gallery, and ciphertexts of the probe. It holds no key, and what it returns is still unmasked and
stays with the server.
"""

import logging
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from ..match.bfv import SEEDED_BYTES, Buffer, ParameterError, ring
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
        partitions: ranges of blocks, an actor each.

    Raises:
        ValueError: fewer blocks than partitions.
    """

    def __init__(self, gallery: Gallery, partitions: int) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        self._ray = ray
        if not ray.is_initialized():
            ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
        count, dimensions = gallery.templates.shape
        self.layout = padded(Layout.smallest(count, dimensions))
        if not 1 <= partitions <= self.layout.blocks:
            raise ValueError(f"{self.layout.blocks} blocks: no more partitions")
        actor = ray.remote(num_cpus=0.5)(_Partition)
        self._parts: list[Any] = []
        for blocks in np.array_split(np.arange(self.layout.blocks), partitions):
            step = self.layout.per_block
            rows = gallery.templates[blocks[0] * step : (blocks[-1] + 1) * step]
            layout = Layout(len(blocks) * step, dimensions, self.layout.slice_width)
            self._parts.append(actor.remote(rows, layout))
        self.spent()

    def spent(self) -> list[float]:
        """Processor seconds of every actor so far."""
        return list(self._ray.get([worker.spent.remote() for worker in self._parts]))

    def __call__(self, probe: Buffer) -> Iterator[seal.Ciphertext]:
        """A ciphertext a block. Raises ParameterError: a probe of a wrong size."""
        if len(probe) != self.layout.slices * SEEDED_BYTES:
            raise ParameterError("a probe of a wrong size")
        for asked in [worker.scores.remote(bytes(probe)) for worker in self._parts]:
            try:
                found = self._ray.get(asked)
            except self._ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, ParameterError):
                    raise ParameterError("a ciphertext word is not below its modulus") from None
                raise RuntimeError("a partition failed") from None
            yield from map(ring().ciphertext, found)
