"""A server in a thread: who has not said who it is keeps nobody waiting."""

import socket
import threading
import time

import pytest

from ppfr_ops.match import transport
from ppfr_ops.match.errors import MatchError
from ppfr_ops.match.keys import ClientFolder, OwnerFolder
from ppfr_ops.match.packing import quantise
from ppfr_ops.match.transport import MAX_STRANGERS, Server, query


@pytest.fixture
def served(make_matcher, tmp_path):
    owner = OwnerFolder.create(tmp_path / "owner", ["localhost"])
    client = ClientFolder.create(tmp_path / "alice", "alice")
    owner.admit("alice", (client.path / "client.crt").read_bytes())
    (client.path / "server.crt").write_bytes((owner.path / "server.crt").read_bytes())
    server = Server(make_matcher(), owner, ("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield server, ("localhost", server.address[1]), client
    server.close()
    thread.join(5)
    assert not thread.is_alive()


def test_idle_strangers_keep_nobody_waiting(served, templates):
    """Twenty made a query take 15 s: they held every place until their time was over."""
    server, address, client = served
    idle = [socket.create_connection(address) for _ in range(MAX_STRANGERS + 20)]
    before = time.monotonic()
    assert query(address, client, quantise(templates[12:13])[0], "p006").match
    assert time.monotonic() - before < 5
    assert len(server._strangers) <= MAX_STRANGERS
    for connection in idle:
        connection.close()


def test_a_stranger_who_drips_is_sent_away(served, monkeypatch):
    monkeypatch.setattr(transport, "GREETING_SECONDS", 0.5)
    server, address, _ = served
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + bytes(500)  # a TLS record that takes its time
    with socket.create_connection(address) as slow:
        began = time.monotonic()
        with pytest.raises(OSError):
            for byte in hello:
                slow.sendall(bytes([byte]))
                time.sleep(0.02)
        assert time.monotonic() - began < 6
    assert not server._strangers


def test_a_client_has_two_sessions_at_a_time(served, templates):
    server, address, client = served
    server._sessions["alice"] = 2
    with pytest.raises(MatchError, match="busy"):
        query(address, client, quantise(templates[12:13])[0], "p006")
    server._sessions["alice"] = 1
    assert query(address, client, quantise(templates[12:13])[0], "p006").match
    until = time.monotonic() + 60  # the server lets go of the place after its answer
    while server._sessions["alice"] > 1 and time.monotonic() < until:
        time.sleep(0.01)
    assert server._sessions["alice"] == 1
