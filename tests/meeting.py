"""A method for the tests: nobody gets on before two processes are at work. On Ray, it looks into
the object store as well, for what a test has put on a list."""

import base64
import json
import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.methods.base import Anonymizer


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
                found = json.dumps(in_object_store(wanted))
                (self.folder.parent / f"found.{os.getpid()}.json").write_text(found)
        return 255 - faces
