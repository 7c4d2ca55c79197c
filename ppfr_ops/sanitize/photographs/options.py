"""The options of ``ppfr sanitize --faces detect``."""

import hashlib
from typing import Literal

from ppfr_ops.imaging.detector import CENTERFACE
from ppfr_ops.imaging.edges import YUNET
from ppfr_ops.options import Options, decisive, digest


class PhotographOptions(Options):
    """What is to be done with photographs."""

    output_faces: Literal["crops", "in-place"] = decisive(
        "crops",
        "What is published of a photograph. crops: every face, aligned, as a record of its own. "
        "in-place: the whole picture, every head covered that is found.",
    )
    no_face: Literal["quarantine", "drop", "pass"] = decisive(
        "quarantine",
        "What becomes of a photograph in which no face is found. quarantine: a dead letter that "
        "counts as a failure. drop: left out on purpose. pass (in-place only): published AS IT IS.",
    )
    background: Literal["keep", "blur", "black"] = decisive(
        "keep",
        "What becomes of everything but the heads when pictures are published in-place; a "
        "background may tell who it is, too.",
    )
    cover: Literal["blur", "mosaic", "solid", "virtual", "method"] | None = decisive(
        None,
        "What covers the heads when pictures are published in-place. blur, mosaic and solid leave "
        "a few mean colours of a head, or none; virtual: a drawn head of somebody new, "
        "turned and lit as the original is, which takes a second a face; method: what --method "
        "makes of the face, in the middle of a blur.",
        default_text="blur; with --method or --method-option: method",
    )
    face_threshold: float = decisive(
        0.2, "Lowest score of the detector that counts as a face.", gt=0, lt=1
    )
    face_sure: float = decisive(
        0.35,
        "Faces with a lower score are pixelated instead of being given to the method.",
        ge=0,
        le=1,
    )
    smallest_face: float = decisive(
        32.0,
        "Faces smaller than this, longer side in px, are pixelated instead of being given to the "
        "method.",
        metavar="PX",
        ge=1,
    )
    thorough: bool = decisive(
        False,
        "Look at every photograph twice (enlarged, shrunk, mirrored, turned). Without this, the "
        "second look is taken only where the first finds nothing.",
    )
    detector: str = decisive(
        "centerface",
        "The face detector: centerface, or MODULE:NAME of your own (docs/faces.md).",
        metavar="MODULE:NAME",
    )
    boxes_column: str | None = decisive(
        None,
        "Column of known face boxes, [[x0, y0, x1, y1], …] in px, or as --boxes-format says. With "
        "it, nothing else counts as a face. WebDataset: a key of the sample's JSON.",
        metavar="NAME",
    )
    boxes_format: Literal[
        "xyxy", "xywh", "cxcywh", "xyxy-relative", "xywh-relative", "cxcywh-relative"
    ] = decisive(
        "xyxy",
        "What the four numbers of a box are: two corners; a corner, width and height; or the "
        "middle, width and height. In px, or relative: in shares of the picture's sides, 0 to 1 "
        "(then landmarks are, too).",
    )
    boxes_frame: Literal["upright", "stored"] = decisive(
        "upright",
        "Which picture boxes and landmarks are of, where EXIF says that it is to be turned: the "
        "upright one that people see, or the one that is stored.",
    )
    unboxed: Literal["hold", "cover", "leave"] = decisive(
        "hold",
        "With --boxes-column: what becomes of a photograph in which the detector surely sees a "
        "face that no box covers. hold: a dead letter, and in the review queue. cover: it is "
        "treated as a face. leave: published AS IT IS; with --landmarks-column the detector is "
        "not run at all.",
    )
    landmarks_column: str | None = decisive(
        None,
        "Column of the five landmarks of each known box, [[[x, y], …], …] in px.",
        metavar="NAME",
    )
    photo_label: Literal["main", "all"] = decisive(
        "main",
        "Whose label that of a photograph is, where faces are cut out. main: that of the largest, "
        "most central face, and all others are people of their own. all: every face's.",
    )
    keep_regions_column: str | None = decisive(
        None,
        "Column of boxes as in --boxes-column; faces inside them are left as they are.",
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
