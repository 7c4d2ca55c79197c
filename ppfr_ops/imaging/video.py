"""Videos as streams of upright RGB frames with their times, by PyAV (the extra ``video``)."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ppfr_ops.errors import UserError, require
from ppfr_ops.imaging.arrays import Picture

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
"""What is read; what is written has the same container, except .avi, which becomes .mkv."""

_QUALITY = {
    "libx264": {"crf": "18", "preset": "veryfast", "threads": "1"},
    "libvpx-vp9": {"crf": "24", "b": "0", "threads": "1"},
}
"""One thread each: the same frames give the same bytes nearly always; on a busy machine a segment
in a hundred came out otherwise, by four grey levels at most."""


@dataclass(frozen=True)
class Frame:
    """A decoded frame: uint8 ``H x W x 3``, upright; ``time`` in units of the stream's base."""

    pixels: Picture
    time: int


@dataclass(frozen=True)
class Stream:
    """What a video's picture stream is like."""

    time_base: Fraction
    rate: Fraction
    quarter_turns: int
    """Counter-clockwise, that a player turns the stored frames by."""
    frames: int
    """As the container says; 0: it does not say."""


def open_video(path: Path) -> Any:
    """A container to read.

    Raises:
        UserError: PyAV is missing.
        ValueError: no video that can be read.
    """
    require("av")
    import av

    av.logging.set_level(av.logging.PANIC)
    try:
        container = av.open(str(path))
    except (av.FFmpegError, ValueError):
        raise ValueError("no video that can be read") from None
    if not container.streams.video:
        container.close()
        raise ValueError("no pictures in it")
    return container


def describe_stream(path: Path) -> Stream:
    """Base, rate and turn of a video, from its first frame.

    Raises:
        ValueError: no frame can be decoded.
    """
    import av

    with open_video(path) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        try:
            first = next(container.decode(video=0))
        except (StopIteration, av.FFmpegError):
            raise ValueError("no frame that can be decoded") from None
        turns = round((first.rotation or 0) / 90) % 4
        return Stream(stream.time_base, Fraction(rate), turns, stream.frames or 0)


def read_frames(path: Path, quarter_turns: int, after: int | None = None) -> Iterator[Frame]:
    """Frames in the order in which they are shown.

    Args:
        after: a frame's time; only what comes later is given. None: all.
    """
    import av

    with open_video(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if after is not None:
            container.seek(after, stream=stream, backward=True, any_frame=False)
        last = after
        try:
            for frame in container.decode(stream):
                if frame.pts is None or (last is not None and frame.pts <= last):
                    continue
                last = frame.pts
                pixels = np.rot90(frame.to_ndarray(format="rgb24"), quarter_turns)
                yield Frame(np.ascontiguousarray(pixels), frame.pts)
        except av.FFmpegError:
            return  # cut off, or damaged from here on: anyone who counts frames sees it


def write_frames(path: Path, stream: Stream, frames: Iterator[Frame]) -> int:
    """Encode frames with their times; no metadata, no sound; returns how many.

    H.264 (VP9 in .webm) without frames that refer forwards, so that files written one after the
    other can be joined.
    """
    import av

    codec = "libvpx-vp9" if path.suffix == ".webm" else "libx264"
    count = 0
    with av.open(str(path), "w") as container:
        out: Any = None
        for frame in frames:
            height, width = frame.pixels.shape[:2]
            if out is None:
                out = container.add_stream(codec, rate=stream.rate, options=_QUALITY[codec])
                out.width, out.height = width - width % 2, height - height % 2
                out.pix_fmt = "yuv420p"
                out.codec_context.time_base = out.time_base = stream.time_base
                out.codec_context.max_b_frames = 0
            even = np.ascontiguousarray(frame.pixels[: out.height, : out.width])
            picture = av.VideoFrame.from_ndarray(even, format="rgb24")
            picture.pts, picture.time_base = frame.time, stream.time_base
            container.mux(out.encode(picture))
            count += 1
        if out is not None:
            container.mux(out.encode(None))
    return count


def join(parts: list[Path], target: Path, sound_of: Path | None = None) -> None:
    """Files of ``write_frames``, in order, as one; ``sound_of``: a video whose sound is added."""
    import av

    with av.open(str(target), "w") as container:
        out: Any = None
        sound = None if sound_of is None else open_video(sound_of)
        audio = None
        if sound is not None and sound.streams.audio:
            audio = container.add_stream_from_template(sound.streams.audio[0])
        for part in parts:
            with av.open(str(part)) as source:
                stream = source.streams.video[0]
                if out is None:
                    out = container.add_stream_from_template(stream)
                for packet in source.demux(stream):
                    if packet.dts is not None:
                        packet.stream = out
                        container.mux(packet)
        if sound is not None:
            if audio is not None:
                for packet in sound.demux(sound.streams.audio[0]):
                    if packet.dts is not None:
                        packet.stream = audio
                        container.mux(packet)
            sound.close()
    if out is None:
        raise UserError("there is no frame to write")
