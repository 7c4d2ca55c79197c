"""Operations on faces: pure functions and small classes, free of any engine (no Ray, no Beam)."""

import os

__version__ = "0.1.0"

# onnxruntime reports its sessions to its maker and keeps a device id and a database of events in
# the user's cache, unless told not to before it is first imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
