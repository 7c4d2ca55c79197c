"""A verdict on one photograph does that one again, whatever else its unit holds."""

import csv
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from driving import drive, serial
from test_photographs import Marked, photograph

from ppfr_ops.contracts.manifest import Manifest
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.release.verify import verify
from ppfr_ops.review.serving import Item, Queue
from ppfr_ops.review.verdicts import read_verdicts
from ppfr_ops.sanitize import finish
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.photographs.options import PhotographOptions
from ppfr_ops.sanitize.reviewing import items_of
from ppfr_ops.store import earlier
from ppfr_ops.store.ledger import Ledger, read_table

FORMS: dict[str, dict[str, Any]] = {
    "files": {"output_faces": "in-place"},
    "parquet": {"output_faces": "in-place", "output_form": "parquet"},
    "crops": {"output_faces": "crops"},
}
NOBODY, TWO = 3, 5
"""Photographs without a face, and with two."""
UNIT = "u000000"


class Counting(Marked):
    """A detector that notes how many photographs it was shown."""

    shown: ClassVar[list[int]] = []

    def __call__(self, pictures: Any) -> Any:
        self.shown += [len(picture) for picture in pictures if len(picture) == 200]
        return super().__call__(pictures)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """12 photographs."""
    root = tmp_path / "in"
    root.mkdir()
    for number in range(12):
        faces = {NOBODY: 0, TWO: 2}.get(number, 1)
        data = Encoding("png").encode(photograph(faces, seed=number))
        (root / f"{number:02d}.png").write_bytes(data)
    return root


def options(source: Path, form: str, **more: Any) -> SanitizeOptions:
    chosen = dict(FORMS[form])
    photographs = PhotographOptions(
        output_faces=chosen.pop("output_faces"), detector="test_one_verdict:Counting"
    )
    return SanitizeOptions(
        input=str(source),
        output=str(source.parent / "out"),
        method="signed-field",
        max_disclosure=1,
        metrics="none",
        output_format="png",
        max_dead_letter_rate=0.2,
        photographs=photographs,
        **chosen,
        **more,
    )


def go(source: Path, form: str, *said: str, **more: Any) -> tuple[int, dict[str, list[bytes]]]:
    """Photographs that the detector was shown, and what is published, by photograph."""
    verdicts = source.parent / "said.csv"
    lines = [f"{line},{of(source, int(line[8:14]))}" for line in said]
    verdicts.write_text("\n".join(["source_id,verdict,boxes,original", *lines, ""]))
    Counting.shown.clear()
    chosen = options(source, form, verdicts=str(verdicts), **more)
    assert drive(chosen, serial, "test") == 0
    return len(Counting.shown), published(Path(chosen.output))


def of(source: Path, row: int) -> str:
    return sha256((source / f"{row:02d}.png").read_bytes()).hexdigest()


def published(out: Path) -> dict[str, list[bytes]]:
    ledger = Ledger(str(out))
    entry = ledger.entry(UNIT)
    assert entry is not None
    tables = {k: read_table((out / s.path).read_bytes()) for k, s in entry.shards.items()}
    inside = ledger.ids.rows(f"{UNIT}-{row:06d}" for row in range(12))
    seen = tables["detections"]
    inside |= dict(zip(seen["record_id"].to_pylist(), seen["source_id"].to_pylist(), strict=True))
    found: dict[str, list[bytes]] = {}
    for row in tables["data"].to_pylist():
        found.setdefault(inside[row["record_id"]], []).append(row["image"]["bytes"])
    assert tables["data"]["record_id"] == tables["metrics"]["record_id"]
    if entry.shards["data"].path.startswith("evidence"):
        root = out / "release/photographs"
        laid = {path.read_bytes() for path in root.rglob("*") if path.is_file()}
        assert laid == {data for images in found.values() for data in images}
    counts = Manifest.model_validate_json((out / "evidence/manifest.json").read_bytes()).counts
    assert counts.records == sum(map(len, found.values())) == len(tables["metrics"])
    assert counts.rows_in + counts.extra_faces == counts.records + counts.dead_letters
    assert not list(verify(str(out))) and not list((out / "evidence").glob("earlier/*"))
    return found


def name(row: int) -> str:
    return f"{UNIT}-{row:06d}"


