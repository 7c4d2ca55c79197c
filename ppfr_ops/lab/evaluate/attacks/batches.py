"""Batches of an attacker's training, made in a thread while the last one is learned."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.lab.evaluate.attacks.networks import View

Context = NDArray[np.float32]
"""What an attacker knows besides, a vector a face: float32 ``N x D``, any scale."""

Publish = Callable[[Faces, NDArray[np.int64], np.random.Generator], View | tuple[View, Context]]
"""(faces ``N x 112 x 112 x 3``, their indices, generator) -> the attacker's view of them."""


def batches(
    originals: Faces, publish: Publish, size: int, rng: np.random.Generator
) -> Iterator[tuple[Faces, View | tuple[View, Context]]]:
    while True:
        order = rng.permutation(len(originals))
        for start in range(0, len(order) - size + 1, size):
            index = order[start : start + size]
            yield originals[index], publish(originals[index], index, rng)


class Prefetch:
    """Run an iterator in a thread of its own, two items ahead."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(2)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(items,), daemon=True)
        self._thread.start()

    def _put(self, item: Any) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def _run(self, items: Iterator[Any]) -> None:
        try:
            for item in items:
                if not self._put(item):
                    return
        except BaseException as error:  # handed to the consumer, who raises it
            self._put(error)

    def __iter__(self) -> Iterator[Any]:
        while True:
            item = self._queue.get()
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=30)
