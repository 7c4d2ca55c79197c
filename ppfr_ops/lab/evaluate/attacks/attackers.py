"""Attackers that recover faces, as objects: what each holds, and what it got back.

An attacker is trained on what it can see of other people's faces and tested on what was published
of the gallery. The base class does both; an attacker says what it sees.
"""

from abc import ABC
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ppfr_ops.contracts.evaluation import Point, Recovery
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.lab.evaluate.attacks.batches import Context, Publish
from ppfr_ops.lab.evaluate.attacks.networks import View, mean_face
from ppfr_ops.lab.evaluate.attacks.recovery import CurvePoint, RecoveryAttack, flattened
from ppfr_ops.lab.evaluate.data import evenly
from ppfr_ops.lab.evaluate.measured import chunks, disclosures, likeness
from ppfr_ops.lab.evaluate.plots import face_grid
from ppfr_ops.lab.evaluate.publishing import Labels, texture_probe
from ppfr_ops.lab.evaluate.run import Run

Knows = Literal["fresh", "fixed", "leaked", "averaging"]


class Recovered(BaseModel):
    """What an attacker leaves: its part of the document, and what the groups need."""

    model_config = ConfigDict(extra="forbid")
    figures: Recovery
    held_rec_ssim: list[float] | None = None
    """SSIM of what came back of the held-back faces of the groups, one a face."""


@dataclass(frozen=True)
class Scene:
    """What an attacker is trained with.

    ``train`` and ``validation`` are faces of others, ``view`` how the attacker sees them.
    """

    train: Faces
    validation: Faces
    view: Publish


class Attacker(ABC):
    """One attacker. It holds no state; whatever it needs, ``run`` has."""

    name: ClassVar[str]
    knows: ClassVar[Knows] = "fresh"
    net: ClassVar[str] = "unet"
    channels: ClassVar[int] = 3
    main: ClassVar[bool] = True
    """Holds the method and fresh draws: the standard case, with all the steps. The others are
    variants."""

    def measure(self, run: Run) -> Recovered:
        """Train it and test it."""
        settings = run.settings
        index = evenly(len(run.gallery), self.tested(run))
        truth = run.gallery.images[index]
        attack = RecoveryAttack(
            self.net,
            channels=self.channels,
            context=self.context(run),
            batch=settings.batch,
            seed=settings.seed,
        )
        scene = self.scene(run)
        curve = self._train(run, attack, scene)
        rng = run.stream(f"attack {self.name}: what it is tested on")
        shown, known = self._see(run, truth, run.labels(index), rng)
        recovered = attack.recover(shown, known)
        if run.show_faces:
            _draw(run, self.name, truth, shown, recovered)
        figures = self._figures(run, attack, curve, truth, recovered, index, len(scene.train))
        held = None
        if self.main and run.attack_faces is not None and run.attack_faces.attributes:
            faces = run.attack_faces.images[run.held[evenly(len(run.held), settings.group_faces)]]
            back = attack.recover(*self._see(run, faces, None, rng))
            held = [float(value) for value in likeness(faces, back)["ssim"]]
        return Recovered(figures=figures, held_rec_ssim=held)

    # --- what differs between attackers -------------------------------------------------------

    def scene(self, run: Run) -> Scene:
        """What it is trained with."""
        assert run.attack_faces is not None
        return Scene(run.training, run.attack_faces.images[run.held], self.view(run))

    def view(self, run: Run) -> Publish:
        """How it sees a face that it publishes itself."""
        return run.method.fresh()

    def see(
        self, run: Run, faces: Faces, labels: Labels | None, rng: Generator
    ) -> View | tuple[View, Context]:
        """What it sees of a few faces of the release."""
        return run.release(faces, run.release.draws(len(faces), rng), labels)

    def tested(self, run: Run) -> int:
        """Gallery faces that it is tested on."""
        return run.settings.test_faces

    def context(self, run: Run) -> int:
        """Length of the vector that it knows besides the picture."""
        return 0

    # --- what is common -----------------------------------------------------------------------

    def _train(self, run: Run, attack: RecoveryAttack, scene: Scene) -> list[CurvePoint]:
        steps = run.settings.attack_steps if self.main else run.settings.side_steps

        def report(point: CurvePoint) -> None:
            run.log(
                f"  {self.name}: step {point.step} of {steps}, {point.seconds:.0f} s, "
                f"held-back SSIM {point.val_ssim:.4f}"
            )

        return attack.train(
            scene.train,
            scene.view,
            steps,
            scene.validation,
            run.checkpoint(f"recovery_{self.name}"),
            run.settings.attack_seconds,
            on_point=report,
        )

    def _see(
        self, run: Run, faces: Faces, labels: Labels | None, rng: Generator
    ) -> tuple[View, Context | None]:
        seen: list[View] = []
        known: list[Context] = []
        for part in chunks(len(faces), 32):
            who = None if labels is None else labels[part]
            found = self.see(run, faces[part], who, rng)
            seen.append(found[0] if isinstance(found, tuple) else found)
            if isinstance(found, tuple):
                known.append(found[1])
        return np.concatenate(seen), np.concatenate(known) if known else None

    def _figures(
        self,
        run: Run,
        attack: RecoveryAttack,
        curve: list[CurvePoint],
        truth: Faces,
        recovered: Faces,
        index: NDArray[np.int64],
        training_faces: int,
    ) -> Recovery:
        like, seen = likeness(truth, recovered), disclosures(truth, recovered)
        run.table(
            f"recovery_{self.name}",
            {"face": index, "rec_ssim": like["ssim"], "rec_psnr": like["psnr"], "disclosure": seen},
        )
        flat, rise = flattened(curve)
        floor, got = run.floor.ssim, float(like["ssim"].mean())
        run.log(
            f"  {self.name}: SSIM {got:.4f}, {like['psnr'].mean():.2f} dB after "
            f"{attack.step} steps (floor {floor:.3f})"
        )
        points = [{k: v for k, v in asdict(point).items() if k != "loss"} for point in curve]
        return Recovery(
            knows=self.knows,
            net=attack.net + ("+templates" if attack.context else ""),
            parameters=attack.parameters,
            steps=attack.step,
            seconds=round(attack.seconds, 1),
            training_faces=training_faces,
            pictures=self.shown(run),
            rec_ssim=got,
            rec_psnr=float(like["psnr"].mean()),
            recovery_gain=float((like["ssim"].mean() - floor) / (1 - floor)),
            disclosure=float(seen.mean()),
            id_match=run.matches(truth, recovered, "recovered"),
            flattened=flat,
            rise_in_last_fifth=rise,
            curve=[Point.model_validate(point) for point in points],
        )

    def shown(self, run: Run) -> int:
        """Published pictures of one face that it sees at once."""
        return 1


