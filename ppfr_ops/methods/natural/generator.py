"""The networks of ``natural``, its looks and its detector: people and pictures of theirs, by
styles."""

from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ppfr_ops.imaging.detector import CenterFace
from ppfr_ops.memory import keep_freed_memory
from ppfr_ops.methods.codes import normals
from ppfr_ops.methods.natural import files, steering
from ppfr_ops.methods.natural.looks import ATTRIBUTES, MIX, OTHERS, Looks, on_grid
from ppfr_ops.methods.natural.network import LAST, STYLE, Head, Silhouette, Synthesis, pixels
from ppfr_ops.methods.natural.network import Mapping as Mapper
from ppfr_ops.methods.natural.quality import plain, sound
from ppfr_ops.methods.natural.steering import STILL, Sight
from ppfr_ops.torchscript import bf16_pays

PEOPLE_TRIED, PEOPLE_SEEN = 128, 24
"""Candidates for a person before crowds do not count any more, and how many of them are drawn and
looked at."""
MOST_NUMBERS = 20_000
"""Styles that are looked over for somebody of the kinds that ``mix`` asks for."""
_BLOCK = 32
"""Of these, so many are looked over at once."""
MOST_SHOWN = 512
"""Side of what the larger head shows, px; a picture of 1024 px the whole network alone does."""
EARLY = 16
"""Features that tell what a picture will be like, px."""
SHARP_SOUND = 0.75
"""The bounds of ``quality.sound`` are for 128 px; where more is to be seen, so much of them is
enough, or twice as many looks would be drawn."""
_SMALL, _KEPT = 128, 20_000
BORDER = 16
"""Around a picture of 128 px before a detector sees it, px; around a larger one as much of it."""
_MIDDLE, _FAR = (64.0, 77.0), 14.0
"""Of a picture of 128 px: where the middle of the face's landmarks lies, and how far from it one is
somebody else, px."""

Mix = tuple[tuple[str, float], ...]
"""Kinds of people and their shares."""


