"""The client's side of a session."""

from dataclasses import dataclass

from .bfv import ParameterError
from .comparison import client_bits, evaluate
from .errors import MatchError, Reason, Refused
from .packing import Integers
from .scores import QueryKey
from .server import name_digest
from .transfer import POINTS_BYTES, TransferReceiver
from .wire import (
    ACCEPT_BYTES,
    CHALLENGE_BYTES,
    Accept,
    Hello,
    Kind,
    Link,
    Sizes,
    parameters_digest,
    session_digest,
)

MOST_BYTES = 512 << 20
"""Bytes that a query may move, if the client does not allow more: those of 700,000 x 128."""


@dataclass(frozen=True)
class Outcome:
    """What a query tells."""

    match: bool
    records: list[int] | None = None
    """Numbers of the records that match, where the policy of the gallery tells them."""


def ask(
    link: Link,
    template: Integers,
    name: str | None = None,
    token: bytes = bytes(32),
    recognizer: str | None = None,
    most_bytes: int = MOST_BYTES,
) -> Outcome:
    """Ask whether a template matches.

    Args:
        template: int16 ``D``, quantised.
        name: verify against the records of this name; None: identify.
        recognizer: digest of the FR model that made the template; None: unknown.
        most_bytes: give up before a query that would move more.

    Raises:
        Refused: the server refuses.
        MatchError: the server's gallery has another number of dimensions or is too large, or it
            sends nonsense.
        EOFError: it went away.
    """
    nonce = bytes(link.receive(Kind.CHALLENGE, CHALLENGE_BYTES))
    link.nonce = nonce
    mode, digest = ("identify", bytes(32)) if name is None else ("verify", name_digest(name))
    link.send(Kind.HELLO, Hello(token, mode, digest, parameters_digest()).pack())
    accept = Accept.unpack(link.receive(Kind.ACCEPT, ACCEPT_BYTES))
    layout = accept.layout
    if layout.dimensions != len(template) or (
        recognizer is not None and accept.recognizer != name_digest(recognizer)
    ):
        raise MatchError("the gallery was made with another FR model than the probe")
    sizes = Sizes.of(layout, accept.which)
    if sizes.total > most_bytes:
        raise MatchError(
            f"a query of this server's gallery moves {-(-sizes.total >> 20) + 1} MiB: "
            "allow it with --most-mib"
        )
    key, chooser = QueryKey(), TransferReceiver(nonce)
    try:
        probe = key.encrypt_probe(layout, template)
        link.send(Kind.QUERY, key.public_half(nonce) + probe + chooser.point)
        received = memoryview(link.receive(Kind.MASKED, sizes.masked))
        masked, points = received[:-POINTS_BYTES], received[-POINTS_BYTES:]
        bits = client_bits(key.decrypt_masked(masked, layout))
        message, labels = chooser.choose(points, bits)
        link.send(Kind.CHOICES, message)
        final = link.receive(Kind.ANSWER, sizes.answer)
        session = session_digest(nonce, chooser.point, points)
        found = evaluate(session, labels, final, layout.records, accept.which)
    except ParameterError:
        raise Refused(Reason.PARAMETERS) from None
    return Outcome(bool(found), found if accept.which else None)
