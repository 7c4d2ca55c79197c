"""How much an evaluation measures."""

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """How much is measured. The presets are :data:`QUICK` and :data:`FULL`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    seed: int = 0
    pairs_per_fold: int | None = Field(default=None, ge=2, description="None: all")
    disclosure_faces: int = Field(default=2000, ge=2)
    attack_steps: int = Field(default=3000, ge=1)
    attack_seconds: float | None = Field(default=None, gt=0)
    side_steps: int = Field(
        default=1000, ge=1, description="steps of the averaging, fixed and leaked forms"
    )
    attacks: tuple[str, ...] = ("unet", "residual", "templates", "averaging", "fixed", "leaked")
    batch: int = Field(default=32, ge=1)
    test_faces: int = Field(default=500, ge=2)
    pictures: int = Field(default=32, ge=2, description="K of the averaging attack")
    averaging_faces: int = Field(default=4096, ge=64)
    student_pairs: int = Field(default=256, ge=8)
    group_faces: int = Field(default=964, ge=2)


FULL = Settings()
QUICK = Settings(
    pairs_per_fold=100,
    disclosure_faces=500,
    attack_steps=200,
    side_steps=100,
    attacks=("unet",),
    test_faces=200,
    averaging_faces=128,
    group_faces=300,
)
