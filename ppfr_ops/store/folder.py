"""The folder of an output: read, list, write in one step, create once. Knows no unit.

A file is written beside its place and made visible in one step: a rename on a local disk, one put
in an object store. ``create`` succeeds for one caller only: a hard link, or a conditional put.
"""

import contextlib
import io
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ValidationError

from ppfr_ops.errors import UserError
from ppfr_ops.store.atomic import in_one_step, sync_folder
from ppfr_ops.store.storage import RetryingFileSystem, StoreError, open_store

Model = TypeVar("Model", bound=BaseModel)

RELEASE, EVIDENCE = "release", "evidence"
"""What leaves, and what stays."""

LARGEST_DOCUMENT = 256 << 20
"""Bytes of a JSON document that is read, at most."""


_MD5 = re.compile(r"[0-9a-f]{32}")
_READ_AT_ONCE = 256
_FETCHED_AT_ONCE = 64 << 20
_PIECE = 1 << 20
_REMOVED_AT_ONCE = 1000


@dataclass(frozen=True)
class Listed:
    """A file as a listing has it."""

    size: int
    stamp: str
    """Another one when the file was written anew: size, and ETag or times."""
    plain: bool = True
    """Whether it is a file, and neither a folder nor a link."""
    md5: str | None = None
    """Hex, of what it holds; None where the store does not tell."""

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> "Listed":
        """As fsspec or S3 tell it."""
        names = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
        marks = [str(info[name]) for name in names if info.get(name) is not None]
        size = int(info.get("size") or info.get("Size") or 0)
        tag = str(info.get("ETag", "")).strip('"')
        return cls(
            size,
            "|".join([str(size), *marks]),
            info.get("type", "file") == "file",
            tag if _MD5.fullmatch(tag) else None,
        )


def _scanned(path: str) -> Iterator[tuple[str, Listed]]:
    """A local folder. The time of the last change of the inode is in the stamp, which nobody can
    set: anyone who writes to a file, even with its size and times put back, changes it."""
    with os.scandir(path) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # it went meanwhile
                found = entry.stat(follow_symlinks=False)
                times = f"{found.st_mtime_ns}|{found.st_ctime_ns}"
                stamp = f"{found.st_size}|{times}|{found.st_ino}|{stat.S_IFMT(found.st_mode):o}"
                yield entry.name, Listed(found.st_size, stamp, stat.S_ISREG(found.st_mode))


class LedgerError(UserError):
    """The output holds something that this run must not touch; one line that says what."""