class Generator:
    """Networks, looks and detector, loaded once a process."""

    def __init__(self, device: str) -> None:
        keep_freed_memory()
        self.device = device
        tensors = files.read("natural")
        self.mapping = Mapper(files.read("natural.mapping"))
        self.small = tensors
        self.precision = torch.bfloat16 if bf16_pays(device) else torch.float32
        self.synthesis, self.head = self._drawing(tensors)
        self.looks = Looks(files.read("natural.looks"))
        self.detector = CenterFace(threshold=0.2, threads=1, once=True)
        self._people: dict[tuple[bytes, bytes, Mix], torch.Tensor] = {}

    def _drawing(self, tensors: Mapping[str, torch.Tensor]) -> tuple[Synthesis, Head]:
        """The network up to 64 px and what shows that at 128 px."""
        network = Synthesis(part_of(tensors, "synthesis."), self.precision).to(self.device)
        return network, self._head(part_of(tensors, "head."))

    def _head(self, tensors: Mapping[str, torch.Tensor]) -> Head:
        head = Head(len(tensors["a.bias"]), len(tensors["m.bias"]))
        head.load_state_dict(tensors)
        head.requires_grad_(False).to(self.device, self.precision)
        head.to(memory_format=LAST)  # type: ignore[call-overload]
        return head

    @cached_property
    def _covers(self) -> dict[str, torch.Tensor]:
        return files.read(files.COVERS)

    @cached_property
    def _larger(self) -> Head:
        """What shows features at 256 px at 512 px."""
        return self._head(part_of(self._covers, "head."))

    @cached_property
    def _sharper(self) -> Head:
        """What shows features at 128 px at 256 px: enough for crops of 112 px."""
        return self._head(files.read(files.SHARP))

    def foretold(self, styles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What pictures of styles ``N x 13 x 512`` will be like, told by their features at 16 px.

        Returns:
            Those features; and ``N x 6``: logarithm of ``Looks.whole``, ``quality.plain`` and
            ``quality.sound``, what of the upper edge the person covers, ``portraits.yaw``, and the
            logarithm of the skin's brightness.
        """
        features = self.synthesis.features(styles.to(self.device), EARLY)
        seen = on_grid(features.float().cpu()).view(len(styles), -1)
        return features, seen @ self._covers["told"].T + self._covers["told.middle"]

    @cached_property
    def _quick(self) -> dict[str, torch.Tensor]:
        return files.read(files.FAST)

    @cached_property
    def fast(self) -> tuple[Synthesis, Head]:
        """The same with fewer channels where there are most pixels."""
        return self._drawing(self.small | self._quick)

    def pose(self, styles: torch.Tensor) -> dict[str, float]:
        """How a head will be turned, as ``imaging.look`` has it, told by its features at 16 px."""
        features = self.synthesis.features(styles[None].to(self.device), EARLY).float().cpu()
        told = self._quick["pose"] @ on_grid(features) + self._quick["pose.middle"]
        return dict(zip(steering.TURNS, told.tolist(), strict=True))

    def style(self, z: NDArray[np.float32]) -> torch.Tensor:
        """Normals ``512`` or ``N x 512`` to styles, centred."""
        found: torch.Tensor = self.mapping(torch.from_numpy(np.atleast_2d(z))) - self.looks.mean
        return found.view(z.shape)

    @cached_property
    def large(self) -> Synthesis:
        """The network up to 1024 px."""
        tensors = part_of(self.small, "synthesis.") | part_of(files.read(files.LARGE), "synthesis.")
        return Synthesis(tensors, self.precision).to(self.device)

    def person(self, key: bytes, whose: bytes, mix: Mix) -> torch.Tensor:
        """A person's style, centred, ``512``. Of the candidates the first that is not crowded and
        whose plain picture is sound and flawless; where none of some is, the best of them. It
        depends on nothing else."""
        known = key, whose, mix
        if known in self._people:
            return self._people[known]
        seen: list[torch.Tensor] = []
        fits = False
        for chosen in self.candidates(key, whose, mix):
            seen.append(chosen)
            fits = self.fit(chosen, 1.0) >= 1
            if fits or len(seen) == PEOPLE_SEEN:
                break
        if not fits:
            chosen = max(seen, key=self.fit)
        if len(self._people) >= _KEPT:
            self._people.pop(next(iter(self._people)))
        self._people[known] = chosen
        return chosen

    def fit(self, person: torch.Tensor, least: float = 0.0) -> float:
        """How sound and flawless a person's plain picture is, 1 and more is good enough; not drawn
        to its end where that is known to be less than ``least``."""
        styles = self.looks.styles(person, torch.zeros(OTHERS, STYLE), torch.zeros(ATTRIBUTES), 0.0)
        features = self._features(styles)
        flawless = self.looks.flawless(features)
        if flawless < least:
            return flawless
        seen = self._sight(self._shown(styles, features))
        return seen.sound and min(seen.sound, flawless, plain(seen.aligned(STILL)))

    def candidates(
        self, key: bytes, whose: bytes, mix: Mix, exact: bool = True
    ) -> Iterator[torch.Tensor]:
        """Styles that key and person give one after the other, ``512`` each, centred and as far
        from the mean as people lie: those that are of the kinds that the person is to be of and not
        crowded; if none of very many is, the last. ``exact``: as they are one by one; among others
        a style is rounded otherwise."""
        drawn = torch.special.ndtr(torch.from_numpy(normals(key, "natural mix", whose, len(MIX))))
        shares = dict(zip(MIX, drawn.tolist(), strict=True))
        wanted = {name: shares[name] < share for name, share in mix}
        tried, none, last = 0, True, None
        for first in range(0, MOST_NUMBERS, _BLOCK):
            z = np.stack(
                [
                    normals(key, "natural person", number.to_bytes(2, "big") + whose, STYLE)
                    for number in range(first, min(first + _BLOCK, MOST_NUMBERS))
                ]
            )
            for row, each in zip(z, self.looks.person(self.style(z)), strict=True):
                if not self.looks.is_of(each, wanted):
                    continue
                last, tried = row, tried + 1
                if tried <= PEOPLE_TRIED and self.looks.crowded(each):
                    continue
                none = False
                yield self.looks.person(self.style(row)) if exact else each
        if none:
            yield self.looks.person(self.style(z[-1] if last is None else last))

    @cached_property
    def _silhouette(self) -> Silhouette:
        net = Silhouette()
        net.load_state_dict(files.read(files.SILHOUETTE))
        return net.requires_grad_(False).to(self.device, self.precision)

    def silhouette(self, features: torch.Tensor) -> NDArray[np.float32]:
        """How much of each pixel is the person and not what is behind, float32 ``128 x 128``, 0 to
        1, from the features of ``drawn``."""
        shares = self._silhouette(features).sigmoid()[0, 0]
        return np.asarray(shares.float().cpu().numpy(), np.float32)

    def drawn(
        self, styles: torch.Tensor, fast: bool = False, seen: torch.Tensor | None = None
    ) -> tuple[NDArray[np.uint8], torch.Tensor]:
        """One picture, uint8 ``128 x 128 x 3``, of styles ``14 x 512``, and its features at 64 px,
        ``1 x 512 x 64 x 64``; ``fast``: fewer; ``seen``: those of fewer pixels, if they are known.
        """
        features = self._features(styles, fast, seen)
        return self._shown(styles, features, fast), features

    def _features(
        self, styles: torch.Tensor, fast: bool = False, seen: torch.Tensor | None = None
    ) -> torch.Tensor:
        synthesis = self.fast[0] if fast else self.synthesis
        return synthesis.features(styles[None].to(self.device), 64, seen)

    def _shown(
        self, styles: torch.Tensor, features: torch.Tensor, fast: bool = False
    ) -> NDArray[np.uint8]:
        return pixels((self.fast[1] if fast else self.head)(features, self._by(styles)))

    def _by(self, styles: torch.Tensor) -> torch.Tensor:
        """What a head takes of styles."""
        return ((styles[11] - self.looks.mean) / 0.5)[None].to(self.device)

    def picture(
        self,
        styles: torch.Tensor,
        size: int,
        fast: bool = False,
        seen: torch.Tensor | None = None,
    ) -> NDArray[np.uint8]:
        """One picture, uint8 ``size x size x 3``, of styles ``14 x 512``; ``seen``: its features at
        64 px, if they are known; ``fast``: for 128 px as ``drawn`` has it, less sharp."""
        if size == _SMALL and fast:
            return self.drawn(styles, fast, seen)[0]
        each = styles[None].to(self.device)
        if size == _SMALL:
            return pixels(torch.nn.functional.avg_pool2d(self._sharp(styles, seen), 2))
        if size > MOST_SHOWN:
            return pixels(self.large(each, seen))
        y = self._larger(self.large.features(each, MOST_SHOWN // 2, seen), self._by(styles))
        return pixels(torch.nn.functional.avg_pool2d(y, MOST_SHOWN // size))

    def landmarks(self, picture: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
        """Five landmarks of the face in the middle, ``5 x 2``, and the detector's score; NaN and 0
        where it finds none there."""
        scale = picture.shape[0] / _SMALL
        small = cv2.resize(picture, (_SMALL, _SMALL), interpolation=cv2.INTER_AREA)
        found = self.detector([_bordered(small.astype(np.uint8))])[0]
        points = found.landmarks - BORDER
        away = np.linalg.norm(points.mean(1) - _MIDDLE, axis=1)
        away[~np.isfinite(away)] = np.inf
        if not len(away) or away.min() > _FAR:
            return np.full((5, 2), np.nan, np.float32), 0.0
        best = int(away.argmin())
        return ((points[best] + 0.5) * scale - 0.5).astype(np.float32), float(found.scores[best])

    def forget(self) -> None:
        """Drop the people that are kept."""
        self._people.clear()

    def looked_at(self, styles: torch.Tensor, fast: bool = False) -> Sight:
        """A picture with a border, as it is judged; damage is not told of fewer features."""
        picture, features = self.drawn(styles, fast)
        seen = self._sight(picture)
        if not fast:
            seen.sound = min(seen.sound, self.looks.whole(features))
        if fast or seen.sound < 1:
            return seen
        # What there is to see at 128 px is looked at first, for most of the time goes into more.
        found = self._sight(pixels(self._sharp(styles, features)))
        found.sound /= SHARP_SOUND
        return found if found.sound else seen

    def _sharp(self, styles: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        """At 256 px, for crops of 112 px, ``1 x 3 x 256 x 256``."""
        features = self.large.features(styles[None].to(self.device), _SMALL, seen)
        shown: torch.Tensor = self._sharper(features, self._by(styles))
        return shown

    def _sight(self, picture: NDArray[np.uint8]) -> Sight:
        points, score = self.landmarks(picture)
        seen = Sight(_bordered(picture), points + BORDER * (picture.shape[0] // _SMALL))
        if score:
            seen.sound = sound(seen.aligned(STILL), points, score)
        return seen


def _bordered(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = (BORDER * (picture.shape[0] // _SMALL),) * 4
    return cv2.copyMakeBorder(picture, *side, cv2.BORDER_REPLICATE).astype(np.uint8)


def part_of(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


@lru_cache(maxsize=2)
def load(device: str) -> Generator:
    # Who loads it first may be in inference mode, in which parameters would be for nothing else.
    with torch.inference_mode(False):
        return Generator(device)
