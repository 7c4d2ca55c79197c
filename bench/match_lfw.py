"""Decisions of encrypted matching beside plaintext, on LFW's 6,000 pairs; a figure of both ROCs.

    python bench/match_lfw.py TEMPLATES PAIRS.parquet docs/match-roc.png [--models dlib mobileface]

TEMPLATES holds ``lfw_<model>.npy`` (float32 n x D) and ``lfw_paths.json`` (image paths, in order).
Every pair is a verification of its own up to the masked score; the comparisons of all pairs at a
threshold then run together, as those of a gallery of 6,000 records do.
"""

import argparse
import json
import secrets
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppfr_ops.match.bfv import DEGREE
from ppfr_ops.match.comparison import LENGTH, client_bits, evaluate, garble
from ppfr_ops.match.packing import Layout, quantise, threshold_integer
from ppfr_ops.match.scores import (
    PackedGallery,
    QueryKey,
    mask,
    products,
    read_probe,
    read_public,
)
from ppfr_ops.match.transfer import TransferReceiver, TransferSender

BAND = 0.001


def masked_scores(left, right):
    """Score plus mask, and mask, of every pair, each a verification with one record."""
    width = 1 << (left.shape[1] - 1).bit_length()
    layout = Layout(DEGREE // width, left.shape[1], width)
    key, nonce, seen, masks = QueryKey(), bytes(16), [], []
    public = read_public(key.public_half(nonce), nonce)
    for probe, record in zip(left, right, strict=True):
        ciphertexts = read_probe(key.encrypt_probe(layout, probe), layout)
        results = products(ciphertexts, PackedGallery.pack(record[None], layout))
        sent, drawn = mask(results, public, layout)
        seen.append(key.decrypt_masked(sent, layout)[0])
        masks.append(drawn[0])
    return np.array(seen), np.array(masks)


def decide(seen, masks, threshold: float):
    """The decision of every pair, as an identification that tells which records match."""
    count, session = len(seen), secrets.token_bytes(32)
    chooser = TransferReceiver(session)
    dealer = TransferSender(session, chooser.point)
    message, labels = chooser.choose(dealer.points, client_bits(seen))
    theirs = dealer.labels(message, LENGTH * count)
    limit, counted = threshold_integer(threshold), np.ones(count, bool)
    sent = garble(session, dealer.difference, theirs, masks, limit, counted, which=True)
    return np.isin(np.arange(count), evaluate(session, labels, sent, count, which=True))


def best_threshold(scores, same) -> float:
    """The cosine with the highest accuracy over all pairs."""
    order = np.sort(scores)
    middle = (order[1:] + order[:-1]) / 2
    hits = [((scores >= t) == same).mean() for t in middle]
    return float(middle[int(np.argmax(hits))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("templates", type=Path)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("figure", type=Path)
    parser.add_argument("--models", nargs="+", default=["dlib", "mobileface", "faceres"])
    parser.add_argument("--thresholds", type=int, default=40)
    parser.add_argument("--curves", type=Path, help="folder to keep curves in, and take them from")
    options = parser.parse_args()
    index = {
        p: i for i, p in enumerate(json.loads((options.templates / "lfw_paths.json").read_text()))
    }
    pairs = pq.read_table(options.pairs).to_pydict()
    rows = np.array([[index[a], index[b]] for a, b in zip(pairs["a"], pairs["b"], strict=True)])
    same = np.array(pairs["same"])
    curves = {}
    for model in options.models:
        kept = options.curves / f"{model}.npy" if options.curves else None
        if kept and kept.exists():
            curves[model] = np.load(kept)
            continue
        vectors = np.load(options.templates / f"lfw_{model}.npy").astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        left, right = vectors[rows[:, 0]], vectors[rows[:, 1]]
        plain = (left * right).sum(axis=1)
        start = time.process_time()
        seen, masks = masked_scores(quantise(left), quantise(right))
        spent = time.process_time() - start
        best = best_threshold(plain, same)
        spread = np.quantile(plain, np.linspace(0.005, 0.995, options.thresholds - 1))
        lines, wrong, inside = [], 0, 0
        for threshold in sorted([best, *spread]):
            got = decide(seen, masks, float(threshold))
            expected = plain >= threshold
            near = np.abs(plain - threshold) < BAND
            bad, close = int((got != expected)[~near].sum()), int((got != expected)[near].sum())
            wrong, inside = wrong + bad, inside + close
            rates = [float(d[m].mean()) for d in (expected, got) for m in (~same, same)]
            lines.append([float(threshold), *rates])
            if threshold == best:
                print(
                    f"{model} D={left.shape[1]}: threshold {best:.4f}, accuracy plain "
                    f"{(expected == same).mean():.4f}, encrypted {(got == same).mean():.4f}, "
                    f"differ outside the band {bad} of {int((~near).sum())}, inside {close} of "
                    f"{int(near.sum())}; {spent / len(rows) * 1000:.1f} ms CPU a pair",
                    flush=True,
                )
        print(
            f"{model}: {len(lines)} thresholds, differ outside the band {wrong}, inside {inside}",
            flush=True,
        )
        curves[model] = np.array(lines)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, curves[model])
    plot(curves, options.figure)


def plot(curves, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(curves), figsize=(4 * len(curves), 3.8), squeeze=False)
    for axis, (model, lines) in zip(axes[0], curves.items(), strict=True):
        axis.plot(lines[:, 1], lines[:, 2], "-", color="0.6", linewidth=4, label="plaintext")
        axis.plot(lines[:, 3], lines[:, 4], "k.", markersize=5, label="encrypted")
        axis.set(xlabel="false match rate", title=model, xscale="symlog", xlim=(0, 1))
        axis.set_xscale("symlog", linthresh=1e-3)
    axes[0][0].set_ylabel("true match rate")
    axes[0][0].legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
