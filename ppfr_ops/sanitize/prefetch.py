"""Iterators that work ahead in threads of their own, with bounded queues between them.

A chain of generators, each wrapped in ``prefetch``, is a pipeline in which every stage works on
another item; the slowest sets the pace, and nobody is ahead by more than ``depth`` items.
"""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.2
"""Until a thread whose consumer has gone finds out."""


class _End:
    """The last thing that comes out of a thread; with what its iterator raised, if it did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def prefetch(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """The items, taken out of their iterator by another thread, in order.

    Args:
        depth: how many items may wait for the consumer.

    Raises:
        BaseException: what the iterator raises, after the items before.
    """
    line: queue.Queue[Any] = queue.Queue(depth)
    gone = threading.Event()

    def put(item: Any) -> bool:
        while not gone.is_set():
            try:
                line.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
        except BaseException as error:
            put(_End(error))
        else:
            put(_End())

    threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            item = line.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        gone.set()
