"""Videos: every frame of a face is covered, also where the detector missed it; killed, resumed."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from ppfr_ops import sample
from ppfr_ops.cli import program
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.detector import Detections
from ppfr_ops.imaging.geometry import TEMPLATE
from ppfr_ops.imaging.portraits import Portrait
from ppfr_ops.imaging.tracking import Track, Tracker, filled
from ppfr_ops.methods.portrait import PortraitHeads
from ppfr_ops.sanitize.drawn_tracks import people_of, unhidden
from ppfr_ops.sanitize.videos import VideoSettings, sanitize_videos

av = pytest.importorskip("av")
from ppfr_ops.imaging import video  # noqa: E402

SIZE, RATE = (240, 320), 25
SIDE = 56


class Clip:
    """A made clip: faces that move over a background; it knows where they are."""

    def __init__(self, frames: int, faces: int = 1, seed: int = 0, cut_at: int | None = None):
        drawn = sample.faces(faces, seed, faces)
        rng = np.random.default_rng(seed)
        backs = rng.integers(60, 200, (2, *SIZE, 3)).astype(np.uint8)
        self.frames: list[NDArray[np.uint8]] = []
        self.boxes: list[NDArray[np.float32]] = []
        for number in range(frames):
            second = cut_at is not None and number >= cut_at
            frame = cv2.GaussianBlur(backs[int(second)] // (2 if second else 1), (0, 0), 9)
            boxes = []
            for k, face in enumerate(drawn):
                x = int(20 + (150 + 60 * k) * number / frames) % (SIZE[1] - SIDE - 10)
                y = 40 + 70 * k
                frame[y : y + SIDE, x : x + SIDE] = cv2.resize(face, (SIDE, SIDE))
                boxes.append((x, y, x + SIDE, y + SIDE))
            self.frames.append(np.asarray(frame, np.uint8))
            self.boxes.append(np.array(boxes, np.float32))

    def write(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = video.Stream(Fraction(1, 12800), Fraction(RATE), 0, 0)
        times = [512 * n + (5120 if n > len(self.frames) // 2 else 0) for n in range(9999)]
        frames = (video.Frame(f, t) for f, t in zip(self.frames, times, strict=False))
        video.write_frames(path, stream, frames)
        return path


class Knowing:
    """A detector that knows a clip's faces, and misses one frame in ``misses``."""

    def __init__(self, clip: Clip, misses: int = 0, dies_after: int | None = None) -> None:
        self.clip, self.misses, self.dies_after = clip, misses, dies_after
        self.small = [cv2.resize(frame, (32, 24)).astype(int) for frame in clip.frames]
        self.seen = 0

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        found = []
        for picture in pictures:
            self.seen += 1
            if self.dies_after is not None and self.seen > self.dies_after:
                raise KeyboardInterrupt
            small = cv2.resize(picture, (32, 24)).astype(int)
            number = int(np.argmin([np.abs(small - other).mean() for other in self.small]))
            boxes = self.clip.boxes[number]
            if self.misses and number % self.misses == self.misses // 2:
                boxes = boxes[:0]
            marks = (
                np.stack([b[:2] + TEMPLATE * (SIDE / 112) for b in boxes])
                if len(boxes)
                else (np.zeros((0, 5, 2)))
            )
            scores = np.full(len(boxes), 0.9, np.float32)
            landmarks = marks.astype(np.float32)
            found.append(Detections(boxes, landmarks, scores, np.zeros(len(boxes), bool)))
        return found


def bare(clip: Clip, path: Path) -> list[int]:
    """Frames of a written video in which a face is still as it was."""
    frames = list(video.read_frames(path, 0))
    assert len(frames) == len(clip.frames)
    left = []
    for number, (frame, was) in enumerate(zip(frames, clip.frames, strict=True)):
        for x0, y0, x1, y1 in clip.boxes[number].astype(int):
            inner = (slice(y0 + 8, y1 - 8), slice(x0 + 8, x1 - 8))
            parts = (p[inner].astype(float).mean(2).ravel() for p in (frame.pixels, was))
            if np.corrcoef(*parts)[0, 1] > 0.9:
                left.append(number)
    return left


