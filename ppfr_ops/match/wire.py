"""The wire format, version 2: frames of exactly known lengths.

Every frame is a header of 34 bytes, little-endian, and a payload::

    4s  magic "PPFM"
    B   version
    B   kind of message
    16s nonce: drawn by the server for this session; zeros in its first frame's payload only
    I   number of the frame in its direction, from 0
    Q   length of the payload

The receiver knows kind, nonce, number and length of the frame that has to come next, and compares
them before it allocates anything for the payload. docs/match.md lists the payloads.
"""

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from .bfv import DEGREE, PRIME_BITS, RESULT_BYTES, SCORE_BITS, SEEDED_BYTES, Buffer, ring
from .comparison import DROPPED_BITS, LENGTH, answer_bytes
from .errors import Reason, Refused
from .packing import SCALE, Layout
from .scores import PUBLIC_BYTES
from .transfer import POINT_BYTES, POINTS_BYTES, WIDTH, message_bytes

MAGIC = b"PPFM"
VERSION = 2
HEADER = struct.Struct("<4sBB16sIQ")
NONCE_BYTES = 16


class Kind(IntEnum):
    """Messages, in the order of a session; odd ones are the server's."""

    CHALLENGE = 1
    HELLO = 2
    ACCEPT = 3
    QUERY = 4
    MASKED = 5
    CHOICES = 6
    ANSWER = 7
    REFUSED = 9


def parameters_digest() -> bytes:
    """sha256 of everything that both sides have to agree on, 32 bytes."""
    parts = (VERSION, DEGREE, PRIME_BITS, ring().primes, SCORE_BITS, SCALE, DROPPED_BITS, WIDTH)
    return hashlib.sha256(repr(parts).encode()).digest()


def session_digest(nonce: bytes, point: Buffer, points: Buffer) -> bytes:
    """What binds transfers and labels to this session, 32 bytes."""
    return hashlib.sha256(b"".join([nonce, point, points])).digest()


# -- payloads ------------------------------------------------------------------------------------

MODES = {"verify": 1, "identify": 2}
_HELLO = struct.Struct("<32s32sB32s")
_ACCEPT = struct.Struct("<IIIB32s")
_REFUSED = struct.Struct("<H")
CHALLENGE_BYTES, HELLO_BYTES, ACCEPT_BYTES = NONCE_BYTES, _HELLO.size, _ACCEPT.size
REFUSED_BYTES = _REFUSED.size


@dataclass(frozen=True, repr=False)
class Hello:
    """What a client wants."""

    token: bytes
    """32 bytes; zeros if the certificate says who it is."""
    mode: str
    name: bytes
    """sha256 of the name to verify; zeros for an identification."""
    parameters: bytes

    def pack(self) -> bytes:
        return _HELLO.pack(self.token, self.parameters, MODES[self.mode], self.name)

    @classmethod
    def unpack(cls, payload: Buffer) -> "Hello":
        """Raises Refused: other parameters, or a mode that does not exist."""
        token, parameters, mode, name = _HELLO.unpack(payload)
        if parameters != parameters_digest():
            raise Refused(Reason.PARAMETERS)
        modes = {number: text for text, number in MODES.items()}
        if mode not in modes:
            raise Refused(Reason.MODE)
        return cls(token, modes[mode], name, parameters)


@dataclass(frozen=True)
class Accept:
    """What the client has to know: how to pack, and what kind of answer comes."""

    layout: Layout
    which: bool
    recognizer: bytes
    """sha256 of what :class:`~ppfr_ops.match.gallery.Gallery` calls its recognizer."""

    def pack(self) -> bytes:
        layout = self.layout
        shape = layout.records, layout.dimensions, layout.slice_width
        return _ACCEPT.pack(*shape, self.which, self.recognizer)

    @classmethod
    def unpack(cls, payload: Buffer) -> "Accept":
        """Raises Refused: a layout that does not exist."""
        records, dimensions, width, which, recognizer = _ACCEPT.unpack(payload)
        try:
            return cls(Layout(records, dimensions, width), bool(which), recognizer)
        except ValueError:
            raise Refused(Reason.MALFORMED) from None


@dataclass(frozen=True)
class Sizes:
    """Bytes of the payloads of a session."""

    query: int
    masked: int
    choices: int
    answer: int

    @classmethod
    def of(cls, layout: Layout, which: bool) -> "Sizes":
        return cls(
            PUBLIC_BYTES + layout.slices * SEEDED_BYTES + POINT_BYTES,
            layout.blocks * RESULT_BYTES + POINTS_BYTES,
            message_bytes(LENGTH * layout.records),
            answer_bytes(layout.records, which),
        )

    @property
    def total(self) -> int:
        return self.query + self.masked + self.choices + self.answer


# -- frames --------------------------------------------------------------------------------------


class Link:
    """Frames over something that reads into a buffer and writes, in lock step.

    Args:
        read: fills the buffer it is given, or raises EOFError.
        write: sends all of its argument.
    """

    def __init__(self, read: Callable[[memoryview], None], write: Callable[[bytes], None]) -> None:
        self._read, self._write = read, write
        self.nonce = bytes(NONCE_BYTES)
        self._sent = self._received = 0

    def send(self, kind: Kind, payload: bytes) -> None:
        self._write(HEADER.pack(MAGIC, VERSION, kind, self.nonce, self._sent, len(payload)))
        self._write(payload)
        self._sent += 1

    def receive(self, kind: Kind, length: int) -> bytearray:
        """The payload of the frame that has to come next.

        Raises:
            Refused: anything else came; REFUSED of the other side included, with its reason.
            EOFError: nothing more came.
        """
        header = bytearray(HEADER.size)
        self._read(memoryview(header))
        magic, version, got, nonce, number, size = HEADER.unpack(header)
        if magic != MAGIC:
            raise Refused(Reason.MALFORMED)
        if version != VERSION:
            raise Refused(Reason.VERSION)
        if got == Kind.REFUSED and kind % 2 and size == REFUSED_BYTES:
            code = bytearray(REFUSED_BYTES)
            self._read(memoryview(code))
            (reason,) = _REFUSED.unpack(code)
            raise Refused(Reason(reason) if reason in list(Reason) else Reason.INTERNAL)
        if nonce != self.nonce or number != self._received:
            raise Refused(Reason.REPLAY)
        if got != kind:
            raise Refused(Reason.MALFORMED)
        if size != length:
            raise Refused(Reason.SIZE)
        payload = bytearray(size)
        self._read(memoryview(payload))
        self._received += 1
        return payload

    def refuse(self, reason: Reason) -> None:
        self.send(Kind.REFUSED, _REFUSED.pack(reason))
