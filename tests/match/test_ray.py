"""A gallery spread over Ray actors gives what one process gives."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ppfr_ops.match.bfv import ParameterError
from ppfr_ops.match.gallery import Gallery
from ppfr_ops.match.packing import quantise
from ppfr_ops.match.scores import QueryKey, mask, read_public

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(("partitions", "slices"), [(3, 1), (2, 2)])
def test_partitions_are_put_together_under_encryption(partitions, slices):
    from ppfr_ops.engines.ray_match import RayScorer

    rows = quantise(np.random.default_rng(0).normal(size=(3000, 128)))
    probe = quantise(np.random.default_rng(1).normal(size=(1, 128)))[0]
    scorer = RayScorer(Gallery(rows, [str(i) for i in range(3000)], "test"), partitions, slices)
    key = QueryKey()
    encrypted, public = key.encrypt_probe(scorer.layout, probe), key.public_half(bytes(16))
    sent, masks = mask(scorer(encrypted), read_public(public, bytes(16)), scorer.layout)
    seen = key.decrypt_masked(sent, scorer.layout)
    scores = (seen - masks + (1 << 25)) % (1 << 26) - (1 << 25)
    expected = rows.astype(np.int64) @ probe.astype(np.int64)
    assert np.abs(scores[:3000] - expected).max() <= 1
    with pytest.raises(ParameterError):
        list(scorer(b"\xff" * len(encrypted)))
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
