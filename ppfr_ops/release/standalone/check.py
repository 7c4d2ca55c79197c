"""The program: see ``ABOUT``. It lies in every release as one file (``standalone.text``).

This module needs Python's standard library alone, as all of ``release.standalone``.
"""

import argparse
import itertools
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from ppfr_ops.release.findings import printable
from ppfr_ops.release.foreign import Mark, foreign_part, mark_of
from ppfr_ops.release.standalone.folder import (
    LIST,
    SUMS,
    File,
    Release,
    check_names,
    lines_of,
    once,
    room,
    unlike,
    walk,
)
from ppfr_ops.release.standalone.parquet import (
    Footer,
    Unreadable,
    Unsupported,
    is_filled,
    read_column,
    read_footer,
)
from ppfr_ops.release.standalone.signature import check_signature

ABOUT = """Check a release with nothing but Python: python3 verify.py [RELEASE] [--public-key FILE].

Every file by name, size and sha256, nothing else there, rows and ids, columns, nothing beside the
pixels of a picture but the mark that says what it is, and the signature if ``openssl`` is there.
Reads files, writes none, imports nothing beyond the standard library, and asks no network. What it
could not check it says. One line for each finding. Exit codes: 0 all holds, 1 it does not, 2 there
is nothing to verify.

Anyone who can change a release can change this file in it: compare its sha256 with that of a copy
that you got elsewhere, or use that copy.
"""