@pytest.mark.parametrize("misses", [0, 20, 5])
@pytest.mark.parametrize("faces", [1, 2])
def test_no_frame_of_a_face_is_bare(tmp_path: Path, misses: int, faces: int) -> None:
    clip = Clip(60, faces)
    clip.write(tmp_path / "in" / "a b" / "clip.mp4")
    settings = VideoSettings(segment=25)
    (done,) = sanitize_videos(tmp_path / "in", tmp_path / "out", Knowing(clip, misses), settings)
    assert done.problem == "" and done.tracks == faces and done.covered_frames == 60
    written = tmp_path / "out" / "release" / "a b" / "clip.mp4"
    assert bare(clip, written) == []
    was = [f.time for f in video.read_frames(tmp_path / "in" / "a b" / "clip.mp4", 0)]
    assert [frame.time for frame in video.read_frames(written, 0)] == was
    assert written.stat().st_mtime == 0


def test_the_test_of_bare_faces_finds_them(tmp_path: Path) -> None:
    clip = Clip(10)
    assert bare(clip, clip.write(tmp_path / "clip.mp4")) == list(range(10))


def test_what_is_written_does_not_depend_on_what_memory_held(tmp_path: Path) -> None:
    Clip(20).write(tmp_path / "clip.mp4")
    script = """
import sys
from pathlib import Path
from ppfr_ops.imaging import video
source, target = map(Path, sys.argv[1:])
stream = video.describe_stream(source)
video.write_frames(target, stream, video.read_frames(source, 0))
"""
    for number in ("1", "85"):
        command = [sys.executable, "-c", script, "clip.mp4", f"{number}.mp4"]
        environment = {**os.environ, "MALLOC_PERTURB_": number}
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "1.mp4").read_bytes() == (tmp_path / "85.mp4").read_bytes()


@pytest.mark.parametrize("colours", [(2, 0, 2, 2), (1, 1, 1, 1), (5, 2, 5, 6)])
def test_colours_aspect_and_the_last_duration_stay(
    tmp_path: Path, colours: tuple[int, int, int, int]
) -> None:
    clip, place = Clip(6), tmp_path / "in" / "clip.mkv"
    place.parent.mkdir()
    stream = video.Stream(Fraction(1, 1000), Fraction(25), 0, 0, colours, Fraction(4, 3))
    video.write_frames(
        place, stream, (video.Frame(f, 40 * n + 80, 40) for n, f in enumerate(clip.frames))
    )
    video.join([place], tmp_path / "in" / "clip.mp4", stream)
    place.unlink()
    nobody = Knowing(clip)
    nobody.clip.boxes = [boxes[:0] for boxes in clip.boxes]
    (done,) = sanitize_videos(tmp_path / "in", tmp_path / "out", nobody, VideoSettings(segment=4))
    assert not done.problem
    paths = [tmp_path / "in" / "clip.mp4", tmp_path / "out" / "release" / "clip.mp4"]
    was, now = (video.describe_stream(path) for path in paths)
    assert was == now and now.colours == colours and now.aspect == Fraction(4, 3)
    before, after = (list(video.read_frames(path, 0)) for path in paths)
    assert [(f.time, f.duration) for f in before] == [(f.time, f.duration) for f in after]
    shift = np.mean([b.pixels.astype(float) - a.pixels for a, b in zip(before, after, strict=True)])
    assert abs(shift) < 0.6


def same_clip(folder: Path) -> None:
    """Made once and made with kills: the same bytes."""
    once, again = (
        (folder / name / "release" / "clip.mp4").read_bytes() for name in ("once", "out")
    )
    assert once == again


def test_killed_anywhere_the_same_call_goes_on(tmp_path: Path) -> None:
    clip = Clip(60)
    clip.write(tmp_path / "in" / "clip.mp4")
    settings = VideoSettings(segment=10)
    whole = sanitize_videos(tmp_path / "in", tmp_path / "once", Knowing(clip), settings)
    for dies in (8, 24, 24):
        with pytest.raises(KeyboardInterrupt):
            sanitize_videos(
                tmp_path / "in", tmp_path / "out", Knowing(clip, dies_after=dies), settings
            )
    detector = Knowing(clip)
    again = sanitize_videos(tmp_path / "in", tmp_path / "out", detector, settings)
    assert detector.seen <= 20  # what was looked at before is not looked at again
    assert again == whole
    same_clip(tmp_path)
    detector = Knowing(clip)
    assert sanitize_videos(tmp_path / "in", tmp_path / "out", detector, settings) == again
    assert detector.seen == 0
    left = [path.name for path in (tmp_path / "out" / "evidence" / "videos").rglob("segment*")]
    assert left == []


