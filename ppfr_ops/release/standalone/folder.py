"""A release as the verifier in it looks at it: its files, and what was found.

This module needs Python's standard library alone, as all of ``release.standalone``.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

LIST, SUMS = "files.pq", "SHA256SUMS"
"""What lists the shards of a release, or its photographs."""

_OWN = ("manifest.json", "manifest.sig")
_LINE = re.compile(r"(\\?)([0-9a-f]{64})  ([^\0]+)")
_ESCAPES = {"\\": "\\", "n": "\n", "r": "\r"}
_LARGEST_TEXT = 1 << 26


class File(NamedTuple):
    """What a release says of one of its files."""

    path: str
    size: int | None
    """Bytes; None: it is not said."""
    sha256: str
    rows: int | None


class Release:
    """A release as it is looked at.

    Args:
        root: of the release.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.findings: list[tuple[str, str]] = []
        self.unchecked: dict[str, int] = {}
        """What could not be checked, and of how many files."""
        self.raw = b""
        self.manifest: dict[str, Any] = {}
        self.files: list[File] = []
        self.ids: dict[bytes, str] = {}

    @property
    def listing(self) -> str:
        """The name of the list that lies beside the manifest."""
        return str(self.manifest["listing"]["path"])

    def find(self, name: str, reason: str) -> None:
        self.findings.append((name, reason))

    def leave(self, what: str) -> None:
        self.unchecked[what] = self.unchecked.get(what, 0) + 1

    def opened(self, name: str) -> BinaryIO | None:
        """A plain file below the root; no link is followed. None: there is none."""
        try:
            where = os.open(
                os.path.join(self.root, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            )
        except OSError:
            return None
        if not stat.S_ISREG(os.fstat(where).st_mode):
            os.close(where)
            return None
        return os.fdopen(where, "rb")

    def small(self, name: str) -> bytes | None:
        """All of a file of text."""
        file = self.opened(name)
        if file is None:
            return None
        with file:
            return file.read(_LARGEST_TEXT)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON that says nothing twice: two readers would read two things."""
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError
    return dict(pairs)


def room(names: Iterable[str]) -> int:
    """Bytes that a list of files has at most, with some to spare for what is missing."""
    return (1 << 20) + sum(2 * len(os.fsencode(name)) + 200 for name in names)


def check_names(seen: Release) -> None:
    listed = {file.path for file in seen.files}
    own = {*_OWN, seen.listing}
    folders = {"data"}
    for path in listed:
        parts = path.split("/")
        folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    for name, item in walk(seen.root):
        reason = odd(item, name in folders)
        if reason is None and not item.is_dir() and name not in listed and name not in own:
            reason = "is not in the manifest"
        if reason is not None:
            seen.find(name, reason)


def odd(item: "os.DirEntry[str]", is_ours: bool) -> str | None:
    """Why something is neither a plain file nor a folder of a release; None: it is one.

    Args:
        is_ours: whether a folder of that name belongs there.
    """
    if item.is_symlink():
        return "is a symbolic link"
    if item.is_dir():
        return None if is_ours else "is a folder that does not belong there"
    return None if item.is_file(follow_symlinks=False) else "is no plain file"


def lines_of(text: bytes) -> Iterator[tuple[str, str]]:
    """Path and sha256 of every line of ``SHA256SUMS``, as ``sha256sum --check`` reads them.

    Raises:
        ValueError: there is something else.
    """
    lines = text.decode("utf-8").split("\n")
    if lines.pop():
        raise ValueError
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError
        escaped, digest, path = found.groups()
        if escaped:
            path = re.sub(r"\\([\\nr])", lambda sign: _ESCAPES[sign[1]], path)
        yield path, digest


def walk(root: str) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    todo = [""]
    while todo:
        here = todo.pop()
        with os.scandir(os.path.join(root, here)) as items:
            for item in sorted(items, key=lambda entry: entry.name):
                name = f"{here}/{item.name}" if here else item.name
                if item.is_dir(follow_symlinks=False):
                    todo.append(name)
                yield name, item


def unlike(file: BinaryIO, size: object, digest: object) -> str | None:
    """How a file differs from what is said of it; None: it does not."""
    there = os.fstat(file.fileno()).st_size
    if size is not None and there != size:
        return f"{there} bytes, the manifest says {size}"
    hashed = hashlib.sha256()
    while block := file.read(1 << 20):
        hashed.update(block)
    return None if hashed.hexdigest() == digest else "its sha256 is not that in the manifest"
