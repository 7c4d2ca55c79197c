"""One step of somebody else's pipeline: a table with pictures in, a table with protected ones out.

No units, no ledger, no files. The engines' plug-ins and ``ppfr_ops.sanitize_batch`` are thin users
of ``BatchSanitizer``; the pictures are those of ``ppfr sanitize`` for the same options and draws.
"""

import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import ValidationError

from ppfr_ops.contracts.metrics import is_measure
from ppfr_ops.errors import UserError, describe, fault
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.methods.registry import create
from ppfr_ops.sanitize.columns import as_python, encoded, of_one_type, pictures, values_of
from ppfr_ops.sanitize.identity import makes_key, resolved, secrets_with, with_key
from ppfr_ops.sanitize.job import Job
from ppfr_ops.sanitize.marking import read_marks
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import check_columns, check_method, owner_key, read_key, read_secrets
from ppfr_ops.sanitize.worker import build_sanitizer
from ppfr_ops.source.kept import kept_field, refuse_pictures
from ppfr_ops.source.labels import label
from ppfr_ops.source.plan import READ_ERROR, Columns, Plan
from ppfr_ops.source.units import storable
from ppfr_ops.store.ids import new_secret

OPTIONS = (
    *("method", "method_options", "accept_unsound", "secrets", "fr", "output_format", "quality"),
    *("mark", "c2pa", "c2pa_key", "c2pa_training", "invisible_mark", "batch_size", "metrics"),
    *("max_disclosure", "identity_column", "identity_key_file", "identity", "align", "variation"),
    *("keep_look", "look_epsilon", "seed"),
)
"""Options of ``SanitizeOptions`` that make sense without input and output of one's own."""

DEAD_LETTER = "dead_letter"
"""Output column: null, or why there is no picture (a code of ``contracts.dead_letters.REASONS``)"""

_RESERVED = ("record_id", "image", "identity", DEAD_LETTER)

Rows = TypeVar("Rows", pa.Table, Mapping[str, Any])


