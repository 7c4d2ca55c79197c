"""Six made clips of drawn people, covered by ``ppfr video``'s way: what is bare, who is seen, what
flickers, and how long it takes.

    python bench/videos.py WORK --cover virtual --ffprobe PATH
    python bench/videos.py WORK --cover blur --misses 20 5
    python bench/videos.py WORK --cover blur --long 600 --deface .venv/bin/deface

Clips: the camera pans; two people cross; a head turns; cuts; cuts to somebody else and back; little
light and much noise. Nobody in them exists, and where every face is in every frame is known.
``bare``: frames in which a face is still as it was (correlation of its middle above .9), and those
of them of which no span in the queue tells. ``alike``: cosine of sface between frames of a person,
mean and least, mean of frames in which the original shows half of the face or more, and of those in
which nobody else is near; of the original clip beside it.
``flicker``: grey levels between a frame and the next in a face, aligned by its known place; of the
original beside it. Times and sizes are read by PyAV (FFmpeg's libraries), and
with ``--ffprobe`` by that program (npm's ``@ffprobe-installer/linux-x64`` carries one): all that it
says of streams and packets must be equal, but sizes in bytes, and what only tells how it is coded.
``--misses N``: the detector sees nothing in one frame in N; several: one run each, same clips.

``--long SECONDS``: one clip of so many seconds of 1280x720, covered by the command, which is killed
once by SIGKILL and called again; its memory over time; then frames a second on ``--beside``
seconds of it, beside deface.
"""

import argparse
import contextlib
import json
import resource
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
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
from ppfr_ops.imaging.detector import Detections, Detector
from ppfr_ops.imaging.geometry import cut
from ppfr_ops.methods.portrait import PortraitHeads, Sitter
from ppfr_ops.methods.registry import create
from ppfr_ops.recognizers import Recognizer, RecognizerSpec
from ppfr_ops.sanitize.videos import VideoDone, VideoSettings, sanitize_videos

HEIGHT, WIDTH, RATE, FRAMES, NEAR = 360, 640, 25, 100, 110

Place = Callable[[int], tuple[float, float, float, float]]
"""Of a frame: where the middle of a face is, px; its scale, 1: eyes 35 px apart; and its turn."""


