"""Whole sessions: right answers, transcripts alike, a client that learns a bit and no more."""

import json
import socket
import weakref

import numpy as np
import pytest

from ppfr_ops.match.accounts import Accounts, AuditLog, MatchPolicy
from ppfr_ops.match.errors import MatchError, Reason, Refused
from ppfr_ops.match.gallery import Gallery
from ppfr_ops.match.packing import quantise
from ppfr_ops.match.server import Matcher
from ppfr_ops.match.transport import link_over
from ppfr_ops.match.wire import HELLO_BYTES, Kind, Link

from .conftest import DIMENSIONS, Wire, unit


def stranger(seed=1):
    return quantise(np.random.default_rng(seed).normal(size=(1, DIMENSIONS)))[0]


def likeness(templates, row, seed=2):
    noise = np.random.default_rng(seed).normal(size=DIMENSIONS)
    return quantise(unit(templates[row] + 0.02 * noise)[None])[0]


def test_identification_and_verification(make_matcher, templates):
    wire = Wire(make_matcher())
    assert wire.ask(likeness(templates, 12)).match
    assert wire.ask(likeness(templates, 12)).records is None
    assert not wire.ask(stranger()).match
    assert wire.ask(likeness(templates, 12), name="p006").match
    assert wire.ask(likeness(templates, 13), name="p006").match  # the name's second record
    assert not wire.ask(likeness(templates, 12), name="p007").match
    assert not wire.ask(likeness(templates, 0), name="nobody has this name").match


def test_records_are_told_where_the_policy_allows_it(make_matcher, templates):
    wire = Wire(make_matcher(reveal="id"))
    outcome = wire.ask(likeness(templates, 12))
    assert outcome.match and outcome.records == [12, 13]
    assert wire.ask(stranger()).records == []
    assert wire.ask(likeness(templates, 12), name="p006").records is None


@pytest.mark.parametrize(("reveal", "name"), [("bit", None), ("id", None), ("bit", "p006")])
def test_transcripts_of_match_and_no_match_are_alike(make_matcher, templates, reveal, name):
    wire, seen = Wire(make_matcher(reveal=reveal)), []
    for probe in (likeness(templates, 12), stranger()):
        match = wire.ask(probe, name=name).match
        seen.append((match, list(wire.frames)))
    assert [match for match, _ in seen] == [True, False]
    assert seen[0][1] == seen[1][1]
    assert len(seen[0][1]) == 14  # seven frames, header and payload


@pytest.mark.parametrize("name", [None, "p006"])
def test_no_query_is_kept_while_a_client_takes_its_time(make_matcher, templates, name, monkeypatch):
    class Payload(bytearray):
        """One that can be referred to weakly."""

    queries, left, receive = [], [], Link.receive

    def watched(link, kind, length):
        if kind == Kind.CHOICES:
            left.append(queries[0]())
        payload = Payload(receive(link, kind, length))
        if kind == Kind.QUERY:
            queries.append(weakref.ref(payload))
        return payload

    monkeypatch.setattr(Link, "receive", watched)
    assert Wire(make_matcher()).ask(likeness(templates, 12), name=name).match
    assert left == [None]


def test_a_name_that_nobody_has_looks_like_any_other(make_matcher):
    wire, seen = Wire(make_matcher()), []
    for name in ("p006", "nobody"):
        wire.ask(stranger(), name=name)
        seen.append(list(wire.frames))
    assert seen[0] == seen[1]


def test_budgets_are_counted_before_the_answer_and_survive_a_restart(gallery, templates, tmp_path):
    policy = MatchPolicy(threshold=0.8, budget=3, record_budget=2)
    path = tmp_path / "audit.jsonl"
    wire = Wire(Matcher(gallery, Accounts(policy, AuditLog(path))))
    assert wire.ask(likeness(templates, 12), name="p006").match
    wire.ask(stranger())  # an identification concerns p006, too
    for name in ("p006", None):
        with pytest.raises(Refused) as refused:
            wire.ask(likeness(templates, 12), name=name)
        assert refused.value.reason is Reason.RECORD_BUDGET
    with pytest.raises((MatchError, EOFError)):  # goes away once it is counted
        wire.ask(np.ones(5, np.int16), name="p007")
    again = Wire(Matcher(gallery, Accounts(policy, AuditLog(path))))
    with pytest.raises(Refused) as refused:
        again.ask(stranger(), name="p008")
    assert refused.value.reason is Reason.BUDGET
    events = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    assert events == ["query", "query", "refused", "refused", "query", "refused"]


