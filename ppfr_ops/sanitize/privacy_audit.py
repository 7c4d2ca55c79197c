"""How much privacy a method certainly does not give: epsilon from below, by playing the attacker.

Two neighbouring inputs go through the sanitizer many times each, and a test is to tell from the
published pictures which one it was. A test that says "first" with probability p under the first
and q under the second shows epsilon >= ln((p - delta) / q). The test is chosen on one half of the
pictures, and p and q are bounded on the other (Clopper and Pearson), so the bound holds with the
confidence that is stated, whatever the mechanism does (Jagielski, Ullman and Oprea 2020; Nasr et
al. 2021). It says nothing about attacks that were not played.
"""

import io
import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import beta

from ppfr_ops.contracts.privacy_audit import PrivacyAudit
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.arrays import FACE_SIZE, Faces
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.methods.dp.base import Private
from ppfr_ops.methods.registry import create
from ppfr_ops.privacy import Guarantee
from ppfr_ops.sanitize.batch import BatchSanitizer

_STEPS = 64
"""Thresholds that are tried on the first half."""
_CHUNK = 500
_NUMBERS = 1_000_000
"""Coordinates that are noised of each neighbour, at most."""
_RIDGE = 0.02
"""Of the mean variance of a reading, added to each, for a few hundred pictures say little of 128
directions."""


def bound(hits: int, false_alarms: int, count: int, delta: float, confidence: float) -> float:
    """Epsilon, from below.

    Args:
        hits: how often a test said "first" of the first neighbour.
        false_alarms: how often of the second.
        count: pictures of each.
    """
    alpha = (1 - confidence) / 2
    least = float(beta.ppf(alpha, hits, count - hits + 1)) if hits else 0.0
    most = float(beta.ppf(1 - alpha, false_alarms + 1, count - false_alarms))
    most = 1.0 if false_alarms == count else most
    found = [0.0]
    for sure, rare in ((least, most), (1 - most, 1 - least)):
        if sure > delta and rare > 0:
            found.append(math.log((sure - delta) / rare))
    return max(found)


def audit(
    name: str,
    options: Mapping[str, str],
    trials: int,
    confidence: float = 0.95,
    output_format: str = "jpeg",
    quality: int = 95,
) -> PrivacyAudit:
    """Play the attacker against a method.

    Args:
        name, options: of the method.
        trials: pictures of each neighbour, 100 or more.
        confidence: of the bound.
        output_format, quality: of the pictures.

    Raises:
        UserError: the method promises nothing, or an option is wrong.
    """
    method = create(name, options)
    given = method.guarantee()
    if given is None:
        raise UserError(f"method {name}: promises no differential privacy")
    if given.unit == "person":  # of whom a record is a part, with an epsilon of its own
        options = {k: v for k, v in options.items() if k not in ("unit", "photos")}
        return audit(
            name,
            {**options, "epsilon": repr(given.loss.epsilon(given.delta or 1e-6))},
            trials,
            confidence,
            output_format,
            quality,
        )
    first, second = method.neighbours()
    sanitizer = BatchSanitizer(
        method=name,
        method_options=dict(options),
        accept_unsound=True,
        metrics="none",
        identity_column="identity" if "identity" in method.needed_context() else None,
        output_format=output_format,
        quality=quality,
    )
    encoding = sanitizer.options.encoding(sanitizer.method.draws_faces)
    seen = [_readings(sanitizer, encoding, face, trials) for face in (first, second)]
    half = trials // 2
    direction = _direction(seen[0][:half], seen[1][:half])
    one, other = (readings @ direction for readings in seen)
    found, hits, alarms = _told(one, other, given.delta, confidence)
    vector, vectors = _of_vectors(method, (first, second), trials, given, confidence)
    claimed = given.epsilon if given.claimed_epsilon is None else given.claimed_epsilon
    return PrivacyAudit(
        method=name,
        method_digest=method.digest(),
        claimed_epsilon=claimed,
        true_epsilon=given.epsilon,
        delta=given.delta,
        unsound=given.unsound,
        epsilon_at_least=round(found, 4),
        confidence=confidence,
        trials=trials,
        hits=hits,
        false_alarms=alarms,
        counted=trials - half,
        vector_epsilon_at_least=None if vector is None else round(vector, 4),
        vector_trials=vectors,
        holds=max(found, vector or 0.0) <= claimed,
    )


