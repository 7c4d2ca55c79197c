"""Templates of faces, computed once."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.recognizers import Embeddings, Recognizer
from ppfr_ops.store.atomic import in_one_step

Log = Callable[[str], None]
"""Takes one line of progress."""


class EmbeddingCache:
    """Templates by content digest: the model file's and the pixels'.

    Templates of faces are biometric data; without a folder they are kept in memory only.
    """

    def __init__(self, folder: Path | None, log: Log) -> None:
        self.folder, self.log = folder, log
        self._models: dict[str, str] = {}
        self._known: dict[str, Embeddings] = {}

    def _key(self, model: Recognizer, faces: Faces) -> str:
        spec = model.spec
        if model.name not in self._models:
            self._models[model.name] = spec.digest()
        key = f"{self._models[model.name]}|{spec.convention}|{spec.channels}|".encode()
        return hashlib.sha256(key + hashlib.sha256(faces.tobytes()).digest()).hexdigest()

    def embed(self, model: Recognizer, faces: Faces, what: str) -> Embeddings:
        """Templates of ``faces``, float32 ``N x D``; ``what`` names them in progress lines.

        Raises:
            UserError: the model gave NaN, infinity or a zero vector.
        """
        key = self._key(model, faces)
        if key in self._known:
            return self._known[key]
        path = None if self.folder is None else self.folder / f"{key}.npy"
        if path is not None and path.is_file():
            found = np.asarray(np.load(path))
        else:
            found = self._compute(model, faces, what)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                with in_one_step(str(path)) as file:
                    np.save(file, found)
        self._known[key] = found
        return found

    def _compute(self, model: Recognizer, faces: Faces, what: str) -> Embeddings:
        started, parts = time.monotonic(), []
        for start in range(0, len(faces), 256):
            parts.append(model.embed(faces[start : start + 256], 32))
            if time.monotonic() - started > 20:
                started = time.monotonic()
                self.log(f"  {model.name}, {what}: {start + len(parts[-1])} of {len(faces)} faces")
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)
