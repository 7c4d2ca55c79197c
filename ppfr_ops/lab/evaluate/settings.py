"""How much an evaluation measures."""

from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ppfr_ops.errors import UserError, fault

Mode = Literal["quick", "full", "custom"]


class Settings(BaseModel):
    """How much is measured. The presets are :data:`QUICK` and :data:`FULL`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    seed: int = 0
    pairs_per_fold: int | None = Field(default=None, ge=2, description="None: all")
    disclosure_faces: int = Field(default=2000, ge=2)
    look_faces: int = Field(default=2000, ge=4)
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
    eye_pairs_per_fold: int | None = Field(default=None, ge=2, description="None: as all pairs")
    inference_faces: int = Field(default=7000, ge=20, description="that the attackers train on")
    inference_tests: int = Field(default=3000, ge=20)
    inference_steps: int = Field(default=1500, ge=1)
    linker_pairs: int = Field(default=17_000, ge=16, description="made by running the method")
    linker_steps: int = Field(default=3000, ge=1)
    linker_gallery: int = Field(default=1_000_000, ge=4, description="faces to find, at most")
    linker_probes: int = Field(default=1_000_000, ge=2, description="of them published, at most")
    known_pairs: tuple[int, ...] = Field(
        default=(16, 32, 64, 128, 256, 512, 1024, 2048),
        description="of the release itself, that the linker is given",
    )
    regeneration_faces: int = Field(default=7000, ge=16, description="that the decoder learns on")
    regeneration_steps: int = Field(default=2000, ge=1)
    regeneration_tests: int = Field(default=1000, ge=4)
    training_faces: int = Field(default=1_000_000, ge=16, description="of --identities, at most")
    training_steps: int = Field(default=4000, ge=1)
    benchmark_steps: tuple[int, ...] = Field(
        default=(60, 250, 1000), description="of the small recognisers that a benchmark has to rank"
    )
    leak_faces: int = Field(default=3000, ge=20, description="of each set, at most")


FULL = Settings()
QUICK = Settings(
    pairs_per_fold=100,
    disclosure_faces=500,
    look_faces=400,
    attack_steps=200,
    side_steps=100,
    attacks=("unet",),
    test_faces=200,
    averaging_faces=128,
    group_faces=300,
    eye_pairs_per_fold=40,
    inference_faces=2000,
    inference_tests=600,
    inference_steps=120,
    linker_pairs=1500,
    linker_steps=300,
    linker_gallery=1000,
    linker_probes=400,
    known_pairs=(16, 128, 512),
    regeneration_faces=1000,
    regeneration_steps=80,
    regeneration_tests=200,
    training_faces=2000,
    training_steps=150,
    benchmark_steps=(60,),
    leak_faces=1000,
)


def settings_of(mode: str, options: dict[str, Any]) -> tuple[Settings, Mode]:
    """What the command line asks for, and what to call it.

    Raises:
        UserError: a size that there is not, or of a wrong form.
    """
    base = QUICK if mode == "quick" else FULL
    changes = {
        name: options[name]
        for name in Settings.model_fields
        if name != "attacks" and options.get(name) is not None
    }
    changes |= _sizes(options["sizes"])
    if options["attacks"] is not None:
        wanted = [name for name in options["attacks"].split(",") if name not in ("", "none")]
        unknown = set(wanted) - set(FULL.attacks)
        if unknown:
            raise UserError(
                f"unknown attack {min(unknown)!r}; there are: {', '.join(FULL.attacks)}, none"
            )
        changes["attacks"] = tuple(wanted)
    try:
        settings = Settings.model_validate({**base.model_dump(), **changes})
    except ValidationError as error:
        raise UserError(f"{error.errors()[0]['loc'][0]}: {fault(error)}") from None
    same = settings.model_dump(exclude={"seed"}) == base.model_dump(exclude={"seed"})
    return settings, cast(Mode, mode) if same else "custom"


def _sizes(texts: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in Settings.model_fields:
            raise UserError(f"--setting {text}: there are {', '.join(Settings.model_fields)}")
        found[name] = tuple(filter(None, value.split(","))) if "," in value else value
    return found
