"""An input whose files are there, and hold no pictures any more; and one that is cut anew, and not
to the end: neither destroys a record or an original."""

from pathlib import Path

import numpy as np
import pytest
from pictures import jpeg
from test_vault_kept import more
from test_vault_sanitize import back, ppfr, write

from ppfr_ops.store.ledger import Ledger
from ppfr_ops.vault import Vault


def pictures(folder: Path, count: int, seed: int = 0) -> list[Path]:
    rng = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    for number in range(count):
        face = rng.integers(0, 255, (112, 112, 3), np.uint8)
        (folder / f"{seed}{number:03d}.jpg").write_bytes(jpeg(face))
    return sorted(folder.iterdir())


@pytest.mark.parametrize(
    ("how", "recut"), [("empty", False), ("cut short", False), ("zeros", True)]
)
def test_files_that_hold_nothing_any_more_take_no_original_with_them(
    tmp_path: Path, how: str, recut: bool
) -> None:
    options = [*more(tmp_path), "--unit-rows", "100"]
    files = pictures(tmp_path / "in", 30)
    assert ppfr(tmp_path, *options).return_value == 0
    originals = back(tmp_path)
    held = {path: path.read_bytes() for path in files[4:]}
    for path, data in held.items():
        path.write_bytes({"empty": b"", "cut short": data[:900], "zeros": bytes(len(data))}[how])
    if recut:
        pictures(tmp_path / "in", 1, seed=1)
    refused = ppfr(tmp_path, *options).exception
    assert refused is not None and "hold no picture that can be read" in str(refused)
    now = back(tmp_path)
    assert set(originals.items()) <= set(now.items())
    lost = "25" if recut else "26"  # of the units that were cut anew one row is new
    assert f"--allow-deletions {lost}" in str(refused)
    for path, data in held.items():
        path.write_bytes(data)
    assert ppfr(tmp_path, *options).return_value == 0
    assert set(originals.values()) <= set(back(tmp_path).values())


def test_what_is_known_to_be_spoilt_can_be_let_go(tmp_path: Path) -> None:
    options = [*more(tmp_path), "--unit-rows", "100"]
    files = pictures(tmp_path / "in", 12)
    assert ppfr(tmp_path, *options).return_value == 0
    for path in files[2:]:
        path.write_bytes(b"")
    assert ppfr(tmp_path, *options, "--allow-deletions", "9").exception is not None
    assert len(back(tmp_path)) == 12
    assert ppfr(tmp_path, *options, "--allow-deletions", "10").return_value == 0
    assert len(back(tmp_path)) == 2


@pytest.mark.parametrize("tree", [True, False], ids=["tree", "parquet"])
def test_a_new_cut_that_was_not_done_to_its_end_counts_no_row_twice(
    tmp_path: Path, tree: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*more(tmp_path), "--unit-rows", "4", "--propagate-deletions"]

    def grow(count: int) -> None:
        if tree:
            pictures(tmp_path / "in", count)
            pictures(tmp_path / "in", 16)
        else:
            write(tmp_path / "in", count)

    grow(16)
    assert ppfr(tmp_path, *options).return_value == 0
    first = back(tmp_path)
    if tree:  # every second one is new
        for path in sorted((tmp_path / "in").iterdir()):
            (path.parent / f"{path.stem}b.jpg").write_bytes(path.read_bytes()[:-2] + b"\0\xff\xd9")
    else:
        grow(19)
    real, sealed = Vault.commit, list[str]()

    def full(self: Vault, asked: object, unit: str, *rest: object) -> None:
        sealed.append(unit)
        if len(sealed) > (8 if tree else 3):
            raise OSError(28, "No space left on device")
        real(self, asked, unit, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Vault, "commit", full)
    assert ppfr(tmp_path, *options).return_value == 1
    monkeypatch.setattr(Vault, "commit", real)
    published = Ledger(str(tmp_path / "out")).entries().values()
    assert sum(entry.rows_in for entry in published) > 20  # some of them twice
    assert ppfr(tmp_path, *options).return_value == 0
    assert set(first.values()) <= set(back(tmp_path).values())
