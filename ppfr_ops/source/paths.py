"""Columns that a file's path gives: keys of Hive (``year=2020/``), splits (``train/``,
``train-00000.parquet``), and whatever ``--identity-from`` names in it. Of a picture in an archive
the path goes on inside: ``people.zip!/Jane/1.jpg``.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from urllib.parse import unquote

from ppfr_ops.errors import UserError
from ppfr_ops.source.units import relative

IDENTITY, SPLIT = "identity", "split"

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
    **{name: name for name in ("gallery", "probe", "query", "unlabeled")},
}
_OF_FILE = re.compile(rf"({'|'.join(_SPLITS)})(?=[-_.0-9]|$)", re.IGNORECASE)
_HIVE = re.compile(r"([A-Za-z_]\w*)=(.+)")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_INSIDE = "!/"


def in_archive(path: str, name: str) -> str:
    """The path of a member of an archive."""
    kept = [part for part in name.split("/") if part not in ("", ".", "..")]
    return path + _INSIDE + "/".join(kept)


class PathColumns:
    """What paths say.

    Args:
        root: of the input.
        paths: of all its files.
        rows: paths of what ``identity_from`` goes by, if these are not the files themselves.
        identity_from: number of a folder (1: the one that a file lies in, 2: the one above), or a
            pattern of paths below the root with ``{identity}``; ``*`` and ``{}`` stop at ``/``.
        by_file: files are pictures; else their own names may be of splits.

    Raises:
        UserError: a pattern that is none, or that some paths do not follow.
    """

    def __init__(
        self,
        root: str,
        paths: Sequence[str],
        identity_from: str | None = None,
        by_file: bool = True,
        rows: Iterable[str] | None = None,
    ) -> None:
        self.root, self.by_file = root, by_file
        text = identity_from or ""
        self._level = int(text) if text.isdigit() else None
        self._pattern = None
        if identity_from is not None and self._level is None:
            self._pattern = compiled(identity_from)
        self._paths = paths
        if identity_from is not None:
            follow = [IDENTITY in self._named(path) for path in (paths if rows is None else rows)]
            if strays := follow.count(False):
                raise UserError(
                    f"--identity-from: {strays} of {len(follow)} paths do not follow it"
                )

    def parts(self, path: str) -> list[str]:
        """Of a path, below the root."""
        return relative(path, self.root).decode("utf-8", "surrogateescape").split("/")

    @cached_property
    def names(self) -> frozenset[str]:
        """Columns that all files have."""
        common: set[str] | None = None
        for path in self._paths:
            found = set(self.values(path)) | ({IDENTITY} if self._told else set())
            common = found if common is None else common & found
            if not common:
                break
        return frozenset(common or ())

    def values(self, path: str) -> dict[str, str | None]:
        """By column; None: the path says that it is null."""
        parts = self.parts(path.partition(_INSIDE)[0])
        values: dict[str, str | None] = {}
        for part in parts[:-1]:
            if match := _HIVE.fullmatch(part):
                values[match[1]] = None if match[2] == _HIVE_NULL else unquote(match[2])
            elif part.lower() in _SPLITS:
                values.setdefault(SPLIT, _SPLITS[part.lower()])
        if not self.by_file and values.get(SPLIT) is None and (match := _OF_FILE.match(parts[-1])):
            values[SPLIT] = _SPLITS[match[1].lower()]
        return {**values, **self._named(path)}

    @property
    def _told(self) -> bool:
        return self._level is not None or self._pattern is not None

    def _named(self, path: str) -> dict[str, str]:
        parts = self.parts(path)
        if self._level is not None:
            return {IDENTITY: parts[-1 - self._level]} if len(parts) > self._level > 0 else {}
        if self._pattern is None:
            return {}
        whole = "/".join(parts)
        inside = whole.partition(_INSIDE)[2]
        for text in dict.fromkeys((whole, inside, parts[-1])):
            if match := self._pattern.fullmatch(text):
                return match.groupdict()
        return {}

    def column(self, name: str, paths: Iterable[str]) -> list[str | None]:
        known: dict[str, str | None] = {}
        out = []
        for path in paths:
            if path not in known:
                known = {path: self.values(path).get(name)} if len(known) > 1000 else known
                known[path] = self.values(path).get(name)
            out.append(known[path])
        return out


def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern with ``{identity}`` as a regular expression.

    Raises:
        UserError: it is none.
    """
    out, place = "", 0
    for match in re.finditer(r"\*\*/|\*|\?|\{(\w*)\}", pattern):
        out += re.escape(pattern[place : match.start()])
        out += {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}.get(
            match[0], f"(?P<{match[1]}>[^/]+)"
        )
        place = match.end()
    try:
        found = re.compile(out + re.escape(pattern[place:]))
    except re.error:
        raise UserError(f"--identity-from {pattern!r}: a name twice, or none") from None
    if IDENTITY not in found.groupindex:
        raise UserError(
            f"--identity-from {pattern!r}: expected the number of a folder (1: that of the file, "
            "2: the one above), or a pattern with {identity}, such as '{identity}/*/*'"
        )
    return found


def refuse_unclear(root: str, paths: Sequence[str]) -> None:
    """Find out whether the name of a picture's folder can be a person's.

    Raises:
        UserError: all lie in folders of one name, or of splits, or folders lie in folders.
    """
    columns = PathColumns(root, ())
    folders = Counter(tuple(columns.parts(path)[:-1]) for path in paths)
    if len({folder[-1:] for folder in folders}) < 2:
        if len(paths) > 1:
            where = "one folder" if len(folders) == 1 else "folders of one name"
            raise UserError(
                f"--identity-column folder: all pictures lie in {where} and would be one person; "
                "--identity-from '{identity}_*' or the like says who is in each, or 1 if they are"
            )
        return
    if all(not folder or folder[-1].lower() in _SPLITS for folder in folders):
        raise UserError(
            "--identity-column folder: the folders are splits (train, test), and each would be one "
            "person; --identity-from '{identity}_*' or the like says who is in each picture"
        )
    levels = enumerate(zip(*folders, strict=False))
    shared = next((level for level, names in levels if len(set(names)) > 1), 0)
    above = {folder[shared:-1] for folder in folders}
    told = {
        tuple(p for p in parts if p.lower() not in _SPLITS and not _HIVE.fullmatch(p))
        for parts in above
    }
    if len(told) > 1:
        raise UserError(
            "--identity-column folder: folders lie in folders, so who is a person is not clear; "
            "--identity-from 1 takes the folder of the picture, 2 the one above, or a pattern "
            "such as '{identity}/*/*'"
        )
