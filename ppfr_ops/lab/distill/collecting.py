"""What is asked, in which order, and the answers: the part of a distillation that costs queries."""

import hashlib
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.lab.queries.account import BudgetSpent
from ppfr_ops.lab.queries.asking import QueryClient
from ppfr_ops.recognizers import Embeddings

T = TypeVar("T")

PARTNERS = 5
"""Pairs that a picture is asked in: one with the picture that is most like it, the others with any.
Many faces in few pairs taught more than few faces in many, and any partners more than few anchors.
"""

_PNG = Encoding("png")


def in_order(faces: Faces) -> Faces:
    """Faces by the digest of their pixels, each once: the same order in every run, and none that a
    file has."""
    digests = [hashlib.sha256(face.tobytes()).digest() for face in faces]
    first = {digest: place for place, digest in reversed(list(enumerate(digests)))}
    return faces[[first[digest] for digest in sorted(first)]]


def templates(
    asker: QueryClient, faces: Faces, workers: int = 1
) -> tuple[NDArray[np.int64], Embeddings]:
    """Ask for templates until the faces or the budget end.

    Returns:
        Indices of the faces that were answered, and their templates, float32 ``N x D``.

    Raises:
        EndpointError: a query got no answer, whatever was tried; answers so far are kept.
    """
    found = _ask_all(
        range(len(faces)), lambda number: asker.template(_PNG.encode(faces[number])), workers
    )
    places = np.array(sorted(found), np.int64)
    if not found:
        return places, np.zeros((0, 0), np.float32)
    return places, np.stack([found[place] for place in places])


@dataclass(frozen=True)
class Scored:
    """Pairs and what the target says of them: indices of faces, float64 scores."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    scores: NDArray[np.float64]


def pairs_to_ask(features: Embeddings, budget: int) -> NDArray[np.int64]:
    """Pairs, int64 ``P x 2``, at most ``budget``: every picture with the one that public
    recognisers find most like it, where decisions are made, and with pictures from all over.

    Args:
        features: of the faces, float32 ``N x D``, unit length.
    """
    count = min(len(features), max(2, budget // PARTNERS))
    like = features[:count] @ features[:count].T
    np.fill_diagonal(like, -np.inf)
    nearest = np.argmax(like, axis=1)
    others = max(1, min(PARTNERS - 1, count - 1))
    found: dict[tuple[int, int], None] = {}
    for i in range(count):
        for j in (int(nearest[i]), *((i * others + step) % count for step in range(others))):
            if i != j:
                found.setdefault((min(i, j), max(i, j)))
    return np.array(list(found)[:budget], np.int64).reshape(-1, 2)


def scores(asker: QueryClient, faces: Faces, pairs: NDArray[np.int64], workers: int = 1) -> Scored:
    """Ask for the scores of pairs until they or the budget end.

    Raises:
        EndpointError: a query got no answer, whatever was tried; answers so far are kept.
    """
    pictures = {int(i): _PNG.encode(faces[i]) for i in np.unique(pairs)}
    found = _ask_all(
        range(len(pairs)),
        lambda number: asker.score(*(pictures[int(side)] for side in pairs[number])),
        workers,
    )
    places = np.array(sorted(found), np.int64)
    kept = pairs[places]
    return Scored(kept[:, 0], kept[:, 1], np.array([found[place] for place in places]))


def _ask_all(numbers: Sequence[int], ask: Callable[[int], T], workers: int) -> dict[int, T]:
    """Answers by number. Every process begins at another place, so that two that share an account
    seldom ask for the same; what one has asked the other finds answered. The first failure ends
    it."""

    over = threading.Event()

    def answered(number: int) -> tuple[int, T] | None:
        if over.is_set():
            return None
        try:
            return number, ask(number)
        except BudgetSpent:
            return None  # what was answered before costs nothing: go on
        except BaseException:
            over.set()  # at once, however long another takes
            raise

    begin = secrets.randbelow(max(len(numbers), 1))
    pool = ThreadPoolExecutor(workers)
    try:
        found = pool.map(answered, [*numbers[begin:], *numbers[:begin]])
        return dict(each for each in found if each is not None)
    finally:
        pool.shutdown(cancel_futures=True)
