"""What encrypted matching costs, beside plaintext and beside the library's own dot product.

    python bench/match.py                  7,701 x 128
    python bench/match.py --million        10^6 x 128 in two processes (4 GiB)
    python bench/match.py --ray            7,701 x 128 on two Ray actors
    python bench/match.py --bits           what signs, asked for one by one, tell
    python bench/match.py --three-party    the comparison by MPyC, three processes

Processor seconds, one core a process: they hold on a machine that others use, too. Wall seconds are
printed beside them where processes run side by side.
"""

import argparse
import resource
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import tenseal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppfr_ops.match.bfv import public_bytes, scores_ring, seeded_bytes
from ppfr_ops.match.gallery import Gallery
from ppfr_ops.match.keys import ClientKeys, PartyCertificates, PublicKeys
from ppfr_ops.match.measure import measure, random_templates
from ppfr_ops.match.packing import Layout
from ppfr_ops.match.scores import (
    PackedGallery,
    decrypt_masked,
    encrypt_probe,
    mask,
    products,
    read_probe,
)
from ppfr_ops.match.sealed import SealedGallery, seal_gallery, sealed_products


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
    layout, keys = Layout.smallest(records, dimensions), ClientKeys.generate()
    public, probe = PublicKeys.read(keys.public), templates[5]
    packed = PackedGallery.pack(templates, layout)
    sent = encrypt_probe(keys.scores, layout, probe)
    floats = templates.astype(np.float32)

    def scores():
        return list(products(read_probe(sent, layout), packed))

    plain = timed(lambda: floats @ floats[5], 50)
    scored = timed(scores)
    masked = timed(lambda: mask(scores(), public.scores, layout))
    steps = [measure(templates, probe, 0.5) for _ in range(3)]
    server, both = (
        float(np.median([sum(s.seconds for s in run if s.side in sides) for run, _, _ in steps]))
        for sides in (("server",), ("server", "client"))
    )
    sealed = SealedGallery.read(seal_gallery(keys.scores, templates, layout), layout)
    reverse = timed(lambda: list(sealed_products(probe, sealed)))
    own = library_dot(templates, probe)
    up = sum(s.sent for s in steps[0][0] if s.side == "client")
    down = sum(s.sent for s in steps[0][0] if s.side == "server")
    print(f"{records} x {dimensions}: {layout}")
    for name, seconds in (
        ("plaintext, float32", plain),
        ("encrypted scores, probe encrypted", scored),
        ("… and masked, rerandomised, flooded", masked),
        ("encrypted scores, gallery encrypted", reverse),
        ("TenSEAL's dot, row by row (of 20)", own),
        ("the bit, server", server),
        ("the bit, server and client", both),
    ):
        print(f"  {name:38}{seconds:10.4f} s{seconds / scored:10.3f} x encrypted scores")
    print(f"  public keys {2 * public_bytes()} B, probe {layout.slices * seeded_bytes()} B")
    print(f"  masked scores {layout.blocks * 131072} B, all up {up} B, all down {down} B")


def _partition(blocks: int, layout: Layout, sent: bytes, seed: int) -> tuple[float, float, list]:
    """One process of a gallery of 10^6: packs its blocks, scores three times."""
    templates = random_templates(blocks * layout.per_block, layout.dimensions, seed)
    packed = PackedGallery.pack(templates, layout)
    ring = scores_ring()
    spent, wall = [], []
    for _ in range(3):
        start, clock = time.process_time(), time.monotonic()
        words = [ring.words(result) for result in products(read_probe(sent, layout), packed)]
        spent.append(time.process_time() - start)
        wall.append(time.monotonic() - clock)
    return float(np.median(spent)), float(np.median(wall)), words


