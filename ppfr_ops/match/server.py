"""The server's side of a session: pure of sockets and threads but for one lock.

It holds the gallery, masks and comparisons; of the probe it sees ciphertexts alone, and no key that
opens them.
"""

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from .accounts import Accounts
from .bfv import DEGREE, Buffer, ParameterError, public_bytes, seeded_bytes
from .comparison import LENGTH, ServerShares, answer, blind
from .errors import MatchError, Reason, Refused
from .gallery import Gallery
from .keys import PublicKeys
from .packing import Layout, threshold_integer
from .scores import PackedGallery, mask, products, read_probe
from .three_party import server_values
from .wire import (
    HELLO_BYTES,
    NONCE_BYTES,
    Accept,
    Hello,
    Kind,
    Link,
)


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
        party: takes part in a comparison of three parties with the server's values; None: the
            honest-client form.

    Raises:
        MatchError: a name has more records than fit a verification.
    """

    def __init__(
        self,
        gallery: Gallery,
        accounts: Accounts,
        scorer: Scorer | None = None,
        party: Callable[[NDArray[np.int64]], object] | None = None,
    ) -> None:
        self.accounts = accounts
        self.party = party
        self.comparing = threading.Lock()
        self.threshold = threshold_integer(accounts.policy.threshold)
        self.recognizer = name_digest(gallery.recognizer)
        self._templates = gallery.templates
        dimensions = gallery.templates.shape[1]
        width = 1 << (dimensions - 1).bit_length()
        self.verification = Layout(DEGREE // width, dimensions, width)
        self._rows: dict[bytes, list[int]] = {}
        for row, name in enumerate(gallery.names):
            self._rows.setdefault(name_digest(name), []).append(row)
        most = max(len(rows) for rows in self._rows.values())
        if most > self.verification.records and "verify" in accounts.policy.modes:
            raise MatchError(
                f"a name has {most} records; a verification compares with "
                f"{self.verification.records} at most"
            )
        self.scorer = scorer or LocalScorer(gallery)
        self._computing = threading.Lock()

    def layout(self, mode: str) -> Layout:
        return self.verification if mode == "verify" else self.scorer.layout

    def open(self, hello: Hello, client: str) -> "_Question":
        """Count the query and get ready. Raises Refused."""
        if (hello.form == "three-party") != (self.party is not None):
            raise Refused(Reason.FORM)
        verify = hello.mode == "verify"
        self.accounts.spend(client, hello.mode, hello.name.hex() if verify else "")
        # a name that nobody has is compared as well, with no record that counts: who is enrolled is
        # nothing that a client learns by asking
        rows = self._rows.get(hello.name, []) if verify else []
        layout = self.layout(hello.mode)
        counted = np.zeros(layout.records, np.bool_)
        counted[: len(rows) if verify else len(self._templates)] = True
        which = not verify and self.party is None and self.accounts.policy.reveal == "id"
        return _Question(self, hello.mode, rows, layout, counted, which)

    def results(self, mode: str, rows: list[int], probe: Buffer) -> Iterable[seal.Ciphertext]:
        if mode == "identify":
            return self.scorer(probe)
        packed = PackedGallery.pack(self._templates[rows or [0]], self.verification)
        return products(read_probe(probe, self.verification), packed)


@dataclass(repr=False)
class _Question:
    """A query on its way; what the server keeps of it between frames."""

    matcher: Matcher
    mode: str
    rows: list[int]
    layout: Layout
    counted: NDArray[np.bool_]
    which: bool
    public: PublicKeys | None = None
    masks: NDArray[np.int64] | None = None
    shares: ServerShares | None = None

    @property
    def accept(self) -> Accept:
        return Accept(self.layout, self.which, self.matcher.recognizer)

    def query(self, payload: bytearray) -> bytes:
        view, split = memoryview(payload), 2 * public_bytes()
        self.public = PublicKeys.read(view[:split])
        with self.matcher._computing:
            results = self.matcher.results(self.mode, self.rows, view[split:])
            sent, self.masks = mask(results, self.public.scores, self.layout)
        return sent

    def bits(self, payload: bytearray) -> bytes:
        assert self.public is not None and self.masks is not None
        with self.matcher._computing:
            sent, self.shares = blind(
                self.public.choices, payload, self.masks, self.matcher.threshold, self.layout
            )
        return sent

    def compare_by_three(self) -> None:
        """Take part with the helper and the client, who gets the bit."""
        assert self.matcher.party is not None and self.masks is not None
        self.matcher.party(server_values(self.masks, self.matcher.threshold, self.counted))

    def answer(self, payload: bytearray) -> bytes:
        assert self.public is not None and self.shares is not None
        with self.matcher._computing:
            return answer(
                self.public.choices, payload, self.shares, self.layout, self.counted, self.which
            )


def query_bytes(layout: Layout) -> int:
    """Bytes of a QUERY: both public keys, the probe."""
    return 2 * public_bytes() + layout.slices * seeded_bytes()


def bits_bytes(layout: Layout) -> int:
    """Bytes of BITS."""
    return layout.groups * LENGTH * seeded_bytes()


def shares_bytes(layout: Layout) -> int:
    """Bytes of SHARES."""
    return layout.groups * seeded_bytes()


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
) -> None:
    """One session, from challenge to answer or refusal. Never raises for what a client sends."""
    try:
        nonce = secrets.token_bytes(NONCE_BYTES)
        link.send(Kind.CHALLENGE, nonce)
        link.nonce = nonce
        hello = Hello.unpack(link.receive(Kind.HELLO, HELLO_BYTES))
        client = who(clients, hello.token, certificate)
        if client is None:
            raise Refused(Reason.UNKNOWN_CLIENT)
        question = matcher.open(hello, client)
        layout = question.layout
        link.send(Kind.ACCEPT, question.accept.pack())
        payload = link.receive(Kind.QUERY, query_bytes(layout))
        if matcher.party is not None:
            masked = question.query(payload)
            with matcher.comparing:  # the masked scores are the client's sign to begin
                link.send(Kind.MASKED, masked)
                question.compare_by_three()
            return
        link.send(Kind.MASKED, question.query(payload))
        link.send(Kind.BLINDED, question.bits(link.receive(Kind.BITS, bits_bytes(layout))))
        link.send(Kind.ANSWER, question.answer(link.receive(Kind.SHARES, shares_bytes(layout))))
    except Refused as refusal:
        link.refuse(refusal.reason)
    except ParameterError:
        link.refuse(Reason.PARAMETERS)
