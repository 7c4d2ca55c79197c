"""Coverage-guided fuzzing of the decoder, where atheris is installed.

``python tests/fuzz/atheris_decode.py [-max_total_time=SECONDS] [CORPUS]``; it stops at the first
input that raises anything but ``ImageError``.
"""

import sys
from contextlib import suppress
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

import atheris

with atheris.instrument_imports(include=["PIL", "ppfr_ops.imaging"]):
    from ppfr_ops.imaging import decoding

import mutations


def check(data: bytes) -> None:
    with suppress(decoding.ImageError, MemoryError):
        decoding.decode_here(data, 2**20, None)


def main() -> None:
    folder = Path(next((name for name in sys.argv[1:] if not name.startswith("-")), ""))
    if folder.is_dir() and str(folder) != ".":
        for place, data in enumerate(mutations.pictures()):
            (folder / f"seed-{place:02d}").write_bytes(data)
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
