"""What goes wrong, in words that may be shown."""

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


EXTRAS = {
    "apache_beam": "beam",
    "av": "video",
    "c2pa": "c2pa",
    "daft": "daft",
    "deltalake": "tables",
    "docstring_parser": "beam",
    "dp_accounting": "dp",
    "Crypto": "vault-shares",
    "legal_eval": "evaluate",
    "httpx2": "distill",
    "huggingface_hub": "tables",
    "lance": "tables",
    "nacl": "match",
    "onnx": "distill",
    "opendp": "dp",
    "pyiceberg": "tables",
    "ray": "ray",
    "rfc3161_client": "timestamp",
    "s3fs": "s3",
    "sklearn": "evaluate",
    "tenseal": "match",
}
"""Modules that are not installed with the package itself, and the extra that has them."""


class UserError(ValueError):
    """Something that the user has to change; its text is one line, made for them, and holds
    nothing of the data. The commands print it and end with exit code 2."""

    exit_code = 2


class EngineError(UserError):
    """The engine does not do its work, whatever the options; the same command goes on later."""

    exit_code = 1


def missing_extra(error: ImportError) -> UserError | None:
    """What to install, for an import that failed; None: the module is in no extra."""
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS:
        return None
    wanted = f"ppfr-sanitizer[{EXTRAS[module]}]"
    return UserError(f"this needs {module}, which is not installed: pip install '{wanted}'")


def require(module: str) -> None:
    """Refuse, before anything is done, what needs a module that is not installed.

    Raises:
        UserError: the extra to install.
    """
    if find_spec(module) is None:
        raise missing_extra(ModuleNotFoundError(name=module)) or UserError(f"{module} is missing")


def describe(error: BaseException) -> str:
    """An error without its text, which may quote paths or bytes: type, errno, and where."""
    trace = error.__traceback__
    place = "?"
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "?")
        if name.partition(".")[0] in ("ppfr_ops", "__main__"):
            place = f"{name}:{trace.tb_lineno}"
        trace = trace.tb_next
    text = type(error).__name__
    if isinstance(error, OSError) and error.errno:
        text += f" ({os.strerror(error.errno)})"
    return f"{text} at {place}"


_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "model": "a mapping",
}


def fault(error: "ValidationError") -> str:
    """What is wrong with the first value that a pydantic model refused, in our words."""
    first = error.errors(include_url=False, include_input=False)[0]
    kind, context = first["type"], first.get("ctx", {})
    signs = {
        "greater_than": ("gt", "more than"),
        "greater_than_equal": ("ge", "or more"),
        "less_than": ("lt", "less than"),
        "less_than_equal": ("le", "or less"),
    }
    if kind in signs:
        key, words = signs[kind]
        limit = f"{context[key]:g}"
        return f"expected {limit} {words}" if words[:2] == "or" else f"expected {words} {limit}"
    if kind in ("literal_error", "enum"):
        return f"expected {context['expected']}"
    if kind == "value_error":
        return str(context["error"])  # raised by a validator of ours
    fixed = {
        "missing": "it is missing",
        "extra_forbidden": "there is nothing of that name",
        "string_pattern_mismatch": "not of the expected form",
    }
    expected = _KINDS.get(kind.partition("_")[0])
    return fixed.get(kind) or (f"expected {expected}" if expected else "not a valid value")
