"""Is the recovery attacker any good? It must get the identity method back almost exactly, undo a
plain high-pass, and learn nothing but the mean face from pure noise.

    python bench/recovery_sanity.py --shared ../shared --steps 1500 --threads 2

Trains on UTKFace, prints SSIM and PSNR on 500 LFW faces and the curves.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import json
from pathlib import Path

import click
import cv2
import numpy as np
import pyarrow.dataset as ds
import torch
from numpy.typing import NDArray

from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.imaging.measures import psnr, ssim
from ppfr_ops.lab.evaluate.attacks.networks import mean_face, to_tensor
from ppfr_ops.lab.evaluate.attacks.recovery import RecoveryAttack, flattened
from ppfr_ops.lab.evaluate.publishing import Publisher
from ppfr_ops.memory import keep_freed_memory
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.methods.registry import create


class Identity(Anonymizer):
    name = "identity"

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        return faces


class Noise(Anonymizer):
    name = "noise"

    @property
    def draw_size(self) -> int:
        return 1

    def anonymize(self, faces: Faces, draws: NDArray[np.float32]) -> Faces:
        rng = np.random.default_rng(np.abs(draws[:, 0] * 2**32).astype(np.uint64))
        return rng.integers(0, 256, faces.shape, dtype=np.uint8)


def read(folder: Path, step: int = 1) -> Faces:
    column = ds.dataset(folder).to_table(["image"]).column("image").to_pylist()[::step]
    return np.stack(
        [cv2.imdecode(np.frombuffer(row["bytes"], np.uint8), 1)[..., ::-1] for row in column]
    )


@click.command()
@click.option("--shared", type=click.Path(path_type=Path), default=Path("../shared"))
@click.option("--steps", default=1500, show_default=True)
@click.option("--net", default="unet", show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--only", multiple=True, help="identity, highpass, noise; default: all")
@click.option("--out", type=click.Path(path_type=Path), help="folder for the results as JSON")
def main(
    shared: Path, steps: int, net: str, threads: int, only: tuple[str, ...], out: Path | None
) -> None:
    keep_freed_memory()
    torch.set_num_threads(threads)
    train, test = read(shared / "data/utk_aligned"), read(shared / "data/lfw_aligned", 15)[:500]
    floor = float(
        ssim(
            to_tensor(mean_face(train)[None]).expand(len(test), -1, -1, -1), to_tensor(test)
        ).mean()
    )
    print(f"floor (mean training face): SSIM {floor:.4f}", flush=True)
    cases = {"identity": Identity(), "highpass": create("highpass"), "noise": Noise()}
    for name in only or cases:
        publisher = Publisher(cases[name], Encoding("png") if name == "identity" else Encoding())
        attack = RecoveryAttack(net, seed=1)
        curve = attack.train(
            train,
            publisher.fresh(),
            steps,
            on_point=lambda p: print(
                f"  {p.step:5d} steps {p.seconds:6.0f} s  val SSIM {p.val_ssim:.4f}", flush=True
            ),
        )
        seen = publisher.fresh()(test, np.arange(len(test)), np.random.default_rng(7))
        recovered, truth = to_tensor(attack.recover(seen)), to_tensor(test)
        flat, rise = flattened(curve)
        result = {
            "method": name,
            "net": net,
            "parameters": attack.parameters,
            "steps": steps,
            "rec_ssim": round(float(ssim(recovered, truth).mean()), 4),
            "rec_psnr": round(float(psnr(recovered, truth).mean()), 2),
            "floor": round(floor, 4),
            "flattened": flat,
            "rise_in_last_fifth": rise and round(rise, 4),
        }
        print(json.dumps(result), flush=True)
        if out:
            out.mkdir(parents=True, exist_ok=True)
            points = [point.__dict__ for point in curve]
            (out / f"{name}.json").write_text(json.dumps({**result, "curve": points}, indent=1))


if __name__ == "__main__":
    main()