def differing(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


@pytest.mark.parametrize("form", FORMS)
def test_one_is_done_again(source: Path, form: str) -> None:
    _, first = go(source, form)
    assert len(first) == 11
    said = [f"{name(7)},drop,"]
    shown, dropped = go(source, form, *said)
    assert shown == 1 and differing(first, dropped) == {name(7)}
    said.append(f'{name(2)},cover,"[[200, 120, 260, 180]]"')
    shown, covered = go(source, form, *said)
    assert shown == 1 and differing(dropped, covered) == {name(2)}
    said.append(f"{name(TWO)},ok,")
    shown, same = go(source, form, *said)
    assert shown == 0 and same == covered  # it was published as it may be
    if form == "crops":
        return
    said.append(f"{name(NOBODY)},ok,")
    shown, allowed = go(source, form, *said)
    assert shown == 1 and differing(covered, allowed) == {name(NOBODY)}
    shown, back = go(source, form, *said[1:])
    assert shown == 1 and differing(allowed, back) == {name(7)} and len(back) == 12


STOPS: dict[str, tuple[Any, str, int]] = {
    "while it is kept": (earlier, "_copy", 2),
    "before it is taken back": (Ledger, "retire", 1),
    "before it is committed": (Ledger, "commit", 1),
    "after it was committed": (finish, "lay_out", 1),
    "before what was kept goes": (finish, "forget", 1),
}


def stopped(monkeypatch: pytest.MonkeyPatch, stop: str, work: Callable[[], Any]) -> None:
    place, function, call = STOPS[stop]
    whole, calls = getattr(place, function), [0]

    def dies(*args: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            raise KeyboardInterrupt
        return whole(*args, **more)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(place, function, dies)
        work()


@pytest.mark.parametrize(
    ("stop", "signed"), [*((stop, True) for stop in STOPS), ("before it is committed", False)]
)
def test_killed_in_between(
    source: Path, monkeypatch: pytest.MonkeyPatch, stop: str, signed: bool
) -> None:
    more = {"signing_key": str(key_file(source.parent))} if signed else {}
    _, first = go(source, "files", **more)
    said = f"{name(7)},drop,"
    stopped(monkeypatch, stop, lambda: go(source, "files", said, **more))
    _, after = go(source, "files", said, **more)
    assert differing(first, after) == {name(7)}


def key_file(folder: Path) -> Path:
    path = folder / "key.pem"
    path.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    path.chmod(0o600)
    return path


def turn_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)


def other_pictures(folder: Path) -> None:
    """Somebody else's shard, with an entry that fits it."""
    shard = folder / f"{UNIT}.data.parquet"
    table = pq.read_table(shard)
    shard.unlink()
    pq.write_table(table.slice(0, 11), shard)
    data = shard.read_bytes()
    place = folder / f"{UNIT}.json"
    entry = earlier.entry_of(UNIT, place.read_bytes())
    assert entry is not None
    changed = {"bytes": len(data), "sha256": sha256(data).hexdigest()}
    entry.shards["data"] = type(entry.shards["data"])(
        **{"path": entry.shards["data"].path, "rows": 11, "md5": None, **changed}
    )
    place.write_text(entry.model_dump_json())


@pytest.mark.parametrize(
    ("harm", "signed"),
    [
        (lambda folder: turn_a_byte(folder / f"{UNIT}.data.parquet"), False),
        (lambda folder: (folder / f"{UNIT}.metrics.parquet").unlink(), False),
        (lambda folder: (folder / f"{UNIT}.json").write_bytes(b"{}"), False),
        (other_pictures, True),
    ],
    ids=["changed", "gone", "no entry", "not what was signed"],
)
def test_nothing_is_taken_over_that_was_not_committed(
    source: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], Any], signed: bool
) -> None:
    more = {"signing_key": str(key_file(source.parent))} if signed else {}
    _, first = go(source, "files", **more)
    said = f"{name(7)},drop,"
    stopped(monkeypatch, "before it is committed", lambda: go(source, "files", said, **more))
    harm(source.parent / "out/evidence/earlier")
    shown, after = go(source, "files", said, **more)
    assert shown == 12 and len(differing(first, after)) == 11