def test_killed_while_writing_the_same_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = Clip(60)
    clip.write(tmp_path / "in" / "clip.mp4")
    settings = VideoSettings(segment=10)
    whole = sanitize_videos(tmp_path / "in", tmp_path / "once", Knowing(clip), settings)
    write, written = video.write_frames, []

    def dying(path: Path, *rest: object) -> int:
        written.append(path)
        if len(written) in (2, 4):
            raise KeyboardInterrupt
        return write(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(video, "write_frames", dying)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            sanitize_videos(tmp_path / "in", tmp_path / "out", Knowing(clip), settings)
    again = sanitize_videos(tmp_path / "in", tmp_path / "out", Knowing(clip), settings)
    assert len(written) == 2 + 2 + 4
    assert again == whole
    same_clip(tmp_path)


def test_a_cut_ends_tracks_and_nothing_is_carried_over_it(tmp_path: Path) -> None:
    clip = Clip(40, cut_at=20)
    for boxes in clip.boxes[20:]:
        boxes[:] = 0
    clip.boxes = [b if n < 20 else b[:0] for n, b in enumerate(clip.boxes)]
    clip.frames[20:] = [np.full_like(clip.frames[0], 30)] * 20
    clip.write(tmp_path / "in" / "clip.mp4")
    (done,) = sanitize_videos(
        tmp_path / "in", tmp_path / "out", Knowing(clip), VideoSettings(segment=15)
    )
    assert done.tracks == 1 and done.covered_frames == 20


def test_what_a_person_should_look_at_is_listed_with_its_time(tmp_path: Path) -> None:
    clip = Clip(60)
    gap = clip.boxes[20:40]
    clip.boxes[20:40] = [b[:0] for b in gap]
    clip.write(tmp_path / "in" / "clip.mp4")
    (done,) = sanitize_videos(tmp_path / "in", tmp_path / "out", Knowing(clip), VideoSettings())
    (doubt,) = done.doubts
    assert doubt.reason == "lost and found"
    assert doubt.start == pytest.approx(19 / RATE) and doubt.end == pytest.approx(
        50 / RATE, abs=0.05
    )
    listed = (tmp_path / "out" / "evidence" / "review.csv").read_text().splitlines()
    assert listed[1].startswith("clip.mp4,0.76,")
    clip.boxes[20:40] = gap
    assert bare(clip, tmp_path / "out" / "release" / "clip.mp4") == []


def test_a_damaged_video_is_said_and_the_others_are_done(tmp_path: Path) -> None:
    clip = Clip(30)
    whole = clip.write(tmp_path / "in" / "b.mp4").read_bytes()
    (tmp_path / "in" / "a.mp4").write_bytes(b"nothing")
    (tmp_path / "in" / ".hidden.mp4").write_bytes(whole)
    done = sanitize_videos(tmp_path / "in", tmp_path / "out", Knowing(clip), VideoSettings())
    assert [(each.name, bool(each.problem)) for each in done] == [("a.mp4", True), ("b.mp4", False)]
    assert not (tmp_path / "out" / "release" / "a.mp4").exists()
    files = json.loads((tmp_path / "out" / "release" / "files.json").read_text())["videos"]
    assert [file["path"] for file in files] == ["b.mp4"]


def test_boxes_that_are_no_numbers_cover_no_video(tmp_path: Path) -> None:
    clip = Clip(30)
    clip.write(tmp_path / "in" / "a.mp4")

    class Lost(Knowing):
        def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Detections]:
            found = super().__call__(pictures)
            return [replace(each, boxes=each.boxes * np.nan) for each in found]

    (done,) = sanitize_videos(tmp_path / "in", tmp_path / "out", Lost(clip), VideoSettings())
    assert "not finite" in done.problem
    assert not (tmp_path / "out" / "release" / "a.mp4").exists()


