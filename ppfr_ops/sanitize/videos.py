"""Videos: heads covered in every frame, file beside file.

A video is looked at in segments: the faces of each are found and kept, so that a run that is killed
goes on at the segment where it was. Then faces are joined to tracks over the whole video
(``imaging.tracking``), holes are filled, and the segments are written and joined. What is held in
memory is a few frames, and the boxes of all.

    OUTPUT/release/NAME                    videos as they may leave, under the names they had
    OUTPUT/release/files.json              frames, bytes and sha256 of each
    OUTPUT/evidence/videos/KEY/            what was found, by segment; and segments that are written
    OUTPUT/evidence/review.csv             spans of time that a person should look at, worst first
"""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ppfr_ops.errors import UserError
from ppfr_ops.imaging import video
from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.covers import Cover
from ppfr_ops.imaging.detector import Checked, Detections, Detector
from ppfr_ops.imaging.geometry import Treatment, cover
from ppfr_ops.imaging.tracking import Track, Tracker, filled, scene_changes
from ppfr_ops.methods.registry import create
from ppfr_ops.store.atomic import in_one_step

if TYPE_CHECKING:
    from ppfr_ops.sanitize.drawn_tracks import DrawnTracks

BATCH = 8
"""Frames that the detector gets at a time."""

SMOOTH_SECONDS = 0.1
REACH_SECONDS = 0.4
"""A track is carried on for so long before and after the face was found."""
GAP_SECONDS = 1.5
"""A face may be missed for so long and still be the same."""
LONG_GAP_SECONDS = 0.5
"""A gap that a person should look at."""


@dataclass(frozen=True)
class Doubt:
    """A span of a video that a person should look at."""

    video: str
    start: float
    end: float
    reason: str
    track: int