def _of_vectors(
    method: Anonymizer,
    neighbours: tuple[Faces, Faces],
    trials: int,
    given: Guarantee,
    confidence: float,
) -> tuple[float | None, int | None]:
    """Epsilon from below of what leaves the mechanism, and how often it was asked; None for a
    method that has none. The test is the likelihood ratio, which no other test beats, of the noise
    as it should be: what is drawn from the vector can only tell less."""
    if not isinstance(method, Private) or not given.loss.epsilon(given.delta or 1e-6):
        return None, None
    mechanism = method.mechanism()
    ends = method.vectors(np.stack(neighbours))
    method.forget()
    ends = mechanism.clipped(ends) / mechanism.radius
    count = min(trials, max(100, _NUMBERS // ends.shape[1]))
    order = 1 if mechanism.noise == "laplace" else 2
    ratios = []
    for end in ends:
        noised = mechanism.private(np.repeat(end[None], count, axis=0))
        away = [(np.abs(noised - centre) ** order).sum(1) for centre in ends]
        ratios.append((away[1] - away[0]) / mechanism.scale**order)
    one, other = ratios
    return _told(one, other, given.delta, confidence)[0], count


def _told(
    one: NDArray[np.float64], other: NDArray[np.float64], delta: float, confidence: float
) -> tuple[float, int, int]:
    """Epsilon from below by numbers that are higher under the first neighbour, with the hits and
    false alarms of the test: chosen on the first half, counted on the second."""
    half = len(one) // 2
    limit = _threshold(one[:half], other[:half], delta, confidence)
    hits, alarms = int((one[half:] > limit).sum()), int((other[half:] > limit).sum())
    return bound(hits, alarms, len(one) - half, delta, confidence), hits, alarms


def _direction(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Along which readings, ``N x D``, of the two lie farthest apart for their spread (Fisher)."""
    away = np.concatenate([one - one.mean(0), other - other.mean(0)])
    spread = away.T @ away / len(away)
    spread += np.eye(len(spread)) * (_RIDGE * np.trace(spread) / len(spread) + 1e-12)
    return np.linalg.solve(spread, one.mean(0) - other.mean(0))


def _threshold(
    one: NDArray[np.float64], other: NDArray[np.float64], delta: float, confidence: float
) -> float:
    """The one that gives the highest bound on these, with so much confidence that it holds for all
    that are tried: else luck in a tail would choose."""
    limits = np.quantile(np.concatenate([one, other]), np.linspace(0.02, 0.98, _STEPS))
    count = min(len(one), len(other))
    sure = 1 - (1 - confidence) / _STEPS
    scores = [
        bound(int((one > limit).sum()), int((other > limit).sum()), count, delta, sure)
        for limit in limits
    ]
    return float(limits[int(np.argmax(scores))])


def _readings(
    sanitizer: BatchSanitizer, encoding: Encoding, face: Faces, trials: int
) -> NDArray[np.float64]:
    """What the attacker reads off the published pictures of one face, ``trials x D``."""
    buffer = io.BytesIO()
    Image.fromarray(face).save(buffer, "PNG")
    found = []
    for start in range(0, trials, _CHUNK):
        count = min(_CHUNK, trials - start)
        rows = {"image": pa.array([buffer.getvalue()] * count, pa.binary())}
        if sanitizer.options.identity_column:
            rows["identity"] = pa.array(["somebody"] * count)
        done = sanitizer(pa.table(rows))
        cells = done["image"].combine_chunks().flatten()[0].to_pylist()
        pictures = np.stack([encoding.decode(cell) for cell in cells])
        assert pictures.shape[1:] == (FACE_SIZE, FACE_SIZE, 3)
        found.append(sanitizer.method.readings(pictures))
    return np.concatenate(found).astype(np.float64)
