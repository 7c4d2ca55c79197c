"""Whole photographs that leave as files: the options, completed, and what the files are called."""

import os
from collections.abc import Mapping

from ppfr_ops.errors import UserError
from ppfr_ops.sanitize.job import Job
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.source.plan import Plan, Unit, record_id
from ppfr_ops.source.units import relative, storable


def with_form(options: SanitizeOptions, plan: Plan) -> SanitizeOptions:
    """The options with the form of the output and of its pictures.

    Raises:
        UserError: files were asked for, and cannot be.
    """
    whole = options.photographs is not None and options.photographs.output_faces == "in-place"
    tabled = [
        name
        for name, value in (
            ("--keep-column", options.keep_columns),
            ("--identity-column", options.identity_column),
        )
        if value
    ]
    able = whole and plan.format == "images"
    form = options.output_form or ("files" if able and not tabled else "parquet")
    if form == "files" and not able:
        raise UserError(
            "--output-form files goes with --faces detect --output-faces in-place and a folder of "
            "picture files; of another release, ppfr export makes a folder of files"
        )
    if form == "files" and tabled:
        raise UserError(f"{tabled[0]} goes with --output-form parquet: files have no columns")
    if form == "files" and options.names == "number" and options.incremental:
        raise UserError(
            "--names number would give photographs new numbers with every --incremental"
        )
    if form == "parquet" and options.names == "number":
        raise UserError("--names goes with --output-form files")
    picture = options.output_format or ("same" if form == "files" else "jpeg")
    if picture == "same" and not whole:
        raise UserError("--output-format same goes with --output-faces in-place")
    return options.model_copy(update={"output_form": form, "output_format": picture})


def paths_in(job: Job, unit: Unit) -> Mapping[str, str] | None:
    """What the photographs of a unit are called, below the input's folder, by id inside; None where
    the release does not hold files."""
    if not job.options.as_files:
        return None
    root = job.plan.root
    return {
        record_id(unit.id, row): _safe(
            storable(relative(path, root).decode(errors="surrogateescape"))
        )
        for row, path in enumerate(unit.sources)
    }


def _safe(path: str) -> str:
    """A path that leads nowhere else, on any system."""
    parts = [part for part in path.replace("\0", "").split("/") if part not in ("", ".", "..")]
    return os.path.join(*parts) if parts else "photograph"
