"""Whom the columns of a release single out, pictures aside.

Anyone who knows a person's photos in the source knows how many there are and what the kept columns
say of them. Where no other person of the release has the same number of records with the same
values, that is enough to find the person's pseudonym. ``structure_k`` is the smallest number of
people that look alike in this way: 1 where anybody is singled out.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True)
class SinglingOut:
    """What the joiner finds."""

    people: int
    singled_out: int
    """People whose number of records and kept values together nobody else has."""
    by_size: int
    """The same by the number of records alone."""
    structure_k: int
    """People that look alike, in the smallest such set; 0 where there are none."""


def singled(records: pa.Table, person: str = "identity") -> SinglingOut:
    """Play the joiner on planned or published records.

    Args:
        records: a row each; the column ``person``, in which null is a person of their own, and
            the kept columns; nothing else that is not published.

    Raises:
        KeyError: there is no such column.
    """
    codes = np.asarray(records[person].combine_chunks().dictionary_encode().indices.fill_null(-1))
    alone = codes < 0
    codes = np.where(alone, int(codes.max(initial=-1)) + np.cumsum(alone), codes).astype(np.int64)
    if not len(codes):
        return SinglingOut(0, 0, 0, 0)
    values = np.zeros(len(codes), np.int64)
    for name in records.column_names:
        if name != person:
            pairs = np.stack([values, _coded(records[name])], 1)
            values = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
    order = np.lexsort((values, codes))
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    signs = Counter(part.tobytes() for part in np.split(values[order], starts[1:]))
    sizes = Counter(np.diff(starts, append=len(codes)).tolist())
    return SinglingOut(
        people=len(starts),
        singled_out=sum(count == 1 for count in signs.values()),
        by_size=sum(count == 1 for count in sizes.values()),
        structure_k=min(signs.values()),
    )


def _coded(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Equal numbers for equal values."""
    try:
        indices = column.combine_chunks().dictionary_encode().indices.fill_null(-1)
        return np.asarray(indices).astype(np.int64) + 1
    except (pa.ArrowException, AttributeError):  # lists, which Arrow does not encode
        texts: dict[str, int] = {}
        return np.array([texts.setdefault(repr(v), len(texts)) for v in column.to_pylist()])
