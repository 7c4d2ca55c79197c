"""From masked scores to one bit: a garbled circuit that the server makes and the client evaluates.

The client knows u = score + mask modulo 2^26, the server the mask; a score reaches the threshold if
the highest bit of u - (mask + threshold) is 0. The circuit says for which records that is so, and
takes them together: Yao's garbling with free xor (Kolesnikov and Schneider 2008) and half gates
(Zahur, Rosulek and Evans 2015), the hash from AES with a key of the session's (Guo et al. 2020).
The client gets the labels of its bits by :mod:`.transfer`; the server's bits change what its labels
mean and are not sent.

Whatever a client sends, it evaluates the circuit on bits of its choice, once, and gets the label of
one output: that is all that a client that keeps to no rule learns, too.

The twelve lowest bits are left out: a score within 2^11 / 2^24 = 0.00012 of the threshold may fall
to either side, and the comparison costs half as much.
"""

import hashlib

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from .bfv import SCORE_BITS, Buffer, ParameterError
from .transfer import Labels

DROPPED_BITS = 12
LENGTH = SCORE_BITS - DROPPED_BITS
"""Bits compared."""
_LABEL = 16


class _Gates:
    """What both sides do alike. Labels are uint64 ``n x 2``, one gate of n records at a time."""

    def __init__(self, session: bytes) -> None:
        key = hashlib.sha256(b"ppfr match labels" + session).digest()[:_LABEL]
        self._cipher = Cipher(algorithms.AES(key), modes.ECB())
        self._next = 1

    def _permute(self, labels: Labels) -> Labels:
        encrypted = self._cipher.encryptor().update(np.ascontiguousarray(labels).tobytes())
        return np.frombuffer(encrypted, "<u8").reshape(-1, 2)

    def _tweaks(self, count: int) -> Labels:
        """Numbers that no other gate of the session has."""
        tweaks = np.zeros((count, 2), np.uint64)
        tweaks[:, 0] = np.arange(self._next, self._next + count, dtype=np.uint64)
        self._next += count
        return tweaks

    def _hash(self, labels: Labels, tweaks: Labels) -> Labels:
        once = self._permute(labels)
        return self._permute(once ^ tweaks) ^ once

    @staticmethod
    def _lowest(labels: Labels) -> NDArray[np.bool_]:
        return (labels[:, :1] & np.uint64(1)).astype(np.bool_)


class _Garbler(_Gates):
    """The server's side; a wire is the label of "no"."""

    def __init__(self, session: bytes, difference: Labels) -> None:
        super().__init__(session)
        self._difference = difference
        self.tables: list[bytes] = []

    def _if(self, bits: NDArray[np.bool_]) -> Labels:
        return np.where(bits, self._difference, np.uint64(0))

    def invert(self, wire: Labels) -> Labels:
        return wire ^ self._difference

    def add_known(self, wire: Labels, bits: NDArray[np.integer]) -> Labels:
        """The wire xor bits that the server knows."""
        return wire ^ self._if(bits[:, None].astype(np.bool_))

    def _half(
        self, wire: Labels, bits: NDArray[np.bool_], extra: Labels | None = None
    ) -> tuple[Labels, Labels]:
        """Table and hash of "no" of half a gate."""
        tweaks = self._tweaks(len(wire))
        no, yes = self._hash(wire, tweaks), self._hash(wire ^ self._difference, tweaks)
        return no ^ yes ^ (self._if(bits) if extra is None else extra), no

    def both_known(self, wire: Labels, bits: NDArray[np.integer]) -> Labels:
        """The wire and bits that the server knows."""
        table, no = self._half(wire, bits[:, None].astype(np.bool_))
        self.tables.append(table.tobytes())
        return no ^ np.where(self._lowest(wire), table, np.uint64(0))

    def both(self, first: Labels, second: Labels) -> Labels:
        ours, ours_no = self._half(first, self._lowest(second))
        theirs, theirs_no = self._half(second, self._lowest(second), extra=first)
        self.tables += [ours.tobytes(), theirs.tobytes()]
        left = ours_no ^ np.where(self._lowest(first), ours, np.uint64(0))
        return left ^ theirs_no ^ np.where(self._lowest(second), theirs ^ first, np.uint64(0))