class BatchSanitizer:
    """Sanitizes batches of aligned faces. Build it once a process: it loads method and models.

    A row that cannot be published stays a row: its ``image`` is null, ``dead_letter`` holds the
    reason code, and nothing else of it leaves but the id. Columns that are not named here do not
    leave at all.

    Args:
        image_column: of the pictures: encoded bytes, a struct ``{bytes, path}``, PIL images, or
            uint8 arrays ``112 x 112 x 3``, RGB.
        id_column: of the record ids, unique; they are published as they are, so they must not tell
            names or paths. None: random ids.
        keep_columns: copied to the output as they are, of the types that ``ppfr sanitize`` copies;
            a row whose value may hold a picture is a dead letter. Never the identity column.
        with_metrics: add the measures of every record as columns. They are computed from the
            originals, and anyone who has candidates can tell by them which one it was: keep them. A
            method that promises differential privacy refuses them.
        threads: of the recognizers; 0: as the libraries like.
        key: 32 bytes, secret: decides which people the pictures show. All batches of a dataset, in
            all processes, have to share it; ``identity_key_file`` does the same from a file. None:
            a key of this process, forgotten with it.
        options: those of ``ppfr sanitize`` that are named in ``OPTIONS``, same names and defaults.

    Raises:
        UserError: an option that is unknown or out of range, or a model that cannot be loaded.
    """

    def __init__(
        self,
        *,
        image_column: str = "image",
        id_column: str | None = None,
        keep_columns: Sequence[str] = (),
        with_metrics: bool = False,
        threads: int = 0,
        key: bytes | None = None,
        **options: Any,
    ) -> None:
        self.image_column = image_column
        self.id_column = id_column
        self.keep_columns = tuple(keep_columns)
        self.with_metrics = with_metrics
        if id_column is not None and id_column in (image_column, options.get("identity_column")):
            raise UserError(f"id_column {id_column!r}: ids are published as they are")
        clash = [name for name in self.keep_columns if name in _RESERVED]
        if clash:
            raise UserError(f"keep_columns: the output has a column {clash[0]!r} of its own")
        self._options = _checked(options, self.keep_columns)
        check_columns(self._options)
        private = create(self._options.method, self._options.method_options).guarantee()
        if private is not None and private.unit == "person":
            raise UserError(
                f"method {self._options.method}: unit person needs all photos of a person counted, "
                "and a batch is one of several: ppfr sanitize, or unit record"
            )
        beyond = [name for name in self.keep_columns if is_measure(name)]
        if private is not None and (with_metrics or beyond):
            what = f"keep_columns {beyond[0]}" if beyond else "with_metrics"
            raise UserError(
                f"{what}: measures of originals beside the pictures, which the guarantee of "
                f"{self._options.method} does not cover"
            )
        self._sanitizer = _build(self._options, threads, key, with_metrics)

    def __call__(self, rows: Rows) -> Rows:
        """Sanitize a batch.

        Args:
            rows: an Arrow table, or a mapping of columns (lists or arrays).

        Returns:
            As many rows in the same order, of the kind that was given (to ``datasets.map`` always a
            table): ``record_id``, ``image`` (struct ``{bytes, path}``), ``identity`` if asked for,
            the columns to keep, ``dead_letter``, and the measures if asked for.

        Raises:
            UserError: a column is missing, or of another length, or its type cannot be used.
        """
        if isinstance(rows, pa.Table):
            return self._done(rows, set())
        if not isinstance(rows, Mapping):
            raise UserError(
                f"expected an Arrow table or a dict of columns, got {type(rows).__name__}"
                " (Ray: batch_format='pyarrow')"
            )
        columns: dict[str, Any] = {}
        unfit: set[int] = set()
        for name in (name for name in self.needed() if name in rows):
            if name == self.image_column:
                columns[name] = pa.array([encoded(item) for item in rows[name]], pa.large_binary())
            elif name in self.keep_columns:
                columns[name] = of_one_type(rows[name], unfit)
            else:
                plain = label if name == self._options.identity_column else _id
                texts = [plain(as_python(item)) for item in rows[name]]
                columns[name] = pa.array(texts, pa.string())
        if len({len(column) for column in columns.values()}) > 1:
            raise UserError("the columns are not of one length")
        done = self._done(pa.table(columns), unfit)
        # datasets.map takes a column's type from its first batch, where no row may have a reason.
        is_mapped = type(rows).__module__.partition(".")[0] == "datasets"
        return done if is_mapped else done.to_pydict()

    def _done(self, table: pa.Table, unfit: set[int]) -> pa.Table:
        """Sanitize an Arrow table, of which some rows cannot be read."""
        for name in self.needed():
            if (count := table.column_names.count(name)) != 1:
                found, which = ", ".join(table.column_names), "twice a" if count else "no"
                raise UserError(f"there is {which} column {name!r}; there are: {found}")
        ids = self._ids(table)
        data = {
            "record_id": pa.array(ids, pa.string()),
            "image": pictures(table[self.image_column]),
        }
        if self._options.identity_column:
            names = values_of(table[self._options.identity_column], unfit)
            data["identity"] = pa.array([label(name) for name in names], pa.string())
        for name in self.keep_columns:
            field = table.schema.field(name)
            kind = pa.string() if pa.types.is_null(field.type) else kept_field(field).type
            data[f"keep.{name}"] = table[name].cast(kind)
        codes = ["unreadable_row" if row in unfit else None for row in range(len(ids))]
        data[READ_ERROR] = pa.array(codes, pa.string())
        read = refuse_pictures(pa.table(data))
        done = self._sanitizer(read, "batch")
        letters = zip(done.dead_letters["record_id"], done.dead_letters["code"], strict=True)
        dead = {record_id.as_py(): code.as_py() for record_id, code in letters}
        place = {name.as_py(): row for row, name in enumerate(done.records["record_id"])}
        # Rows of what was published; null where nothing was.
        rows = pa.array([place.get(name) for name in ids], pa.int64())
        columns = {"record_id": data["record_id"]}
        for name in done.records.column_names[1:]:
            columns[name] = done.records[name].take(rows)
        alive = pa.array(
            [None if name in dead else row for row, name in enumerate(ids)], pa.int64()
        )
        for name in self.keep_columns:
            columns[name] = read[f"keep.{name}"].take(alive)
        codes = [None if name in place else dead[name] for name in ids]
        columns[DEAD_LETTER] = pa.array(codes, pa.string())
        if self.with_metrics:
            for name in done.metrics.column_names[1:]:
                columns[name] = done.metrics[name].take(rows)
        return pa.table(columns)

    @property
    def options(self) -> SanitizeOptions:
        """As they were checked and completed."""
        return self._options

    @property
    def method(self) -> Anonymizer:
        """With its options and secrets."""
        return self._sanitizer.run.method

    def needed(self) -> list[str]:
        """The input's columns that are read."""
        names = [self.image_column, self.id_column, self._options.identity_column]
        return [name for name in names if name is not None] + list(self.keep_columns)

    def _ids(self, table: pa.Table) -> list[str]:
        if self.id_column is None:
            return [_random_id() for _ in range(table.num_rows)]
        given = values_of(table[self.id_column], set())
        ids = [_id(item) or _random_id() for item in given]
        if len(set(ids)) < len(ids):
            raise UserError(f"column {self.id_column!r}: ids are not unique")
        return ids


