"""Face datasets that can be shared: protected from eyes, recognised by machines.

What is named here is the public interface. It is loaded when it is first used, so that importing
the package loads neither torch nor an engine.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppfr_ops.errors import UserError
    from ppfr_ops.imaging.codec import Encoding
    from ppfr_ops.methods.base import Anonymizer
    from ppfr_ops.sanitize.batch import BatchSanitizer, sanitize_batch

__version__ = "0.1.0"

_PUBLIC = {
    "Anonymizer": "ppfr_ops.methods.base",
    "BatchSanitizer": "ppfr_ops.sanitize.batch",
    "Encoding": "ppfr_ops.imaging.codec",
    "UserError": "ppfr_ops.errors",
    "sanitize_batch": "ppfr_ops.sanitize.batch",
}
"""Name to the module that defines it."""

__all__ = [
    "Anonymizer",
    "BatchSanitizer",
    "Encoding",
    "UserError",
    "__version__",
    "sanitize_batch",
]

# onnxruntime reports its sessions to its maker and keeps a device id and a database of events in
# the user's cache, unless told not to before it is first imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ppfr_ops' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
