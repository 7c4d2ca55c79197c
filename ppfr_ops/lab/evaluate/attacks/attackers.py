"""Attackers that recover faces, as objects: what each holds, and what it got back.

An attacker is trained on what it can see of other people's faces and tested on what was published
of the gallery. The base class does both; an attacker says what it sees.
"""

from abc import ABC
from typing import ClassVar, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ppfr_ops.contracts.evaluation import Point, Recovery
from ppfr_ops.imaging.arrays import Faces, chunks
from ppfr_ops.lab.evaluate.attacks.networks import Context, Publish, View
from ppfr_ops.lab.evaluate.attacks.recovery import RecoveryAttack, flattened
from ppfr_ops.lab.evaluate.data import evenly
from ppfr_ops.lab.evaluate.measured import disclosures, likeness
from ppfr_ops.lab.evaluate.publishing import Labels, Publisher, texture_probe
from ppfr_ops.lab.evaluate.run import Run
from ppfr_ops.lab.evaluate.streams import stream

Knows = Literal["fresh", "fixed", "leaked", "averaging"]


class Recovered(BaseModel):
    """What an attacker leaves: its part of the document, and what the groups need."""

    model_config = ConfigDict(extra="forbid")
    figures: Recovery
    held_rec_ssim: list[float] | None = None
    """SSIM of what came back of the held-back faces of the groups, one a face."""


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
            self.net, self.channels, self.context(run), settings.batch, settings.seed
        )
        steps = settings.attack_steps if self.main else settings.side_steps
        train, validation, view = self.scene(run)

        def report(point: Point) -> None:
            run.log(
                f"  {self.name}: step {point.step} of {steps}, {point.seconds:.0f} s, "
                f"held-back SSIM {point.val_ssim:.4f}"
            )

        attack.train(
            train,
            view,
            steps,
            validation,
            run.checkpoint(f"recovery_{self.name}"),
            settings.attack_seconds,
            on_point=report,
        )
        rng = run.stream(f"attack {self.name}: what it is tested on")
        shown, known = self._see(run, truth, run.labels(index), rng)
        recovered = attack.recover(shown, known)
        seen = np.clip(shown[..., :3], 0, 255).astype(np.uint8)
        run.show(f"faces_{self.name}", original=truth, seen=seen, recovered=recovered)
        figures = self._figures(run, attack, truth, recovered, index, len(train))
        held = None
        if self.main and run.attack_faces is not None and run.attack_faces.attributes:
            faces = run.attack_faces.images[run.held[evenly(len(run.held), settings.group_faces)]]
            back = attack.recover(*self._see(run, faces, None, rng))
            held = likeness(faces, back)["ssim"].tolist()
        return Recovered(figures=figures, held_rec_ssim=held)

    # --- what differs between attackers -------------------------------------------------------

    def look(
        self, run: Run, world: Publisher, faces: Faces, labels: Labels | None, rng: Generator
    ) -> View | tuple[View, Context]:
        """What it sees of a few faces that are published in a world."""
        return world(faces, world.draws(len(faces), rng), labels)

    def view(self, run: Run) -> Publish:
        """How it sees a face that it publishes itself."""
        method = run.method
        return lambda faces, _, rng: self.look(run, method.elsewhere(rng), faces, None, rng)

    def see(
        self, run: Run, faces: Faces, labels: Labels | None, rng: Generator
    ) -> View | tuple[View, Context]:
        """What it sees of a few faces of the release."""
        return self.look(run, run.release, faces, labels, rng)

    def scene(self, run: Run) -> tuple[Faces, Faces, Publish]:
        """Faces of others to train on, those held back, and how it sees them."""
        assert run.attack_faces is not None
        return run.training, run.attack_faces.images[run.held], self.view(run)

    def tested(self, run: Run) -> int:
        """Gallery faces that it is tested on."""
        return run.settings.test_faces

    def context(self, run: Run) -> int:
        """Length of the vector that it knows besides the picture."""
        return 0

    def shown(self, run: Run) -> int:
        """Published pictures of one face that it sees at once."""
        return 1

    # --- what is common -----------------------------------------------------------------------

    def _see(
        self, run: Run, faces: Faces, labels: Labels | None, rng: Generator
    ) -> tuple[View, Context | None]:
        found = [
            self.see(run, faces[part], None if labels is None else labels[part], rng)
            for part in chunks(len(faces), 32)
        ]
        pairs = [each if isinstance(each, tuple) else (each, None) for each in found]
        known = [context for _, context in pairs if context is not None]
        return np.concatenate([seen for seen, _ in pairs]), np.concatenate(known) if known else None

    def _figures(
        self,
        run: Run,
        attack: RecoveryAttack,
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
        flat, rise = flattened(attack.curve)
        floor = run.floor["floor_ssim"]
        return Recovery(
            knows=self.knows,
            net=attack.net + ("+templates" if attack.context else ""),
            parameters=attack.parameters,
            steps=attack.step,
            seconds=round(attack.seconds, 1),
            training_faces=training_faces,
            pictures=self.shown(run),
            rec_ssim=float(like["ssim"].mean()),
            rec_psnr=float(like["psnr"].mean()),
            recovery_gain=float((like["ssim"].mean() - floor) / (1 - floor)),
            disclosure=float(seen.mean()),
            id_match=run.matches(truth, recovered, "recovered"),
            flattened=flat,
            rise_in_last_fifth=rise,
            curve=attack.curve,
        )


class UNetAttacker(Attacker):
    """The method; every picture has a fresh draw."""

    name = "unet"


class ResidualAttacker(Attacker):
    """The same with another network."""

    name = net = "residual"


class TemplatesAttacker(Attacker):
    """The picture, and what FR models read from it: the surrogates', which the attacker has as the
    makers of the method had them; without any, all."""

    name = "templates"

    def _read(self, run: Run, seen: Faces) -> Context:
        known = [model for model, role in run.models.values() if role == "surrogate"]
        known = known or [model for model, _ in run.models.values()]
        return np.concatenate([model.embed(seen, 32) for model in known], 1)

    def look(
        self, run: Run, world: Publisher, faces: Faces, labels: Labels | None, rng: Generator
    ) -> tuple[View, Context]:
        seen = world(faces, world.draws(len(faces), rng), labels)
        return seen, self._read(run, seen)

    def context(self, run: Run) -> int:
        return self._read(run, run.training[:1]).shape[1]


class DrawAttacker(Attacker):
    """A variant that makes sense only for a method that takes draws."""

    main = False


class AveragingAttacker(DrawAttacker):
    """Many pictures of the same face, by their mean and standard deviation."""

    name = knows = "averaging"
    channels = 6

    def look(
        self, run: Run, world: Publisher, faces: Faces, labels: Labels | None, rng: Generator
    ) -> View:
        return world.averaged(run.settings.pictures, rng, faces, labels)

    def scene(self, run: Run) -> tuple[Faces, Faces, Publish]:
        train, held, view = super().scene(run)
        train = train[evenly(len(train), run.settings.averaging_faces)]
        validation = held[evenly(len(held), 64)]
        count = len(train) + len(validation)
        run.log(f"  {run.settings.pictures} pictures of each of {count} faces")
        rng = run.stream("attack averaging: what it is trained on")
        parts = (faces[part] for faces in (train, validation) for part in chunks(len(faces), 32))
        stored = np.concatenate([np.asarray(view(part, np.arange(0), rng)) for part in parts])
        return train, validation, lambda faces, rows, _: np.asarray(stored[rows])

    def tested(self, run: Run) -> int:
        return min(200, run.settings.test_faces)

    def shown(self, run: Run) -> int:
        return run.settings.pictures


class FixedAttacker(DrawAttacker):
    """Everything was published with one draw."""

    name = knows = "fixed"

    def look(
        self, run: Run, world: Publisher, faces: Faces, labels: Labels | None, rng: Generator
    ) -> View:
        draw = world.draws(1, stream(run.settings.seed, "attack: the fixed draw"))
        return world(faces, np.repeat(draw, len(faces), 0), labels)


class LeakedAttacker(DrawAttacker):
    """The draw of the very record: the attacker publishes the mean face under noise with it, under
    a key of their own if the method takes one, and lays the result beside the record."""

    name = knows = "leaked"
    channels = 6

    def look(
        self, run: Run, world: Publisher, faces: Faces, labels: Labels | None, rng: Generator
    ) -> View:
        probe = texture_probe(run.mean_face, run.settings.seed)
        return world.beside(probe, faces, labels, rng)


ATTACKERS: dict[str, Attacker] = {
    attacker.name: attacker
    for attacker in (
        UNetAttacker(),
        ResidualAttacker(),
        TemplatesAttacker(),
        AveragingAttacker(),
        FixedAttacker(),
        LeakedAttacker(),
    )
}