class Folder:
    """One output.

    Args:
        output: any fsspec URL or local path of a folder.
    """

    mode = 0o666
    """Of a local file, less the umask."""

    def __init__(self, output: str) -> None:
        self.fs, root = open_store(output)
        self.root = root.rstrip("/")
        self.local = isinstance(self.fs, LocalFileSystem)
        self.looks_first = False
        """Whether a file is looked for before it is created: of one writer, whose store may know no
        conditional puts."""

    def path(self, *parts: str) -> str:
        return "/".join((self.root, *parts))

    def exists(self, *parts: str) -> bool:
        return bool(self.fs.exists(self.path(*parts)))

    def names(self, *parts: str) -> list[str]:
        """What a folder holds, sorted; nothing if it is not there."""
        if not self.local:
            return sorted(name for name, _ in self.listing(*parts))
        try:
            return sorted(os.listdir(self.path(*parts)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def paths(self, *parts: str) -> list[str]:
        """Paths of what a folder holds, sorted; none if it is not there."""
        return [self.path(*parts, name) for name in self.names(*parts)]

    def files(self, *parts: str) -> dict[str, "Listed"]:
        """The files that a folder holds, by name."""
        return {name: file for name, file in self.listing(*parts) if file.plain}

    def listing(self, *parts: str) -> Iterator[tuple[str, "Listed"]]:
        """What a folder holds, one after the other, in any order: what a listing says of it, which
        costs a request for a thousand. Nothing if the folder is not there."""
        place = self.path(*parts)
        try:
            if self.local:
                yield from _scanned(place)
            elif isinstance(self.fs, RetryingFileSystem) and self.fs.has_pages:
                for info in self.fs.pages(place):
                    if name := os.path.basename(info["Key"]):
                        yield name, Listed.of(info)
            else:
                for info in self.fs.ls(place, detail=True, refresh=True):
                    if (path := info["name"].rstrip("/")) != place:
                        yield os.path.basename(path), Listed.of(info)
        except (FileNotFoundError, NotADirectoryError):
            return

    def tree(self, *parts: str) -> Iterator[tuple[str, "Listed"]]:
        """All files below a folder, by their paths from there, in any order; no link is followed.
        Nothing if the folder is not there."""
        root = self.path(*parts)
        if not self.local:
            for path, info in self.fs.find(root, detail=True).items():
                yield path[len(root) + 1 :], Listed.of(info)
            return
        todo = [""]
        while todo:
            here = todo.pop()
            for name, file in self.listing(*parts, *filter(None, [here])):
                path = f"{here}/{name}" if here else name
                whole = self.path(*parts, path)
                if os.path.isdir(whole) and not os.path.islink(whole):
                    todo.append(path)
                else:
                    yield path, file

    def read_many(self, paths: Sequence[str]) -> Iterator[bytes | None]:
        """What files hold that are no larger than documents of ours, many at a time and never all
        in memory; None where there is none. Paths as ``path`` gives them."""
        if self.local:
            yield from map(self._read_path, paths)
            return
        for start in range(0, len(paths), _READ_AT_ONCE):
            some = list(paths[start : start + _READ_AT_ONCE])
            answers = self.fs.cat(some, on_error="return")
            for path in some:
                answer = answers.get(path, answers.get(path.lstrip("/")))
                # One that failed is asked for again by itself, patiently.
                yield answer if isinstance(answer, bytes) else self._read_path(path)

    def _read_path(self, path: str) -> bytes | None:
        try:
            return bytes(self.fs.cat_file(path))
        except FileNotFoundError:
            return None

    def reading(self, *parts: str, part: bool = False) -> Any:
        """A file of any size, to read from and to seek in; what is small is fetched whole.

        Args:
            part: little of it is wanted: it is fetched in pieces.

        Raises:
            FileNotFoundError: it is not there, or is no plain file.
        """
        size = self.size(*parts)
        if size is None:
            raise FileNotFoundError("/".join(parts))
        if not self.local and size <= (_PIECE if part else _FETCHED_AT_ONCE):
            return io.BytesIO(self.fs.cat_file(self.path(*parts)))
        return self.fs.open(self.path(*parts), "rb")

    def size(self, *parts: str) -> int | None:
        try:
            info = self.fs.info(self.path(*parts))
        except FileNotFoundError:
            return None
        return int(info["size"]) if info["type"] == "file" else None

    def read_bytes(self, *parts: str) -> bytes | None:
        """None if it is not there, is no plain file, or is larger than any document of ours."""
        size = self.size(*parts)
        if size is None or size > LARGEST_DOCUMENT:
            return None
        try:
            return bytes(self.fs.cat_file(self.path(*parts)))
        except FileNotFoundError:
            return None

    def read(self, *parts: str) -> dict[str, Any] | None:
        """A JSON document of ours; None if it is not there, or not whole."""
        data = self.read_bytes(*parts)
        return None if data is None else parse(data)

    def model(self, kind: type[Model], *parts: str) -> Model | None:
        """A document of ours as a model; None if it is not there, or does not have its form."""
        data = self.read_bytes(*parts)
        try:
            return None if data is None else kind.model_validate_json(data)
        except (ValidationError, RecursionError):
            return None

    def write(self, document: Mapping[str, Any], *parts: str) -> None:
        self.put(json.dumps(dict(document), indent=1).encode(), *parts)

    def create(self, document: Mapping[str, Any], *parts: str) -> bool:
        """Write a document that must not exist yet; False if it does."""
        return self.create_bytes(json.dumps(dict(document), indent=1).encode(), *parts)

    def put(self, data: bytes, *parts: str) -> None:
        """Write a file so that no reader ever sees half of it."""
        if self.local:
            self._write(data, self.path(*parts), new=False)
        else:
            self.fs.pipe_file(self.path(*parts), data)

    def create_bytes(self, data: bytes, *parts: str) -> bool:
        """Write a file that must not exist yet; False if it does. One of several callers wins."""
        if self.looks_first and self.exists(*parts):
            return False
        try:
            if self.local:
                self._write(data, self.path(*parts), new=True)
            else:
                self.fs.pipe_file(self.path(*parts), data, mode="create")
        except FileExistsError:
            return False
        return True

    def remove(self, *parts: str) -> None:
        self.remove_path(self.path(*parts))

    def remove_path(self, path: str) -> None:
        """A path as ``path`` gives it."""
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(path)

    def remove_all(self, paths: Sequence[str]) -> None:
        """Many paths as ``path`` gives them, a thousand a request in a store that can; some may be
        gone already."""
        if not self.local:
            for start in range(0, len(paths), _REMOVED_AT_ONCE):
                with contextlib.suppress(FileNotFoundError):
                    self.fs.rm(list(paths[start : start + _REMOVED_AT_ONCE]))
            # s3fs says nothing of one that the store would not remove.
            folders = {os.path.dirname(path)[len(self.root) + 1 :] for path in paths}
            there = {path for folder in folders for path in self.paths(folder)}
            paths = [path for path in paths if path in there]
        for path in paths:
            self.remove_path(path)

    def move(self, source: str, target: str) -> None:
        """Between paths as ``path`` gives them."""
        if self.local:
            self.make_folder(os.path.dirname(target))
            os.replace(source, target)
            sync_folder(os.path.dirname(target))
        else:
            self.fs.copy(source, target)
            with contextlib.suppress(FileNotFoundError):
                self.fs.rm_file(source)

    def make_folder(self, path: str) -> None:
        """A local folder, and above it; what is the owner's is closed to others."""
        if not os.path.isdir(path):
            os.makedirs(self.path(), exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.path(EVIDENCE), 0o700)
            os.makedirs(path, mode=0o700 if self._is_owners(path) else 0o777, exist_ok=True)

    def close_evidence(self) -> None:
        """What is the owner's alone is closed to others, even where it lay open before."""
        if not self.local:
            return
        try:
            if not os.stat(self.path(EVIDENCE)).st_mode & 0o077:
                return  # and so is everything in it
            os.chmod(self.path(EVIDENCE), 0o700)
        except FileNotFoundError:
            return
        for root, folders, files in os.walk(self.path(EVIDENCE)):
            for mode, names in ((0o700, folders), (0o600, files)):
                for path in (os.path.join(root, name) for name in names):
                    with contextlib.suppress(FileNotFoundError):
                        found = os.lstat(path)
                        if not stat.S_ISLNK(found.st_mode) and found.st_mode & 0o077:
                            os.chmod(path, mode)

    def _is_owners(self, path: str) -> bool:
        """Whether a local path is of the evidence."""
        return f"{path}/".startswith(f"{self.path(EVIDENCE)}/")

    def refuse_links(self) -> None:
        """No folder of a local output may be a link: what is written there would lie elsewhere.

        Raises:
            LedgerError: one is.
        """
        if not self.local:
            return
        places = [(RELEASE,), (RELEASE, "data"), (RELEASE, "photographs"), (EVIDENCE,)]
        places += [(EVIDENCE, name) for name in self.names(EVIDENCE)]
        places += [(EVIDENCE, "ledger", name) for name in self.names(EVIDENCE, "ledger")]
        for place in places:
            if os.path.islink(self.path(*place)):
                raise LedgerError(f"{'/'.join(place)} in the output is a symbolic link")

    def refuse_unconditional(self) -> None:
        """Find out whether the store keeps two writers apart.

        Raises:
            StoreError: a conditional put overwrites what is there, or is not known to the store.
        """
        if self.local:
            return
        place = (EVIDENCE, "ledger", f"probe-{secrets.token_hex(8)}")
        try:
            self.create_bytes(b"first", *place)
            kept = not self.create_bytes(b"again", *place)
            kept = kept and self.read_bytes(*place) == b"first"
        except (NotImplementedError, TypeError, ValueError) as error:
            if isinstance(error, StoreError) and "refuses the request" not in str(error):
                raise
            kept = False
        finally:
            self.remove(*place)
        if not kept:
            raise StoreError(
                "the store has no conditional puts, so two runs at once could lose records; "
                "--single-writer says that there is one run only"
            )

    @contextlib.contextmanager
    def writing(self, *parts: str, new: bool = False) -> Iterator[Any]:
        """A file to write to, front to back; it is there once the block is left, not before, and
        not at all if the block raises.

        Args:
            new: of a local file: it must not exist yet.

        Raises:
            FileExistsError: it exists, and was to be new.
        """
        target = self.path(*parts)
        if not self.local:
            # An object is put in one piece, so that it can be put again.
            held = io.BytesIO()
            yield held
            self.fs.pipe_file(target, held.getvalue())
            return
        draft = self._draft()
        self.make_folder(os.path.dirname(draft))
        self.make_folder(os.path.dirname(target))
        mode = 0o600 if self._is_owners(target) else self.mode
        with in_one_step(target, beside=draft, mode=mode, new=new) as file:
            yield file

    def _draft(self) -> str:
        """Where a local file is written, to be moved to its place."""
        return self.path(EVIDENCE, "staging", f"{secrets.token_hex(8)}.tmp")

    def _write(self, data: bytes, target: str, new: bool) -> None:
        with self.writing(target[len(self.root) + 1 :], new=new) as file:
            file.write(data)


def is_remote(fs: Any) -> bool:
    return isinstance(fs, RetryingFileSystem)


def parse(data: bytes) -> dict[str, Any] | None:
    """A JSON object; None if it is none, whatever is wrong with it."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