def million(records: int, dimensions: int, processes: int) -> None:
    """Scores of a gallery cut in two, a process each, then masked here."""
    layout, keys = Layout.smallest(records, dimensions), ClientKeys.generate()
    probe = random_templates(1, dimensions, 99)[0]
    sent = encrypt_probe(keys.scores, layout, probe)
    shares = [len(part) for part in np.array_split(np.arange(layout.blocks), processes)]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        asked = [
            pool.submit(_partition, count, layout, sent, seed) for seed, count in enumerate(shares)
        ]
        parts = [future.result() for future in asked]
    ring, public = scores_ring(), PublicKeys.read(keys.public)
    start = time.process_time()
    results = [ring.ciphertext(words) for _, _, part in parts for words in part]
    collected = time.process_time() - start
    masked, masks = mask(results, public.scores, layout)
    finished = time.process_time() - start - collected
    print(f"{records} x {dimensions}: {layout}")
    for spent, wall, part in parts:
        print(f"  {len(part)} blocks: CPU {spent:.2f} s, wall {wall:.2f} s")
    print(f"  collecting {collected:.2f} s, masking {finished:.2f} s (CPU, one core)")
    print(f"  probe {len(sent) / 1e6:.1f} MB, reply {len(masked) / 1e6:.1f} MB")
    seen = decrypt_masked(keys.scores, masked, layout)
    first = random_templates(shares[0] * layout.per_block, dimensions, 0).astype(np.int64) @ probe
    scores = (seen - masks + (1 << 25)) % (1 << 26) - (1 << 25)
    print(f"  equal to plaintext: {np.array_equal(scores[: len(first)], first)}")


def ray_partitions(records: int, dimensions: int, partitions: int) -> None:
    """The same through Ray actors."""
    from ppfr_ops.engines.ray_match import RayScorer

    templates = random_templates(records, dimensions)
    scorer = RayScorer(Gallery(templates, [""] * records, "bench"), partitions)
    keys = ClientKeys.generate()
    sent = encrypt_probe(keys.scores, scorer.layout, templates[7])
    for _ in range(3):
        before, wall = scorer.spent(), time.monotonic()
        results = list(scorer(sent))
        wall = time.monotonic() - wall
        actors = [b - a for a, b in zip(before, scorer.spent(), strict=True)]
        print(f"  {len(results)} blocks: actors CPU {actors}, wall {wall:.2f} s", flush=True)


def attack_by_bits(times: int = 200, dimensions: int = 128) -> None:
    """A client that shifts its share asks for signs; what it rebuilds of a random template."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0]
    victims = rng.normal(size=(times, dimensions))
    victims /= np.linalg.norm(victims, axis=1, keepdims=True)
    for queries in (20, 64, 128):
        rebuilt = np.sign(victims @ basis[:queries].T) @ basis[:queries]
        rebuilt /= np.linalg.norm(rebuilt, axis=1, keepdims=True)
        print(f"{queries} signs: cosine {(rebuilt * victims).sum(axis=1).mean():.3f}")


def three_party(records: int) -> None:
    import socket

    from ppfr_ops.match.three_party import client_values, run_party, server_values

    rng = np.random.default_rng(0)
    masks, scores = rng.integers(0, 1 << 26, records), rng.integers(-(1 << 24), 1 << 22, records)
    values = [
        client_values((scores + masks) % (1 << 26)),
        server_values(masks, 1 << 23, np.ones(records, bool)),
        None,
    ]
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in values]
    addresses = [f"localhost:{holder.getsockname()[1]}" for holder in holders]
    for holder in holders:
        holder.close()
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place) / name for name in ("client", "owner", "helper")]
        for index, folder in enumerate(folders):
            folder.mkdir()
            PartyCertificates.make(folder, index)
        PartyCertificates.exchange(folders)
        before, start, found = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic(), {}

        def take_part(index: int) -> None:
            found[index] = run_party(index, addresses, folders[index], values[index])

        threads = [threading.Thread(target=take_part, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - start
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"MPyC, {records} comparisons: {found[0]} (no record reaches the threshold)")
    print(
        f"  CPU of all three {spent:.1f} s, {spent / 3:.1f} s a party, start-up included; "
        f"wall {wall:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--bits", action="store_true")
    parser.add_argument("--three-party", action="store_true")
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
    elif options.three_party:
        three_party(options.records or 7701)
    else:
        small(options.records or 7701, options.dimensions)


if __name__ == "__main__":
    main()
