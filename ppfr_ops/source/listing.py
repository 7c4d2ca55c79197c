"""The files of an input: what counts, and what is left out, which is counted and said.

A name that begins with a dot or an underscore is no data anywhere below the root: caches, bins,
half-written results (``.Trash``, ``__MACOSX``, ``_temporary``). A folder of a table format holds
rows that were deleted or replaced, so it is refused.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from ppfr_ops.errors import UserError
from ppfr_ops.source.reader import File, Listing, stamp_of
from ppfr_ops.source.units import relative
from ppfr_ops.store.storage import RetryingFileSystem, StoreError, open_store

HIDDEN = "hidden (a name that begins with . or _)"
LINKED = "linked folder"

_TABLES = {
    "_delta_log": "a Delta table: deltalake.DeltaTable(FOLDER).to_pyarrow_table()",
    ".hoodie": "a Hudi table: a snapshot query of Spark",
    "_versions": "a Lance dataset: lance.dataset(FOLDER).to_table()",
}
"""Folders that make their parent a table, and how its rows are had."""
_ICEBERG = re.compile(r"(^|/)metadata/[^/]*\.metadata\.json$")


def listing_of(source: str) -> Listing:
    """List an input.

    Raises:
        UserError: it is not there, cannot be read, or is a table of a table format.
    """
    try:
        fs, root = open_store(source)
        if isinstance(fs, RetryingFileSystem):
            fs.check(re.split(r"[*?\[]", root, maxsplit=1)[0])
        pattern = any(sign in root for sign in "*?[") and not fs.exists(root)
        if pattern:
            found = {
                path: info
                for path, info in fs.glob(root, detail=True).items()
                if info["type"] != "directory"
            }
            root = os.path.dirname(re.split(r"[*?\[]", root, maxsplit=1)[0])
            return _listing(fs, root, found, Counter())
        if isinstance(fs, LocalFileSystem) and os.path.isdir(root):
            return _local(fs, root)
        found = fs.find(root, detail=True)
        if root in found:
            root = os.path.dirname(root)
        elif not found and not fs.exists(root):
            raise UserError("the input does not exist")
        return _listing(fs, root, found, Counter())
    except StoreError as error:
        raise UserError(f"the input: {error}") from None
    except OSError as error:
        raise UserError(f"the input cannot be listed ({type(error).__name__})") from None


def _listing(fs: Any, root: str, found: Mapping[str, Any], left_out: Counter[str]) -> Listing:
    files: dict[str, File] = {}
    for path in sorted(found):
        parts = relative(path, root).decode("utf-8", "surrogateescape").split("/")
        for place, part in enumerate(parts):
            if part in _TABLES and (part != "_versions" or _lance(parts[place + 1 :])):
                _refuse_table(_TABLES[part])
        if _ICEBERG.search("/".join(parts)):
            _refuse_table("an Iceberg table: pyiceberg's table.scan().to_arrow()")
        if any(part.startswith((".", "_")) for part in parts):
            left_out[HIDDEN] += 1
        else:
            files[path] = File(int(found[path].get("size") or 0), stamp_of(found[path]))
    for name in ("_delta_log", ".hoodie"):  # of a glob or a file inside such a folder
        if fs.exists(f"{root.rstrip('/')}/{name}"):
            _refuse_table(_TABLES[name])
    return Listing(fs, root, files, left_out)


def _lance(rest: list[str]) -> bool:
    return bool(rest) and rest[-1].endswith(".manifest")


def _refuse_table(what: str) -> None:
    kind, _, how = what.partition(": ")
    raise UserError(
        f"the input holds {kind}, whose files hold deleted and replaced rows too; write the rows "
        f"that count to Parquet ({how}) and give that"
    )


def _local(fs: Any, root: str) -> Listing:
    """As ``fs.find``, which leaves out in silence what it cannot read and what is linked."""
    found: dict[str, Any] = {}
    left_out: Counter[str] = Counter()
    unreadable = 0
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_symlink() and entry.is_dir():
                        left_out[LINKED] += 1
                    else:
                        info = fs.info(entry)
                        found[info["name"]] = info
        except PermissionError:
            unreadable += 1
    if unreadable:
        raise UserError(
            f"{unreadable} folders of the input cannot be read: give yourself the right to read "
            "them, or take them away"
        )
    return _listing(fs, root, found, left_out)


_WAYS_OUT = {
    "video": "ppfr video, or take frames: ffmpeg -i FILE -vf fps=1 FOLDER/%05d.png",
    "archive": "unpack it",
    "raw": "develop it to JPEG or TIFF, with darktable-cli or rawpy",
    "labels": "--labels FILE reads it",
}
_KINDS = {
    **dict.fromkeys((".mov", ".mp4", ".avi", ".mkv", ".webm", ".m4v"), "video"),
    **dict.fromkeys((".rar", ".7z", ".bz2", ".xz", ".zst", ".tbz2", ".txz"), "archive"),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf"), "raw"),
    **dict.fromkeys((".csv", ".tsv", ".jsonl"), "labels"),
}


def said(left_out: Mapping[str, int]) -> str:
    """What was left out, by kind and number, with the way out where there is one."""
    parts = []
    for kind, count in sorted(left_out.items(), key=lambda item: (-item[1], item[0])):
        how = _WAYS_OUT.get(_KINDS.get(kind, ""))
        parts.append(f"{count:,} {kind}" + (f" ({how})" if how else ""))
    return "; ".join(parts)
