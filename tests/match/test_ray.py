"""A gallery spread over Ray actors gives what one process gives."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ppfr_ops.errors import UserError
from ppfr_ops.match.bfv import ParameterError
from ppfr_ops.match.gallery import Gallery
from ppfr_ops.match.packing import quantise
from ppfr_ops.match.scores import QueryKey, mask, read_public

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_partitions_are_put_together_under_encryption():
    from ppfr_ops.engines.ray_match import RayScorer

    rows = quantise(np.random.default_rng(0).normal(size=(3000, 128)))
    probe = quantise(np.random.default_rng(1).normal(size=(1, 128)))[0]
    scorer = RayScorer(Gallery(rows, [str(i) for i in range(3000)], "test"), 3)
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


@pytest.mark.slow
def test_the_key_of_a_step_ends_with_whoever_holds_it():
    """Of ``ppfr_ops.engines.ray_data``; it is here because Ray runs here already."""
    import ray
    from ray._private.state import actors

    from ppfr_ops.engines.ray_data import SanitizeFaces, SharedKey

    if not ray.is_initialized():
        ray.init(logging_level="ERROR", log_to_driver=False, include_dashboard=False, num_cpus=2)
    before = {name for name, actor in actors().items() if actor["State"] == "ALIVE"}
    key = SharedKey(b"k" * 32)
    asked = ray.remote(num_cpus=0)(lambda held: held.get())
    assert ray.get([asked.remote(key) for _ in range(2)]) == [b"k" * 32] * 2
    assert ray.util.list_named_actors(all_namespaces=True) == []
    assert len({key.get(), SharedKey().get(), SharedKey().get()}) == 3
    del key
    deadline = time.monotonic() + 20
    while {n for n, actor in actors().items() if actor["State"] == "ALIVE"} - before:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    options = {"method": "blur", "metrics": "none", "identity_column": "who", "threads": 1}
    for given, why in ((None, "all workers need one key"), (b"k" * 32, "would lie open in Ray")):
        with pytest.raises(UserError, match=why):
            SanitizeFaces(**options, key=given)({})


def test_matching_loads_neither_ray_nor_click_nor_torch():
    code = (
        "import sys, ppfr_ops.match.transport, ppfr_ops.match.templates; "
        "print([m for m in ('ray', 'click', 'torch', 'apache_beam') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
