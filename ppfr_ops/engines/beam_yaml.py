"""Beam YAML: ``SanitizeFaces`` and ``SanitizeDataset`` as transforms of a YAML pipeline.

``deploy/beam/ppfr-provider.yaml`` is the listing. Rows have a schema there, so what comes in and
out is declared.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import apache_beam as beam
from apache_beam.typehints.row_type import RowTypeConstraint

from ppfr_ops.engines.beam import DEAD_LETTERS, PUBLISHED
from ppfr_ops.engines.beam import SanitizeFaces as _SanitizeFaces
from ppfr_ops.errors import UserError

_TEXT = Optional[str]  # noqa: UP045  (Beam does not know the other spelling)


class SanitizeFaces(beam.PTransform):
    """Rows with a column of pictures of aligned faces to protected ones.

    Outputs ``published`` (``record_id``, ``image`` as bytes, ``identity`` if asked for, the columns
    to keep as text) and ``dead_letters`` (``record_id``, ``dead_letter``).

    Args:
        image_column: of the pictures, bytes.
        identity_column: who is in the picture.
        keep_columns: copied, as text.
        options: those of ``ppfr_ops.BatchSanitizer``, by name.
    """

    def __init__(
        self,
        image_column: str = "image",
        identity_column: str | None = None,
        keep_columns: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._keep = list(keep_columns)
        self._identity = identity_column is not None
        given = {**(options or {}), "image_column": image_column, "keep_columns": self._keep}
        if identity_column is not None:
            given["identity_column"] = identity_column
        self._step = _SanitizeFaces(**given)

    def expand(self, rows: beam.PCollection) -> dict[str, beam.PCollection]:
        keep, identity = self._keep, self._identity

        def published(row: Mapping[str, Any]) -> beam.Row:
            extra = {"identity": row["identity"]} if identity else {}
            kept = {name: None if row[name] is None else str(row[name]) for name in keep}
            return beam.Row(
                record_id=row["record_id"], image=row["image"]["bytes"], **extra, **kept
            )

        fields: list[tuple[str, Any]] = [("record_id", str), ("image", bytes)]
        fields += [("identity", _TEXT)] if identity else []
        fields += [(name, _TEXT) for name in keep]
        letters = [("record_id", str), ("dead_letter", str)]
        done = rows | beam.Map(_as_dict) | self._step
        return {
            PUBLISHED: done[PUBLISHED]
            | "rows"
            >> beam.Map(published).with_output_types(RowTypeConstraint.from_fields(fields)),
            DEAD_LETTERS: done[DEAD_LETTERS]
            | "letters"
            >> beam.Map(lambda row: beam.Row(**row)).with_output_types(
                RowTypeConstraint.from_fields(letters)
            ),
        }


class SanitizeDataset(beam.PTransform):
    """Rows that name a dataset each (``input``, ``output``) to rows that say what became of it.

    A worker does a dataset as ``ppfr sanitize`` does: units, ledger, manifest, exactly once; a row
    that is tried again goes on where it was. One large dataset is rather for ``ppfr
    sanitize-beam``, which spreads its units over the workers.

    Outputs ``output``, ``records``, ``dead_letters``, ``exit_code`` and ``problems``.

    Args:
        options: those of ``ppfr sanitize``, by their names in Python.
    """

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._options = dict(options or {})

    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        options = self._options

        def sanitized(row: Any) -> beam.Row:
            from ppfr_ops.engines.running import run
            from ppfr_ops.sanitize.options import SanitizeOptions

            place = {name: _as_dict(row)[name] for name in ("input", "output")}
            try:
                result = run(SanitizeOptions.model_validate({**options, **place}))
            except UserError as error:
                return _outcome(place["output"], 0, 0, error.exit_code, str(error))
            counts = result.counts
            numbers = (0, 0) if counts is None else (counts.records, counts.dead_letters)
            return _outcome(place["output"], *numbers, result.exit_code, "; ".join(result.problems))

        fields = [("output", str), ("records", int), ("dead_letters", int)]
        fields += [("exit_code", int), ("problems", str)]
        kind = RowTypeConstraint.from_fields(fields)
        return rows | beam.Reshuffle() | beam.Map(sanitized).with_output_types(kind)


def _outcome(output: str, records: int, dead: int, code: int, problems: str) -> beam.Row:
    return beam.Row(
        output=output, records=records, dead_letters=dead, exit_code=code, problems=problems
    )


def _as_dict(row: Any) -> Mapping[str, Any]:
    return row if isinstance(row, Mapping) else row._asdict()


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m ppfr_ops.engines.beam_yaml PIPELINE.yaml``: a YAML pipeline with the transforms
    of this package at hand; Beam's options after the file."""
    from apache_beam.yaml.main import run

    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or not os.path.isfile(given[0]):
        raise SystemExit("usage: python -m ppfr_ops.engines.beam_yaml PIPELINE.yaml [BEAM OPTIONS]")
    run([f"--yaml_pipeline_file={given[0]}", *given[1:]])


if __name__ == "__main__":
    main()
