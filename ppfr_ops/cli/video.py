"""``ppfr video``: heads covered in videos, file beside file."""

from pathlib import Path
from typing import Any, Literal

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.options import options_of, validated
from ppfr_ops.options import Options, option

EXAMPLES = """
\b
Examples:
  ppfr video --input recordings/ --output protected/
  ppfr video --input clip.mp4 --output protected/ --cover virtual --keep-sound

Interrupted or killed? Run the same command again: it resumes at that segment.
Exit codes: 0 finished; 1 a video could not be done; 2 wrong usage or input;
3 finished, and there are spans in evidence/review.csv that a person should look at.
"""


class VideoOptions(Options):
    """Options of ``ppfr video``."""

    input: str = option(..., "A video, or a folder of them (mp4, mov, mkv, webm, avi).")
    output: str = option(..., "Folder: release/ may leave, evidence/ stays.")
    cover: Literal["blur", "mosaic", "solid", "virtual"] = option(
        "blur",
        "What covers the heads: a soft blur or mosaic of a few mean colours, one colour, or "
        "(virtual) the drawn head of somebody new, one person as long as a face is followed.",
    )
    face_threshold: float = option(
        0.2, "Lowest score of the detector that counts as a face.", gt=0, lt=1
    )
    detect_every: int = option(
        1, "Look for faces in one frame in so many; what lies between is filled in.", ge=1, le=10
    )
    keep_sound: bool = option(
        False, "Copy the sound as it is. Voices tell who speaks, so it is left out otherwise."
    )


@click.command(cls=Command, epilog=EXAMPLES)
@options_of(VideoOptions)
def main(**values: Any) -> int:
    """Cover every head in videos, also in frames in which the detector misses it.

    Faces are found frame by frame, joined to tracks, and covered from a little before the first to
    a little after the last frame in which they were found. Needs the extra video.
    """
    from ppfr_ops.cli.console import console
    from ppfr_ops.errors import require

    options = validated(VideoOptions, values)
    require("av")
    from ppfr_ops.imaging.video import detector_of_videos
    from ppfr_ops.sanitize.videos import VideoDone, VideoSettings, sanitize_videos

    settings = VideoSettings(
        style=options.cover, every=options.detect_every, keep_sound=options.keep_sound
    )

    def tell(done: VideoDone) -> None:
        if done.problem:
            console.print(f"Error: {done.name}: {done.problem}", markup=False)
            return
        console.print(
            f"{done.name}: {done.frames:,} frames, {done.tracks:,} faces tracked, "
            f"{done.covered_frames:,} frames with a cover",
            markup=False,
        )

    detector = detector_of_videos(options.face_threshold)
    output = Path(options.output)
    done = sanitize_videos(Path(options.input), output, detector, settings, tell)
    doubts = sum(len(each.doubts) for each in done)
    console.print(f"for others: {output}/release; for you alone: {output}/evidence", markup=False)
    if doubts:
        review = output / "evidence" / "review.csv"
        console.print(f"to be looked at by a person: {doubts:,} spans, in {review}", markup=False)
    if any(each.problem for each in done):
        return 1
    return 3 if doubts else 0
