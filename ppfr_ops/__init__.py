"""Face datasets that can be shared: protected from eyes, recognised by machines.

What is named here is the public interface. It is loaded when it is first used, so that importing
the package loads neither torch nor an engine.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from ppfr_ops.version import __version__

if TYPE_CHECKING:
    from ppfr_ops.engines.options import EngineOptions
    from ppfr_ops.engines.running import run
    from ppfr_ops.errors import UserError
    from ppfr_ops.imaging.codec import Encoding
    from ppfr_ops.methods.base import Anonymizer
    from ppfr_ops.sanitize.batch import BatchSanitizer, sanitize_batch
    from ppfr_ops.sanitize.events import RunResult
    from ppfr_ops.sanitize.options import SanitizeOptions
    from ppfr_ops.sanitize.photographs.options import PhotographOptions

_PUBLIC = {
    "Anonymizer": "ppfr_ops.methods.base",
    "BatchSanitizer": "ppfr_ops.sanitize.batch",
    "Encoding": "ppfr_ops.imaging.codec",
    "EngineOptions": "ppfr_ops.engines.options",
    "PhotographOptions": "ppfr_ops.sanitize.photographs.options",
    "RunResult": "ppfr_ops.sanitize.events",
    "SanitizeOptions": "ppfr_ops.sanitize.options",
    "UserError": "ppfr_ops.errors",
    "run": "ppfr_ops.engines.running",
    "sanitize_batch": "ppfr_ops.sanitize.batch",
}
"""Name to the module that defines it."""

__all__ = [
    "Anonymizer",
    "BatchSanitizer",
    "Encoding",
    "EngineOptions",
    "PhotographOptions",
    "RunResult",
    "SanitizeOptions",
    "UserError",
    "__version__",
    "run",
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
