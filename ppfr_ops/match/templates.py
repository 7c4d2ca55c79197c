"""Templates for a gallery or a query: from pictures through an FR model, or ready-made.

``dct`` stands for no FR model at all: low frequencies of the picture. It lets the embedded sample
be tried without a model; it knows a picture again, not a person.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..imaging import codec
from ..imaging.arrays import FACE_SIZE, Faces
from ..recognizers import Recognizer, RecognizerSpec
from .errors import MatchError

DCT = "dct"
_DCT_SIDE = 12
_BATCH = 64


def low_frequencies(faces: Faces) -> NDArray[np.float32]:
    """The lowest 12 x 12 cosine coefficients of the grey picture, float32 ``N x 143``, unit length.

    The mean is left out. Raises MatchError: a picture of a single grey.
    """
    rows = []
    for face in faces:
        grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32)
        rows.append(cv2.dct(grey)[:_DCT_SIDE, :_DCT_SIDE].reshape(-1)[1:])
    result = np.array(rows, np.float32)
    norms = np.linalg.norm(result, axis=1, keepdims=True)
    if (norms < 1e-3).any():
        raise MatchError("a picture of a single grey has no template")
    return result / norms


class Embedder:
    """``NAME=PATH[,option=value…]`` as ``--fr`` takes it, or ``dct``.

    Raises:
        MatchError: no such model, or one that cannot be read.
    """

    def __init__(self, fr: str) -> None:
        self._model: Recognizer | None = None
        self.digest = DCT
        if fr != DCT:
            try:
                spec = RecognizerSpec.parse(fr)
                self._model, self.digest = Recognizer(spec), spec.digest()
            except (ValueError, FileNotFoundError) as error:
                raise MatchError(str(error)) from None

    def __call__(self, faces: Faces) -> NDArray[np.float32]:
        """Float32 ``N x D``, unit length, of uint8 RGB ``N x 112 x 112 x 3``, aligned.

        Raises:
            UserError: the model gave no template for one of them.
        """
        return low_frequencies(faces) if self._model is None else self._model.embed(faces)


def decode(data: bytes) -> Faces:
    """An aligned face, uint8 ``112 x 112 x 3``, RGB. Raises MatchError: not one."""
    try:
        return codec.decode(data, size=(FACE_SIZE, FACE_SIZE))
    except codec.ImageError as error:
        what = error.detail or "not a picture"
        raise MatchError(f"{what}; an aligned face of {FACE_SIZE} x {FACE_SIZE}?") from None


@dataclass(frozen=True, repr=False)
class Enrolled:
    """Templates, whose they are, and the rows that gave none."""

    templates: NDArray[np.float32]
    names: list[str]
    skipped: list[int]
    """Numbers of rows, from 0, in the order of the files."""


def _rows(paths: list[Path], column: str, identity: str | None) -> Iterator[tuple[bytes, str]]:
    row = 0
    for path in paths:
        try:
            file = pq.ParquetFile(path)
        except (OSError, ValueError):
            raise MatchError(f"{path.name} is not a readable Parquet file") from None
        missing = {column, identity} - {None} - set(file.schema_arrow.names)
        if missing:
            raise MatchError(f"{path.name} has no column {missing.pop()}")
        columns = [column] + ([identity] if identity else [])
        for batch in file.iter_batches(_BATCH, columns=columns):
            for record in batch.to_pylist():
                picture = record[column]
                data = picture.get("bytes") if isinstance(picture, dict) else picture
                yield data or b"", str(record[identity]) if identity else str(row)
                row += 1


def from_parquet(
    paths: list[Path], embedder: Embedder, column: str = "image", identity: str | None = None
) -> Enrolled:
    """Templates of aligned faces in Parquet files.

    Args:
        column: Hugging Face image struct or plain bytes.
        identity: the column that says whose a picture is; None: rows are named by number.

    Raises:
        MatchError: a file or column that is not there, or nothing that could be enrolled.
    """
    parts: list[NDArray[np.float32]] = []
    names: list[str] = []
    skipped: list[int] = []
    rows = enumerate(_rows(paths, column, identity))
    while batch := list(islice(rows, _BATCH)):
        faces = []
        for row, (data, name) in batch:
            try:
                face = decode(data)
                if embedder.digest == DCT:
                    low_frequencies(face[None])
            except MatchError:
                skipped.append(row)
            else:
                faces.append(face)
                names.append(name)
        if faces:
            parts.append(embedder(np.stack(faces)))
    if not parts:
        raise MatchError("no picture could be enrolled")
    return Enrolled(np.concatenate(parts), names, skipped)


def from_array(path: Path, names: Path | None = None) -> Enrolled:
    """Ready-made templates: ``.npy``, ``n x D``; names as a JSON list, else numbers.

    Raises:
        MatchError: not an array of templates, or not as many names.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        raise MatchError(f"{path.name} is not a readable .npy file") from None
    if array.ndim != 2 or array.dtype.kind != "f":
        raise MatchError(f"{path.name}: expected floating-point numbers, n x D")
    listed = [str(i) for i in range(len(array))]
    if names is not None:
        try:
            listed = [str(name) for name in json.loads(names.read_text())]
        except (OSError, ValueError, TypeError):
            raise MatchError(f"{names.name} is not a JSON list of names") from None
    good = np.isfinite(array).all(axis=1) & (np.abs(array).max(axis=1, initial=0) > 0)
    if len(listed) != len(array):
        raise MatchError(f"{len(array)} templates and {len(listed)} names")
    kept = [name for name, ok in zip(listed, good, strict=True) if ok]
    return Enrolled(array[good].astype(np.float32), kept, [int(i) for i in np.flatnonzero(~good)])


def probe(path: Path, embedder: Embedder | None, row: int = 0) -> NDArray[np.float32]:
    """The template of a query, float32 ``1 x D``: a picture, a row of a Parquet file or of .npy.

    Raises:
        MatchError: no such file or row, or not a picture.
    """
    if not path.is_file():
        raise MatchError(f"no file {path.name}")
    if path.suffix == ".npy":
        enrolled = from_array(path)
        if row >= len(enrolled.templates):
            raise MatchError(f"{path.name} has {len(enrolled.templates)} templates")
        return enrolled.templates[row : row + 1]
    if embedder is None:
        raise MatchError("a picture needs an FR model: --fr")
    if path.suffix == ".parquet":
        for number, (data, _) in enumerate(_rows([path], "image", None)):
            if number == row:
                return embedder(decode(data)[None])
        raise MatchError(f"{path.name} has no row {row}")
    return embedder(decode(path.read_bytes())[None])
