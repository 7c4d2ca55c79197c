"""A client that does not keep to the format, and one that does but wants the template."""

import contextlib
import os
import resource
import secrets

import numpy as np
import pytest

from ppfr_ops.match.client import MOST_BYTES, ask
from ppfr_ops.match.errors import MatchError, Reason
from ppfr_ops.match.packing import Layout, quantise
from ppfr_ops.match.scores import PUBLIC_BYTES, QueryKey
from ppfr_ops.match.server import name_digest, serve_session
from ppfr_ops.match.transfer import TransferReceiver
from ppfr_ops.match.wire import (
    HEADER,
    MAGIC,
    VERSION,
    Accept,
    Hello,
    Kind,
    Link,
    Sizes,
    parameters_digest,
)

from .conftest import CERTIFICATE, CLIENTS, DIMENSIONS, HEAVY, Wire, unit


class Peer:
    """Feeds a server's session with frames and keeps what it answers; no sockets."""

    def __init__(self, frames, nonce=None):
        self.frames, self.nonce = list(frames), nonce
        self.buffer, self.sent, self.largest = b"", [], 0

    def write(self, data):
        if not self.sent and len(data) == HEADER.size:
            pass
        elif self.nonce is None:
            self.nonce = bytes(data)
        self.sent.append(bytes(data))

    def read(self, view):
        self.largest = max(self.largest, len(view))
        while len(self.buffer) < len(view):
            if not self.frames:
                raise EOFError
            frame = self.frames.pop(0)
            self.buffer += frame(self.nonce) if callable(frame) else frame
        view[:] = self.buffer[: len(view)]
        self.buffer = self.buffer[len(view) :]

    def run(self, matcher, certificate=CERTIFICATE):
        """The reason of the refusal, or None."""
        with contextlib.suppress(EOFError):
            serve_session(Link(self.read, self.write), matcher, CLIENTS, certificate)
        if len(self.sent) >= 2 and HEADER.unpack(self.sent[-2])[2] == Kind.REFUSED:
            return Reason(int.from_bytes(self.sent[-1], "little"))
        return None


def frame(kind, number, payload, **header):
    def make(nonce):
        chosen = {"magic": MAGIC, "version": VERSION, "kind": kind, "nonce": nonce}
        chosen |= {"number": number, "size": len(payload)} | header
        return HEADER.pack(*chosen.values()) + payload

    return make


def hello(mode="verify", name="p006", token=bytes(32), parameters=None):
    digest = parameters or parameters_digest()
    return frame(Kind.HELLO, 0, Hello(token, mode, name_digest(name), digest).pack())


def random_query(layout):
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << 59, 2 * 8192 * (1 + layout.slices)).tobytes()
    size = 2 * 8192 * 8
    probe = b"".join(
        words[size * (1 + k) : size * (2 + k)] + bytes(64) for k in range(layout.slices)
    )
    return words[:PUBLIC_BYTES] + probe + TransferReceiver(b"").point


