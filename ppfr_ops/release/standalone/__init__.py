"""The verifier that lies in every release: one file, Python's standard library alone.

It is written from the modules here and those that ``ppfr verify`` looks into pictures with, so that
both find the same.
"""

import re
from importlib import resources

PARTS = (
    "imaging/marks.py",
    "release/findings.py",
    "release/foreign.py",
    "release/standalone/parquet.py",
    "release/standalone/folder.py",
    "release/standalone/signature.py",
    "release/standalone/check.py",
)

_OWN_IMPORT = re.compile(r"^from ppfr_ops\.[\w.]+ import (?:\([^)]*\)|[^\n]*)\n", re.MULTILINE)


def text() -> str:
    """The file, as it is published."""
    package = resources.files("ppfr_ops")
    parts = ["#!/usr/bin/env python3"]
    for name in PARTS:
        source = package.joinpath(name).read_text("utf-8")
        parts.append(f"# -- {name} " + "-" * (92 - len(name)))
        parts.append(_OWN_IMPORT.sub("", source).strip())
    return "\n\n".join(parts) + "\n"