@dataclass(frozen=True)
class VideoDone:
    """What became of a video; ``problem``: why nothing was published."""

    name: str
    frames: int = 0
    tracks: int = 0
    covered_frames: int = 0
    bytes: int = 0
    sha256: str = ""
    doubts: tuple[Doubt, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class VideoSettings:
    """How videos are covered; ``segment``: frames of a unit of work; ``sure``: a track whose best
    score is lower is to be looked at."""

    style: Cover | Literal["virtual"] = "blur"
    segment: int = 250
    sure: float = 0.5
    keep_sound: bool = False
    every: int = 1
    """The detector looks at one frame in so many; what lies between is filled in."""


def find_videos(source: Path) -> list[Path]:
    """The videos of a folder, hidden files and folders left out; or the one file.

    Raises:
        UserError: there is none.
    """
    if source.is_file():
        return [source]
    found = [
        path
        for path in sorted(source.rglob("*"))
        if path.suffix.lower() in video.SUFFIXES
        and path.is_file()
        and not any(part.startswith((".", "_")) for part in path.relative_to(source).parts)
    ]
    if not found:
        raise UserError(f"the input holds no video ({', '.join(video.SUFFIXES)})")
    return found


def sanitize_videos(
    source: Path,
    output: Path,
    detector: Detector,
    settings: VideoSettings,
    told: Callable[[VideoDone], None] = lambda done: None,
) -> list[VideoDone]:
    """Cover the heads in all videos of a folder; what is done is not done again.

    Args:
        source: a video, or a folder of them; nothing in it is changed.
        output: a folder of its own.
        told: called with each as it is done.

    Raises:
        UserError: input and output lie inside each other, or the output is of other settings.
    """
    source, output = source.resolve(), output.resolve()
    root = source.parent if source.is_file() else source
    if output == root or root in output.parents or output in root.parents:
        raise UserError("input and output must not lie inside each other")
    evidence, release = output / "evidence", output / "release"
    evidence.mkdir(parents=True, exist_ok=True, mode=0o700)
    evidence.chmod(0o700)
    release.mkdir(exist_ok=True)
    _same_settings(evidence / "settings.json", settings)
    done = []
    for path in find_videos(source):
        name = path.relative_to(root)
        done.append(_one(path, name, release, evidence, Checked(detector), settings))
        told(done[-1])
    _write_documents(output, done)
    return done


def _same_settings(place: Path, settings: VideoSettings) -> None:
    # A clip that was begun by a version that draws other people would go on with somebody else.
    people = {"people": create("portrait").digest()} if settings.style == "virtual" else {}
    wanted = asdict(settings) | people
    if place.exists() and json.loads(place.read_text()) != wanted:
        raise UserError("the output was made with other options or people; take another output")
    _write_text(place, json.dumps(wanted))


def _one(
    path: Path,
    name: Path,
    release: Path,
    evidence: Path,
    detector: Detector,
    settings: VideoSettings,
) -> VideoDone:
    target = (release / name).with_suffix(".mkv" if name.suffix == ".avi" else name.suffix)
    stat = path.stat()
    stamp = f"{name}|{stat.st_size}|{stat.st_mtime_ns}"
    work = evidence / "videos" / hashlib.sha256(stamp.encode()).hexdigest()[:24]
    record = work / "done.json"
    if record.exists() and target.exists():
        kept = json.loads(record.read_text())
        if kept["sha256"] == _digest(target):
            doubts = tuple(Doubt(**doubt) for doubt in kept.pop("doubts"))
            return VideoDone(**kept, doubts=doubts)
    work.mkdir(parents=True, exist_ok=True)
    try:
        stream = video.describe_stream(path)
        found = list(_look(path, stream, work, detector, settings))
    except ValueError as error:
        return VideoDone(str(name), problem=str(error))
    if not found:
        return VideoDone(str(name), problem="no frame that has a time")
    times = np.concatenate([part["times"] for part in found])
    if stream.frames and len(times) < stream.frames:
        return VideoDone(str(name), problem=f"damaged after {len(times)} of {stream.frames} frames")
    tracks, doubts = _tracks(str(name), found, times, stream, settings)
    target.parent.mkdir(parents=True, exist_ok=True)
    covered = _write(path, stream, work, target, tracks, len(times), settings)
    result = VideoDone(
        str(name),
        frames=len(times),
        tracks=len(tracks),
        covered_frames=covered,
        bytes=target.stat().st_size,
        sha256=_digest(target),
        doubts=doubts,
    )
    _write_text(record, json.dumps(asdict(result)))
    for part in (*work.glob("segment-*"), *work.glob("key")):
        part.unlink()
    return result


# -- looking ----------------------------------------------------------------------------------


def _look(
    path: Path, stream: video.Stream, work: Path, detector: Detector, settings: VideoSettings
) -> Iterator[Mapping[str, Any]]:
    """What was found in every segment; segments that were looked at before are read."""
    last: int | None = None
    number = 0
    while (place := work / f"segment-{number:06d}.npz").exists():
        with np.load(place, allow_pickle=False) as kept:
            part = {key: kept[key] for key in kept.files}
        yield part
        last = int(part["times"][-1])
        number += 1
        if len(part["times"]) < settings.segment:
            return
    before: Picture | None = None
    frames = video.read_frames(path, stream.quarter_turns, last)
    while batch := list(islice(frames, min(BATCH, settings.segment))):
        part, before = _segment(batch, frames, before, detector, settings)
        with in_one_step(str(work / f"segment-{number:06d}.npz")) as file:
            np.savez(file, **part)  # type: ignore[arg-type]
        number += 1
        yield part


def _segment(
    batch: list[video.Frame],
    frames: Iterator[video.Frame],
    before: Picture | None,
    detector: Detector,
    settings: VideoSettings,
) -> tuple[dict[str, NDArray[Any]], Picture | None]:
    """Times, faces and scene changes of so many frames, of which ``batch`` are the first."""
    times: list[int] = []
    cuts: list[bool] = []
    owners: list[int] = []
    faces: list[Detections] = []
    read: list[dict[str, NDArray[Any]]] = []
    while batch:
        looked = [n for n in range(len(batch)) if (len(times) + n) % settings.every == 0]
        for n, found in zip(looked, detector([batch[n].pixels for n in looked]), strict=True):
            owners += [len(times) + n] * len(found)
            faces.append(found)
            if settings.style == "virtual":
                from ppfr_ops.sanitize.drawn_tracks import CODED, read_of

                coded = (len(times) + n) % CODED < settings.every
                read.append(read_of(batch[n].pixels, found, coded))
        for frame in batch:
            small = cv2.resize(frame.pixels, (64, 36), interpolation=cv2.INTER_AREA)
            now = np.asarray(small, np.uint8)
            cuts.append(before is not None and scene_changes(before, now))
            before = now
            times.append(frame.time)
        batch = list(islice(frames, min(BATCH, settings.segment - len(times))))
    joined = Detections.join(faces)
    return {
        "times": np.array(times, np.int64),
        "cuts": np.array(cuts, bool),
        "owners": np.array(owners, np.int64),
        "boxes": joined.boxes,
        "landmarks": joined.landmarks,
        "scores": joined.scores,
        **{key: np.concatenate([each[key] for each in read]) for key in (read[0] if read else ())},
    }, before


# -- tracks -----------------------------------------------------------------------------------


def _tracks(
    name: str,
    found: Sequence[Mapping[str, Any]],
    times: NDArray[np.int64],
    stream: video.Stream,
    settings: VideoSettings,
) -> tuple[list[Track], tuple[Doubt, ...]]:
    """Whole tracks of a video, and what a person should look at."""
    rate = float(stream.rate)
    tracker = Tracker(gap=max(1, round(GAP_SECONDS * rate)))
    scenes, frame = [0], 0
    for part in found:
        for row in range(len(part["times"])):
            if part["cuts"][row]:
                scenes.append(frame)
                tracker.cut()
            mine = np.flatnonzero(part["owners"] == row)
            boxes, marks, scores = (part[key][mine] for key in ("boxes", "landmarks", "scores"))
            faces = Detections(boxes, marks, scores, np.zeros(len(mine), bool))
            for face, track in zip(mine, tracker.add(frame, faces), strict=True):
                if "skins" in part:
                    track.skins.append(part["skins"][face])
                if "coded" in part and part["coded"][face]:
                    track.codes.append(part["codes"][part["coded"][:face].sum()])
            frame += 1
    reach = max(settings.every, round(REACH_SECONDS * rate))
    seconds = (times - times[0]) * float(stream.time_base)
    doubts, tracks = [], []
    for track in tracker.tracks:
        tracks.append(filled(track, scenes, frame, reach, SMOOTH_SECONDS * rate))
        gaps = np.diff(track.frames)
        if max(track.scores) < settings.sure:
            where, reason = (track.frames[0], track.frames[-1]), "unsure"
        elif len(gaps) and gaps.max() > max(settings.every, LONG_GAP_SECONDS * rate):
            place = int(gaps.argmax())
            where, reason = (track.frames[place], track.frames[place + 1]), "lost and found"
        elif len(track.frames) * settings.every < 0.2 * rate:
            where, reason = (track.frames[0], track.frames[-1]), "seen for a moment"
        else:
            continue
        span = float(seconds[where[0]]), float(seconds[where[1]])
        doubts.append(Doubt(name, *span, reason, track.number))
    return tracks, tuple(doubts)


# -- writing ----------------------------------------------------------------------------------


def _write(
    path: Path,
    stream: video.Stream,
    work: Path,
    target: Path,
    tracks: Sequence[Track],
    frames: int,
    settings: VideoSettings,
) -> int:
    """Write the video with its heads covered; returns the frames that have one."""
    there: list[list[tuple[Track, int]]] = [[] for _ in range(frames)]
    for track in tracks:
        for place, frame in enumerate(track.frames):
            there[frame].append((track, place))
    suffix = ".webm" if target.suffix == ".webm" else ".mp4"
    parts: list[Path] = []
    last: int | None = None
    while (note := work / f"segment-{len(parts):06d}.json").exists():
        last = int(json.loads(note.read_text()))
        parts.append(note.with_suffix(suffix))
    source = video.read_frames(path, stream.quarter_turns, last)
    people = None
    if settings.style == "virtual":
        from ppfr_ops.sanitize.drawn_tracks import DrawnTracks

        people = DrawnTracks(work / "key", tracks)
    style: Cover = "blur" if settings.style == "virtual" else settings.style
    for start in range(len(parts) * settings.segment, frames, settings.segment):
        part = work / f"segment-{len(parts):06d}{suffix}"
        draft = work / f"draft{suffix}"
        times: list[int] = []
        heads = there[start : start + settings.segment]
        taken = islice(source, settings.segment)
        video.write_frames(draft, stream, _covered(taken, heads, style, people, times))
        os.replace(draft, part)
        _write_text(part.with_suffix(".json"), json.dumps(times[-1]))
        parts.append(part)
    draft = work / f"whole{target.suffix}"
    video.join(parts, draft, stream, path if settings.keep_sound else None)
    os.utime(draft, (0, 0))
    shutil.move(draft, target)
    return sum(map(bool, there))


def _covered(
    frames: Iterator[video.Frame],
    there: Sequence[Sequence[tuple[Track, int]]],
    style: Cover,
    people: "DrawnTracks | None",
    times: list[int],
) -> Iterator[video.Frame]:
    """Frames with their heads covered; ``there``: tracks in each, and their places. The frames'
    times are added to ``times``."""
    for frame, heads in zip(frames, there, strict=True):
        times.append(frame.time)
        if heads:
            faces = Detections(
                np.stack([track.boxes[place] for track, place in heads]),
                np.stack([track.landmarks[place] for track, place in heads]),
                np.ones(len(heads), np.float32),
                np.zeros(len(heads), bool),
            )
            drawn = {} if people is None else people.portraits(heads, faces)
            treatments: list[Treatment] = ["covered"] * len(heads)
            pixels, _ = cover(frame.pixels, faces, treatments, drawn, style=style)
            frame = replace(frame, pixels=pixels)
        yield frame


def _write_documents(output: Path, done: Sequence[VideoDone]) -> None:
    files = [
        {"path": each.name, "frames": each.frames, "bytes": each.bytes, "sha256": each.sha256}
        for each in done
        if not each.problem
    ]
    _write_text(output / "release" / "files.json", json.dumps({"videos": files}, indent=1))
    order = ("unsure", "lost and found", "seen for a moment")
    doubts = sorted(
        (doubt for each in done for doubt in each.doubts),
        key=lambda doubt: (order.index(doubt.reason), doubt.video, doubt.start),
    )
    with open(output / "evidence" / "review.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("video", "start_s", "end_s", "reason", "track"))
        for doubt in doubts:
            span = f"{doubt.start:.2f}", f"{doubt.end:.2f}"
            writer.writerow((doubt.video, *span, doubt.reason, doubt.track))


def _write_text(place: Path, text: str) -> None:
    with in_one_step(str(place)) as file:
        file.write(text.encode())


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
