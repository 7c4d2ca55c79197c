"""The review page, in a real browser: keys, boxes, undo, a phone, a thousand items, a reload."""

import asyncio
import base64
import csv
import io
import json
import shutil
import subprocess
import tarfile
import threading
import time
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ppfr_ops import sample
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.review import serving
from ppfr_ops.review.serving import Queue, read_original, read_queue, serve
from ppfr_ops.review.verdicts import read_verdicts
from ppfr_ops.source.plan import Columns, plan, read_unit, sources
from ppfr_ops.source.sums import is_of, sum_of

aiohttp = pytest.importorskip("aiohttp")


def queue_of(folder: Path, count: int) -> Queue:
    pictures = [Encoding().encode(picture) for picture in sample.photographs(2)]
    with open(folder / "queue.csv", "w", newline="") as file:
        writer = csv.writer(file)
        fields = ("source_id", "reason", "score", "faces", "source", "row", "verdict", "boxes")
        writer.writerow(fields)
        for number in range(count):
            place = folder / f"{number % 4}.jpg"
            if not place.exists():
                place.write_bytes(pictures[number % 2])
            row = (f"u-{number:04d}", "no face found", "0.1", 1, str(place), 0, "", "")
            writer.writerow(row)
    boxes = {f"u-{number:04d}": [[100.0, 90.0, 220.0, 250.0]] for number in range(count)}
    faint = {"u-0000": [[300.0, 40.0, 360.0, 110.0, 0.0], [10.0, 10.0, 60.0, 60.0, 1.0]]}
    return Queue(read_queue(str(folder / "queue.csv"), boxes, {}, faint), folder / "verdicts.csv")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Queue, str]]:
    queue = queue_of(tmp_path, 12)
    server, address = serve(queue, reviewer="reviewer-1")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield queue, address
    server.shutdown()
    server.server_close()


class Page:
    """A page in Chromium, over its debugging protocol."""

    def __init__(self, socket: Any) -> None:
        self.socket, self.number = socket, 0

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        await self.socket.send_json({"id": self.number, "method": method, "params": params})
        while True:
            answer = await self.socket.receive_json(timeout=30)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    async def value(self, expression: str) -> Any:
        done = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    async def until(self, expression: str, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not await self.value(expression):
            assert time.monotonic() < end, expression
            await asyncio.sleep(0.05)

    async def key(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key)

    async def drag(self, x0: float, y0: float, x1: float, y1: float) -> None:
        for kind, x, y in (
            ("mousePressed", x0, y0),
            ("mouseMoved", x1, y1),
            ("mouseReleased", x1, y1),
        ):
            button = {"button": "left", "buttons": 1, "clickCount": 1}
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)


