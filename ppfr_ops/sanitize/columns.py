"""Columns of tables that somebody else's pipeline hands over."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from ppfr_ops.errors import UserError

_UNFIT = (pa.ArrowException, ValueError, TypeError, ArithmeticError)
"""What Arrow raises of a value that it cannot hold, or hand out."""


def as_python(value: Any) -> Any:
    """A value of NumPy, pandas and others as Python's own; what Arrow does not know stays."""
    try:
        return pa.scalar(value).as_py()
    except _UNFIT:
        return value


def values_of(column: pa.ChunkedArray, unfit: set[int]) -> list[Any]:
    """Of a column; rows of which Python can hold no value are added to ``unfit``."""
    values: list[Any] = []
    for row, cell in enumerate(column):
        try:
            values.append(cell.as_py())
        except _UNFIT:
            unfit.add(row)
            values.append(None)
    return values


def of_one_type(values: Any, unfit: set[int]) -> pa.Array:
    """A column to keep; rows that are of another type than the first are added to ``unfit``."""
    try:
        return pa.array(values)
    except _UNFIT:
        kind, cells = None, []
    for row, value in enumerate(values):
        try:
            cell = pa.scalar(value, kind)
            kind = kind or (None if pa.types.is_null(cell.type) else cell.type)
            cells.append(cell.as_py())
        except _UNFIT:
            unfit.add(row)
            cells.append(None)
    return pa.array(cells, kind or pa.null())


def pictures(column: pa.ChunkedArray) -> pa.Array:
    """A column of pictures as encoded bytes, ``large_binary``.

    Raises:
        UserError: neither bytes nor a struct with a field ``bytes``, nor a tensor of pixels.
    """
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):  # as ray.data.read_images, of one size or of several
        pixels = [array for chunk in column.chunks for array in _arrays(chunk)]
        return pa.array([encoded(item) for item in pixels], pa.large_binary())
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # of no chunks
        array = pa.concat_arrays(array.chunks) if array.chunks else pa.nulls(0, kind)
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode()
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        # flatten() carries a null struct over to its children; field() would not.
        array = array.flatten()[kind.get_field_index("bytes")]
    if pa.types.is_null(array.type) or _is_bytes(array.type):
        return array.cast(pa.large_binary())
    raise UserError(f"the column of pictures holds {kind}; expected bytes or struct<bytes, path>")


def _arrays(chunk: pa.ExtensionArray) -> Sequence[Any]:
    """The tensors of a column."""
    tensors: Sequence[Any]
    if hasattr(chunk, "to_numpy_ndarray"):
        tensors = chunk.to_numpy_ndarray()
    else:
        tensors = chunk.to_numpy(zero_copy_only=False)
    return tensors


def encoded(picture: Any) -> bytes | None:
    """A picture of a dict of columns as encoded bytes; pixels become PNG, which loses nothing."""
    if isinstance(picture, Mapping):
        picture = picture.get("bytes")
    if isinstance(picture, bytearray | memoryview):
        picture = bytes(picture)
    if picture is None or isinstance(picture, bytes):
        return picture
    if getattr(picture, "dtype", None) == "uint8" and picture.ndim == 1:  # a file's bytes
        return bytes(picture)
    from PIL import Image, ImageOps

    try:
        if not isinstance(picture, Image.Image):
            picture = Image.fromarray(picture)
        elif picture.getexif().get(0x0112, 1) != 1:
            picture = ImageOps.exif_transpose(picture)
        buffer = io.BytesIO()
        # TIFF has the modes that PNG lacks, such as CMYK, and like PNG it keeps the profile.
        if picture.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
            picture.save(buffer, "PNG", compress_level=1)
        elif picture.mode in ("HSV", "YCbCr"):
            picture.convert("RGB").save(buffer, "PNG", compress_level=1)
        else:
            picture.save(buffer, "TIFF", icc_profile=picture.info.get("icc_profile"))
    except Exception:  # one bad row is a dead letter
        return b"?"  # not_an_image
    return buffer.getvalue()


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_fixed_size_binary,
        pa.types.is_binary_view,
    )
    return any(test(kind) for test in tests)
