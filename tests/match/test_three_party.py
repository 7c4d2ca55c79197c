"""The three-party form: MPyC between three processes, and never with fewer."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mpyc", reason="the extra 'match' is not installed")

from ppfr_ops.match.errors import MatchError
from ppfr_ops.match.keys import PartyCertificates
from ppfr_ops.match.packing import UNIT
from ppfr_ops.match.three_party import (
    CLIENT,
    HELPER,
    SERVER,
    check_privacy,
    client_values,
    run_party,
    server_values,
)

MODULUS = 1 << 26
ROOT = Path(__file__).resolve().parents[2]


def together(folder, scores, threshold, counted, tls=True):
    """The bit of three processes, each with its folder of certificates."""
    masks = np.random.default_rng(len(scores)).integers(0, MODULUS, len(scores))
    values = {
        CLIENT: client_values((scores + masks) % MODULUS),
        SERVER: server_values(masks, threshold, counted),
        HELPER: None,
    }
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in values]
    addresses = [f"localhost:{holder.getsockname()[1]}" for holder in holders]
    for holder in holders:
        holder.close()
    found = {}

    def take_part(index):
        place = folder / ("client", "owner", "helper")[index]
        found[index] = run_party(index, addresses, place, values[index], 240, tls)

    threads = [threading.Thread(target=take_part, args=(index,)) for index in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[SERVER] is None and found[HELPER] is None
    return found[CLIENT]


@pytest.fixture
def folders(tmp_path):
    for index, name in enumerate(("client", "owner", "helper")):
        (tmp_path / name).mkdir()
        PartyCertificates.make(tmp_path / name, index)
    PartyCertificates.exchange([tmp_path / name for name in ("client", "owner", "helper")])
    return tmp_path


@pytest.mark.slow
def test_the_bit_of_three_parties(folders):
    scores = np.random.default_rng(0).integers(-UNIT, UNIT // 2, 40)
    everyone = np.ones(40, bool)
    assert together(folders, scores, UNIT // 2 + 4096, everyone) is False
    scores[17] = UNIT // 2 + 9000
    assert together(folders, scores, UNIT // 2 + 4096, everyone) is True
    assert together(folders, scores, UNIT // 2 + 4096, np.arange(40) != 17) is False


def test_without_three_parties_and_a_threshold_nothing_runs(tmp_path):
    for parties, threshold in ((2, 0), (2, 1), (3, 0), (1, 0), (5, 2)):
        with pytest.raises(MatchError, match="private are 3 with 1"):
            check_privacy(parties, threshold)
    with pytest.raises(MatchError, match="no certificate"):
        run_party(CLIENT, ["a:1", "b:2", "c:3"], tmp_path, np.zeros((1, 2), np.int64))
    with pytest.raises(MatchError, match="did not finish"):  # two addresses are two parties
        two = ["localhost:1", "localhost:2"]
        run_party(CLIENT, two, tmp_path, np.zeros((1, 2), np.int64), 60, tls=False)


def test_a_party_listens_on_the_host_it_was_given_and_nowhere_else(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    addresses = ["127.0.0.1:1", "127.0.0.1:2", f"127.0.0.1:{port}"]
    command = [sys.executable, "-m", "ppfr_ops.match.three_party", str(HELPER), *addresses]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PPFR_MATCH_TLS": "0"}
    party = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        listening: list[str] = []
        while not listening and party.poll() is None:
            time.sleep(0.1)
            lines = [
                line.split()
                for table in ("tcp", "tcp6")
                for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
            ]
            ours = [line[1] for line in lines if line[3] == "0A" and line[2].endswith(":0000")]
            listening = [place for place in ours if place.endswith(f":{port:04X}")]
        assert listening == [f"0100007F:{port:04X}"]
    finally:
        party.kill()
        party.wait()


def test_the_parity_of_both_inputs_is_the_comparison():
    rng = np.random.default_rng(4)
    scores = rng.integers(-UNIT, UNIT + 1, 5000)
    masks = rng.integers(0, MODULUS, 5000)
    ours = client_values((scores + masks) % MODULUS)
    theirs = server_values(masks, 0, np.ones(5000, bool))
    parity = ours[:, 1] ^ theirs[:, 1] ^ (ours[:, 0] < theirs[:, 0])
    far = np.abs(scores) > 2048
    assert np.array_equal(parity[far] == 1, (scores >= 0)[far])
