"""Certified accuracy of a verification, what an attack finds inside the certified radii, and what
it finds where there is no certificate.

The threshold comes from faces with identities (``--identities``), never from the pairs. The attack
is PGD in L2 on the smoothed decision, its gradient averaged over noisy copies; a violation is an
attacked picture whose vote over ``--samples`` fresh copies goes against the certificate. The same
attack on the plain decision of ``--plain``, on the same pictures at the same radii, shows what
there is to be certified against; ``--beyond`` shows that the attack can turn the smoothed decision
over where nothing is certified.

    python bench/certify.py --fr robust=robust/surrogate.ts.pt --sigma 0.5 --samples 100 \\
        --enrol clean=robust/enrolment.ts.pt --plain dlib=dlib.ts.pt --identities held.parquet \\
        --gallery lfw_aligned --pairs lfw_pairs.parquet --pairs-per-fold 50
"""

import argparse
import time

import numpy as np
import torch

from ppfr_ops.lab.certify.smoothing import certificate, decided, enrolled, noisy_templates
from ppfr_ops.lab.evaluate.data import read_faces, read_pairs
from ppfr_ops.lab.evaluate.protocol import best_threshold
from ppfr_ops.recognizers import Recognizer, RecognizerSpec

RADII = (0.1, 0.25, 0.5, 0.6)


def threshold_of(model, held, sigma: float, references, rng) -> float:
    """That of the best accuracy between one noisy copy and the enrolment of another picture."""
    if sigma:
        one = np.concatenate([noisy_templates(model, f, sigma, 1) for f in held.images])
        kept = references(held.images)
    else:
        one = kept = model.embed(held.images)
    who = np.array(held.identities)
    a, b = np.triu_indices(len(who), 1)
    scores, same = (one[a] * kept[b]).sum(1), who[a] == who[b]
    genuine, impostor = scores[same], scores[~same]
    few = rng.choice(impostor, min(len(impostor), len(genuine)), replace=False)
    labels = np.repeat([True, False], [len(genuine), len(few)])
    return best_threshold(np.concatenate([genuine, few]), labels)


def attack(network, face, reference, match, threshold, radius, sigma, steps, copies):
    """PGD in L2: uint8 ``112 x 112 x 3`` in, float32 ``3 x 112 x 112`` of 0..255 out."""
    clean = torch.from_numpy(face.transpose(2, 0, 1).astype(np.float32) / 255)
    goal = torch.from_numpy(reference) * (1 if match else -1)
    delta = torch.randn_like(clean)
    delta *= radius / delta.norm() * torch.rand(1)
    for _ in range(steps):
        delta.requires_grad_(True)
        x = (clean + delta)[None].repeat(copies, 1, 1, 1)
        x = x + sigma * torch.randn_like(x)
        loss = (network(255 * x) @ goal).mean()
        (slope,) = torch.autograd.grad(loss, delta)
        with torch.no_grad():
            delta = delta - 2.5 * radius / steps * slope / slope.norm().clamp_min(1e-12)
            delta = (clean + delta).clamp(0, 1) - clean  # a picture still
            delta = delta * min(1.0, radius / max(float(delta.norm()), 1e-12))
    return (255 * (clean + delta)).numpy()


