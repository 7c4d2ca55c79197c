"""Five made clips of drawn people, covered by ``ppfr video``'s way: what is bare, who is seen, what
flickers, and how long it takes.

    python bench/videos.py WORK --cover virtual
    python bench/videos.py WORK --cover blur --only pan low-light

Clips: the camera pans; two people cross; a head turns; cuts; little light and much noise. Nobody
in them exists, and where every face is in every frame is known. ``bare``: frames in which a face is
still as it was (correlation of its middle above .9), and those of them of which no span in the
queue tells. ``alike``: cosine of sface between frames of a track, mean and least; of the original
clip beside it. ``flicker``: grey levels between a frame and the next in a face, aligned by its
known place; of the original beside it. Times and sizes are read by PyAV (FFmpeg's libraries).
"""

import argparse
import json
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch

from ppfr_ops.draws import system_draws
from ppfr_ops.imaging import video
from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.detector import CenterFace
from ppfr_ops.imaging.geometry import cut
from ppfr_ops.methods.portrait import PortraitHeads, Sitter
from ppfr_ops.methods.registry import create
from ppfr_ops.recognizers import Recognizer, RecognizerSpec
from ppfr_ops.sanitize.videos import VideoDone, VideoSettings, sanitize_videos

HEIGHT, WIDTH, RATE, FRAMES = 360, 640, 25, 100

Place = Callable[[int], tuple[float, float, float, float]]
"""Of a frame: where the middle of a face is, px; its scale, 1: eyes 35 px apart; and its turn."""


@dataclass
class Clip:
    """``faces``: of every person the matrix from frame to template of every frame, or None."""

    name: str
    faces: list[list[np.ndarray | None]] = field(default_factory=list)


def sitters(count: int) -> list[Sitter]:
    made = create("portrait").with_secrets({"identity-key": secrets.token_bytes(32)})
    heads, found = cast(PortraitHeads, made), []
    while len(found) < count:
        draw = system_draws([""], heads.draw_size)[0]
        skin = np.array([170.0, 130, 115])
        sitter = heads.sitter(draw, (-0.3, 0.0, 0.25), skin, 50)
        if sitter is not None:
            found.append(sitter)
    return found