_ATTACKERS: dict[str, Attacker] = {}


def register(name: str) -> Callable[[type[Attacker]], type[Attacker]]:
    """Class decorator: make an attacker known."""

    def add(cls: type[Attacker]) -> type[Attacker]:
        cls.name = name
        _ATTACKERS[name] = cls()
        return cls

    return add


def attackers() -> dict[str, Attacker]:
    """All attackers by name."""
    return dict(_ATTACKERS)


@register("unet")
class UNetAttacker(Attacker):
    """The method; every picture has a fresh draw."""


@register("residual")
class ResidualAttacker(Attacker):
    """The same with another network."""

    net = "residual"


@register("templates")
class TemplatesAttacker(Attacker):
    """The picture, and what FR models read from it: the surrogates', which the attacker has as the
    makers of the method had them; without any, all."""

    def _read(self, run: Run, seen: Faces) -> Context:
        known = [model for model, role in run.models.values() if role == "surrogate"]
        known = known or [model for model, _ in run.models.values()]
        return np.concatenate([model.embed(seen, 32) for model in known], 1)

    def view(self, run: Run) -> Publish:
        fresh = run.method.fresh()

        def view(faces: Faces, rows: NDArray[np.int64], rng: Generator) -> tuple[View, Context]:
            seen = np.asarray(fresh(faces, rows, rng))
            return seen, self._read(run, seen)

        return view

    def see(
        self, run: Run, faces: Faces, labels: Labels | None, rng: Generator
    ) -> tuple[View, Context]:
        seen = run.release(faces, run.release.draws(len(faces), rng), labels)
        return seen, self._read(run, seen)

    def context(self, run: Run) -> int:
        return self._read(run, run.training[:1]).shape[1]


class DrawAttacker(Attacker):
    """A variant that makes sense only for a method that takes draws."""

    main = False


@register("averaging")
class AveragingAttacker(DrawAttacker):
    """Many pictures of the same face, by their mean and standard deviation."""

    knows = "averaging"
    channels = 6

    def scene(self, run: Run) -> Scene:
        assert run.attack_faces is not None
        pictures, method = run.settings.pictures, run.method
        train = run.training[evenly(len(run.training), run.settings.averaging_faces)]
        held = run.attack_faces.images[run.held]
        validation = held[evenly(len(held), 64)]
        run.log(f"  {pictures} pictures of each of {len(train) + len(validation)} faces")
        rng = run.stream("attack averaging: what it is trained on")
        stored = np.concatenate(
            [
                method.elsewhere(rng).averaged(pictures, rng, faces[part])
                for faces in (train, validation)
                for part in chunks(len(faces), 32)
            ]
        )

        def view(faces: Faces, rows: NDArray[np.int64], _: Generator) -> View:
            return np.asarray(stored[rows])

        return Scene(train, validation, view)

    def see(self, run: Run, faces: Faces, labels: Labels | None, rng: Generator) -> View:
        return run.release.averaged(run.settings.pictures, rng, faces, labels)

    def tested(self, run: Run) -> int:
        return min(200, run.settings.test_faces)

    def shown(self, run: Run) -> int:
        return run.settings.pictures


@register("fixed")
class FixedAttacker(DrawAttacker):
    """Everything was published with one draw."""

    knows = "fixed"

    def view(self, run: Run) -> Publish:
        return run.method.fixed(run.settings.seed)

    def see(self, run: Run, faces: Faces, labels: Labels | None, rng: Generator) -> View:
        draw = run.release.fixed_draw(run.settings.seed)
        return run.release(faces, np.repeat(draw, len(faces), 0), labels)


@register("leaked")
class LeakedAttacker(DrawAttacker):
    """The draw of the very record: the attacker publishes the mean face under noise with it, under
    a key of their own if the method takes one, and lays the result beside the record."""

    knows = "leaked"
    channels = 6

    def _probe(self, run: Run) -> Faces:
        return texture_probe(mean_face(run.training), run.settings.seed)

    def view(self, run: Run) -> Publish:
        return run.method.leaked(self._probe(run))

    def see(self, run: Run, faces: Faces, labels: Labels | None, rng: Generator) -> View:
        return run.release.beside(self._probe(run), faces, labels, rng)


def _draw(run: Run, name: str, truth: Faces, shown: Any, recovered: Faces) -> None:
    first = evenly(len(truth), 10)
    rows = (
        ("original", truth),
        ("seen", np.clip(shown[..., :3], 0, 255).astype(np.uint8)),
        ("recovered", recovered),
    )
    grid = [(title, faces[first]) for title, faces in rows]
    face_grid(grid, run.folder / "plots" / f"faces_{name}.png")
