"""What a cheaper judge may cost: the measures of another commit and of this one, side by side.

For every measure the largest difference over the faces, and for ``disclosure`` by how much it fell
at most, which would make the judge a milder one; then processor time a face, one thread, in turns.

    python bench/disclosure.py --before COMMIT                      # 500 drawn faces
    python bench/disclosure.py --before COMMIT --faces FOLDER       # of picture files of 112x112
"""

import argparse
import importlib.util
import subprocess
import tempfile
import time
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import torch

from ppfr_ops import sample
from ppfr_ops.draws import seeded_draws
from ppfr_ops.imaging import measures as after
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.methods.base import Context
from ppfr_ops.methods.registry import create

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("stochastic-local", "signed-field", "highpass", "pixelate", "blur")


def module_of(commit: str) -> ModuleType:
    """``imaging/measures.py`` as it was."""
    text = subprocess.run(
        ["git", "show", f"{commit}:ppfr_ops/imaging/measures.py"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    with tempfile.NamedTemporaryFile(suffix=".py") as file:
        file.write(text)
        file.flush()
        spec = importlib.util.spec_from_file_location("measures_before", file.name)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def originals(folder: Path | None, count: int) -> np.ndarray:
    if folder is None:
        return sample.faces(count, 5)
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
    paths = paths[:: max(1, len(paths) // count)][:count]
    return np.stack([Encoding.decode(path.read_bytes()) for path in paths])


def publications(faces: np.ndarray) -> np.ndarray:
    """Every face by one of the methods, as a reader decodes it."""
    published = np.empty_like(faces)
    for number, name in enumerate(METHODS):
        method = create(name)
        method = method.with_secrets(dict.fromkeys(method.secrets, bytes(range(32))))
        ids = [str(i) for i in range(number, len(faces), len(METHODS))]
        for start in range(0, len(ids), 32):
            rows = [int(i) for i in ids[start : start + 32]]
            draws = seeded_draws(1)([str(i) for i in rows], method.draw_size, 0)
            context = Context({name: [None] * len(rows) for name in method.needed_context()})
            out = method.publish(faces[rows], draws, context).faces
            published[rows] = Encoding().round_trip(out)
    return published


def tensor(faces: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(faces).permute(0, 3, 1, 2).contiguous().float() / 255


def values(module: ModuleType, x: torch.Tensor, y: torch.Tensor) -> dict[str, np.ndarray]:
    ssim, ms_ssim = module.ssim_and_ms_ssim(x, y)
    found = {"disclosure": module.disclosure(x, y), "ssim": ssim, "ms_ssim": ms_ssim}
    found |= {"psnr": module.psnr(x, y), "lowfreq_corr": module.lowfreq_corr(x, y)}
    return {name: value.numpy() for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--before", required=True, help="commit to compare with")
    parser.add_argument("--faces", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    x = originals(arguments.faces, arguments.count)
    y = publications(x)
    modules = {"before": module_of(arguments.before), "after": after}
    results: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in modules}
    seconds = {name: {"disclosure": 0.0, "the others": 0.0} for name in modules}
    with torch.inference_mode():
        for start in range(0, len(x), 32):
            a, b = tensor(x[start : start + 32]), tensor(y[start : start + 32])
            for name, module in modules.items():
                results[name].append(values(module, a, b))
            for name, module in list(modules.items()) * arguments.rounds:
                began = time.process_time()
                module.disclosure(a, b)
                middle = time.process_time()
                module.ssim_and_ms_ssim(a, b), module.psnr(a, b), module.lowfreq_corr(a, b)
                seconds[name]["disclosure"] += middle - began
                seconds[name]["the others"] += time.process_time() - middle
    for metric in results["after"][0]:
        old, new = (np.concatenate([part[metric] for part in results[name]]) for name in modules)
        print(
            f"{metric}: largest difference {np.abs(new - old).max():.6f}, "
            f"fell by {max(0.0, float((old - new).max())):.6f} at most"
        )
    for what in seconds["before"]:
        old, new = (1e3 * seconds[n][what] / len(x) / arguments.rounds for n in modules)
        print(f"{what}: {old:.2f} ms a face before, {new:.2f} after: {old / new:.2f} times as fast")
    print(f"{len(x)} faces, by {', '.join(METHODS)} in turn; one thread")


if __name__ == "__main__":
    main()