def vote(model, pixels, sigma, count, rng):
    """Templates of noisy copies of a picture that need not be of whole numbers."""
    parts = []
    for start in range(0, count, 32):
        noise = rng.standard_normal((min(32, count - start), *pixels.shape), dtype=np.float32)
        parts.append(model.embed_pixels(pixels + np.float32(255 * sigma) * noise))
    return np.concatenate(parts)


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    spec = RecognizerSpec.parse(options.fr)
    model = Recognizer(spec, 1)
    held = read_faces(options.identities, "identities")
    gallery = read_faces(options.gallery, "gallery")
    pairs = read_pairs(options.pairs, gallery).first(options.pairs_per_fold)
    sigma, samples, copies = options.sigma, options.samples, options.enrolment_samples

    def references(faces):
        if options.enrol:
            return enrolment.embed(faces)
        return np.stack([enrolled(model, face, sigma, copies) for face in faces])

    enrolment = Recognizer(RecognizerSpec.parse(options.enrol), 1) if options.enrol else None
    threshold = threshold_of(model, held, sigma, references, rng)
    print(f"{len(pairs.a)} pairs, sigma {sigma}, {samples} copies, threshold {threshold:.3f}")
    began, cpu = time.monotonic(), time.process_time()
    radii, right, kept = [], [], []
    for number, (a, b, same) in enumerate(zip(pairs.a, pairs.b, pairs.same, strict=True)):
        (reference,) = references(gallery.images[b : b + 1])
        found = noisy_templates(model, gallery.images[a], sigma, samples)
        hits = int(decided(found, reference, threshold, bool(same)).sum())
        made = certificate(hits, samples, sigma, options.alpha)
        radii.append(-1.0 if made.radius is None else made.radius)
        right.append(hits > samples / 2)
        kept.append(reference)
        if number % 50 == 49:
            print(f"  {number + 1}: {np.mean(np.array(radii) >= 0.25):.3f} at 0.25", flush=True)
    radius = np.array(radii)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    print(f"right by vote {np.mean(right):.4f}; abstained or wrong {np.mean(radius < 0):.4f}")
    for r in RADII:
        print(f"certified accuracy at L2 {r}: {np.mean(radius >= r):.4f}")
    print(f"median certified radius {np.median(radius[radius >= 0]):.3f}")
    print(
        f"a record: {seconds / len(radius):.3f} s of the clock, {cpu / len(radius):.3f} s of one "
        f"core; a million: {cpu / len(radius) * 1e6 / 3600:,.0f} core hours"
    )
    sample = rng.permutation(np.flatnonzero(radius >= options.attack_from))[: options.attack]
    if not len(sample):
        return
    network = torch.jit.load(spec.path).eval()
    for times in (0.999, *options.beyond):
        turned = 0
        for i in sample:
            face, same, r = gallery.images[pairs.a[i]], bool(pairs.same[i]), times * radius[i]
            found = attack(
                network, face, kept[i], same, threshold, r, sigma, options.steps, options.copies
            )
            fresh = vote(model, found, sigma, samples, rng)
            turned += int(decided(fresh, kept[i], threshold, same).sum() <= samples / 2)
        what = "violations" if times < 1 else "turned over"
        print(
            f"PGD, {options.steps} steps, at {times} of the certified radius: {turned} {what} "
            f"of {len(sample)} certificates (median radius {np.median(radius[sample]):.3f})",
            flush=True,
        )
    for text in options.plain:
        plain(text, options, held, gallery, pairs, radius, sample, rng)


def plain(text, options, held, gallery, pairs, radius, sample, rng) -> None:
    """The same attack on the same pictures at the same radii, where there is no certificate: on
    the plain decision, as far as it is right."""
    spec = RecognizerSpec.parse(text)
    model, network = Recognizer(spec, 1), torch.jit.load(spec.path).eval()
    threshold = threshold_of(model, held, 0.0, None, rng)
    templates = [model.embed(gallery.images[side[sample]]) for side in (pairs.a, pairs.b)]
    same = pairs.same[sample]
    right = np.flatnonzero(((templates[0] * templates[1]).sum(1) >= threshold) == same)
    turned = 0
    for k in right:
        face, other = gallery.images[pairs.a[sample[k]]], templates[1][k]
        r, claim = 0.999 * radius[sample[k]], bool(same[k])
        found = attack(network, face, other, claim, threshold, r, 0.0, options.steps, 1)
        score = model.embed_pixels(found[None]) @ other
        turned += int((score[0] >= threshold) != claim)
    print(
        f"{model.name}, plain decision, threshold {threshold:.3f}, same pictures, same radii: "
        f"{turned} of {len(right)} right decisions turned over",
        flush=True,
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fr", required=True, help="TorchScript")
    parser.add_argument(
        "--plain", action="append", default=[], metavar="NAME=PATH", help="TorchScript; repeatable"
    )
    parser.add_argument(
        "--beyond",
        type=float,
        nargs="*",
        default=[],
        help="also attack the smoothed decision at so many times the certified radius",
    )
    parser.add_argument(
        "--enrol", metavar="NAME=PATH", help="enrols clean pictures; default: --fr, noisy copies"
    )
    parser.add_argument("--identities", required=True)
    parser.add_argument("--gallery", required=True)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--pairs-per-fold", type=int, default=50)
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--enrolment-samples", type=int, default=16)
    parser.add_argument("--alpha", type=float, default=0.001)
    parser.add_argument("--attack", type=int, default=25, help="certificates that are attacked")
    parser.add_argument("--attack-from", type=float, default=0.1, help="radius, at least")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--copies", type=int, default=4, help="of a picture, for the gradient")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