class _Evaluator(_Gates):
    """The client's side; a wire is the one label that it has."""

    def __init__(self, session: bytes, tables: Buffer) -> None:
        super().__init__(session)
        self._tables, self._read = memoryview(tables), 0

    def _table(self, count: int) -> Labels:
        size = count * _LABEL
        part = self._tables[self._read : self._read + size]
        self._read += size
        return np.frombuffer(part, "<u8").reshape(-1, 2)

    def invert(self, wire: Labels) -> Labels:
        return wire

    def add_known(self, wire: Labels, bits: None) -> Labels:
        return wire

    def both_known(self, wire: Labels, bits: None) -> Labels:
        hashed = self._hash(wire, self._tweaks(len(wire)))
        return hashed ^ np.where(self._lowest(wire), self._table(len(wire)), np.uint64(0))

    def both(self, first: Labels, second: Labels) -> Labels:
        count = len(first)
        left, right = (self._hash(wire, self._tweaks(count)) for wire in (first, second))
        left = left ^ np.where(self._lowest(first), self._table(count), np.uint64(0))
        theirs = self._table(count) ^ first
        return left ^ right ^ np.where(self._lowest(second), theirs, np.uint64(0))


def _reached(gates: _Garbler | _Evaluator, ours: Labels, theirs: list, counted: object) -> Labels:
    """One wire a record, ``n x 2``: its score reaches the threshold, and it counts.

    Args:
        ours: of the client's bits, lowest first, ``LENGTH x n x 2``.
        theirs: the server's bits, lowest first, ``LENGTH`` times ``n``; None at the client's.
    """
    borrow = gates.both_known(gates.invert(ours[0]), theirs[0])
    for bit, known in zip(ours[1:-1], theirs[1:-1], strict=True):
        step = gates.both(gates.invert(bit) ^ borrow, gates.add_known(borrow, known))
        borrow = step ^ borrow
    highest = gates.add_known(ours[-1] ^ borrow, theirs[-1])
    return gates.both_known(gates.invert(highest), counted)  # type: ignore[arg-type]


def _any(gates: _Garbler | _Evaluator, wires: Labels) -> Labels:
    """The one wire that says whether any does."""
    while len(wires) > 1:
        half = len(wires) // 2
        none = gates.both(gates.invert(wires[:half]), gates.invert(wires[half : 2 * half]))
        wires = np.concatenate([gates.invert(none), wires[2 * half :]])
    return wires


def _bits(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bits compared, lowest first, ``LENGTH x n``."""
    return np.stack([(values >> (DROPPED_BITS + index)) & 1 for index in range(LENGTH)])


def answer_bytes(records: int, which: bool) -> int:
    """Bytes of an answer: tables, and the meaning of the output's lowest bits."""
    tables = records * (2 * (LENGTH - 2) + 2) + (0 if which else 2 * (records - 1))
    return tables * _LABEL + (-(-records // 8) if which else 1)


def garble(
    session: bytes,
    difference: Labels,
    labels: Labels,
    masks: NDArray[np.int64],
    threshold: int,
    counted: NDArray[np.bool_],
    which: bool = False,
) -> bytes:
    """The server's answer.

    Args:
        session: what both sides know of the session, different in each.
        difference: between the labels of "yes" and "no", 2.
        labels: of "no" for the client's bits, ``LENGTH n x 2``, those of the lowest bits first.
        masks: of the records' scores, ``n``.
        threshold: an inner product of quantised templates.
        counted: the records that count, bool ``n``; the others are padding.
        which: tell which records match instead of whether any does.
    """
    count, gates = len(masks), _Garbler(session, difference)
    centred = (masks + threshold + (1 << (DROPPED_BITS - 1))) % (1 << SCORE_BITS)
    wires = _reached(gates, labels.reshape(LENGTH, count, 2), list(_bits(centred)), counted)
    final = wires if which else _any(gates, wires)
    meaning = np.packbits(gates._lowest(final)[:, 0], bitorder="little")
    return b"".join([*gates.tables, meaning.tobytes()])


def client_bits(masked: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bits of score plus mask that the client asks labels for, ``LENGTH n``."""
    return _bits(masked).reshape(-1)


def evaluate(
    session: bytes, labels: Labels, data: Buffer, records: int, which: bool = False
) -> list[int]:
    """What the answer says: the numbers of the records that match, or ``[0]`` if any does.

    Args:
        labels: of the client's bits, ``LENGTH n x 2``.

    Raises:
        ParameterError: wrong length.
    """
    if len(data) != answer_bytes(records, which):
        raise ParameterError("an answer of a wrong size")
    outputs = records if which else 1
    tables = len(data) - -(-outputs // 8)
    gates = _Evaluator(session, memoryview(data)[:tables])
    wires = _reached(gates, labels.reshape(LENGTH, records, 2), [None] * LENGTH, None)
    final = wires if which else _any(gates, wires)
    meaning = np.unpackbits(np.frombuffer(data, np.uint8, offset=tables), bitorder="little")
    told = gates._lowest(final)[:, 0] ^ meaning[:outputs].astype(np.bool_)
    return [int(index) for index in np.flatnonzero(told)]
