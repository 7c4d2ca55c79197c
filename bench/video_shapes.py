"""Videos of many shapes through ``ppfr video``'s way: what ffprobe says of them before and after.

    python bench/video_shapes.py WORK FFPROBE

Made clips without a face: frames that refer forwards, unequal steps, NTSC's rate, a late start,
colours by BT.709, BT.601 and BT.2020, full range, pixels that are not square, 4:4:4, turned by
90, 180 and 270 degrees, with metadata and sound; as mp4, mov, mkv, webm and avi. For each: which of
what ffprobe says differs, and by how many grey levels red, green and blue are off on average.
"""

import struct
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from videos import probed

from ppfr_ops.imaging import video
from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.detector import Detections
from ppfr_ops.sanitize.videos import VideoSettings, sanitize_videos

STEPS = [int(t) for t in np.cumsum(np.random.default_rng(1).integers(200, 1500, 30)) - 200]
FINE, COARSE = Fraction(1, 12800), Fraction(1, 1000)
BT709, FULL = (1, 1, 1, 1), (1, 2, 1, 1)

SHAPES: dict[str, dict[str, Any]] = {
    "forward.mp4": {"options": {"bf": "2"}},
    "unequal.mp4": {"times": STEPS},
    "unequal.mkv": {"base": COARSE, "times": [t // 12 for t in STEPS]},
    "equal.mkv": {"base": COARSE, "step": 40},
    "ntsc.mov": {"base": Fraction(1, 30000), "step": 1001, "rate": Fraction(30000, 1001)},
    "late.mp4": {"times": [25600 + 512 * n for n in range(30)]},
    "bt709.mp4": {"colours": BT709},
    "bt709-full.mp4": {"colours": FULL},
    "bt601-full.mp4": {"colours": (5, 2, 5, 6)},
    "bt2020.mkv": {"base": COARSE, "step": 40, "colours": (9, 1, 9, 14)},
    "wide-pixels.mp4": {"aspect": Fraction(4, 3)},
    "444.mp4": {"form": "yuv444p", "colours": BT709},
    "web.webm": {"codec": "libvpx-vp9", "base": COARSE, "step": 40, "options": {"cpu-used": "8"}},
    "old.avi": {"codec": "mpeg4", "base": Fraction(1, 25), "step": 1},
    "told.mp4": {"told": True},
    "told.mkv": {"told": True, "base": COARSE, "step": 40},
}
TURNS = {
    "turned-90.mp4": (0, 1, 0, -1, 0, 0, 360, 0),
    "turned-180.mov": (-1, 0, 0, 0, -1, 0, 640, 360),
    "turned-270.mp4": (0, -1, 0, 1, 0, 0, 0, 640),
}


def pictures() -> list[Picture]:
    rng = np.random.default_rng(0)
    field = cv2.resize(rng.uniform(20, 235, (10, 24, 3)), (900, 360), interpolation=cv2.INTER_CUBIC)
    wall = np.asarray(np.clip(field, 0, 255), np.uint8)
    return [np.ascontiguousarray(wall[:, 6 * n : 6 * n + 640]) for n in range(30)]


def make(
    path: Path,
    frames: list[Picture],
    codec: str = "libx264",
    base: Fraction = FINE,
    step: int = 512,
    times: list[int] | None = None,
    rate: Fraction = Fraction(25),
    colours: tuple[int, int, int, int] = (2, 0, 2, 2),
    aspect: Fraction | None = None,
    form: str = "yuv420p",
    options: dict[str, str] | None = None,
    told: bool = False,
) -> None:
    matrix, full, primaries, transfer = colours
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 640, 360, form
        context = stream.codec_context
        context.time_base = stream.time_base = base
        context.colorspace, context.color_range = matrix, full
        context.color_primaries, context.color_trc = primaries, transfer
        if aspect:
            context.sample_aspect_ratio = aspect
        sound = None
        if told:
            container.metadata.update({"title": "Jane", "location": "+48+11/", "artist": "Jo"})
            stream.metadata["handler_name"] = "Camera of Jane"
            sound = container.add_stream("aac", rate=44100, layout="mono")
            sound.metadata["title"] = "voice of Jane"
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format=form,
                dst_colorspace=5 if matrix == 2 else matrix,
                dst_color_range=full or 1,
                interpolation=2 | 0x40000 | 0x2000,
            )
            frame.pts, frame.time_base = times[number] if times else number * step, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for number in range(50 if sound else 0):
            wave = (9000 * np.sin(np.arange(1024) / 8 + number)).astype(np.int16)[None]
            noise = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            noise.sample_rate, noise.pts = 44100, number * 1024
            container.mux(sound.encode(noise))
        if sound:
            container.mux(sound.encode(None))


def nobody(frames: list[Picture]) -> list[Detections]:
    return [
        Detections(*(np.zeros(s, np.float32) for s in ((0, 4), (0, 5, 2), 0)), np.zeros(0, bool))
        for _ in frames
    ]


def main() -> None:
    place, program = Path(sys.argv[1]), Path(sys.argv[2])
    (place / "in").mkdir(parents=True)
    frames = pictures()
    for name, shape in SHAPES.items():
        make(place / "in" / name, frames, **shape)
    plain = (place / "in" / "bt709.mp4").read_bytes()
    matrix = plain.index(b"tkhd") + 44
    for name, turn in TURNS.items():
        told = struct.pack(">9i", *(value << 16 for value in turn), 1 << 30)
        (place / "in" / name).write_bytes(plain[:matrix] + told + plain[matrix + 36 :])
    settings = VideoSettings(segment=10, keep_sound=True)
    for done in sanitize_videos(place / "in", place / "out", nobody, settings):
        paths = [place / "in" / done.name, place / "out" / "release" / done.name]
        paths[1] = paths[1].with_suffix(".mkv") if done.name.endswith(".avi") else paths[1]
        was, now = (probed(program, path) for path in paths)
        different = {
            key: (was.get(key), now.get(key))
            for key in was | now
            if was.get(key) != now.get(key) and key != "packets duration"
        }
        lengths = [each.get("packets duration") for each in (was, now)]
        if all(lengths) and lengths[0] != lengths[1]:
            different["packets duration"] = lengths
        seen = [
            np.stack(
                [
                    f.pixels
                    for f in video.read_frames(path, video.describe_stream(path).quarter_turns)
                ]
            )
            for path in paths
        ]
        shift = (seen[1].mean((0, 1, 2)) - seen[0].mean((0, 1, 2))).round(2)
        print(done.name, done.problem, "colours", shift.tolist(), "differs", different, flush=True)


if __name__ == "__main__":
    main()