@dataclass
class Clip:
    """``faces``: of every person the matrix from frame to template of every frame, or None;
    ``seen``: how much of the face nobody stands before, 0 to 1."""

    name: str
    faces: list[list[np.ndarray | None]] = field(default_factory=list)
    seen: list[list[float]] = field(default_factory=list)


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
    people: list[tuple[Sitter, Place, Sequence[int]]],
    walls: Callable[[int], tuple[Picture, int]],
    light: float = 1.0,
    noise: float = 2.0,
) -> Clip:
    """A clip; ``walls``: of a frame the wall, and where the camera looks at it."""
    rng, clip = (
        np.random.default_rng(5),
        Clip(target.name, *([[] for _ in people] for _ in range(2))),
    )
    oval = cv2.ellipse(np.zeros((112, 112), np.float32), (56, 72), (36, 40), 0, 0, 360, 1.0, -1)

    def frames() -> Iterator[video.Frame]:
        for number in range(FRAMES):
            back, left = walls(number)
            canvas = back[:, left : left + WIDTH].astype(np.float32)
            ovals: dict[int, np.ndarray] = {}
            for n, (sitter, place, when) in enumerate(people):
                if number not in when:
                    clip.faces[n].append(None)
                    continue
                x, y, scale, turn = place(number)
                portrait = sitter.turned(turn)
                there = np.array([[scale, 0, x - 56 * scale], [0, scale, y - 72 * scale]])
                clip.faces[n].append(cv2.invertAffineTransform(there))
                across = there @ np.vstack([portrait.matrix, [0, 0, 1]])
                size = (WIDTH, HEIGHT)
                head = cv2.warpAffine(portrait.picture, across, size, flags=cv2.INTER_AREA)
                share = cv2.warpAffine(portrait.silhouette, across, size)[..., None]
                canvas = share * head + (1 - share) * canvas
                ovals = {k: each * (1 - share[..., 0]) for k, each in ovals.items()}
                ovals[n] = cv2.warpAffine(oval, there, size) / oval.sum() / scale**2
            for n, own in enumerate(clip.seen):
                own.append(float(ovals[n].sum()) if n in ovals else 0.0)
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
        "back": (
            [(one, sitting, [*range(30), *range(60, FRAMES)]), (third, sitting, range(30, 60))],
            lambda n: (second if 30 <= n < 60 else first, 0),
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


def crossed(clip: Clip, person: int, frame: int) -> bool:
    """Whether another head may stand before or behind this one."""
    places = [
        cv2.invertAffineTransform(cast(np.ndarray, each[frame])) @ [56, 72, 1]
        for each in clip.faces
        if each[frame] is not None
    ]
    own = cv2.invertAffineTransform(cast(np.ndarray, clip.faces[person][frame])) @ [56, 72, 1]
    return sum(float(np.linalg.norm(place - own)) < NEAR for place in places) > 1


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
            free = codes[[not crossed(clip, person, n) for n in rows[::2]]]
            alone = (free @ free.T)[np.triu_indices(len(free), 1)].mean()
            seen = codes[[clip.seen[person][n] >= 0.5 for n in rows[::2]]]
            half = (seen @ seen.T)[np.triu_indices(len(seen), 1)].mean()
            steps = np.abs(np.diff(faces[:, 20:108, 16:96].astype(float), axis=0)).mean((1, 2, 3))
            said.append(
                f"alike {alike.mean():.3f} ({alike.min():.3f}), where half of the face is seen "
                f"{half:.3f}, while nobody else is near {alone:.3f}, flicker {steps.mean():.2f} "
                f"(most {steps.max():.1f})"
            )
        lines[f"person {person}"] = f"original {said[0]}; covered {said[1]}"
    return {"bare": bare, "bare and in no span of the queue": untold, **lines}


def shape(path: Path) -> tuple[object, ...]:
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times = [
            (frame.pts * frame.time_base, frame.duration) for frame in container.decode(stream)
        ]
        return (stream.width, stream.height, stream.average_rate, tuple(times))


CODED = {"bit_rate", "refs", "level", "profile", "has_b_frames", "extradata_size"}


def probed(program: Path, path: Path) -> dict[str, object]:
    """What ffprobe says of a video, but for sizes in bytes and how it is coded."""
    command = [str(program), "-v", "error", "-of", "json", "-show_streams", "-show_chapters"]
    command += ["-show_packets", "-show_format", str(path)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    found: dict[str, object] = {"chapters": told["chapters"]}
    for stream in told["streams"]:
        kind = stream["codec_type"]
        found |= {f"{kind} {key}": each for key, each in stream.items() if key not in CODED}
    for key in ("duration", "start_time", "format_name", "nb_streams"):
        found[f"format {key}"] = told["format"].get(key)
    found["format tags"] = sorted(set(told["format"].get("tags", {})) - {"encoder", "ENCODER"})
    packets = [packet for packet in told["packets"] if packet["codec_type"] == "video"]
    packets.sort(key=lambda packet: packet["pts"])
    found["packets pts"] = [packet["pts"] for packet in packets]
    lengths = [packet.get("duration") for packet in packets]
    if None not in lengths:  # it does not tell them where frames refer forwards
        found["packets duration"] = lengths
    return found


class Missing:
    """A detector that sees nothing in one frame in so many."""

    def __init__(self, detector: Detector, every: int) -> None:
        self.detector, self.every, self.seen = detector, every, 0

    def __call__(self, pictures: list[Picture]) -> list[Detections]:
        found = []
        for each in self.detector(pictures):
            self.seen += 1
            gone = bool(self.every) and self.seen % self.every == self.every // 2
            found.append(each.take(np.zeros(0, np.int64)) if gone else each)
        return found


def long(given: argparse.Namespace) -> None:
    """A long clip, killed and resumed, and its memory; speed beside deface. Called again, it goes
    on."""
    rate = given.rate
    make_long(given)
    command = [sys.executable, "-m", "ppfr_ops.cli", "video", "--cover", given.cover]
    command += ["--detect-every", str(given.every)]
    paths = ["--input", str(given.place / "long"), "--output", str(given.place / "long-out")]
    work, note = given.place / "long-out" / "evidence" / "videos", given.place / "memory.json"
    peaks, killed = json.loads(note.read_text()) if note.exists() else ([], 0)
    running = subprocess.Popen([*command, *paths])
    while running.poll() is None:
        time.sleep(5)
        with contextlib.suppress(FileNotFoundError, StopIteration):
            status = Path(f"/proc/{running.pid}/status").read_text().splitlines()
            peaks.append(int(next(x for x in status if x.startswith("VmRSS")).split()[1]) // 1024)
            note.write_text(json.dumps([peaks, killed]))
        parts = len(list(work.rglob("segment-*.mp4")))
        if not killed and parts > given.long * rate / 250 / 2:
            running.kill()
            running.wait()
            killed, running = len(peaks), subprocess.Popen([*command, *paths])
    busy = resource.getrusage(resource.RUSAGE_CHILDREN)
    sixths = [int(max(part)) for part in np.array_split(np.array(peaks), 6) if len(part)]
    print(f"{given.long} s of 1280x720 in {5 * len(peaks)} s, exit code {running.returncode}")
    print(f"processor time {busy.ru_utime + busy.ru_stime:.0f} s (since this call)")
    print(
        f"killed at sample {killed} of {len(peaks)}; MiB, most of each sixth: {sixths}", flush=True
    )
    whole = [given.place / "long" / "clip.mp4", given.place / "long-out" / "release" / "clip.mp4"]
    if given.ffprobe:
        was, now = (probed(given.ffprobe, path) for path in whole)
        print("by ffprobe differs:", [key for key in was | now if was.get(key) != now.get(key)])
    if not given.deface:
        return
    paths = ["--input", str(given.place / "beside"), "--output", str(given.place / "beside-out")]
    other = [str(given.deface), "-o", str(given.place / "by-deface.mp4")]
    other += [str(given.place / "beside" / "clip.mp4")]
    for name, each in (("ppfr", [*command, *paths]), ("deface", other)):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begun = time.monotonic()
        subprocess.run(each, capture_output=True)
        after, spent = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - begun
        busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        looked = given.beside * rate
        print(f"{name}: {looked / spent:.1f} frames/s, {1000 * busy / looked:.0f} ms of CPU each")


def make_long(given: argparse.Namespace) -> None:
    """The long clip, and the short one of the same frames, unless they are there."""
    if (given.place / "beside" / "clip.mp4").exists():
        return
    make(given.place / "short", ["pan"])
    frames = [frame.pixels for frame in video.read_frames(given.place / "short" / "pan.mp4", 0)]
    stream = video.Stream(Fraction(1, 12800), Fraction(given.rate), 0, 0)
    large, step = [cv2.resize(frame, (1280, 720)) for frame in frames], 12800 // given.rate
    for name, seconds in (("long", given.long), ("beside", given.beside)):
        (given.place / name).mkdir(exist_ok=True)
        times = range(0, step * seconds * given.rate, step)
        made = (
            video.Frame(large[min(n % 198, 198 - n % 198)], at, step) for n, at in enumerate(times)
        )
        video.write_frames(given.place / name / "clip.mp4", stream, made)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("place", type=Path)
    asked.add_argument("--shared", type=Path, default=Path("../shared"))
    asked.add_argument("--cover", default="virtual")
    asked.add_argument("--only", nargs="*", default=[])
    asked.add_argument("--misses", type=int, nargs="*", default=[0])
    asked.add_argument("--ffprobe", type=Path)
    asked.add_argument("--long", type=int, default=0)
    asked.add_argument("--rate", type=int, default=RATE, help="frames a second of the long one")
    asked.add_argument("--every", type=int, default=1, help="as --detect-every")
    asked.add_argument("--beside", type=int, default=20, help="seconds that deface gets, too")
    asked.add_argument("--deface", type=Path, help="that program")
    given = asked.parse_args()
    torch.set_num_threads(1)
    if given.long:
        given.place.mkdir(exist_ok=True)
        long(given)
        return
    shutil.rmtree(given.place, ignore_errors=True)
    clips = make(given.place / "in", given.only)
    model = Recognizer(RecognizerSpec("sface", str(given.shared / "models" / "sface.onnx")))
    for misses in given.misses:
        print(f"--cover {given.cover}, misses one frame in {misses or 'none'}")
        covered(given, clips, misses, model)


def covered(given: argparse.Namespace, clips: list[Clip], misses: int, model: Recognizer) -> None:
    """Cover the clips and say what became of them."""
    begun, place = time.process_time(), given.place / f"out-{misses}"
    settings = VideoSettings(style=given.cover, every=given.every)
    detector = Missing(video.detector_of_videos(0.2), misses)
    done = sanitize_videos(given.place / "in", place, detector, settings)
    spent = time.process_time() - begun
    print(f"{spent / FRAMES / len(clips) * 1000:.0f} ms of processor time a frame")
    by_name = {each.name: each for each in done}
    for clip in clips:
        result = by_name[clip.name]
        paths = [given.place / "in" / clip.name, place / "release" / clip.name]
        before, after = ([f.pixels for f in video.read_frames(path, 0)] for path in paths)
        said = looked_at(clip, before, after, result, model)
        same: dict[str, object] = {
            "times, durations, rate, size equal": shape(paths[0]) == shape(paths[1])
        }
        if given.ffprobe:
            was, now = (probed(given.ffprobe, path) for path in paths)
            different = [key for key in was | now if was.get(key) != now.get(key)]
            same |= {"by ffprobe differs": different}
        head = {"clip": clip.name, "tracks": result.tracks, "doubts": len(result.doubts)}
        print(json.dumps(head | same | said, indent=1), flush=True)
        rows = [np.hstack([f[n] for n in range(0, FRAMES, 14)]) for f in (before, after)]
        sheet = np.ascontiguousarray(np.vstack(rows)[..., ::-1])
        cv2.imwrite(str(place / f"{clip.name}.png"), sheet)


if __name__ == "__main__":
    main()
