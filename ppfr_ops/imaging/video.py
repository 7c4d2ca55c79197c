"""Videos as streams of upright RGB frames with their times, by PyAV (the extra ``video``)."""

import heapq
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ppfr_ops.errors import require
from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.detector import CenterFace

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
"""What is read; what is written has the same container, except .avi, which becomes .mkv."""

_QUALITY = {
    "libx264": {"crf": "20", "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"},
    "libvpx-vp9": {"crf": "24", "b": "0", "threads": "1", "cpu-used": "4"},
}
"""One thread each, and no tree of macroblocks, for x264 reads memory there that it has not set
(``MALLOC_PERTURB_=1`` changes what it writes): so the same frames give the same bytes."""

_ROUNDED = 2 | 0x40000 | 0x2000
"""How the scaler goes from one kind of colours to another: bilinear, and rounded; it cuts off
otherwise, and every picture gets darker by one to two grey levels."""

_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
"""Of a matrix of colours, as FFmpeg numbers them in frames, the number that its scaler has."""


@dataclass(frozen=True)
class Frame:
    """A decoded frame: uint8 ``H x W x 3``, upright; ``time`` and ``duration`` (0: not said) in
    units of the stream's base."""

    pixels: Picture
    time: int
    duration: int = 0


@dataclass(frozen=True)
class Stream:
    """What a video's picture stream is like."""

    time_base: Fraction
    rate: Fraction
    quarter_turns: int
    """Counter-clockwise, that a player turns the stored frames by."""
    frames: int
    """As the container says; 0: it does not say."""
    colours: tuple[int, int, int, int] = (2, 0, 2, 2)
    """Matrix, range, primaries and transfer as FFmpeg numbers them; here: not said."""
    aspect: Fraction = Fraction(0)
    """How much wider than high an upright pixel is shown; 0: not said."""


def detector_of_videos(threshold: float) -> CenterFace:
    """What looks for faces: as in photographs, but a frame of 1280 px is seen whole, without tiles,
    which takes two thirds of the time."""
    return CenterFace(threshold, side=1280, tells=False)


def open_video(path: Path) -> Any:
    """A container to read.

    Raises:
        UserError: PyAV is missing.
        ValueError: no video that can be read.
    """
    require("av")
    import av

    try:
        container = av.open(str(path))
    except (av.FFmpegError, ValueError):
        raise ValueError("no video that can be read") from None
    if not container.streams.video:
        container.close()
        raise ValueError("no pictures in it")
    return container


def describe_stream(path: Path) -> Stream:
    """Base, rate, turn and colours of a video, from its first frame.

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
        matrix = first.colorspace if first.colorspace in _MATRICES else 2
        colours = (matrix, first.color_range, first.color_primaries, first.color_trc)
        aspect = Fraction(stream.sample_aspect_ratio or 0)
        return Stream(
            stream.time_base,
            Fraction(rate),
            turns,
            stream.frames or 0,
            tuple(map(int, colours)),  # type: ignore[arg-type]
            1 / aspect if aspect and turns % 2 else aspect,
        )


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
        last, ends = after, None
        if stream.duration is not None:
            ends = (stream.start_time or 0) + stream.duration
        try:
            for frame in container.decode(stream):
                if frame.pts is None or (last is not None and frame.pts <= last):
                    continue
                last = frame.pts
                pixels = frame.to_ndarray(format="rgb24", interpolation=_ROUNDED)
                upright = np.ascontiguousarray(np.rot90(pixels, quarter_turns))
                length = frame.duration or 0
                if ends is not None and ends > frame.pts:
                    length = min(length, ends - frame.pts)
                yield Frame(upright, frame.pts, length)
        except av.FFmpegError:
            return  # cut off, or damaged from here on: anyone who counts frames sees it


def write_frames(path: Path, stream: Stream, frames: Iterator[Frame]) -> int:
    """Encode frames with their times; no metadata, no sound; returns how many.

    H.264 (VP9 in .webm) without frames that refer forwards, so that files written one after the
    other can be joined.
    """
    import av

    codec = "libvpx-vp9" if path.suffix == ".webm" else "libx264"
    matrix, full, primaries, transfer = stream.colours
    count, lengths = 0, dict[int, int]()
    with _new(path, stream) as container:
        out: Any = None
        for frame in frames:
            height, width = frame.pixels.shape[:2]
            if out is None:
                out = container.add_stream(codec, rate=stream.rate, options=_QUALITY[codec])
                out.width, out.height = width - width % 2, height - height % 2
                out.pix_fmt = "yuv420p"
                out.codec_context.time_base = out.time_base = stream.time_base
                out.codec_context.max_b_frames = 0
                out.codec_context.sample_aspect_ratio = stream.aspect
                out.codec_context.colorspace, out.codec_context.color_range = matrix, full
                out.codec_context.color_primaries = primaries
                out.codec_context.color_trc = transfer
            even = np.ascontiguousarray(frame.pixels[: out.height, : out.width])
            picture = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(
                format="yuv420p",
                dst_colorspace=_MATRICES.get(matrix, 5),
                dst_color_range=full or 1,
                interpolation=_ROUNDED,
            )
            picture.pts, picture.time_base = frame.time, stream.time_base
            lengths[frame.time] = frame.duration
            _mux(container, out.encode(picture), lengths)
            count += 1
        if out is not None:
            _mux(container, out.encode(None), lengths)
    return count


def _mux(container: Any, packets: list[Any], lengths: dict[int, int]) -> None:
    """Write what an encoder gave; ``lengths`` of frames by their times, which it forgets."""
    for packet in packets:
        packet.duration = lengths.pop(packet.pts, 0)
        container.mux(packet)


def _new(path: Path, stream: Stream) -> Any:
    """A container to write, with nothing drawn and no versions in it, and with times as exact as
    the stream's."""
    import av

    options = {"fflags": "+bitexact"}
    if path.suffix in (".mp4", ".m4v", ".mov"):
        options["movie_timescale"] = str(stream.time_base.denominator)
    return av.open(str(path), "w", options=options)


def join(parts: list[Path], target: Path, stream: Stream, sound_of: Path | None = None) -> None:
    """Files of ``write_frames``, in order, as one; ``sound_of``: a video whose sound is added."""
    with ExitStack() as stack:
        container = stack.enter_context(_new(target, stream))
        first = stack.enter_context(open_video(parts[0]))
        out = container.add_stream_from_template(first.streams.video[0])
        out.codec_context.framerate = stream.rate
        lines: list[Iterator[Any]] = [(packet for part in parts for packet in _packets(part, out))]
        if sound_of is not None:
            sound = stack.enter_context(open_video(sound_of))
            if sound.streams.audio:
                audio = container.add_stream_from_template(sound.streams.audio[0])
                lines.append(_packets(sound_of, audio))
        for packet in heapq.merge(*lines, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)


def _packets(path: Path, target: Any) -> Iterator[Any]:
    """What a file has for a stream of its kind, in the order of decoding."""
    with open_video(path) as container:
        for packet in container.demux(next(s for s in container.streams if s.type == target.type)):
            if packet.dts is not None:
                packet.stream = target
                yield packet