@asynccontextmanager
async def browser(folder: Path, address: str, width: int = 1200) -> AsyncIterator[Page]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on the path")
    profile = folder / "profile"
    command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-sync", "--remote-debugging-port=0"]
    command += [f"--user-data-dir={profile}", f"--window-size={width},800", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        note = profile / "DevToolsActivePort"
        end = time.monotonic() + 60
        while not note.exists() or len(note.read_text().splitlines()) < 2:
            assert time.monotonic() < end, "chromium does not start"
            await asyncio.sleep(0.1)
        port = note.read_text().splitlines()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as listed:
                target = next(t for t in await listed.json() if t["type"] == "page")
            url = target["webSocketDebuggerUrl"]
            async with session.ws_connect(url, max_msg_size=0) as socket:
                page = Page(socket)
                await page.call(
                    "Emulation.setDeviceMetricsOverride",
                    width=width,
                    height=800,
                    deviceScaleFactor=1,
                    mobile=width < 600,
                )
                await page.call("Page.navigate", url=address)
                await page.until("typeof items !== 'undefined' && items.length > 0")
                yield page
    finally:
        process.kill()
        process.wait()


def verdicts(queue: Queue) -> dict[str, str]:
    return {name: review.kind for name, review in read_verdicts(str(queue.path)).items()}


@pytest.mark.slow
def test_keys_boxes_undo_and_a_reload(served: tuple[Queue, str], tmp_path: Path) -> None:
    queue, address = served

    async def session() -> None:
        async with browser(tmp_path, address) as page:
            await page.until("!!seen")
            await page.key("o")
            await page.until("items[0].verdict === 'ok' && shown[at] === items[1] && !!picture")
            await page.key("d")
            await page.until("items[1].verdict === 'drop' && shown[at] === items[2] && !!picture")
            await page.key("c")
            await page.until("document.getElementById('error').textContent !== ''")
            await page.drag(600, 300, 700, 420)
            await page.drag(650, 350, 670, 350)  # moves it
            await page.until("boxes.length === 1")
            await page.key("c")
            await page.until("items[2].verdict === 'cover' && shown[at] === items[3]")
            assert set(verdicts(queue).values()) == {"ok", "drop", "cover"}
            await page.key("d")
            await page.until("items[3].verdict === 'drop'")
            await page.key("u")
            await page.until("items[3].verdict === '' && shown[at] === items[3]")
            await page.call("Page.reload")
            await asyncio.sleep(0.3)
            await page.until("typeof items !== 'undefined' && items.length === 12")
            await page.until("shown.length === 9")
            shot = await page.call("Page.captureScreenshot", format="png")
            (tmp_path / "desk.png").write_bytes(base64.b64decode(shot["data"]))

    asyncio.run(session())
    assert verdicts(queue) == {"u-0000": "ok", "u-0001": "drop", "u-0002": "cover"}
    (box,) = read_verdicts(str(queue.path))["u-0002"].boxes
    assert 40 < box[2] - box[0] < 300 and 40 < box[3] - box[1] < 400
    with open(queue.path, newline="") as file:
        assert {row["reviewer"] for row in csv.DictReader(file)} == {"reviewer-1"}


@pytest.mark.slow
def test_faces_that_are_no_surer_than_the_doubt_are_orange(
    served: tuple[Queue, str], tmp_path: Path
) -> None:
    async def session() -> None:
        async with browser(tmp_path, served[1]) as page:
            await page.until("picture !== null")
            boxes = [[20 * n, 10, 20 * n + 15, 25, s] for n, s in enumerate((0.3, 0.5, 0.9))]
            drawn = (
                f"shown[at].boxes = {boxes}; shown[at].score = 0.5; shown[at].faint = [];"
                "const made = [];const stroke = ink.strokeRect.bind(ink);"
                "ink.strokeRect = (...r) => { made.push(ink.strokeStyle); stroke(...r); };"
                "draw(); made.filter(colour => colour !== '#000000')"
            )
            assert await page.value(drawn) == ["#ff9d2e", "#ff9d2e", "#ffffff"]

    asyncio.run(session())


@pytest.mark.slow
def test_places_that_may_be_heads_are_dashed_where_they_lie(
    served: tuple[Queue, str], tmp_path: Path
) -> None:
    async def session() -> None:
        async with browser(tmp_path, served[1]) as page:
            await page.until("picture !== null")
            drawn = (
                "(() => { const made = [], stroke = ink.strokeRect.bind(ink), [s, x, y] = scale();"
                "ink.strokeRect = (...r) => { if (ink.getLineDash().length) made.push(["
                "ink.strokeStyle, Math.round((r[0] - x) / s), Math.round(r[2] / s)]);"
                " stroke(...r); };"
                "draw(); return made; })()"
            )
            assert await page.value(drawn) == [["#ff9d2e", 300, 60], ["#ffffff", 10, 50]]
            inside = (
                "[...ink.getImageData(...(([s, x, y]) => [x + 300 * s, y + 75 * s - 10, 1, 20])"
            )
            inside += "(scale()), ).data]"
            orange = await page.value(inside)
            rows = [orange[n : n + 3] for n in range(0, len(orange), 4)]
            assert any(r > 240 and 140 < g < 175 and b < 90 for r, g, b in rows), "is seen"
            assert "1 found" in await page.value("$('list').textContent")
            await page.key("j")
            await page.until("picture !== null && at === 1")
            assert await page.value(drawn) == []

    asyncio.run(session())


@pytest.mark.slow
def test_a_phone_shows_all_of_it(served: tuple[Queue, str], tmp_path: Path) -> None:
    async def session() -> None:
        async with browser(tmp_path, served[1], width=390) as page:
            await page.until("picture !== null")
            assert await page.value("document.documentElement.scrollWidth <= innerWidth")
            seen = (
                "['b-ok','b-cover','b-drop'].every(i => $(i).getBoundingClientRect().right <= 390)"
            )
            assert await page.value(seen)
            await page.value("$('b-ok').click()")
            await page.until("items[0].verdict === 'ok'")

    asyncio.run(session())


@pytest.mark.slow
def test_a_thousand_items_by_keys(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, 1000)
    server, address = serve(queue)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    async def session() -> None:
        async with browser(tmp_path, address) as page:
            for number in range(100):
                await page.until(f"shown[at] === items[{number}] && !!seen")
                await page.key("o" if number % 3 else "d")
                await page.until(f"items[{number}].verdict !== ''")
            assert await page.value("$('count').textContent") == "100 of 1000"
            assert await page.value("$('list').children.length <= 300")

    asyncio.run(session())
    server.shutdown()
    server.server_close()
    assert len(verdicts(queue)) == 100


def asked(url: str, data: bytes | None = None, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urlopen(Request(url, data, named), timeout=10) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def test_nobody_else_is_answered(served: tuple[Queue, str]) -> None:
    queue, address = served
    site, token = address.split("?token=")
    own = site.rstrip("/")
    with urlopen(f"{own}/picture?id=u-0000&token={token}") as answer:
        seen = answer.headers["X-Original"]
    assert is_of(seen, sum_of((queue.path.parent / "0.jpg").read_bytes()))
    verdict = json.dumps({"id": "u-0000", "verdict": "ok", "original": seen}).encode()
    unseen = [{"id": "u-0000", "verdict": "ok"}, {"id": "u-0000", "verdict": "drop", "original": 1}]
    assert asked(address) == 200
    assert asked(f"{own}/items") == 403 and asked(f"{own}/items?token=x") == 403
    assert asked(f"{own}/items", X_Token=token, Host="evil.example") == 403
    assert asked(f"{own}/verdict", verdict, X_Token=token, Origin="http://evil.example") == 403
    assert asked(f"{own}/verdict", verdict, X_Token=token) == 403
    assert asked(f"{own}/verdict", verdict, X_Token=token, Origin=own) == 204
    for wrong in (
        b"[]",
        b"?",
        *(json.dumps(each).encode() for each in unseen),
        json.dumps({"id": "u-0000", "verdict": "cover"}).encode(),
    ):
        assert asked(f"{own}/verdict", wrong, X_Token=token, Origin=own) == 400
    assert asked(f"{own}/picture?id=u-0000", X_Token=token) == 200
    assert asked(f"{own}/picture?id=../../etc/passwd", X_Token=token) == 404
    assert verdicts(queue) == {"u-0000": "ok"}
    assert queue.path.stat().st_mode & 0o777 == 0o600
    with urlopen(f"{own}/items?token={token}") as answer:
        assert str(queue.path.parent) not in answer.read().decode()


def test_two_reviewers_at_once_lose_nothing(tmp_path: Path) -> None:
    queues = [queue_of(tmp_path, 60) for _ in range(2)]

    def work(which: int) -> None:
        for number in range(which, 60, 2):
            queues[which].give(f"u-{number:04d}", "ok", [], f"reviewer-{which}", "0" * 64)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(verdicts(queues[0])) == 60
    assert sum(not item["verdict"] for item in queues[0].listed()) == 0


def test_a_queue_of_another_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "queue.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="--review-out"):
        read_queue(str(tmp_path / "queue.csv"), {}, {}, {})


@pytest.mark.parametrize("kind", ["tree", "tar", "tar.gz", "zip", "parquet", "arrow", "numpy"])
def test_a_picture_of_any_format_is_shown(tmp_path: Path, kind: str) -> None:
    drawn = sample.faces(3)
    pictures = [Encoding("png").encode(face) for face in drawn]
    names = [f"x/{number}.png" for number in range(3)]
    if kind == "tree":
        for number, picture in enumerate(pictures):
            (tmp_path / f"{number}.png").write_bytes(picture)
    elif kind == "zip":
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for name, picture in zip(names, pictures, strict=True):
                archive.writestr(name, picture)
    elif kind == "numpy":
        np.save(tmp_path / "a.npy", drawn)
    elif kind == "parquet":
        table = pa.table({"image": pictures, "other": pictures})
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    elif kind == "arrow":
        table = pa.table({"image": pictures})
        with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as stream:
            stream.write_table(table, 2)
    else:
        with tarfile.open(tmp_path / f"a.{kind}", "w:gz" if kind == "tar.gz" else "w:") as tar:
            for name, picture in zip(names, pictures, strict=True):
                member = tarfile.TarInfo(name)
                member.size = len(picture)
                tar.addfile(member, io.BytesIO(picture))
    planned = plan(str(tmp_path), Columns(image="image" if kind == "parquet" else None))
    (unit,) = planned.units
    found = [read_original(*place, "image") for place in sources(planned, unit)]
    assert found == read_unit(planned, unit)["image"].to_pylist() and len(found) == 3
    if kind != "tree":
        with pytest.raises(ValueError, match="no picture in that row"):
            read_original(next(sources(planned, unit))[0], 3, "image")


def test_a_picture_far_behind_is_found_at_once(tmp_path: Path) -> None:
    """A file is not cut into as many units as it has rows."""
    rows = [b"%d" % number for number in range(100_000)]
    pq.write_table(pa.table({"image": rows}), tmp_path / "a.parquet", row_group_size=1000)
    source = f"{tmp_path}/a.parquet"
    assert [read_original(source, row, "image") for row in (0, 15, 16, 54_321, 99_999)] == [
        b"0", b"15", b"16", b"54321", b"99999"
    ]  # fmt: skip
    assert len(serving._rows_of(source, "image").units) <= 100_000 // serving._ROWS + 1


def test_a_table_that_is_not_read_as_rows_is_not_fetched_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"other": [1, 2]}), tmp_path / "a.parquet")
    monkeypatch.setattr(serving, "open_store", lambda path: pytest.fail("fetched"))
    with pytest.raises(ValueError, match="not in that file"):
        read_original(f"{tmp_path}/a.parquet", 0, "image")