def test_another_photograph_in_the_meantime(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, out = source.parent / "identity.key", source.parent / "out"
    key.write_text("7" * 64)
    key.chmod(0o600)
    said = source.parent / "said.csv"
    said.write_text("source_id,verdict,boxes\n")
    chosen = options(
        source, "files", incremental=True, identity_key_file=str(key), verdicts=str(said)
    )
    assert drive(chosen, serial, "test") == 0
    (unit,) = (path.stem for path in (out / "evidence/ledger/units").glob("*.json"))
    said.write_text(f"source_id,verdict,boxes\n{unit}-000007,drop,\n")
    stopped(monkeypatch, "before it is committed", lambda: drive(chosen, serial, "test"))
    before = (out / "release/photographs/04.png").read_bytes()
    (source / "04.png").write_bytes(Encoding("png").encode(photograph(1, seed=99)))
    Counting.shown.clear()
    assert drive(chosen, serial, "test") == 0
    assert len(Counting.shown) >= 11
    assert (out / "release/photographs/04.png").read_bytes() != before
    assert not (out / "release/photographs/07.png").exists()


def test_a_verdict_is_of_a_picture(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Others take the names of photographs with verdicts: nothing but ``drop`` is heeded, and they
    wait again, in the list and on the page."""
    key, out = source.parent / "identity.key", source.parent / "out"
    key.write_text("7" * 64)
    key.chmod(0o600)
    said, listed = source.parent / "said.csv", source.parent / "queue.csv"
    more: dict[str, Any] = {"incremental": True, "identity_key_file": str(key)}
    chosen = options(source, "files", review_out=str(listed), **more)
    assert drive(chosen, serial, "test") == 0
    (unit,) = (path.stem for path in (out / "evidence/ledger/units").glob("*.json"))
    with open(listed, newline="") as file:
        marks = {row["source_id"]: row["original"] for row in csv.DictReader(file)}
    assert re.fullmatch("[0-9a-f]{32}:[0-9a-f]{32}", marks[f"{unit}-{NOBODY:06d}"])
    lines = [
        f"{unit}-{NOBODY:06d},ok,,{marks[f'{unit}-{NOBODY:06d}']}",
        f'{unit}-000002,cover,"[[200, 120, 260, 180]]",{of(source, 2)}',
        f"{unit}-000007,drop,,{of(source, 7)}",
        f"{unit}-000008,drop,,",
        f"{unit}-000009,ok,,",
    ]
    said.write_text("\n".join(["source_id,verdict,boxes,original", *lines, ""]))
    chosen = chosen.model_copy(update={"verdicts": str(said)})

    def state() -> tuple[set[str], list[str], int]:
        assert drive(chosen, serial, "test") == 0
        release = out / "release/photographs"
        with open(listed, newline="") as file:
            waiting = [row["source_id"][-2:] for row in csv.DictReader(file)]
        waiting.remove("05")  # with two faces, of one of which the detector is not sure
        told = capsys.readouterr()
        (row,) = re.findall(r"(\d+) verdicts? not given on", told.out + told.err)
        seen = Ledger(str(out)).entries()[unit]
        assert drive(chosen, serial, "test") == 0 and Ledger(str(out)).entries()[unit] == seen
        capsys.readouterr()
        return {path.stem for path in release.glob("*")}, waiting, int(row)

    published, waiting, told = state()
    assert published == {f"{number:02d}" for number in range(12)} - {"07", "08"}
    assert waiting == ["09"] and told == 1  # not known to be of it
    covered = (out / "release/photographs/02.png").read_bytes()
    for number in (2, 7):
        data = Encoding("png").encode(photograph(1, seed=50 + number))
        (source / f"{number:02d}.png").write_bytes(data)
    (source / f"{NOBODY:02d}.png").write_bytes(Encoding("png").encode(photograph(0)[::2]))
    published, waiting, told = state()
    assert published == {f"{number:02d}" for number in range(12)} - {"03", "07", "08"}
    assert waiting == ["02", "03", "07", "09"] and told == 4
    assert (out / "release/photographs/02.png").read_bytes() != covered
    seen = pq.read_table(next((out / "evidence/detections").glob("*.parquet")))
    assert "covered_by_verdict" not in seen["treatment"].to_pylist()

    def page() -> Queue:
        items = items_of(str(out), str(source), str(key))
        return Queue(items, said)

    assert not any(item["verdict"] for item in page().listed())
    for number, verdict in ((2, "drop"), (3, "ok"), (7, "ok"), (9, "ok")):
        queue, name = page(), f"{unit}-{number:06d}"
        mark = queue.picture(name).partition(b"\n")[0].decode().split()[1]
        queue.give(name, verdict, [], "owner", mark)
    assert [item["id"][-2:] for item in page().listed() if not item["verdict"]] == ["05"]
    assert drive(chosen, serial, "test") == 0
    photographs = {path.stem for path in (out / "release/photographs").glob("*")}
    assert photographs == {f"{number:02d}" for number in range(12)} - {"02", "08"}
    assert "not given on" not in "".join(capsys.readouterr())


def test_verdicts_say_of_which_picture(tmp_path: Path) -> None:
    said = tmp_path / "said.csv"
    item = Item("u-000000", "no face found", 0.0, "x.png", 0, [])
    said.write_text("source_id,verdict,boxes\nu-000000,ok,\n")
    with pytest.raises(UserError, match="no column original"):
        Queue([item], said)
    said.write_text("verdict,source_id,original,boxes,remark\n,u-000000,,,hm\n")
    Queue([item], said).give("u-000000", "cover", [[1, 2, 3, 4]], "owner", "0" * 64)
    assert Queue([item], said).listed()[0]["covers"] == [[1, 2, 3, 4]]
    assert read_verdicts(str(said))["u-000000"].original == "0" * 64
    with pytest.raises(ValueError, match="seen"):
        Queue([item], said).give("u-000000", "ok", [], "owner")