def sanitize_batch(rows: Rows, **options: Any) -> Rows:
    """Sanitize a batch of aligned faces: for ``datasets.map(batched=True)``, DuckDB, a notebook.

    Models are loaded once for the same options and kept for the next call. See ``BatchSanitizer``
    for arguments, output and errors.

    Examples:
        >>> from ppfr_ops import sample, sanitize_batch
        >>> rows = sanitize_batch({"image": list(sample.faces(2))}, method="pixelate")
        >>> list(rows), rows["dead_letter"]
        (['record_id', 'image', 'dead_letter'], [None, None])
    """
    return _cached(pickle.dumps(sorted(options.items())))(rows)


@lru_cache(maxsize=2)
def _cached(options: bytes) -> BatchSanitizer:
    return BatchSanitizer(**dict(pickle.loads(options)))


def needs_key(**options: Any) -> bool:
    """Whether a ``BatchSanitizer`` of these options wants a ``key`` that all processes share.

    Raises:
        UserError: an option that is out of range.
    """
    chosen = _checked({name: options[name] for name in OPTIONS if name in options})
    return chosen.seed is None and makes_key(chosen)


def made_or_refusing(make: Callable[[], BatchSanitizer]) -> Callable[[Any], Any]:
    """What sanitizes batches; where it cannot be made, what refuses each with a ``UserError`` that
    says why. Engines start a worker again and again that raises when it is made."""
    try:
        return make()
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else describe(error)

    def refuse(rows: Any) -> Any:
        raise UserError(reason)

    return refuse


def _random_id() -> str:
    return os.urandom(12).hex()


def _id(value: Any) -> str | None:
    if isinstance(value, bytes | list | dict):
        raise UserError("id_column: ids are published, so they have to be texts or numbers")
    return None if value is None else storable(str(value))


def _checked(options: Mapping[str, Any], keep: Sequence[str] = ()) -> SanitizeOptions:
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise UserError(f"unknown option {unknown[0]!r}; there are: {', '.join(OPTIONS)}")
    try:
        chosen = SanitizeOptions(input="", output="", keep_columns=tuple(keep), **options)
    except ValidationError as error:
        name = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise UserError(f"option {name!r}: {fault(error)}") from None
    if chosen.output_format == "same":
        raise UserError("option 'output_format': same is for whole photographs")
    if chosen.align == "auto":
        raise UserError(
            "option 'align': auto looks at the whole dataset, not at a batch; name the template"
        )
    return resolved(chosen, whole=False)


@lru_cache(maxsize=1)
def _process_key() -> bytes:
    return os.urandom(32)


def _build(
    options: SanitizeOptions, threads: int, release_key: bytes | None, with_metrics: bool
) -> Any:
    file = options.identity_key_file
    key = None if file is None else owner_key(read_key(file), options.seed is not None)
    plan = Plan("", "parquet", (), Columns(identity=options.identity_column), ())
    method = create(options.method, options.method_options)
    check_method(options, method)
    secrets = secrets_with(method, read_secrets(options.secrets, method), key)
    named = key if options.identity_column else None
    secrets |= read_marks(options, method)
    job = Job(options, plan, key, "", {}, secrets=secrets, pseudonym_key=named)
    if makes_key(options):
        seeded = None if options.seed is None else new_secret(options.seed)
        job = with_key(job, release_key or seeded or _process_key())
    # No batch knows how many there are; a sample of each does.
    return build_sanitizer(job, threads, options.draw_sample, keeps_metrics=with_metrics)