_ID = re.compile(rb"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BEHIND = "whether bytes follow the pixels within a JPEG's scan: ppfr verify finds them"
_PICTURES = (".jpg", ".jpeg", ".png", ".webp")
_KEYS = {"ARROW:schema", "ppfr_schema", "huggingface"}
"""Notes that the footer of a shard may have."""
_RECORD = ("record_id", "image", "identity")
_FACE = ("face", "box", "landmarks", "score", "treatment")


def check(root: str, public_key: str | None = None, min_version: int = 0) -> Release:
    """Check a release.

    Raises:
        FileNotFoundError: there is no manifest.
    """
    seen = Release(root)
    raw = seen.small("manifest.json")
    if raw is None:
        if os.path.lexists(os.path.join(root, "manifest.json")):
            seen.find("manifest.json", "is a symbolic link, or no plain file")
            return seen
        raise FileNotFoundError
    seen.raw = raw
    if os.path.islink(root):
        seen.find("manifest.json", "lies in a folder that is a symbolic link")
    if not _read_manifest(seen):
        return seen
    if seen.manifest["version"] < min_version:
        told = f"is version {seen.manifest['version']}, expected: {min_version} or later"
        seen.find("manifest.json", told)
    listed = _read_list(seen)
    check_signature(seen, public_key)
    if not listed:
        return seen
    mark = _mark(seen)
    if mark is not None and mark.credentials:
        seen.leave("hashes and signatures of Content Credentials: c2patool checks them")
    check_names(seen)
    for file in seen.files:
        _check_file(seen, file)
    total = sum(file.rows or 0 for file in seen.files)
    if total != seen.manifest["records"]:
        seen.find("manifest.json", f"counts {seen.manifest['records']} records, lists {total}")
    return seen


# -- what is listed -------------------------------------------------------------------------


def _read_manifest(seen: Release) -> bool:
    try:
        found = json.loads(seen.raw, object_pairs_hook=once)
        every = [
            File(str(item["path"]), int(item["bytes"]), str(item["sha256"]), item.get("rows"))
            for item in (*found["files"], found["listing"])
        ]
        files = every[:-1]
        numbers = [found["version"], found["records"], *(file.rows or 0 for file in files)]
        options, figures = found["options"], found["method"]["figures"]
        parts = (options, figures, found["metrics"])
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise TypeError
        if not all(isinstance(part, dict) for part in parts) or not all(map(_sound, every)):
            raise TypeError
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        seen.find("manifest.json", "does not have the form of a manifest, or says a thing twice")
        return False
    if len({file.path for file in files}) < len(files):
        seen.find("manifest.json", "lists a file twice")
    if "epsilon" in figures or "epsilon" in found["method"].get("columns", ()):
        told = [name for name in ("metrics", "requirements") if found.get(name)]
        if found.get("passed") is not None:
            told.append("passed")
        if told:
            what = "holds figures of originals, which the epsilon that is claimed does not cover"
            seen.find("manifest.json", f"{what}: {', '.join(told)}")
    seen.manifest, seen.files = found, files
    return True


def _sound(file: File) -> bool:
    """Whether a name leads to a place inside the release."""
    parts = file.path.split("/")
    plain = all(part not in ("", ".", "..") for part in parts) and "\\" not in file.path
    sized = file.size is None or file.size >= 0
    return plain and "\0" not in file.path and sized and bool(_SHA256.fullmatch(file.sha256))


def _read_list(seen: Release) -> bool:
    """What lies beside the manifest and lists the shards, or the photographs."""
    name, told = seen.listing, seen.manifest["listing"]
    file = seen.opened(name) if name in (LIST, SUMS) else None
    if file is None:
        seen.find(name, "is missing, or no plain file")
        return False
    with file:
        if os.fstat(file.fileno()).st_size > room(name for name, _ in walk(seen.root)):
            seen.find(name, "is larger than any list of what lies there")
            return False
        fault = unlike(file, told.get("bytes"), told.get("sha256"))
        if fault is not None:
            seen.find(name, fault)
            return False
        try:
            file.seek(0)
            if name == LIST:
                found = list(_shards(file, told["bytes"]))
            else:  # each is one record
                found = [File(path, None, digest, 1) for path, digest in lines_of(file.read())]
        except (Unreadable, Unsupported, ValueError, TypeError):
            seen.find(name, "is no readable list")
            return False
    if len(found) != told.get("rows") or not all(map(_sound, found)):
        seen.find(name, "is not the list that the manifest tells of")
        return False
    if any(one.path >= other.path for one, other in itertools.pairwise(found)):
        seen.find(name, "does not list each file once, in the order of their names")
    seen.files += found
    return True


def _shards(file: BinaryIO, size: int) -> Iterator[File]:
    footer = read_footer(file, size)
    names = ("path", "rows", "bytes", "sha256")
    columns = [list(read_column(file, footer, name)) for name in names]
    for path, rows, length, digest in zip(*columns, strict=True):
        yield File(_text(path), _number(length), _text(digest), _number(rows))


def _text(value: bytes | None) -> str:
    if value is None:
        raise ValueError
    return value.decode("ascii")


def _number(value: bytes | None) -> int:
    if value is None:
        raise ValueError
    return int.from_bytes(value, "little", signed=True)


def _check_file(seen: Release, told: File) -> None:
    opened = seen.opened(told.path)
    if opened is None:
        # What is no plain file is told of already.
        if not os.path.lexists(os.path.join(seen.root, told.path)):
            seen.find(told.path, "is missing")
        return
    with opened as file:
        fault = unlike(file, told.size, told.sha256)
        if fault is not None:
            seen.find(told.path, fault)
        elif told.path.lower().endswith(_PICTURES):
            file.seek(0)
            reason = _foreign(seen, file.read())
            if reason is not None:
                seen.find(told.path, reason)
        elif told.path.endswith(".parquet"):
            try:
                _check_shard(seen, told, file)
            except Unreadable:
                seen.find(told.path, "is no readable Parquet file")
            except Unsupported as way:
                seen.find(told.path, f"is stored {way}, which shards are not")


def _foreign(seen: Release, data: bytes) -> str | None:
    if data[:2] == b"\xff\xd8":
        seen.unchecked[_BEHIND] = 1
    return foreign_part(data, _mark(seen))


def _mark(seen: Release) -> Mark | None:
    return mark_of(seen.manifest["options"], bool(seen.manifest["method"].get("draws_faces")))


# -- what is in a shard ---------------------------------------------------------------------


def _check_shard(seen: Release, told: File, file: BinaryIO) -> None:
    footer = read_footer(file, told.size or 0)
    if footer.rows != told.rows:
        seen.find(told.path, f"{footer.rows} rows, the manifest says {told.rows}")
    if not is_filled(file, told.size or 0, footer):
        seen.find(told.path, "holds bytes to which nothing points")
    _check_columns(seen, told.path, footer)
    ids = list(read_column(file, footer, "record_id"))
    for name in ids:
        if name is None or not _ID.fullmatch(name):
            seen.find(told.path, "a record id is not made of 128 bits")
            return
        if name in seen.ids:
            seen.find(told.path, f"record {name.decode()} is in {seen.ids[name]} too")
        seen.ids[name] = told.path
    if ids != sorted(ids, key=lambda name: name or b""):
        seen.find(told.path, "its rows do not stand in the order of their ids")
    if "image" not in footer.columns:
        return
    paths = list(read_column(file, footer, "image.path"))
    pictures = read_column(file, footer, "image.bytes")
    for name, path, data in zip(ids, paths, pictures, strict=True):
        reason = _foreign(seen, data or b"")
        if reason is None and (path or b"").rpartition(b".")[0] != name:
            reason = "its path is not made from the record id"
        if reason is not None:
            seen.find(told.path, f"record {(name or b'').decode()}: {reason}")


def _check_columns(seen: Release, path: str, footer: Footer) -> None:
    options, method = seen.manifest["options"], seen.manifest["method"]
    allowed = {*_RECORD, *map(str, options.get("keep_columns", ())), *method.get("columns", ())}
    if options.get("output_faces") == "crops":
        allowed |= set(_FACE)
    for name in footer.columns:
        if name not in allowed:
            seen.find(path, f"column {name!r} is not on the allow-list")
    for name in footer.notes:
        if name not in _KEYS:
            seen.find(path, f"its footer has a note {name!r}")


# -- as a program ---------------------------------------------------------------------------


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument("release", nargs="?", default=here, help="default: where this file lies")
    parser.add_argument("--public-key", metavar="FILE", help="PEM: whose signature it must bear")
    parser.add_argument("--min-version", type=int, default=0, metavar="N", help="at least")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of lines")
    given = parser.parse_args(None if arguments is None else list(arguments))
    root = given.release
    if os.path.isfile(os.path.join(root, "release", "manifest.json")):
        root = os.path.join(root, "release")
    if given.public_key is not None and not os.path.isfile(given.public_key):
        parser.error("the public key cannot be read")
    try:
        seen = check(root, given.public_key, given.min_version)
    except (OSError, FileNotFoundError):
        parser.error("no manifest.json: not a release")
    version = seen.manifest.get("version")
    if given.json:
        findings = [{"file": name, "reason": reason} for name, reason in seen.findings]
        told = {"holds": not findings, "version": version, "findings": findings}
        print(json.dumps({**told, "unchecked": seen.unchecked}, indent=2))
        return 1 if findings else 0
    for name, reason in seen.findings:
        print(printable(f"{name}: {reason}"))
    for what, count in seen.unchecked.items():
        print(printable(f"not checked: {what}" + (f" ({count} files)" if count > 1 else "")))
    if not seen.findings:
        print(f"all that was checked holds (version {version})")
    return 1 if seen.findings else 0


if __name__ == "__main__":
    sys.exit(main())
