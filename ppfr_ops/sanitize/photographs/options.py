"""The options of ``ppfr sanitize --faces detect``."""

import hashlib
from typing import Literal

from ppfr_ops.imaging.detector import CENTERFACE
from ppfr_ops.imaging.edges import YUNET
from ppfr_ops.options import Options, digest, option


class PhotographOptions(Options):
    """What is to be done with photographs."""

    output_faces: Literal["crops", "in-place"] = option(
        "crops",
        "What is published of a photograph. crops: every face, aligned, as a record of its own. "
        "in-place: the whole picture, every head covered that is found.",
        shapes=True,
    )
    no_face: Literal["quarantine", "drop", "pass"] = option(
        "quarantine",
        "What becomes of a photograph in which no face is found. quarantine: a dead letter that "
        "counts as a failure. drop: left out on purpose. pass (in-place only): published AS IT IS.",
        shapes=True,
    )
    background: Literal["keep", "blur", "black"] = option(
        "keep",
        "What becomes of everything but the heads when pictures are published in-place; a "
        "background may tell who it is, too.",
        shapes=True,
    )
    cover: Literal["blur", "mosaic", "solid", "virtual", "method"] | None = option(
        None,
        "What covers the heads when pictures are published in-place. blur, mosaic and solid leave "
        "a few mean colours of a head, or none; virtual: a drawn head of somebody new, "
        "turned and lit as the original is, which takes a second a face; method: what --method "
        "makes of the face, in the middle of a blur.",
        shapes=True,
        default_text="blur; with --method or --method-option: method",
    )
    face_threshold: float = option(
        0.2, "Lowest score of the detector that counts as a face.", shapes=True, gt=0, lt=1
    )
    face_sure: float = option(
        0.35,
        "Faces with a lower score are pixelated instead of being given to the method.",
        shapes=True,
        ge=0,
        le=1,
    )
    smallest_face: float = option(
        32.0,
        "Faces smaller than this, longer side in px, are pixelated instead of being given to the "
        "method.",
        shapes=True,
        metavar="PX",
        ge=1,
    )
    thorough: bool = option(
        False,
        "Look at every photograph twice (enlarged, shrunk, mirrored, turned). Without this, the "
        "second look is taken only where the first finds nothing.",
        shapes=True,
    )
    detector: str = option(
        "centerface",
        "The face detector: centerface, or MODULE:NAME of your own (docs/faces.md).",
        shapes=True,
        metavar="MODULE:NAME",
    )
    boxes_column: str | None = option(
        None,
        "Column of known face boxes, [[x0, y0, x1, y1], …] in px, or as --boxes-format says. With "
        "it, nothing else counts as a face. WebDataset: a key of the sample's JSON.",
        shapes=True,
        metavar="NAME",
    )
    boxes_format: Literal[
        "xyxy", "xywh", "cxcywh", "xyxy-relative", "xywh-relative", "cxcywh-relative"
    ] = option(
        "xyxy",
        "What the four numbers of a box are: two corners; a corner, width and height; or the "
        "middle, width and height. In px, or relative: in shares of the picture's sides, 0 to 1 "
        "(then landmarks are, too).",
        shapes=True,
    )
    boxes_frame: Literal["upright", "stored"] = option(
        "upright",
        "Which picture boxes and landmarks are of, where EXIF says that it is to be turned: the "
        "upright one that people see, or the one that is stored.",
        shapes=True,
    )
    unboxed: Literal["hold", "cover", "leave"] = option(
        "hold",
        "With --boxes-column: what becomes of a photograph in which the detector surely sees a "
        "face that no box covers. hold: a dead letter, and in the review queue. cover: it is "
        "treated as a face. leave: published AS IT IS; with --landmarks-column the detector is "
        "not run at all.",
        shapes=True,
    )
    landmarks_column: str | None = option(
        None,
        "Column of the five landmarks of each known box, [[[x, y], …], …] in px.",
        shapes=True,
        metavar="NAME",
    )
    photo_label: Literal["main", "all"] = option(
        "main",
        "Whose label that of a photograph is, where faces are cut out. main: that of the largest, "
        "most central face, and all others are people of their own. all: every face's.",
        shapes=True,
    )
    keep_regions_column: str | None = option(
        None,
        "Column of boxes as in --boxes-column; faces inside them are left as they are.",
        shapes=True,
        metavar="NAME",
    )

    @property
    def given(self) -> dict[str, str]:
        """Columns by what they hold, as ``source.units.Columns`` wants them."""
        columns = {
            "boxes": self.boxes_column,
            "landmarks": self.landmarks_column,
            "regions": self.keep_regions_column,
        }
        return {role: name for role, name in columns.items() if name is not None}

    def detector_digest(self) -> str:
        """sha256 of the detector: of its files where it is ours, else of its name; hex."""
        if self.detector == "centerface":
            return hashlib.sha256(CENTERFACE.read_bytes() + YUNET.read_bytes()).hexdigest()
        return digest(self.detector)
