"""What encrypted matching costs, beside plaintext and beside the library's own dot product.

    python bench/match.py                  7,701 x 128, and one identification step by step
    python bench/match.py --million        10^6 x 128 in two processes (4 GiB)
    python bench/match.py --ray            7,701 x 128 on two Ray actors
    python bench/match.py --compare        the comparison alone, both sides, at --records
    python bench/match.py --bits           what signs, asked for one by one, tell

Processor seconds, one core a process: they hold on a machine that others use, too. Wall seconds are
printed beside them where processes run side by side.
"""

import argparse
import resource
import secrets
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import tenseal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppfr_ops.match.bfv import ring, uniform
from ppfr_ops.match.comparison import LENGTH, client_bits, evaluate, garble
from ppfr_ops.match.gallery import Gallery
from ppfr_ops.match.packing import Integers, Layout, quantise, threshold_integer
from ppfr_ops.match.scores import (
    PackedGallery,
    QueryKey,
    mask,
    products,
    read_probe,
    read_public,
)
from ppfr_ops.match.transfer import TransferReceiver, TransferSender
from ppfr_ops.match.wire import Sizes, session_digest

NONCE = bytes(16)


@dataclass(frozen=True)
class Step:
    """One step of a query."""

    side: str
    name: str
    seconds: float
    """Processor time of this process: BFV here uses one core."""
    sent: int
    """Bytes that go to the other side."""


def random_templates(records: int, dimensions: int, seed: int = 0) -> Integers:
    """Quantised templates of nobody, int16 ``n x D``."""
    draws = np.random.default_rng(seed).normal(size=(records, dimensions))
    return quantise(draws)


def measure(
    templates: Integers, probe: Integers, threshold: float, layout: Layout | None = None
) -> tuple[list[Step], bool, float]:
    """Run one identification.

    Returns:
        Its steps, the bit, and the seconds that packing the gallery took (once, when serving).
    """
    layout = layout or Layout.smallest(*templates.shape)
    start = time.process_time()
    gallery = PackedGallery.pack(templates, layout)
    packing = time.process_time() - start
    steps: list[Step] = []
    mark = time.process_time()

    def done(side: str, name: str, sent: int) -> None:
        nonlocal mark
        steps.append(Step(side, name, time.process_time() - mark, sent))
        mark = time.process_time()

    key, nonce = QueryKey(), secrets.token_bytes(16)
    half, chooser = key.public_half(nonce), TransferReceiver(nonce)
    encrypted = key.encrypt_probe(layout, probe)
    done("client", "keys, encrypt the probe", len(encrypted) + len(half) + len(chooser.point))
    ciphertexts, public = read_probe(encrypted, layout), read_public(half, nonce)
    dealer = TransferSender(nonce, chooser.point)
    session = session_digest(nonce, chooser.point, dealer.points)
    done("server", "read the probe, base transfers", 0)
    results = list(products(ciphertexts, gallery))
    done("server", "inner products", 0)
    masked, masks = mask(results, public, layout)
    done("server", "mask", len(masked) + len(dealer.points))
    del results
    bits = client_bits(key.decrypt_masked(masked, layout))
    done("client", "decrypt score + mask", 0)
    message, labels = chooser.choose(dealer.points, bits)
    done("client", "ask for labels", len(message))
    theirs = dealer.labels(message, LENGTH * layout.records)
    done("server", "check, deal labels", 0)
    counted, limit = np.ones(layout.records, np.bool_), threshold_integer(threshold)
    final = garble(session, dealer.difference, theirs, masks, limit, counted)
    done("server", "garble", len(final))
    match = bool(evaluate(session, labels, final, layout.records))
    done("client", "evaluate", 0)
    return steps, match, packing


def timed(function, times: int = 5) -> float:
    """The median of processor seconds."""
    spent = []
    for _ in range(times):
        start = time.process_time()
        function()
        spent.append(time.process_time() - start)
    return float(np.median(spent))


