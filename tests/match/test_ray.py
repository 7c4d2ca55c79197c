"""A gallery spread over Ray actors gives what one process gives."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ppfr_ops.match.bfv import ParameterError
from ppfr_ops.match.gallery import Gallery
from ppfr_ops.match.keys import PublicKeys
from ppfr_ops.match.packing import quantise
from ppfr_ops.match.scores import decrypt_masked, encrypt_probe, mask

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(("partitions", "slices"), [(3, 1), (2, 2)])
def test_partitions_are_put_together_under_encryption(keys, partitions, slices):
    from ppfr_ops.engines.ray_match import RayScorer

    rows = quantise(np.random.default_rng(0).normal(size=(3000, 128)))
    probe = quantise(np.random.default_rng(1).normal(size=(1, 128)))[0]
    scorer = RayScorer(Gallery(rows, [str(i) for i in range(3000)], "test"), partitions, slices)
    sent, masks = mask(
        scorer(encrypt_probe(keys.scores, scorer.layout, probe)),
        PublicKeys.read(keys.public).scores,
        scorer.layout,
    )
    seen = decrypt_masked(keys.scores, sent, scorer.layout)
    scores = (seen - masks + (1 << 25)) % (1 << 26) - (1 << 25)
    assert np.array_equal(scores[:3000], rows.astype(np.int64) @ probe.astype(np.int64))
    with pytest.raises(ParameterError):
        list(scorer(b"\xff" * len(encrypt_probe(keys.scores, scorer.layout, probe))))
    with pytest.raises(ValueError, match="no more partitions"):
        RayScorer(Gallery(rows, [str(i) for i in range(3000)], "test"), 1000)


def test_matching_loads_neither_ray_nor_click_nor_torch():
    code = (
        "import sys, ppfr_ops.match.transport, ppfr_ops.match.templates; "
        "print([m for m in ('ray', 'click', 'torch', 'apache_beam') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
