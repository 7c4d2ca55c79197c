"""Daft: a step for any DataFrame with a column of pictures, one model an actor."""

import os
from typing import Any

os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")  # it reports queries to its maker
import daft
import pyarrow as pa
from daft import DataType, Expression, Series

from ppfr_ops.errors import UserError
from ppfr_ops.sanitize.batch import BatchSanitizer, made_or_refusing, needs_key
from ppfr_ops.store.ids import new_secret

_PICTURE = DataType.struct({"bytes": DataType.binary(), "path": DataType.string()})


def sanitize_faces(
    image: Expression,
    identity: Expression | None = None,
    record_id: Expression | None = None,
    *,
    actors: int = 1,
    gpus: float = 0,
    batch_rows: int = 256,
    **options: Any,
) -> Expression:
    """Pictures of aligned faces to protected ones.

    ```python
    df = daft.read_parquet("faces/*.parquet")
    df = df.with_column("safe", sanitize_faces(col("image"), col("identity"), actors=2))
    df = df.where(col("safe")["dead_letter"].is_null()).select(col("safe")["image"])
    ```

    Args:
        image: binary, or the image struct ``{bytes, path}``.
        identity: who is in the picture: photos of a person become photos of one virtual person,
            and a keyed pseudonym is put out. A method that shows people who do not exist needs it.
        record_id: published as it is (``id_column`` of ``BatchSanitizer``); None: random.
        actors: workers, each with a model of its own.
        gpus: of each.
        batch_rows: rows that a worker gets at a time.
        options: those of ``ppfr_ops.BatchSanitizer`` besides, which see.

    Returns:
        A struct a row: ``record_id``, ``image`` (``{bytes, path}``; null where there is none),
        ``identity`` if asked for, and ``dead_letter`` (null, or a reason code).

    Raises:
        UserError: a key would go to Ray's workers; or, from the worker, options or pictures cannot
            be used.
    """
    options.pop("with_metrics", None)
    given = {"image": image, "identity": identity, "record_id": record_id}
    columns = {name: column for name, column in given.items() if column is not None}
    for name, option in (("identity", "identity_column"), ("record_id", "id_column")):
        if name in columns:
            options[option] = name
    if options.get("key") is None and needs_key(**options):
        options["key"] = new_secret(None)  # one for all workers
    if options.get("key") is not None and daft.get_or_infer_runner_type() == "ray":
        raise UserError(
            "a key given here or drawn would lie open in Ray's object store; identity_key_file "
            "names a file that all workers can read"
        )
    fields = {"record_id": DataType.string(), "image": _PICTURE}
    if identity is not None:
        fields["identity"] = DataType.string()
    fields["dead_letter"] = DataType.string()

    class Sanitize:
        def __init__(self) -> None:
            self._sanitize = made_or_refusing(lambda: BatchSanitizer(**options))

        @daft.method.batch(return_dtype=DataType.struct(fields), batch_size=batch_rows)
        def rows(self, *given: Series) -> pa.Array:
            arrays = [column.to_arrow() for column in given]
            table = pa.table(dict(zip(columns, arrays, strict=True)))
            done = self._sanitize(table).select(list(fields)).combine_chunks()
            parts = [_whole(column) for column in done.columns]
            return pa.StructArray.from_arrays(parts, names=list(fields))

    step = daft.cls(Sanitize, gpus=gpus, max_concurrency=actors)
    return step().rows(*columns.values())


def _whole(column: pa.ChunkedArray) -> pa.Array:
    found = column.combine_chunks()
    return found if isinstance(found, pa.Array) else pa.concat_arrays(found.chunks)
