"""Budgets and their log: shared, never torn for good, never growing by being refused."""

import errno
import fcntl
import json
import multiprocessing
import os
import threading

import pytest

from ppfr_ops.match.accounts import Accounts, AuditLog, MatchPolicy
from ppfr_ops.match.errors import MatchError, Reason, Refused
from ppfr_ops.store.chain import _digest

NAME = "a" * 64


def accounts(path, clock=lambda: 1000.0, **policy):
    chosen = {"threshold": 0.5, "budget": 1000, "record_budget": 1000, "per_minute": 1000}
    return Accounts(MatchPolicy(**(chosen | policy)), AuditLog(path), clock)


def spend(account, times, client="alice", mode="identify", name=""):
    """How many were allowed."""
    done = 0
    for _ in range(times):
        try:
            account.spend(client, mode, name)
            done += 1
        except Refused:
            pass
    return done


def test_two_servers_of_one_gallery_share_budget_rate_and_chain(tmp_path):
    path = tmp_path / "audit.jsonl"
    first, second = (accounts(path, budget=7) for _ in "ab")
    assert sum(spend(account, 2) for account in (first, second) * 4) == 7
    assert AuditLog(path).queries["alice"] == 7
    limited = accounts(path, per_minute=8), accounts(path, per_minute=8)
    assert sum(spend(account, 5) for account in limited) == 1


def hammer(path, queue):
    queue.put(spend(accounts(path, budget=60), 50))


def test_as_processes_at_the_same_time_they_do_not_spend_more_either(tmp_path):
    path, context = tmp_path / "audit.jsonl", multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=hammer, args=(path, queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert sum(queue.get(timeout=60) for _ in workers) == 60
    for worker in workers:
        worker.join()
    assert AuditLog(path).queries["alice"] == 60


def test_an_identification_counts_for_everybody(tmp_path):
    account = accounts(tmp_path / "audit.jsonl", record_budget=10)
    assert spend(account, 4) == 4
    assert spend(account, 20, mode="verify", name=NAME) == 6
    assert spend(account, 20, client="bob") == 0  # somebody has had ten
    assert spend(account, 20, client="bob", mode="verify", name="b" * 64) == 6


def test_refusals_do_not_fill_the_disk(tmp_path):
    path = tmp_path / "audit.jsonl"
    account = accounts(path, budget=1)
    assert spend(account, 2000) == 1
    assert AuditLog(path).lines == 1 + 11
    assert spend(accounts(path, budget=1), 2000) == 0  # a new start goes on counting
    assert AuditLog(path).lines <= 1 + 12
    assert AuditLog(path).refusals["alice", "BUDGET"] >= 2048


@pytest.mark.parametrize("also_stuck", [False, True])
def test_a_full_disk_tears_nothing_for_good(tmp_path, monkeypatch, also_stuck):
    path = tmp_path / "audit.jsonl"
    account = accounts(path)
    assert spend(account, 3) == 3
    write, truncate = os.write, os.ftruncate

    def full(file, data):
        write(file, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def stuck(file, size):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        if also_stuck:
            patch.setattr(os, "ftruncate", stuck)
        with pytest.raises(MatchError, match="free some space"):
            account.spend("alice", "identify", "")
    assert os.ftruncate is truncate
    assert spend(account, 2) == 2  # the same server goes on
    assert AuditLog(path).queries["alice"] == 5  # and one that starts finds the log whole


def test_a_log_cut_off_under_a_server_is_noticed(tmp_path):
    path = tmp_path / "audit.jsonl"
    account = accounts(path)
    spend(account, 3)
    path.write_text("")
    with pytest.raises(MatchError, match="cut off"):
        account.spend("alice", "identify", "")


def test_the_rate_is_by_the_minute(tmp_path):
    now = [1000.0]
    account = accounts(tmp_path / "audit.jsonl", clock=lambda: now[0], per_minute=2)
    assert spend(account, 5) == 2
    now[0] += 61
    assert spend(account, 5) == 2
    with pytest.raises(Refused) as refused:
        account.spend("alice", "identify", "")
    assert refused.value.reason is Reason.RATE


@pytest.mark.parametrize("how", ["changed", "removed", "moved"])
def test_a_line_that_was_touched_breaks_the_chain(tmp_path, how):
    path = tmp_path / "audit.jsonl"
    assert spend(accounts(path), 4) == 4
    lines = path.read_text().splitlines(keepends=True)
    if how == "changed":
        lines[-1] = lines[-1].replace("alice", "carol")
    elif how == "removed":
        del lines[1]
    else:  # with a number and a digest that fit, and the link to another line
        entry = json.loads(lines[3])
        entry["previous"] = json.loads(lines[1])["hash"]
        entry["hash"] = _digest({name: entry[name] for name in entry if name != "hash"})
        lines[3] = json.dumps(entry, sort_keys=True) + "\n"
    path.write_text("".join(lines))
    with pytest.raises(MatchError, match="the chain breaks at line"):
        AuditLog(path)


def test_who_writes_waits_for_whoever_is_writing(tmp_path):
    path = tmp_path / "audit.jsonl"
    account = accounts(path)
    with open(path, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        asking = threading.Thread(target=spend, args=(account, 1))
        asking.start()
        asking.join(0.2)
        assert asking.is_alive() and path.stat().st_size == 0
        fcntl.flock(other, fcntl.LOCK_UN)
        asking.join(10)
    assert AuditLog(path).queries["alice"] == 1
