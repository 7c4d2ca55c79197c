"""Operations on faces: pure functions and small classes, free of any engine (no Ray, no Beam)."""

__version__ = "0.1.0"