def library_dot(templates, probe, rows: int = 20) -> float:
    """Processor seconds for the whole gallery by TenSEAL's own dot product, row by row."""
    context = tenseal.context(tenseal.SCHEME_TYPE.BFV, 8192, plain_modulus=1032193, n_threads=1)
    context.generate_galois_keys()
    encrypted = tenseal.bfv_vector(context, probe.tolist())
    lists = [row.tolist() for row in templates[:rows]]
    return timed(lambda: [encrypted.dot(row) for row in lists], 1) / rows * len(templates)


def small(records: int, dimensions: int) -> None:
    templates = random_templates(records, dimensions)
    layout, key, probe = Layout.smallest(records, dimensions), QueryKey(), templates[5]
    public = read_public(key.public_half(NONCE), NONCE)
    packed = PackedGallery.pack(templates, layout)
    sent = key.encrypt_probe(layout, probe)
    floats = templates.astype(np.float32)

    def scores():
        return list(products(read_probe(sent, layout), packed))

    plain = timed(lambda: floats @ floats[5], 50)
    scored = timed(scores)
    masked = timed(lambda: mask(scores(), public, layout))
    steps = [measure(templates, probe, 0.5) for _ in range(3)]
    server, both = (
        float(np.median([sum(s.seconds for s in run if s.side in sides) for run, _, _ in steps]))
        for sides in (("server",), ("server", "client"))
    )
    print(f"{'side':8}{'step':28}{'CPU s':>8}{'sends KiB':>11}")
    for step in steps[0][0]:
        print(f"{step.side:8}{step.name:28}{step.seconds:8.3f}{step.sent / 1024:11.0f}")
    own = library_dot(templates, probe)
    up = sum(s.sent for s in steps[0][0] if s.side == "client")
    down = sum(s.sent for s in steps[0][0] if s.side == "server")
    print(f"{records} x {dimensions}: {layout}")
    for name, seconds in (
        ("plaintext, float32", plain),
        ("encrypted scores, probe encrypted", scored),
        ("… and masked: fit to leave", masked),
        ("TenSEAL's dot, row by row (of 20)", own),
        ("the bit, server", server),
        ("the bit, server and client", both),
    ):
        print(f"  {name:38}{seconds:10.4f} s{seconds / scored:10.3f} x encrypted scores")
    print(f"  {Sizes.of(layout, False)}, all up {up} B, all down {down} B")


def _partition(blocks: int, layout: Layout, sent: bytes, seed: int) -> tuple[float, float, list]:
    """One process of a gallery of 10^6: packs its blocks, scores three times."""
    templates = random_templates(blocks * layout.per_block, layout.dimensions, seed)
    packed = PackedGallery.pack(templates, layout)
    bfv = ring()
    spent, wall = [], []
    for _ in range(3):
        start, clock = time.process_time(), time.monotonic()
        words = [bfv.words(result) for result in products(read_probe(sent, layout), packed)]
        spent.append(time.process_time() - start)
        wall.append(time.monotonic() - clock)
    return float(np.median(spent)), float(np.median(wall)), words


def million(records: int, dimensions: int, processes: int) -> None:
    """Scores of a gallery cut in two, a process each, then masked here."""
    layout, key = Layout.smallest(records, dimensions), QueryKey()
    probe = random_templates(1, dimensions, 99)[0]
    sent = key.encrypt_probe(layout, probe)
    shares = [len(part) for part in np.array_split(np.arange(layout.blocks), processes)]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        asked = [
            pool.submit(_partition, count, layout, sent, seed) for seed, count in enumerate(shares)
        ]
        parts = [future.result() for future in asked]
    public = read_public(key.public_half(NONCE), NONCE)
    start = time.process_time()
    results = [ring().ciphertext(words) for _, _, part in parts for words in part]
    collected = time.process_time() - start
    masked, masks = mask(results, public, layout)
    finished = time.process_time() - start - collected
    print(f"{records} x {dimensions}: {layout}")
    for spent, wall, part in parts:
        print(f"  {len(part)} blocks: CPU {spent:.2f} s, wall {wall:.2f} s")
    print(f"  collecting {collected:.2f} s, masking {finished:.2f} s (CPU, one core)")
    print(f"  probe {len(sent) / 1e6:.1f} MB, reply {len(masked) / 1e6:.1f} MB")
    seen = key.decrypt_masked(masked, layout)
    first = random_templates(shares[0] * layout.per_block, dimensions, 0).astype(np.int64) @ probe
    scores = (seen - masks + (1 << 25)) % (1 << 26) - (1 << 25)
    print(f"  off by at most {np.abs(scores[: len(first)] - first).max()} of 2^24")
    compare(records)


