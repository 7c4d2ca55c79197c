"""A remote store on a local disk, ``slow://``: every request takes its time, and is counted.

``PPFR_SLOW_ROOT`` names the folder, ``PPFR_SLOW_SECONDS`` how long a request takes; both reach the
child processes that read footers, whose requests are not counted.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

ROOT, SECONDS = "PPFR_SLOW_ROOT", "PPFR_SLOW_SECONDS"


class SlowStore(DirFileSystem):  # type: ignore[misc]
    protocol = "slow"
    requests = 0

    def __init__(self, **options: Any) -> None:
        super().__init__(os.environ[ROOT], LocalFileSystem(auto_mkdir=True), **options)


def _request(name: str) -> Any:
    whole = getattr(DirFileSystem, name)

    def call(self: SlowStore, *args: Any, **named: Any) -> Any:
        SlowStore.requests += 1
        time.sleep(float(os.environ.get(SECONDS, "0")))
        return whole(self, *args, **named)

    return call


def _cat(self: SlowStore, path: Any, *args: Any, **named: Any) -> Any:
    """Many at a time: a request each, which go out together."""
    SlowStore.requests += len(path) if isinstance(path, list) else 1
    time.sleep(float(os.environ.get(SECONDS, "0")))
    return DirFileSystem.cat(self, path, *args, **named)


def _rm(self: SlowStore, path: Any, *args: Any, **named: Any) -> Any:
    """Many at a time: one request for a thousand."""
    SlowStore.requests += -(-len(path) // 1000) if isinstance(path, list) else 1
    time.sleep(float(os.environ.get(SECONDS, "0")))
    return DirFileSystem.rm(self, path, *args, **named)


def _ls(self: SlowStore, path: str, *args: Any, **named: Any) -> Any:
    """A request for a thousand names, when they are asked for; with them the MD5 of what is there,
    as S3 lists it."""
    found = DirFileSystem.ls(self, path, *args, **named)
    return _pages(found)


def _pages(found: list[Any]) -> Iterator[Any]:
    for start in range(0, max(1, len(found)), 1000):
        SlowStore.requests += 1
        time.sleep(float(os.environ.get(SECONDS, "0")))
        for info in found[start : start + 1000]:
            if isinstance(info, dict) and info["type"] == "file":
                data = Path(os.environ[ROOT], info["name"]).read_bytes()
                info["ETag"] = hashlib.md5(data, usedforsecurity=False).hexdigest()
            yield info


SlowStore.cat, SlowStore.rm, SlowStore.ls = _cat, _rm, _ls
for _name in ("info", "exists", "cat_file", "pipe_file", "copy", "rm_file", "open", "find"):
    setattr(SlowStore, _name, _request(_name))
fsspec.register_implementation("slow", SlowStore, clobber=True)
