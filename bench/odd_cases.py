"""Cases of ``odd_inputs``: labels, folders and formats."""

import io
import json
import os
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ppfr_ops.sample import faces

WHO = {"identity_column": "who"}
Options = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A case: how it is made, and what must come of it.

    ``make`` writes the input below a folder and returns options of ``ppfr sanitize``, ``input``
    among them where it is not the folder. ``people``: photos of each person, of those who are to be
    published; with exit code 0 it has to be so. ``published``: and the exit code has to be 0, for
    the docs promise it. ``refused``: it must be, with these words. ``said``: words that must be
    printed. ``rows``: how many rows there are, if it is known. ``dead``: dead letters by code.
    """

    name: str
    make: Callable[[Path], dict[str, Any]]
    people: tuple[int, ...] | None = None
    published: bool = True
    refused: str | None = None
    said: str | None = None
    rows: int | None = None
    dead: dict[str, int] | None = None


@cache
def jpegs() -> tuple[bytes, ...]:
    """Twelve pictures of six people of nobody."""
    made = []
    for face in faces(12, identities=6):
        buffer = io.BytesIO()
        Image.fromarray(face).save(buffer, "JPEG", quality=95)
        made.append(buffer.getvalue())
    return tuple(made)


def tree(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpegs()[number % 12])


def tar(path: Path, members: Iterable[tuple[str, bytes]], mode: str = "w") -> None:
    with tarfile.open(path, mode) as out:  # type: ignore[call-overload]
        for name, body in members:
            info = tarfile.TarInfo(name)
            info.size = len(body)
            out.addfile(info, io.BytesIO(body))


def samples(names: Sequence[Any], key: str = "{:04d}") -> list[tuple[str, bytes]]:
    """Members of a tar: a picture and a json with ``who`` of each."""
    members = []
    for number, name in enumerate(names):
        place = key.format(number)
        members.append((f"{place}.jpg", jpegs()[number]))
        members.append((f"{place}.json", json.dumps({"who": name}).encode()))
    return members


def table(folder: Path, who: Any, name: str = "a.parquet", column: str = "who") -> None:
    rows = pa.table({"image": list(jpegs()[: len(who)]), column: who})
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path)


def labels(folder: Path, text: str, name: str = "metadata.csv", count: int = 4) -> Options:
    tree(folder, *(f"{n}.jpg" for n in range(count)))
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return WHO


def lines(names: Iterable[Any], head: str = "file_name,who") -> str:
    return "\n".join([head, *(f"{n}.jpg,{name}" for n, name in enumerate(names))]) + "\n"


def jsonl(names: Iterable[Any]) -> str:
    return "".join(
        json.dumps({"file_name": f"{n}.jpg", "who": w}) + "\n" for n, w in enumerate(names)
    )


def of(write: Callable[..., Any], *args: Any, **options: Any) -> Callable[[Path], Options]:
    """What writes into the folder, and the options."""

    def make(folder: Path) -> Options:
        told = write(folder, *args)
        return {**(told or {}), **options}

    return make


def in_tar(names: Sequence[Any], **how: Any) -> Callable[[Path], Options]:
    return of(lambda folder: tar(folder / "a.tar", samples(names, **how)), **WHO)


def in_parquet(who: Any, **options: Any) -> Callable[[Path], Options]:
    return of(table, who, **{**WHO, **options})


def two_parquets(first: Any, second: Any) -> Callable[[Path], Options]:
    def make(folder: Path) -> Options:
        table(folder, first, "a.parquet")
        table(folder, second, "b.parquet")
        return WHO

    return make


def hive(*keys: str) -> Callable[[Path], Options]:
    def make(folder: Path) -> Options:
        for number, key in enumerate(keys):
            rows = pa.table({"image": list(jpegs()[2 * number : 2 * number + 2])})
            (folder / key).mkdir(parents=True)
            pq.write_table(rows, folder / key / "part-0.parquet")
        return WHO

    return make


def folders(*names: str, **options: Any) -> Callable[[Path], Options]:
    return of(lambda folder: tree(folder, *names), **{"identity_column": "folder", **options})


def zipped(members: Iterable[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, body in members:
            archive.writestr(name, body)
    return buffer.getvalue()


def put(name: str, make: Callable[[], bytes], **options: Any) -> Callable[[Path], Options]:
    return of(lambda folder: (folder / name).write_bytes(make()) and None, **options)


def _latin(folder: Path) -> None:
    for name in (b"J\xfc", b"J\xf6"):
        tree(Path(os.fsdecode(os.path.join(os.fsencode(folder), name))), "0.jpg")


J = jpegs()
A2B2 = ["ann", "bob", "ann", "bob"]
TWO = (2, 2)
_NFD = unicodedata.normalize("NFD", "Zoë")
SAID = "rows? with a label that was read without blanks"

LABELS = [
    Case("label tar keys with dots", in_tar(A2B2, key="v1.{}"), TWO, published=False),
    Case(
        "label tar json after all pictures",
        of(
            lambda f: tar(
                f / "a.tar",
                sorted(samples(A2B2), key=lambda member: member[0].endswith("json")),
            ),
            **WHO,
        ),
        TWO,
        published=False,
    ),
    Case("label tar keys in folders", in_tar(A2B2, key="x/{}/y"), TWO),
    Case(
        "label tar same key in two folders",
        of(
            lambda f: tar(
                f / "a.tar",
                [
                    (f"{d}/0.{e}", b)
                    for d, w in (("x", "ann"), ("y", "bob"))
                    for e, b in (("jpg", J[0]), ("json", json.dumps({"who": w}).encode()))
                ],
            ),
            **WHO,
        ),
        (1, 1),
    ),
    Case(
        "label tar without json in one sample",
        of(lambda f: tar(f / "a.tar", samples(A2B2)[:-1]), **WHO),
        None,
        published=False,
        rows=4,
    ),
    Case(
        "label tar upper case suffixes",
        of(lambda f: tar(f / "a.tar", [(n.upper(), b) for n, b in samples(A2B2)]), **WHO),
        TWO,
        published=False,
    ),
    Case(
        "label tar typo in the column",
        of(lambda f: tar(f / "a.tar", samples(A2B2)), identity_column="whoo"),
        refused="whoo",
    ),
    Case(
        "label tar typo in a kept column",
        of(lambda f: tar(f / "a.tar", samples(A2B2)), keep_column="age"),
        refused="age",
    ),
    Case(
        "label tar json is a list",
        of(
            lambda f: tar(
                f / "a.tar", [(n, b'["ann"]' if n.endswith("n") else b) for n, b in samples(A2B2)]
            ),
            **WHO,
        ),
        published=False,
    ),
    Case(
        "label tar json who is a list",
        in_tar([["ann"], ["bob"], ["ann"], ["bob"]]),
        TWO,
        published=False,
    ),
    Case(
        "label tar who is a number, a text, a whole float",
        in_tar([1, "1", 1.0, "1.0", True, 2]),
        (1, 1, 4),
        published=False,
    ),
    Case(
        "label tar twice the same key",
        of(lambda f: tar(f / "a.tar", [*samples(["ann"]), *samples(["bob"])]), **WHO),
        published=False,
    ),
    Case(
        "label tar of 500 unlike names",
        of(
            lambda f: tar(
                f / "a.tar",
                [
                    (f"{n}.{e}", J[n % 12] if e == "jpg" else json.dumps({"who": f"p{n}"}).encode())
                    for n in range(500)
                    for e in ("jpg", "json")
                ],
            ),
            **WHO,
        ),
        (1,) * 500,
    ),
    Case("label ints and texts in two files", two_parquets([1, 2], ["1", "2"]), TWO),
    Case("label ints and floats in two files", two_parquets([1, 2], [1.0, 2.0]), TWO),
    Case(
        "label decimals and ints",
        two_parquets([1, 2], pa.array([Decimal("1.00"), Decimal("2.00")])),
        TWO,
    ),
    Case(
        "label large ints and texts",
        two_parquets([2**53 + 1, 2**53], [str(2**53 + 1), str(2**53)]),
        TWO,
    ),
    Case(
        "label large floats are not made one", in_parquet([1e16, 1e16 + 2, 1e17, 1e17]), (1, 1, 2)
    ),
    Case("label 0 and -0", in_parquet([0.0, -0.0, 1.0, 1.0]), TWO),
    Case("label 01 and 1", in_parquet(["01", "1", "01", "1"]), TWO, published=False),
    Case("label 1e3 and 1000", in_parquet(["1e3", "1000", "1e3", "1000"]), TWO),
    Case("label NaN and null", in_parquet([float("nan"), None, 1.0, 1.0]), (1, 1, 2)),
    Case("label the text nan", in_parquet(["nan", "nan", "ann", "ann"]), (1, 1, 2)),
    Case("label infinite", in_parquet([float("inf"), float("-inf"), 1.0, 1.0]), (1, 1, 2)),
    Case("label empty and blanks", in_parquet(["", " ", "\t", "ann"]), (1, 1, 1, 1)),
    Case("label None as a text", in_parquet(["None", "None", "ann", "ann"]), TWO),
    Case("label trailing blanks", in_parquet(["Jane", "Jane ", "Joe", "Joe"]), TWO, said=SAID),
    Case("label leading tab", in_parquet(["Jane", "\tJane", "Joe", "Joe"]), TWO, said=SAID),
    Case("label two blanks", in_parquet(["Jane D", "Jane  D", "Joe", "Joe"]), TWO, said=SAID),
    Case(
        "label blank of no break",
        in_parquet(["Jane D", "Jane\u00a0D", "Joe", "Joe"]),
        TWO,
        said=SAID,
    ),
    Case(
        "label a sign of no width", in_parquet(["Jane", "Ja\u200bne", "Joe", "Joe"]), TWO, said=SAID
    ),
    Case("label forms of Unicode", in_parquet(["Zoë", _NFD, "Joe", "Joe"]), TWO, said=SAID),
    Case(
        "label upper and lower case are two",
        in_parquet(["jane", "Jane", "JANE", "Joe"]),
        (1, 1, 1, 1),
    ),
    Case(
        "label letters that look alike are two",
        in_parquet(["Anna", "\u0410nna", "Joe", "Joe"]),
        (1, 1, 2),
    ),
    Case("label sharp s and ss are two", in_parquet(["Straß", "Strass", "Joe", "Joe"]), (1, 1, 2)),
    Case("label in wide letters are two", in_parquet(["ann", "\uff41nn", "Joe", "Joe"]), (1, 1, 2)),
    Case("label bytes", in_parquet([b"ann", b"bob", b"ann", b"bob"], image_column="image"), TWO),
    Case(
        "label bytes of Latin-1",
        in_parquet([b"J\xfcr", b"J\xf6r", b"J\xfcr", b"J\xf6r"], image_column="image"),
        TWO,
    ),
    Case("label bools", in_parquet([True, False, True, False]), TWO),
    Case("label dates", in_parquet(pa.array([0, 1, 0, 1], pa.date32())), TWO, published=False),
    Case(
        "label times with zones",
        in_parquet(pa.array([0, 1, 0, 1], pa.timestamp("us", "UTC"))),
        TWO,
        published=False,
    ),
    Case("label dictionary", in_parquet(pa.array(A2B2).dictionary_encode()), TWO),
    Case(
        "label struct",
        in_parquet(pa.array([{"id": 1}, {"id": 2}, {"id": 1}, {"id": 2}])),
        TWO,
        published=False,
    ),
    Case("label list", in_parquet(pa.array([["a"], ["b"], ["a"], ["b"]])), TWO, published=False),
    Case("label all null", in_parquet(pa.array([None] * 4, pa.string())), (1, 1, 1, 1)),
    Case("label column of type null", in_parquet(pa.nulls(4)), (1, 1, 1, 1), published=False),
    Case(
        "label column in one file of two",
        of(
            lambda f: (
                table(f, ["ann", "bob"], "a.parquet"),
                table(f, ["ann", "bob"], "b.parquet", "name"),
                None,
            )[-1],
            **WHO,
        ),
        published=False,
    ),
    Case(
        "label column twice",
        of(
            lambda f: pq.write_table(
                pa.table(
                    [pa.array(J[:2]), pa.array(["a", "b"]), pa.array(["c", "c"])],
                    names=["image", "who", "who"],
                ),
                f / "a.parquet",
            ),
            **WHO,
        ),
        published=False,
    ),
    Case("label typo in a Parquet column", in_parquet(A2B2, identity_column="Who"), refused="Who"),
    Case(
        "label image column as identity", in_parquet(A2B2, identity_column="image"), published=False
    ),
    Case("label very long", in_parquet(["a" * 100_000 + w for w in "xyxy"]), TWO),
    Case("label with line breaks", in_parquet(["a\nb", "a\r\nc", "a\nb", "a\r\nc"]), TWO),
    Case("label with commands of a terminal", in_parquet(["\x1b[31ma", "\x1b[31mb"] * 2), TWO),
    Case("label hive keys", hive("who=ann", "who=bob"), TWO),
    Case("label hive escaped", hive("who=J%C3%BCr", "who=Jür/x=1"), (4,), published=False),
    Case("label hive null", hive("who=ann", "who=__HIVE_DEFAULT_PARTITION__"), (1, 1, 2)),
    Case("label hive key in some files", hive("who=ann", "wo=bob"), refused="who"),
    Case("label hive numbers are names", hive("who=1", "who=1.0", "who=01"), (2, 2, 2)),
    Case(
        "label hive two levels", hive("year=1/who=ann", "year=2/who=ann", "year=2/who=bob"), (2, 4)
    ),
    Case("label csv", of(labels, lines(A2B2)), TWO),
    Case("label csv with a mark of order", of(labels, "\ufeff" + lines(A2B2)), TWO),
    Case("label csv of Windows", of(labels, lines(A2B2).replace("\n", "\r\n")), TWO),
    Case(
        "label csv of old Macs", of(labels, lines(A2B2).replace("\n", "\r")), TWO, published=False
    ),
    Case("label csv semicolons", of(labels, lines(A2B2).replace(",", ";")), TWO),
    Case("label csv UTF-16", of(labels, lines(A2B2).encode("utf-16")), TWO, published=False),
    Case(
        "label csv Latin-1",
        of(labels, lines(["Jür", "Jör"] * 2).encode("latin-1")),
        TWO,
        published=False,
    ),
    Case("label csv no head", of(labels, lines(A2B2).partition("\n")[2]), published=False),
    Case("label csv blanks behind commas", of(labels, lines([f" {w}" for w in A2B2])), TWO),
    Case(
        "label csv head with blanks",
        of(labels, lines(A2B2, "file_name, who")),
        TWO,
        published=False,
    ),
    Case("label csv without the last cell", of(labels, lines(A2B2)[:-4]), (1, 1, 2)),
    Case(
        "label csv lines for too few", of(labels, lines(A2B2[:3])), refused="say nothing of 1 of 4"
    ),
    Case("label csv lines for too many", of(labels, lines([*A2B2, "joe"])), TWO, said="not there"),
    Case(
        "label csv a picture twice",
        of(labels, lines(A2B2) + "0.jpg,joe\n"),
        refused="different things",
    ),
    Case("label csv empty", of(labels, ""), published=False),
    Case("label csv head only", of(labels, "file_name,who\n"), published=False),
    Case(
        "label csv paths from above",
        of(labels, lines(A2B2).replace("\n0", "\n./0").replace("\n1", "\nx/../1")),
        TWO,
    ),
    Case(
        "label csv backslashes",
        of(
            lambda f: (
                (
                    tree(f, "x/0.jpg", "x/1.jpg"),
                    (f / "metadata.csv").write_text("file_name,who\nx\\0.jpg,ann\nx\\1.jpg,bob\n"),
                )[:0]
                or WHO
            )
        ),
        (1, 1),
        published=False,
    ),
    Case(
        "label csv names without suffix",
        of(labels, lines(A2B2).replace(".jpg", "")),
        TWO,
        published=False,
    ),
    Case("label csv empty cells", of(labels, lines(["ann", "", "ann", ""])), (1, 1, 2)),
    Case("label jsonl", of(labels, jsonl(A2B2), "metadata.jsonl"), TWO),
    Case("label jsonl numbers", of(labels, jsonl([1, "1", 2.0, "2"]), "metadata.jsonl"), TWO),
    Case(
        "label jsonl lists",
        of(labels, jsonl([["a"], ["b"]] * 2), "metadata.jsonl"),
        TWO,
        published=False,
    ),
    Case(
        "label jsonl null",
        of(labels, jsonl(["ann", None, "ann", None]), "metadata.jsonl"),
        (1, 1, 2),
    ),
    Case(
        "label jsonl is one json list",
        of(labels, json.dumps([{"file_name": "0.jpg"}]), "metadata.jsonl"),
        published=False,
    ),
    Case(
        "label jsonl line of U+2028",
        of(
            labels,
            json.dumps({"file_name": "0.jpg", "who": "a\u2028b"}, ensure_ascii=False) + "\n",
            "metadata.jsonl",
            1,
        ),
        (1,),
    ),
    Case(
        "label both csv and jsonl",
        of(lambda f: (labels(f, lines(A2B2)), labels(f, jsonl(["x"] * 4), "metadata.jsonl"))[0]),
        TWO,
        published=False,
    ),
    Case(
        "label CelebA",
        of(
            lambda f: (
                labels(f, "".join(f"{n}.jpg {n % 2}\n" for n in range(4)), "identity_CelebA.txt")
                and {"identity_column": "identity"}
            )
        ),
        TWO,
    ),
    Case(
        "label CelebA too short",
        of(
            lambda f: (
                labels(f, "0.jpg 1\n", "identity_CelebA.txt") and {"identity_column": "identity"}
            )
        ),
        published=False,
    ),
]

TREES = [
    Case("tree people", folders("ann/0.jpg", "ann/1.jpg", "bob/0.jpg"), (1, 2)),
    Case("tree one folder", folders("ann/0.jpg", "ann/1.jpg"), refused="one person"),
    Case("tree flat", folders("0.jpg", "1.jpg"), refused="one person"),
    Case(
        "tree person, video, frame",
        folders("ann/v/0.jpg", "ann/w/0.jpg", "bob/v/0.jpg"),
        refused="folders lie in folders",
    ),
    Case(
        "tree two levels by number",
        folders(
            "ann/v/0.jpg",
            "ann/w/0.jpg",
            "bob/v/0.jpg",
            identity_from="2",
            identity_column="identity",
        ),
        (1, 2),
    ),
    Case(
        "tree level too high",
        folders("ann/0.jpg", "bob/0.jpg", identity_from="3", identity_column="identity"),
        refused="do not follow",
    ),
    Case(
        "tree level 0",
        folders("ann/0.jpg", "bob/0.jpg", identity_from="0", identity_column="identity"),
        published=False,
    ),
    Case(
        "tree pattern",
        folders(
            "ann_0.jpg",
            "ann_1.jpg",
            "bob_0.jpg",
            identity_from="{identity}_*",
            identity_column="identity",
        ),
        (1, 2),
    ),
    Case(
        "tree pattern with stray",
        folders("ann_0.jpg", "ann.jpg", identity_from="{identity}_*", identity_column="identity"),
        refused="1 of 2",
    ),
    Case(
        "tree pattern with a bracket",
        folders(
            "[ann]_0.jpg", "[bob]_1.jpg", identity_from="[{identity}]_*", identity_column="identity"
        ),
        (1, 1),
    ),
    Case(
        "tree pattern without a name",
        folders("a_0.jpg", identity_from="*_*", identity_column="identity"),
        refused="identity",
    ),
    Case("tree splits", folders("train/ann/0.jpg", "train/bob/0.jpg", "test/ann/0.jpg"), (1, 2)),
    Case("tree a person called Test", folders("Test/0.jpg", "Train/0.jpg", "ann/0.jpg"), (1, 1, 1)),
    Case(
        "tree names of numbers",
        folders("1/a.jpg", "1.0/a.jpg", "01/a.jpg", "nan/a.jpg"),
        (1, 1, 1, 1),
    ),
    Case(
        "tree blanks in names", folders("Jane/0.jpg", "Jane /0.jpg", "Joe/0.jpg"), (1, 2), said=SAID
    ),
    Case(
        "tree forms of Unicode",
        folders("Zoë/0.jpg", f"{_NFD}/0.jpg", "Joe/0.jpg"),
        (1, 2),
        said=SAID,
    ),
    Case(
        "tree hidden",
        folders("ann/0.jpg", "bob/0.jpg", ".Trash/0.jpg", "__MACOSX/ann/._0.jpg"),
        (1, 1),
        said="2 hidden",
    ),
    Case(
        "tree half-written",
        folders("ann/0.jpg", "bob/0.jpg", "_temporary/0/_t/ann/1.jpg"),
        (1, 1),
        said="1 hidden",
    ),
    Case(
        "tree linked folder",
        of(
            lambda f: (
                (tree(f, "ann/0.jpg", "bob/0.jpg"), (f / "c").symlink_to(f / "ann"))[:0]
                or {"identity_column": "folder"}
            )
        ),
        (1, 1),
        said="1 linked",
    ),
    Case(
        "tree link in a ring",
        of(
            lambda f: (
                (tree(f, "ann/0.jpg", "bob/0.jpg"), (f / "ann/x").symlink_to(f))[:0]
                or {"identity_column": "folder"}
            )
        ),
        (1, 1),
        said="1 linked",
    ),
    Case(
        "tree linked picture that leads nowhere",
        of(
            lambda f: (
                (tree(f, "ann/0.jpg", "bob/0.jpg"), (f / "ann/1.jpg").symlink_to("no.jpg"))[:0]
                or {"identity_column": "folder"}
            )
        ),
        published=False,
    ),
    Case(
        "tree pipe",
        of(
            lambda f: (
                (tree(f, "ann/0.jpg", "bob/0.jpg"), os.mkfifo(f / "ann/1.jpg"))[:0]
                or {"identity_column": "folder"}
            )
        ),
        published=False,
        rows=3,
    ),
    Case("tree brackets", folders("a [x]/0.jpg", "b*?/1.jpg"), (1, 1)),
    Case("tree names that are no UTF-8", of(_latin, identity_column="folder"), (1, 1)),
    Case(
        "tree suffixes",
        folders("a/0.JPG", "a/1.JpEg", "b/2.jfif", "b/3.jpg.bak", "b/4.jpg~"),
        (1, 2),
        said="left out",
    ),
    Case(
        "tree other things",
        of(
            lambda f: (
                (
                    tree(f, "a/0.jpg", "b/0.jpg"),
                    (f / "a/x.mov").write_bytes(b"1"),
                    (f / "b/x.cr2").write_bytes(b"1"),
                )[:0]
                or {"identity_column": "folder"}
            )
        ),
        (1, 1),
        said="ffmpeg",
    ),
    Case(
        "tree strict",
        of(
            lambda f: (
                (tree(f, "a/0.jpg", "b/0.jpg"), (f / "a/x.mov").write_bytes(b"1"))[:0]
                or {"identity_column": "folder", "strict": True}
            )
        ),
        refused="mov",
    ),
    Case("tree empty", of(lambda f: (f / "a").mkdir()), refused="no"),
    Case("tree away", of(lambda f: {"input": str(f / "no")}), refused="does not exist"),
    Case(
        "tree pictures and Parquet",
        of(lambda f: (tree(f, "a/0.jpg"), table(f, A2B2))[:0] or None),
        refused="choose",
    ),
    Case(
        "tree a picture within a table's folder",
        of(
            lambda f: (
                (
                    tree(f, "0.jpg"),
                    (f / "_delta_log").mkdir(),
                    (f / "_delta_log/0.json").write_text("{}"),
                )[:0]
                or None
            )
        ),
        refused="Delta",
    ),
    Case(
        "tree output within the input",
        of(lambda f: tree(f, "0.jpg") or {"output": str(f / "out")}),
        published=False,
    ),
]