def test_modes_and_rate(make_matcher):
    wire = Wire(make_matcher(modes=("verify",), per_minute=1))
    with pytest.raises(Refused) as refused:
        wire.ask(stranger())
    assert refused.value.reason is Reason.MODE
    wire.ask(stranger(), name="p001")
    with pytest.raises(Refused) as refused:
        wire.ask(stranger(), name="p001")
    assert refused.value.reason is Reason.RATE


def test_a_probe_of_another_model_is_noticed(make_matcher):
    wire = Wire(make_matcher())
    assert not wire.ask(stranger(), recognizer="test").match
    with pytest.raises(MatchError, match="another FR model"):
        wire.ask(stranger(), recognizer="some other model")


def test_a_session_ends_whether_the_peer_says_nothing_or_reads_nothing():
    for act in (
        lambda link: link.receive(Kind.HELLO, HELLO_BYTES),
        lambda link: link.send(Kind.CHALLENGE, bytes(64 << 20)),
    ):
        ours, theirs = socket.socketpair()
        with ours, theirs, pytest.raises(TimeoutError):
            act(link_over(theirs, seconds=0.05))


def test_a_changed_line_breaks_the_chain(tmp_path):
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    for number in range(4):
        log.append(event="query", client="alice", mode="verify", name=f"{number}")
    lines = path.read_text().splitlines()
    assert AuditLog(path).head == log.head
    changed = lines[1].replace('"name": "1"', '"name": "9"')
    for broken in (
        [lines[0], changed, *lines[2:]],
        [lines[0], *lines[2:]],
        [lines[1], lines[0], *lines[2:]],
        [*lines, "nonsense"],
    ):
        path.write_text("\n".join(broken) + "\n")
        with pytest.raises(MatchError, match="line"):
            AuditLog(path)
    path.write_text("\n".join(lines) + '\n{"line": 4, "cli')  # died while writing it
    torn = AuditLog(path)
    assert torn.head == log.head
    torn.append(event="query", client="alice", mode="verify", name="4")
    assert AuditLog(path).lines == 5
    path.write_text("\n".join(lines[:-1]) + "\n")  # the end cut off: only a kept head tells
    assert AuditLog(path).head != log.head


def test_a_gallery_opens_with_its_key_alone_and_unchanged(gallery, tmp_path):
    path, key = tmp_path / "gallery.ppfr", bytes(range(32))
    large = Gallery(np.tile(gallery.templates, (20, 1)), gallery.names * 20, "test")
    large.save(path, key)
    again = Gallery.load(path, key)
    assert np.array_equal(again.templates, large.templates) and again.names == large.names
    data = path.read_bytes()
    assert large.templates[3].tobytes() not in data and b"p001" not in data
    chunk = (1 << 20) + 16
    for broken in (data[:-1], data[:100], data[:-50] + b"x" + data[-49:], data[: 15 + chunk]):
        path.write_bytes(broken)
        with pytest.raises(MatchError, match="another key, or"):
            Gallery.load(path, key)
    path.write_bytes(data)
    for other in (bytes(32), bytes(range(1, 33))):
        with pytest.raises(MatchError):
            Gallery.load(path, other)


def test_a_name_with_more_records_than_fit_is_refused_at_the_start(tmp_path):
    rows = quantise(np.random.default_rng(0).normal(size=(20, 1024)))
    accounts = Accounts(MatchPolicy(threshold=0.5), AuditLog(tmp_path / "audit.jsonl"))
    with pytest.raises(MatchError, match="20 records"):
        Matcher(Gallery(rows, ["one"] * 20, "test"), accounts)
