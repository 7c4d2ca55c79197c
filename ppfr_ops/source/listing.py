"""The files of an input: what counts, and what is left out, which is counted and said.

A name that begins with a dot or an underscore is no data anywhere below the root: caches, bins,
half-written results (``.Trash``, ``__MACOSX``, ``_temporary``). A folder of a table format holds
rows that were deleted or replaced: given itself it is read as a table (``tables``); below the input
or in part it is refused.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from ppfr_ops.errors import UserError
from ppfr_ops.source.reader import File, Listing, stamp_of
from ppfr_ops.source.tables import listing_of_table
from ppfr_ops.source.units import relative
from ppfr_ops.store.storage import RetryingFileSystem, StoreError, open_store

HIDDEN = "hidden (a name that begins with . or _)"
LINKED = "linked folder"

_TABLE = re.compile(
    r"(?P<place>(?:.*/)?)(?:(?P<Delta>_delta_log)/.*|(?P<Hudi>\.hoodie)/.*|"
    r"(?P<Iceberg>metadata)/[^/]*\.metadata\.json|(?P<Lance>_versions)/.*\.manifest)",
    re.DOTALL,
)
"""Files that make the folder that theirs lies in a table."""
_VERSION = re.compile(r"(.+)@(\d+)", re.DOTALL)


def split_version(source: str) -> tuple[str, int | None]:
    """An input, and the version of it that is asked for: of ``TABLE@3`` where there is nothing that
    is called so itself."""
    fs, root = open_store(source)
    if (match := _VERSION.fullmatch(root)) and not fs.exists(root):
        return source.rpartition("@")[0], int(match[2])
    return source, None


def listing_of(source: str) -> Listing:
    """List an input.

    Raises:
        UserError: it is not there, cannot be read, or is a table of a table format.
    """
    try:
        source, version = split_version(source)
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
        left_out: Counter[str] = Counter()
        if isinstance(fs, LocalFileSystem) and os.path.isdir(root):
            found = _local(fs, root, left_out)
        else:
            found = fs.find(root, detail=True)
        if root in found:
            root = os.path.dirname(root)
        elif not found and not fs.exists(root):
            raise UserError("the input does not exist")
        elif kind := _table_at(root, found):
            url = root if isinstance(fs, LocalFileSystem) else source
            return listing_of_table(kind, fs, root.rstrip("/"), url.rstrip("/"), version)
        if version is not None:
            raise UserError(f"the input is no table of which there could be a version {version}")
        return _listing(fs, root, found, left_out)
    except StoreError as error:
        raise UserError(f"the input: {error}") from None
    except FileNotFoundError:  # as the Hub says of what it hides, too
        raise UserError("the input does not exist, or not for you (HF_TOKEN)") from None
    except OSError as error:
        raise UserError(f"the input cannot be listed ({type(error).__name__})") from None


def _listing(fs: Any, root: str, found: Mapping[str, Any], left_out: Counter[str]) -> Listing:
    files: dict[str, File] = {}
    for path in sorted(found):
        parts = relative(path, root).decode("utf-8", "surrogateescape").split("/")
        if match := _TABLE.fullmatch("/".join(parts)):
            _refuse_table(match.lastgroup or "")
        if any(part.startswith((".", "_")) for part in parts):
            left_out[HIDDEN] += 1
        else:
            files[path] = File(int(found[path].get("size") or 0), stamp_of(found[path]))
    for name, kind in (("_delta_log", "Delta"), (".hoodie", "Hudi")):
        # Of a glob or a file inside such a folder.
        if fs.exists(f"{root.rstrip('/')}/{name}"):
            _refuse_table(kind)
    return Listing(fs, root, files, left_out)


def _table_at(root: str, found: Iterable[str]) -> str | None:
    """What kind of table the root itself is, if it is one that is read."""
    for path in found:
        match = _TABLE.fullmatch(relative(path, root).decode("utf-8", "surrogateescape"))
        if match and not match["place"] and match.lastgroup != "Hudi":
            return match.lastgroup
    return None


def _refuse_table(kind: str) -> None:
    how = "give the table's own folder"
    if kind == "Hudi":
        how = "write the rows that count to Parquet (a snapshot query of Spark) and give that"
    raise UserError(
        f"the input holds a table of {kind}, whose files hold deleted and replaced rows too; {how}"
    )


def _local(fs: Any, root: str, left_out: Counter[str]) -> dict[str, Any]:
    """As ``fs.find``, which leaves out in silence what it cannot read and what is linked."""
    found: dict[str, Any] = {}
    unreadable = 0
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_symlink() and os.path.isdir(entry.path):
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
    return found


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
