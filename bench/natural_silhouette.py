"""Fit what tells a drawn person from what is behind: ``natural.silhouette``.

    python bench/natural_silhouette.py draw WORK
    OTHER/bin/python bench/natural_silhouette.py teach WORK
    python bench/natural_silhouette.py fit WORK

``draw`` draws people. ``teach`` cuts them out by MediaPipe's selfie segmentation (Apache-2.0, in
the wheel mediapipe 0.10.14, which wants an environment of its own); no picture of anybody alive is
read. ``fit`` teaches the small head on the generator's features to say the same.
"""

import secrets
import sys
from pathlib import Path

import numpy as np

PEOPLE, LOOKS, HELD_BACK, SIDE = 225, 4, 100, 128
EPOCHS, BATCH = 14, 8


def draw(work: Path) -> None:
    import torch

    from ppfr_ops.methods.natural import Natural
    from ppfr_ops.methods.natural.network import DEPTH

    natural = Natural().with_secrets({"identity-key": secrets.token_bytes(32)})
    generator, rng = natural.generator(), np.random.default_rng(11)
    styles = np.zeros((PEOPLE * LOOKS, DEPTH, 512), np.float32)
    pictures = np.zeros((len(styles), SIDE, SIDE, 3), np.uint8)
    for row in range(len(styles)):
        draws = rng.standard_normal((1, natural.draw_size)).astype(np.float32)
        styles[row] = natural.styles([f"person {row // LOOKS}"], draws)[0][:DEPTH]
        with torch.inference_mode():
            pictures[row] = generator.picture(torch.from_numpy(styles[row]), SIDE)
    np.savez(work / "drawn.npz", pictures=pictures, styles=styles)


def teach(work: Path) -> None:
    import cv2
    import mediapipe

    solutions = mediapipe.solutions.selfie_segmentation
    model = solutions.SelfieSegmentation(model_selection=0)
    masks = []
    for picture in np.load(work / "drawn.npz")["pictures"]:
        wide = cv2.resize(picture, (256, 256), interpolation=cv2.INTER_CUBIC)
        found = model.process(wide).segmentation_mask
        small = cv2.resize(found, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        masks.append(np.round(255 * small.clip(0, 1)).astype(np.uint8))
    np.savez_compressed(work / "masks.npz", masks=np.stack(masks))


def fit(work: Path) -> None:
    import torch
    import torch.nn.functional as F

    from ppfr_ops.methods.natural import files
    from ppfr_ops.methods.natural.generator import Generator
    from ppfr_ops.methods.natural.network import Silhouette

    torch.manual_seed(0)
    generator, net = Generator("cpu"), Silhouette()
    styles = torch.from_numpy(np.load(work / "drawn.npz")["styles"])
    masks = torch.from_numpy(np.load(work / "masks.npz")["masks"])[:, None].float() / 255
    with torch.inference_mode():
        seen = torch.cat([generator.synthesis.features(each[None], 64).half() for each in styles])
    held_back = len(styles) - HELD_BACK  # whole people
    steps = EPOCHS * (held_back // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for step in range(steps):
        rows = torch.randint(0, held_back, (BATCH,))
        features, goal = seen[rows].float(), masks[rows]
        loss = F.binary_cross_entropy_with_logits(net(features), goal)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            print(step, round(float(loss.detach()), 4), flush=True)
    with torch.inference_mode():
        rows = range(held_back, len(styles))
        told = torch.cat([net(seen[row : row + 1].float()) for row in rows]).sigmoid()
    mine, theirs = told > 0.5, masks[held_back:] > 0.5
    union = float(((mine & theirs).sum((1, 2, 3)) / (mine | theirs).sum((1, 2, 3))).mean())
    print("held back: intersection over union", round(union, 3))
    print("mean absolute difference", round(float((told - masks[held_back:]).abs().mean()), 4))
    files.save(files.SILHOUETTE, net.state_dict())


if __name__ == "__main__":
    {"draw": draw, "teach": teach, "fit": fit}[sys.argv[1]](Path(sys.argv[2]))
