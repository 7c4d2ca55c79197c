"""The server's side of a session: pure of sockets and threads but for one lock.

It holds the gallery, masks and comparisons; of the probe it sees ciphertexts alone, and no key that
opens them.
"""

import hashlib
import hmac
import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import numpy as np
import tenseal.sealapi as seal

from .accounts import Accounts
from .bfv import DEGREE, Buffer, ParameterError
from .comparison import LENGTH, garble
from .errors import MatchError, Reason, Refused
from .gallery import Gallery
from .packing import Layout, threshold_integer
from .scores import PUBLIC_BYTES, PackedGallery, mask, products, read_probe, read_public
from .transfer import POINT_BYTES, TransferSender
from .wire import HELLO_BYTES, NONCE_BYTES, Accept, Hello, Kind, Link, Sizes, session_digest


class Scorer(Protocol):
    """Encrypted inner products of a probe with a whole gallery."""

    layout: Layout

    def __call__(self, probe: Buffer) -> Iterable[seal.Ciphertext]:
        """A ciphertext a block, in coefficient form. Raises ParameterError."""
        ...


class LocalScorer:
    """In this process, on one core."""

    def __init__(self, gallery: Gallery) -> None:
        count, dimensions = gallery.templates.shape
        self.layout = padded(Layout.smallest(count, dimensions))
        self._packed = PackedGallery.pack(gallery.templates, self.layout)

    def __call__(self, probe: Buffer) -> Iterable[seal.Ciphertext]:
        return products(read_probe(probe, self.layout), self._packed)


def padded(layout: Layout) -> Layout:
    """The layout with full blocks, so that clients learn a gallery's size to a block only."""
    return Layout(layout.blocks * layout.per_block, layout.dimensions, layout.slice_width)


def name_digest(name: str) -> bytes:
    """How a name travels, 32 bytes."""
    return hashlib.sha256(name.encode()).digest()


class Matcher:
    """A gallery that can be asked, under a policy.

    Args:
        scorer: computes identifications; None: this process.

    Raises:
        MatchError: a name has more records than fit a verification.
    """

    def __init__(self, gallery: Gallery, accounts: Accounts, scorer: Scorer | None = None) -> None:
        self.accounts = accounts
        self.threshold = threshold_integer(accounts.policy.threshold)
        self.recognizer = name_digest(gallery.recognizer)
        self.templates = gallery.templates
        dimensions = gallery.templates.shape[1]
        width = 1 << (dimensions - 1).bit_length()
        self.verification = Layout(DEGREE // width, dimensions, width)
        self.rows: dict[bytes, list[int]] = defaultdict(list)
        for row, name in enumerate(gallery.names):
            self.rows[name_digest(name)].append(row)
        most = max(len(rows) for rows in self.rows.values())
        if most > self.verification.records and "verify" in accounts.policy.modes:
            raise MatchError(
                f"a name has {most} records; a verification compares with "
                f"{self.verification.records} at most"
            )
        self.scorer = scorer or LocalScorer(gallery)
        self.computing = threading.Lock()

    def layout(self, mode: str) -> Layout:
        return self.verification if mode == "verify" else self.scorer.layout


def _answer(link: Link, matcher: Matcher, hello: Hello, client: str, nonce: bytes) -> None:
    """One query, counted before anything is computed for it."""
    verify, policy = hello.mode == "verify", matcher.accounts.policy
    matcher.accounts.spend(client, hello.mode, hello.name.hex() if verify else "")
    # a name that nobody has is compared as well, with no record that counts: who is enrolled is
    # nothing that a client learns by asking
    rows = matcher.rows.get(hello.name, []) if verify else []
    layout, which = matcher.layout(hello.mode), not verify and policy.reveal == "id"
    counted = np.zeros(layout.records, np.bool_)
    counted[: len(rows) if verify else len(matcher.templates)] = True
    sizes = Sizes.of(layout, which)
    link.send(Kind.ACCEPT, Accept(layout, which, matcher.recognizer).pack())
    asked = memoryview(link.receive(Kind.QUERY, sizes.query))
    public, point = read_public(asked[:PUBLIC_BYTES], nonce), asked[-POINT_BYTES:]
    dealer = TransferSender(nonce, point)
    with matcher.computing:
        probe = asked[PUBLIC_BYTES:-POINT_BYTES]
        results: Iterable[seal.Ciphertext]
        if verify:
            records = matcher.templates[rows or [0]]
            results = products(read_probe(probe, layout), PackedGallery.pack(records, layout))
        else:
            results = matcher.scorer(probe)
        sent, masks = mask(results, public, layout)
    link.send(Kind.MASKED, sent + dealer.points)
    session = session_digest(nonce, point, dealer.points)
    # Tens of megabytes, which no client that takes its time is to hold.
    del asked, public, point, probe, results, sent
    choices = link.receive(Kind.CHOICES, sizes.choices)
    with matcher.computing:
        labels = dealer.labels(choices, LENGTH * layout.records)
        told = garble(session, dealer.difference, labels, masks, matcher.threshold, counted, which)
    link.send(Kind.ANSWER, told)


def who(
    clients: Mapping[str, Mapping[str, str]], token: bytes, certificate: str | None
) -> str | None:
    """The client's name, by the certificate that TLS has checked, or by its token."""
    digest = hashlib.sha256(token).hexdigest()
    for name, known in clients.items():
        if certificate is not None and known.get("certificate") == certificate:
            return name
        if hmac.compare_digest(known.get("token", ""), digest):
            return name
    return None


def serve_session(
    link: Link,
    matcher: Matcher,
    clients: Mapping[str, Mapping[str, str]],
    certificate: str | None = None,
    admitted: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> None:
    """One session, from challenge to answer or refusal. Never raises for what a client sends.

    Args:
        admitted: called with the name of a client that has shown who it is; holds a place for it
            until the session is over, or raises Refused.
    """
    try:
        nonce = secrets.token_bytes(NONCE_BYTES)
        link.send(Kind.CHALLENGE, nonce)
        link.nonce = nonce
        hello = Hello.unpack(link.receive(Kind.HELLO, HELLO_BYTES))
        client = who(clients, hello.token, certificate)
        if client is None:
            raise Refused(Reason.UNKNOWN_CLIENT)
        with admitted(client):
            _answer(link, matcher, hello, client, nonce)
    except Refused as refusal:
        link.refuse(refusal.reason)
    except ParameterError:
        link.refuse(Reason.PARAMETERS)
