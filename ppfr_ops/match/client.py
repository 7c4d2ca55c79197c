"""The client's side of a session."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .bfv import ParameterError, result_bytes
from .comparison import (
    LENGTH,
    answer_bytes,
    any_match,
    client_shares,
    encrypt_bits,
    encrypt_shares,
    which_match,
)
from .errors import MatchError, Reason, Refused
from .keys import ClientKeys
from .packing import Integers
from .scores import decrypt_masked, encrypt_probe
from .server import name_digest
from .three_party import client_values
from .wire import ACCEPT_BYTES, CHALLENGE_BYTES, Accept, Hello, Kind, Link, parameters_digest


@dataclass(frozen=True)
class Outcome:
    """What a query tells."""

    match: bool
    records: list[int] | None = None
    """Numbers of the records that match, where the policy of the gallery tells them."""


def ask(
    link: Link,
    keys: ClientKeys,
    template: Integers,
    name: str | None = None,
    token: bytes = bytes(32),
    recognizer: str | None = None,
    party: Callable[[NDArray[np.int64]], bool | None] | None = None,
) -> Outcome:
    """Ask whether a template matches.

    Args:
        template: int16 ``D``, quantised.
        name: verify against the records of this name; None: identify.
        recognizer: digest of the FR model that made the template; None: unknown.
        party: takes part in a comparison of three parties; None: the honest-client form.

    Raises:
        Refused: the server refuses.
        MatchError: the server's gallery has another number of dimensions, or it sends nonsense.
        EOFError: it went away.
    """
    challenge = link.receive(Kind.CHALLENGE, CHALLENGE_BYTES)
    link.nonce = bytes(challenge)
    mode, digest = ("identify", bytes(32)) if name is None else ("verify", name_digest(name))
    form = "honest-client" if party is None else "three-party"
    link.send(Kind.HELLO, Hello(token, mode, form, digest, parameters_digest()).pack())
    accept = Accept.unpack(link.receive(Kind.ACCEPT, ACCEPT_BYTES))
    layout = accept.layout
    if layout.dimensions != len(template) or (
        recognizer is not None and accept.recognizer != name_digest(recognizer)
    ):
        raise MatchError("the gallery was made with another FR model than the probe")
    try:
        link.send(Kind.QUERY, keys.public + encrypt_probe(keys.scores, layout, template))
        received = link.receive(Kind.MASKED, layout.blocks * result_bytes())
        masked = decrypt_masked(keys.scores, received, layout)
        if party is not None:
            return Outcome(bool(party(client_values(masked))))
        link.send(Kind.BITS, encrypt_bits(keys.choices, masked, layout))
        blinded = link.receive(Kind.BLINDED, layout.groups * LENGTH * result_bytes())
        shares = client_shares(keys.choices, blinded, masked, layout)
        link.send(Kind.SHARES, encrypt_shares(keys.choices, shares, layout))
        final = link.receive(Kind.ANSWER, answer_bytes(layout, accept.which))
    except ParameterError:
        raise Refused(Reason.PARAMETERS) from None
    if accept.which:
        records = which_match(keys.choices, final, layout)
        return Outcome(bool(records), records)
    return Outcome(any_match(keys.choices, final))