def ray_partitions(records: int, dimensions: int, partitions: int) -> None:
    """The same through Ray actors."""
    from ppfr_ops.engines.ray_match import RayScorer

    templates = random_templates(records, dimensions)
    scorer = RayScorer(Gallery(templates, [""] * records, "bench"), partitions)
    sent = QueryKey().encrypt_probe(scorer.layout, templates[7])
    for _ in range(3):
        before, wall = scorer.spent(), time.monotonic()
        results = list(scorer(sent))
        wall = time.monotonic() - wall
        actors = [b - a for a, b in zip(before, scorer.spent(), strict=True)]
        print(f"  {len(results)} blocks: actors CPU {actors}, wall {wall:.2f} s", flush=True)


def attack_by_bits(times: int = 200, dimensions: int = 128) -> None:
    """A client that chooses its threshold asks for signs: what it rebuilds of a template."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0]
    victims = rng.normal(size=(times, dimensions))
    victims /= np.linalg.norm(victims, axis=1, keepdims=True)
    for queries in (5, 10, 20, 50, 100, 128):
        rebuilt = np.sign(victims @ basis[:queries].T) @ basis[:queries]
        rebuilt /= np.linalg.norm(rebuilt, axis=1, keepdims=True)
        print(f"{queries} signs: cosine {(rebuilt * victims).sum(axis=1).mean():.3f}")


def compare(records: int) -> None:
    """From masked scores to the bit; processor seconds of each side, and what the machine held."""
    masks, scores = uniform(records, 1 << 26), uniform(records, 1 << 24) - (1 << 24)
    spent = {"client": 0.0, "server": 0.0}

    def done(side: str, mark: float) -> float:
        now = time.process_time()
        spent[side] += now - mark
        return now

    mark = time.process_time()
    chooser = TransferReceiver(NONCE)
    mark = done("client", mark)
    dealer = TransferSender(NONCE, chooser.point)
    mark = done("server", mark)
    message, labels = chooser.choose(dealer.points, client_bits((scores + masks) % (1 << 26)))
    mark = done("client", mark)
    theirs = dealer.labels(message, LENGTH * records)
    counted = np.ones(records, bool)
    sent = garble(NONCE, dealer.difference, theirs, masks, 1 << 23, counted)
    mark = done("server", mark)
    found = evaluate(NONCE, labels, sent, records)
    done("client", mark)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"comparison of {records}: {spent}, match {bool(found)} (none reaches the threshold)")
    print(
        f"  up {len(message) / 1e6:.1f} MB, down {len(sent) / 1e6:.1f} MB, at most {peak:.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--bits", action="store_true")
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--records", type=int)
    parser.add_argument("--dimensions", type=int, default=128)
    parser.add_argument("--partitions", type=int, default=2)
    options = parser.parse_args()
    if options.million:
        million(options.records or 10**6, options.dimensions, options.partitions)
    elif options.ray:
        ray_partitions(options.records or 7701, options.dimensions, options.partitions)
    elif options.bits:
        attack_by_bits()
    elif options.compare:
        compare(options.records or 7701)
    else:
        small(options.records or 7701, options.dimensions)


if __name__ == "__main__":
    main()
