"""What a mask does to FR, what the eye sees of it, what survives, and what an attacker undoes.

    python bench/mask.py --gallery DATA/lfw_aligned --pairs DATA/lfw_pairs.parquet \\
        --fr faceres=MODELS/faceres.onnx --fr dlib=MODELS/dlib.onnx --student DATA/utk_aligned

For every FR model the TAR at a FAR of 1e-3 of the pairs' first picture, published, against the
second, as it was; side by side with the same of originals, at the threshold of the published pairs
and at that of originals (which an operator who knows of no masks has set). Then the same after JPEG
75, a resize to 0.7 and back, a blur of sigma 1; then what is left of it against a *student*: a
small network that was shown faces of other people, masked by the same method, and learned to guess
the original's template.
"""

import argparse
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.lab.evaluate.data import read_faces, read_pairs
from ppfr_ops.lab.evaluate.linkage import train_student
from ppfr_ops.lab.evaluate.protocol import pair_scores, threshold_at_far
from ppfr_ops.methods.registry import create
from ppfr_ops.recognizers import Recognizer, RecognizerSpec
from ppfr_ops.sanitize.measuring import measure

FAR = 1e-3
JPEG = Encoding()


def jpeg_75(faces: Faces) -> Faces:
    return Encoding("jpeg", 75).round_trip(faces)


def resized(faces: Faces) -> Faces:
    def one(face: NDArray[np.uint8]) -> NDArray[np.uint8]:
        small = cv2.resize(face, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
        return cv2.resize(small, face.shape[:2], interpolation=cv2.INTER_CUBIC)

    return np.stack([one(face) for face in faces])


def blurred(faces: Faces) -> Faces:
    return np.stack([cv2.GaussianBlur(face, (0, 0), 1.0) for face in faces])


def tar(scores: NDArray[np.floating], same: NDArray[np.bool_], threshold: float) -> float:
    return float((scores[same] >= threshold).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gallery", required=True)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--fr", action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--student", help="faces of other people")
    parser.add_argument("--student-faces", type=int, default=1000)
    parser.add_argument("--method", default="erasable-mask")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--pairs-per-fold", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="no JPEG 75, resize, blur")
    arguments = parser.parse_args()
    cv2.setNumThreads(arguments.threads)
    method = create(arguments.method, dict(o.split("=", 1) for o in arguments.option))

    def publish(faces: Faces) -> Faces:
        draws = np.random.default_rng(0).standard_normal((len(faces), method.draw_size))
        return JPEG.round_trip(method(faces, draws.astype(np.float32)))

    gallery = read_faces(arguments.gallery, "gallery")
    pairs = read_pairs(arguments.pairs, gallery)
    if arguments.pairs_per_fold:
        pairs = pairs.first(arguments.pairs_per_fold)
    first, place_a = np.unique(pairs.a, return_inverse=True)
    second, place_b = np.unique(pairs.b, return_inverse=True)
    faces = gallery.images[first]
    published = publish(faces)
    found = [
        measure(faces[i : i + 256], published[i : i + 256], None) for i in range(0, len(faces), 256)
    ]
    ssim = np.concatenate([part["ssim"] for part in found])
    psnr = np.concatenate([part["psnr"] for part in found])
    print(
        f"{len(pairs.a)} pairs; SSIM mean {ssim.mean():.3f}, 5th percentile "
        f"{np.percentile(ssim, 5):.3f}, least {ssim.min():.3f}; PSNR {psnr.mean():.1f} dB"
    )
    views: dict[str, Callable[[Faces], Faces]] = {"as published": lambda faces: faces}
    if not arguments.plain:
        views |= {"JPEG 75": jpeg_75, "resized 0.7": resized, "blur, sigma 1": blurred}
    others = read_faces(arguments.student, "student").images if arguments.student else None
    if others is not None:
        others = others[: arguments.student_faces]
        their_published = publish(others)
    print(f"TAR at FAR {FAR:g}; in brackets at the threshold of originals")
    for text in arguments.fr:
        model = Recognizer(RecognizerSpec.parse(text), arguments.threads)
        plain, reference = model.embed(faces), model.embed(gallery.images[second])[place_b]
        scores = pair_scores(plain[place_a], reference)
        usual = threshold_at_far(scores[~pairs.same], FAR)
        line = [f"{model.name}: originals {tar(scores, pairs.same, usual):.3f}"]
        for name, view in views.items():
            seen = model.embed(view(published))
            scores = pair_scores(seen[place_a], reference)
            threshold = threshold_at_far(scores[~pairs.same], FAR)
            line.append(
                f"{name} {tar(scores, pairs.same, threshold):.3f} "
                f"({tar(scores, pairs.same, usual):.3f})"
            )
            if name == "as published":
                templates = seen
        if others is not None:
            theirs = model.embed(their_published)
            student = train_student([theirs], theirs, model.embed(others))
            guess = student.guess(templates, [templates])
            scores = pair_scores(guess[place_a], student.gallery(reference))
            threshold = threshold_at_far(scores[~pairs.same], FAR)
            line.append(f"student, {len(others)} faces {tar(scores, pairs.same, threshold):.3f}")
        print("; ".join(line), flush=True)


if __name__ == "__main__":
    main()