def test_other_options_or_an_output_in_the_input_are_refused(tmp_path: Path) -> None:
    clip = Clip(6)
    clip.write(tmp_path / "in" / "clip.mp4")
    sanitize_videos(tmp_path / "in", tmp_path / "out", Knowing(clip), VideoSettings())
    with pytest.raises(UserError, match="other options"):
        sanitize_videos(
            tmp_path / "in", tmp_path / "out", Knowing(clip), VideoSettings(style="solid")
        )
    with pytest.raises(UserError, match="inside each other"):
        sanitize_videos(tmp_path / "in", tmp_path / "in" / "out", Knowing(clip), VideoSettings())


def test_a_version_that_draws_other_people_goes_on_with_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first half of a clip would show one person, the other half another."""
    clip, place = Clip(6), tmp_path / "out"
    clip.write(tmp_path / "in" / "clip.mp4")
    settings = VideoSettings(style="virtual")
    monkeypatch.setattr(PortraitHeads, "sitter", lambda *_: None)
    sanitize_videos(tmp_path / "in", place, Knowing(clip), settings)
    sanitize_videos(tmp_path / "in", place, Knowing(clip), settings)
    monkeypatch.setattr("ppfr_ops.methods.natural.DEFAULT_MIX", {"women": 0.25})
    with pytest.raises(UserError, match="other options or people"):
        sanitize_videos(tmp_path / "in", place, Knowing(clip), settings)


def test_faces_that_cross_stay_two_tracks() -> None:
    tracker = Tracker(gap=10)
    for frame in range(40):
        x = 10 + 5.0 * frame, 210 - 5.0 * frame
        boxes = np.array([(x[0], 10, x[0] + 40, 50), (x[1], 60, x[1] + 40, 100)], np.float32)
        marks = np.full((2, 5, 2), np.nan, np.float32)
        found = Detections(boxes, marks, np.ones(2, np.float32), np.zeros(2, bool))
        tracker.add(frame, found if frame % 7 else found.take(np.array([frame % 2])))
    assert len(tracker.tracks) == 2
    for track in tracker.tracks:
        whole = filled(track, [0], 40, reach=3, smooth=2)
        assert whole.frames == list(range(whole.frames[0], whole.frames[-1] + 1))
        steps = np.diff(np.stack(whole.boxes)[5:-5, 0])
        assert (np.sign(steps) == np.sign(steps[0])).all()


def test_tracks_in_which_one_person_is_seen_are_one_persons() -> None:
    one, other = np.eye(2, 256, dtype=np.float32)
    tracks = []
    # Seen, gone, seen again; somebody else; a twin beside the first; too small to tell.
    for first, code in ((0, one), (20, one + other / 2), (20, other), (5, one), (60, None)):
        track = Track(len(tracks))
        for frame in range(first, first + 10):
            track.add(frame, np.zeros(4, np.float32), np.zeros((5, 2), np.float32), 0.9)
        track.codes += [] if code is None else [code, code]
        # As far as it is carried on, nobody is in the way.
        track.add(first + 10, np.zeros(4, np.float32), np.zeros((5, 2), np.float32), 0.0)
        tracks.append(track)
    people = [[track.number for track in own] for own in people_of(tracks)]
    assert people == [[0, 1], [2], [3], [4]]


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    photograph = sample.photographs(1, 3)[0]
    frames = [np.roll(photograph, 2 * n, 1)[:240, :320] for n in range(12)]
    stream = video.Stream(Fraction(1, 12800), Fraction(RATE), 0, 0)
    (tmp_path / "in").mkdir()
    made = (video.Frame(np.ascontiguousarray(f), 512 * n) for n, f in enumerate(frames))
    video.write_frames(tmp_path / "in" / "clip.mkv", stream, made)
    done = CliRunner().invoke(
        program, ["video", "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    )
    assert done.exit_code in (0, 3), done.output
    assert len(list(video.read_frames(tmp_path / "out" / "release" / "clip.mkv", 0))) == 12


class Still:
    """Somebody drawn, as ``methods.portrait.Sitter``."""

    def __init__(self, skin: NDArray[np.float64]) -> None:
        self.skin = skin
        face = np.full((128, 128, 3), 5, np.uint8)
        self.portrait = Portrait(face, np.ones((128, 128), np.float32), np.eye(2, 3), 1)

    def turned(self, wanted: float) -> Portrait:
        return self.portrait


def test_one_person_is_drawn_for_each_track(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drawing itself is tested in ``test_covers``."""
    drawn: list[tuple[bytes, int, float]] = []

    def sitter(
        self: PortraitHeads,
        draw: NDArray[np.float32],
        turns: Sequence[float],
        skin: NDArray[np.float64],
        eyes: float,
    ) -> Still:
        drawn.append((draw.tobytes(), len(turns), eyes))
        return Still(skin)

    monkeypatch.setattr(PortraitHeads, "sitter", sitter)
    monkeypatch.setattr(PortraitHeads, "draw_size", 4)
    clip, place = Clip(60, 2), tmp_path / "out"
    clip.write(tmp_path / "in" / "clip.mp4")
    settings = VideoSettings(style="virtual", segment=25)
    write = video.write_frames

    def dying(path: Path, stream: video.Stream, frames: Iterator[video.Frame]) -> int:
        if (path.parent / "segment-000000.mp4").exists():
            raise KeyboardInterrupt
        return write(path, stream, frames)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(video, "write_frames", dying)
        sanitize_videos(tmp_path / "in", place, Knowing(clip), settings)
    (key,) = (place / "evidence" / "videos").rglob("key")
    assert key.stat().st_mode & 0o77 == 0
    (done,) = sanitize_videos(tmp_path / "in", place, Knowing(clip), settings)
    # Two tracks, and after the resume the very same two people.
    assert done.tracks == 2 and len(drawn) == 4 and len(set(drawn)) == 2
    assert drawn[0][1] == 60 and drawn[0][2] == pytest.approx(35.24 * SIDE / 112, abs=1)
    written = place / "release" / "clip.mp4"
    assert bare(clip, written) == [] and not key.exists()
    frames = [frame.pixels.astype(int) for frame in video.read_frames(written, 0)]
    for frame, boxes in zip(frames, clip.boxes, strict=True):
        x, y = ((boxes[0, :2] + boxes[0, 2:]) / 2).astype(int)
        assert frame[y, x].max() < 30