def test_each_kind_of_wrong_frame_is_refused_for_what_it_is(make_matcher):
    matcher = make_matcher()
    layout = matcher.layout("verify")
    key = QueryKey()
    probe = key.encrypt_probe(layout, np.ones(DIMENSIONS, np.int16))
    good = key.public_half(bytes(16)) + probe + TransferReceiver(b"").point
    high = good[:PUBLIC_BYTES] + b"\xff" * 8 + good[PUBLIC_BYTES + 8 :]
    no_point = good[:-32] + bytes(32)
    small = hello()(bytes(16))[HEADER.size :]
    sizes = Sizes.of(layout, False)
    cases = [
        ([b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n"], Reason.MALFORMED),
        ([frame(Kind.HELLO, 0, small, version=9)], Reason.VERSION),
        ([frame(Kind.HELLO, 0, small, nonce=bytes(16))], Reason.REPLAY),
        ([frame(Kind.HELLO, 1, small)], Reason.REPLAY),
        ([frame(Kind.QUERY, 0, small)], Reason.MALFORMED),
        ([frame(Kind.HELLO, 0, small, size=1 << 60)], Reason.SIZE),
        ([frame(Kind.HELLO, 0, small + b"x")], Reason.SIZE),
        ([hello(parameters=bytes(32))], Reason.PARAMETERS),
        ([hello(), frame(Kind.QUERY, 1, good + b"x")], Reason.SIZE),
        ([hello(), frame(Kind.QUERY, 1, good[:-1])], Reason.SIZE),
        ([hello(), frame(Kind.QUERY, 1, good, size=1 << 62)], Reason.SIZE),
        ([hello(), frame(Kind.QUERY, 1, high)], Reason.PARAMETERS),
        ([hello(), frame(Kind.QUERY, 1, no_point)], Reason.PARAMETERS),
        ([hello(), hello()], Reason.REPLAY),
        ([hello(), frame(Kind.CHOICES, 1, good)], Reason.MALFORMED),
        ([hello(), frame(Kind.QUERY, 1, good), frame(Kind.CHOICES, 2, b"")], Reason.SIZE),
        (
            [hello(), frame(Kind.QUERY, 1, good), frame(Kind.CHOICES, 2, bytes(sizes.choices))],
            Reason.PARAMETERS,
        ),
    ]
    for frames, reason in cases:
        peer = Peer(frames)
        assert peer.run(matcher) is reason, (frames, reason)
        assert peer.largest <= max(sizes.query, sizes.choices)
    assert Peer([hello()]).run(matcher, certificate=None) is Reason.UNKNOWN_CLIENT
    assert Peer([hello(token=b"t" * 32)]).run(matcher, "d" * 64) is Reason.UNKNOWN_CLIENT


def test_a_recorded_session_cannot_be_replayed(make_matcher, templates):
    """The frames of a session that matched, sent again byte for byte."""
    recorded = []
    wire = Wire(make_matcher())
    original = Link.send

    def record(self, kind, payload):
        if kind % 2 == 0:
            recorded.append(
                HEADER.pack(MAGIC, VERSION, kind, self.nonce, self._sent, len(payload)) + payload
            )
        original(self, kind, payload)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Link, "send", record)
        assert wire.ask(quantise(templates[12:13])[0], name="p006").match
    spent = wire.matcher.accounts.log.lines
    assert len(recorded) == 3
    assert Peer(recorded).run(wire.matcher) is Reason.REPLAY
    assert wire.matcher.accounts.log.lines == spent


def mutate(data, rng):
    """A frame with bits turned, bytes cut, put in, or repeated."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        kind, place = rng.integers(5), int(rng.integers(len(data) or 1))
        if kind == 0 and data:
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data = data[:place]
        elif kind == 2:
            data[place:place] = rng.bytes(int(rng.integers(1, 40)))
        elif kind == 3 and data:
            data[place : place + 8] = rng.bytes(8)
        elif kind == 4:
            data += data[place:]
    return bytes(data)


MESSAGES = 10_000


def test_ten_thousand_fuzzed_messages(make_matcher, templates):
    """Every one refused or cut off, nothing else raised, memory as before, and the server well."""
    matcher = make_matcher(budget=10**6, record_budget=10**6, per_minute=10**6)
    matcher.accounts.log.append = lambda **fields: None  # as many fsyncs prove nothing more
    rng = np.random.default_rng(int.from_bytes(secrets.token_bytes(4), "little"))
    layout = matcher.layout("verify")
    query = random_query(layout)
    refused = accepted = 0

    def fuzz(count):
        nonlocal refused, accepted
        for index in range(count):
            deep = index % 200 == 0  # a payload of a megabyte, otherwise well-formed
            if deep:
                place = int(rng.integers(len(query)))
                broken = query[:place] + rng.bytes(64) + query[place + 64 :]
                bad = frame(Kind.QUERY, 1, broken[: len(query)])
                frames = [hello(), bad, frame(Kind.CHOICES, 2, rng.bytes(50))]
            elif index % 3 == 0:
                frames = [hello(), lambda n: mutate(frame(Kind.QUERY, 1, query[:200])(n), rng)]
            else:
                frames = [lambda n: mutate(hello()(n), rng)]
            peer = Peer(frames)
            reason = peer.run(matcher)
            refused += reason is not None
            accepted += any(
                len(head) == HEADER.size and HEADER.unpack(head)[2] == Kind.ANSWER
                for head in peer.sent
            )
            assert peer.largest <= Sizes.of(layout, False).query

    fuzz(MESSAGES // 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fuzz(MESSAGES * 19 // 20)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert accepted == 0 and refused > 0.4 * MESSAGES
    assert grown < 64 * 1024  # KiB
    assert Wire(matcher).ask(quantise(templates[12:13])[0], name="p006").match


FEW = 8


def rebuild(oracle, count):
    """Ask for the probes of an orthonormal basis; add up what is answered."""
    basis = np.linalg.qr(np.random.default_rng(8).normal(size=(DIMENSIONS, DIMENSIONS)))[0]
    answers = np.array([oracle(quantise(row[None])[0]) for row in basis[:count]], float)
    return unit(answers @ basis[:count] + 1e-9 * basis[0])


@pytest.mark.skipif(not HEAVY, reason="128 whole sessions: PPFR_TORTURE=1")
@pytest.mark.timeout(1800)
def test_chosen_queries_rebuild_no_template_from_bits(make_matcher, templates):
    wire = Wire(make_matcher(threshold=0.5))
    rebuilt = rebuild(lambda probe: wire.ask(probe, name="p006").match, DIMENSIONS)
    assert abs(rebuilt @ templates[12]) < 0.3


def test_few_chosen_queries_rebuild_more_from_scores_than_from_bits(
    make_matcher, templates, gallery
):
    """All of them on a double that hands out the score; of those that tell most, a few in truth."""
    victim, scores = templates[12], gallery.templates[12].astype(float)
    assert rebuild(lambda probe: scores @ probe, DIMENSIONS) @ victim > 0.999
    assert rebuild(lambda probe: scores @ probe, FEW) @ victim > 0.2
    wire = Wire(make_matcher(threshold=0.5))
    answers = []

    def bit(probe):
        answers.append(wire.ask(probe, name="p006").match)
        return answers[-1]

    rebuild(bit, FEW)
    assert answers == [False] * FEW  # the same for every template far from the basis: nothing


def test_budget_ends_an_extraction(make_matcher, templates):
    wire = Wire(make_matcher(record_budget=5))
    answered = 0
    for _ in range(8):
        try:
            wire.ask(quantise(templates[:1])[0], name="p006")
            answered += 1
        except ValueError:
            pass
    assert answered == 5
    assert os.path.exists(wire.matcher.accounts.log.path)


def test_a_server_that_promises_too_much_gets_no_query(make_matcher):
    """It names a layout of four gibibytes; the client leaves before it holds anything."""
    layout = Layout(1 << 24, DIMENSIONS, 1)
    assert Sizes.of(layout, False).total > 4 << 30 > MOST_BYTES

    class Server(Peer):
        def run(self, template):
            return ask(Link(self.read, self.write), template)

    accept = Accept(layout, False, bytes(32)).pack()
    nonce = secrets.token_bytes(16)
    peer = Server([frame(1, 0, nonce)(bytes(16)), frame(3, 1, accept)(nonce)])
    with pytest.raises(MatchError, match="--most-mib"):
        peer.run(np.ones(DIMENSIONS, np.int16))
    assert peer.largest < 1024 and sum(map(len, peer.sent)) < 1024
