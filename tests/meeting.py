"""A method for the tests: nobody gets on before two processes are at work. On Ray, it looks into
the object store and what it spills as well, for what a test has put on a list."""

import base64
import contextlib
import json
import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.methods.base import Anonymizer

STORE_BYTES, MIB = 80 << 20, 1 << 20
"""Of the object store that is to be full; and of what fills it."""


def forms(secret: bytes) -> list[bytes]:
    """A secret's bytes as they are, in hexadecimal, and in base64, wherever it begins there."""
    padded = (base64.b64encode(bytes(shift) + secret)[4:-4] for shift in range(3))
    return [secret, secret.hex().encode(), secret.hex().upper().encode(), *padded]


def in_object_store(wanted: list[bytes]) -> list[bool]:
    """Which of these lie in the object store of the Ray whose worker this is."""
    found = [False] * len(wanted)
    for entry in Path(f"/proc/{os.getppid()}/fd").iterdir():
        if "plasma" not in os.readlink(entry):
            continue
        with open(entry, "rb") as file:
            place, end = 0, os.fstat(file.fileno()).st_size
            while place < end:
                try:
                    start = os.lseek(file.fileno(), place, os.SEEK_DATA)
                except OSError:  # holes until the end
                    break
                place = os.lseek(file.fileno(), start, os.SEEK_HOLE)
                data = os.pread(file.fileno(), place - start, start)
                found = [seen or it in data for seen, it in zip(found, wanted, strict=True)]
    return found


def in_spilled_files(wanted: list[bytes], folder: Path) -> list[bool]:
    """Which of these lie in the files that Ray spills into a folder once its object store is full;
    it is filled here, until the first of them lies there."""
    import ray

    held, found = [], [False] * len(wanted)
    deadline = time.monotonic() + 60
    while not found[0] and time.monotonic() < deadline:
        if len(held) * MIB < 4 * STORE_BYTES:
            held.append(ray.put(os.urandom(MIB)))
        for path in folder.rglob("*"):
            data = path.read_bytes() if path.is_file() else b""
            found = [seen or it in data for seen, it in zip(found, wanted, strict=True)]
    return found


class Meeting(Anonymizer):
    folder: Path
    seconds: float = 60.0

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        if len(faces) > 1:  # not the one face of the preflight
            (self.folder / str(os.getpid())).touch()
            deadline = time.monotonic() + self.seconds
            while len(list(self.folder.iterdir())) < 2:
                if time.monotonic() > deadline:
                    raise TimeoutError
                time.sleep(0.05)
            look_for = self.folder.parent / "wanted.json"
            if look_for.exists():
                wanted = [bytes.fromhex(text) for text in json.loads(look_for.read_text())]
                found = [in_object_store(wanted)]
                with contextlib.suppress(FileExistsError):
                    (self.folder.parent / "filled").touch(exist_ok=False)
                    found.append(in_spilled_files(wanted, self.folder.parent / "spilled"))
                (self.folder.parent / f"found.{os.getpid()}.json").write_text(json.dumps(found))
        return 255 - faces