def test_drawn_hair_hides_no_face_behind_it() -> None:
    """The larger stands in front, lower; the third one is far away."""
    scales, corners = (1.0, 0.9, 0.8), ((100.0, 172.0), (110.0, 110.0), (900.0, 160.0))
    marks = np.stack([s * TEMPLATE + c for s, c in zip(scales, corners, strict=True)])
    boxes = np.concatenate([marks.min(1), marks.max(1)], 1).astype(np.float32)
    faces = Detections(boxes, marks.astype(np.float32), np.ones(3, np.float32), np.zeros(3, bool))
    # A picture's pixel is one of the template, 60 farther right and 90 farther down.
    moved = np.array([[1.0, 0, -60], [0, 1, -90]])
    plain = Portrait(np.zeros((260, 240, 3), np.uint8), np.ones((260, 240), np.float32), moved, 1)
    found = unhidden(dict.fromkeys(range(3), plain), faces)
    assert (found[1].silhouette == 1).all() and (found[2].silhouette == 1).all()
    for point, share in (
        (marks[1, 0], 0),  # an eye behind the hair in front
        (marks[0, 0], 1),  # eyes and mouth in front
        (marks[0, 3], 1),
        (marks[1, 3], 1),  # the mouth behind lies behind the forehead
        (marks[0, 2] + [-54, -40], 1),  # hair where no face is
    ):
        x, y = np.round(point - corners[0] + [60, 90]).astype(int)
        assert found[0].silhouette[y, x] == share


def test_a_face_that_is_never_large_stays_under_a_blur(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PortraitHeads, "sitter", lambda *_: 1 / 0)
    monkeypatch.setattr(PortraitHeads, "draw_size", 4)
    monkeypatch.setattr("ppfr_ops.sanitize.drawn_tracks.SMALLEST", SIDE + 9.0)
    clip = Clip(12)
    clip.write(tmp_path / "in" / "clip.mp4")
    settings = VideoSettings(style="virtual")
    (done,) = sanitize_videos(tmp_path / "in", tmp_path / "out", Knowing(clip), settings)
    assert done.problem == "" and bare(clip, tmp_path / "out" / "release" / "clip.mp4") == []