def wall(rng: np.random.Generator) -> Picture:
    field_ = rng.uniform(70, 190) + rng.uniform(-30, 30, (3, 6, 3))
    canvas = cv2.resize(
        field_.astype(np.float32), (2 * WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC
    )
    for _ in range(14):
        x, y = int(rng.integers(0, 2 * WIDTH)), int(rng.integers(-60, HEIGHT))
        cv2.rectangle(canvas, (x, y), (x + 90, y + 70), rng.uniform(40, 220, 3).tolist(), -1)
    return np.asarray(np.clip(cv2.GaussianBlur(canvas, (0, 0), 1.5), 0, 255), np.uint8)


def write(
    target: Path,
    people: list[tuple[Sitter, Place, range]],
    walls: Callable[[int], tuple[Picture, int]],
    light: float = 1.0,
    noise: float = 2.0,
) -> Clip:
    """A clip; ``walls``: of a frame the wall, and where the camera looks at it."""
    rng, clip = np.random.default_rng(5), Clip(target.name, [[] for _ in people])

    def frames() -> Iterator[video.Frame]:
        for number in range(FRAMES):
            back, left = walls(number)
            canvas = back[:, left : left + WIDTH].astype(np.float32)
            for own, (sitter, place, when) in zip(clip.faces, people, strict=True):
                if number not in when:
                    own.append(None)
                    continue
                x, y, scale, turn = place(number)
                portrait = sitter.turned(turn)
                there = np.array([[scale, 0, x - 56 * scale], [0, scale, y - 72 * scale]])
                own.append(cv2.invertAffineTransform(there))
                across = there @ np.vstack([portrait.matrix, [0, 0, 1]])
                size = (WIDTH, HEIGHT)
                head = cv2.warpAffine(portrait.picture, across, size, flags=cv2.INTER_AREA)
                share = cv2.warpAffine(portrait.silhouette, across, size)[..., None]
                canvas = share * head + (1 - share) * canvas
            canvas = light * canvas + noise * rng.standard_normal(canvas.shape)
            yield video.Frame(np.asarray(np.clip(canvas, 0, 255), np.uint8), 512 * number)

    target.parent.mkdir(parents=True, exist_ok=True)
    video.write_frames(target, video.Stream(Fraction(1, 12800), Fraction(RATE), 0, 0), frames())
    return clip


def make(folder: Path, only: list[str]) -> list[Clip]:
    rng = np.random.default_rng(3)
    one, other, third = sitters(3)
    first, second, dark = wall(rng), wall(rng), wall(rng)
    everywhere = range(FRAMES)

    def sway(number: int) -> float:
        return 0.12 * np.sin(number / 9)

    def pan(number: int) -> tuple[float, float, float, float]:
        return 480 - 3.2 * number, 170, 1.1, sway(number)

    def rightwards(number: int) -> tuple[float, float, float, float]:
        return 100 + 4.4 * number, 150, 0.9, 0.1

    def leftwards(number: int) -> tuple[float, float, float, float]:
        return 560 - 4.4 * number, 215, 1.0, -0.15

    def turning(number: int) -> tuple[float, float, float, float]:
        return 320 + 20 * np.sin(number / 20), 170, 1.3, 0.28 * np.sin(number / 12)

    def sitting(number: int) -> tuple[float, float, float, float]:
        return 260 + 0.4 * number, 180, 1.2, sway(number)

    plans = {
        "pan": ([(one, pan, everywhere)], lambda n: (first, int(3.2 * n)), 1.0, 2.0),
        "crossing": (
            [(one, rightwards, everywhere), (other, leftwards, everywhere)],
            lambda n: (first, 0),
            1.0,
            2.0,
        ),
        "turning": ([(third, turning, everywhere)], lambda n: (second, 50), 1.0, 2.0),
        "cuts": (
            [(one, sitting, range(0, 33)), (third, sitting, range(66, FRAMES))],
            lambda n: (first if n < 33 else dark if n < 66 else second, 0),
            1.0,
            2.0,
        ),
        "low-light": ([(other, sitting, everywhere)], lambda n: (dark, 0), 0.22, 6.0),
    }
    return [
        write(folder / f"{name}.mp4", *plan)
        for name, plan in plans.items()
        if not only or name in only
    ]


def looked_at(
    clip: Clip, before: list[Picture], after: list[Picture], done: VideoDone, model: Recognizer
) -> dict[str, object]:
    bare, untold, lines = 0, 0, {}
    for person, matrices in enumerate(clip.faces):
        rows = [n for n, matrix in enumerate(matrices) if matrix is not None]
        was, now = (
            np.concatenate([cut(some[n], [cast(np.ndarray, matrices[n])]) for n in rows])
            for some in (before, after)
        )
        for n, *pair in zip(rows, was, now, strict=True):
            middle = [face[36:100, 30:82].astype(float).mean(2).ravel() for face in pair]
            if np.corrcoef(*middle)[0, 1] > 0.9:
                bare += 1
                told = any(each.start <= n / RATE <= each.end for each in done.doubts)
                untold += not told
        said = []
        for faces in (was, now):
            with torch.inference_mode():
                codes = model.embed(faces[::2])
            alike = (codes @ codes.T)[np.triu_indices(len(codes), 1)]
            steps = np.abs(np.diff(faces[:, 20:108, 16:96].astype(float), axis=0)).mean((1, 2, 3))
            said.append(
                f"alike {alike.mean():.3f} ({alike.min():.3f}), flicker {steps.mean():.2f} "
                f"(most {steps.max():.1f})"
            )
        lines[f"person {person}"] = f"original {said[0]}; covered {said[1]}"
    return {"bare": bare, "bare and in no span of the queue": untold, **lines}


def shape(path: Path) -> tuple[object, ...]:
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times = [frame.pts * frame.time_base for frame in container.decode(stream)]
        # Of the last frame the container has no length that all writers agree on.
        return (stream.width, stream.height, stream.average_rate, tuple(times))


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("place", type=Path)
    asked.add_argument("--shared", type=Path, default=Path("../shared"))
    asked.add_argument("--cover", default="virtual")
    asked.add_argument("--only", nargs="*", default=[])
    given = asked.parse_args()
    torch.set_num_threads(1)
    shutil.rmtree(given.place, ignore_errors=True)
    clips = make(given.place / "in", given.only)
    model = Recognizer(RecognizerSpec("sface", str(given.shared / "models" / "sface.onnx")))
    begun = time.process_time()
    settings = VideoSettings(style=given.cover)
    done = sanitize_videos(given.place / "in", given.place / "out", CenterFace(0.2), settings)
    spent = time.process_time() - begun
    print(f"{spent / FRAMES / len(clips) * 1000:.0f} ms of processor time a frame")
    by_name = {each.name: each for each in done}
    for clip in clips:
        result, places = by_name[clip.name], [given.place / "in", given.place / "out" / "release"]
        paths = [place / clip.name for place in places]
        before, after = ([f.pixels for f in video.read_frames(path, 0)] for path in paths)
        said = looked_at(clip, before, after, result, model)
        same = shape(paths[0]) == shape(paths[1])
        head = {"clip": clip.name, "tracks": result.tracks, "doubts": len(result.doubts)}
        print(json.dumps(head | {"times, rate, size equal": same} | said, indent=1))
        rows = [np.hstack([f[n] for n in range(0, FRAMES, 14)]) for f in (before, after)]
        sheet = np.ascontiguousarray(np.vstack(rows)[..., ::-1])
        cv2.imwrite(str(given.place / f"{clip.name}.png"), sheet)


if __name__ == "__main__":
    main()
