"""A small gallery of nobody, keys, and sessions over a pair of sockets."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tenseal", reason="the extra 'match' is not installed")

from ppfr_ops.match.accounts import Accounts, AuditLog, MatchPolicy
from ppfr_ops.match.client import Outcome, ask
from ppfr_ops.match.gallery import Gallery
from ppfr_ops.match.packing import quantise
from ppfr_ops.match.server import Matcher, serve_session
from ppfr_ops.match.transport import link_over

DIMENSIONS = 128
HEAVY = bool(os.environ.get("PPFR_TORTURE"))
"""In full: 128 chosen queries instead of eight."""
CERTIFICATE = "c" * 64
CLIENTS = {"alice": {"certificate": CERTIFICATE}}


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture(scope="session")
def templates() -> Any:
    """300 people of nobody, two templates each."""
    people = np.random.default_rng(5).normal(size=(300, DIMENSIONS))
    noise = np.random.default_rng(6).normal(size=(2, 300, DIMENSIONS))
    return unit(people[None] + 0.3 * noise).transpose(1, 0, 2).reshape(600, DIMENSIONS)


@pytest.fixture(scope="session")
def gallery(templates: Any) -> Gallery:
    return Gallery(quantise(templates), [f"p{row // 2:03d}" for row in range(600)], "test")


@pytest.fixture
def make_matcher(gallery: Gallery, tmp_path: Path) -> Callable[..., Matcher]:
    def make(**policy: Any) -> Matcher:
        chosen = {"threshold": 0.8, "budget": 1000, "record_budget": 1000, "per_minute": 1000}
        log = AuditLog(tmp_path / f"audit{len(list(tmp_path.iterdir()))}.jsonl")
        return Matcher(gallery, Accounts(MatchPolicy(**(chosen | policy)), log))

    return make


@dataclass
class Wire:
    """A session in two threads; ``frames`` records who sent how many bytes, in order."""

    matcher: Matcher
    frames: list[tuple[str, int]] = field(default_factory=list)

    def ask(self, template: Any, **options: Any) -> Outcome:
        ours, theirs = socket.socketpair()
        self.frames.clear()

        def serve() -> None:
            link = link_over(theirs)
            write = link._write
            link._write = lambda data: (self.frames.append(("server", len(data))), write(data))[1]
            with contextlib.suppress(EOFError):  # a client that goes away is none of the server's
                serve_session(link, self.matcher, CLIENTS, CERTIFICATE)
            theirs.close()

        thread = threading.Thread(target=serve)
        thread.start()
        link = link_over(ours)
        write = link._write
        link._write = lambda data: (self.frames.append(("client", len(data))), write(data))[1]
        try:
            return ask(link, template, **options)
        finally:
            ours.close()
            thread.join()
