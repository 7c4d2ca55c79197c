"""Recognition under differential privacy: LFW pairs by FR models. Prints JSON lines.

Per method and epsilon, accuracy of protected-protected (each picture with noise of its own) and
protected-original, for a share of the pairs of every fold. ``none`` is the method without noise,
which is no option of it; it says what the vector and the drawing alone cost.

    python bench/dp.py --faces DATA/lfw_aligned --pairs DATA/lfw_pairs.parquet --share 0.0834 \\
        --fr dlib=MODELS/dlib.onnx --fr mobileface=MODELS/mobileface.onnx \\
        --fr faceres=MODELS/faceres.onnx
    … --log curves.jsonl                # go on where a run that was stopped has ended
    python bench/dp.py --speed 256 --faces DATA/lfw_aligned    # records/s beside stochastic-local
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from virtual import coded, read

from ppfr_ops.draws import system_draws
from ppfr_ops.lab.evaluate.protocol import verify
from ppfr_ops.methods.base import Anonymizer, Context
from ppfr_ops.methods.dp.eigenface import Eigenface, basis
from ppfr_ops.methods.dp.template import Template, directions
from ppfr_ops.methods.registry import create
from ppfr_ops.recognizers import Recognizer, RecognizerSpec

Faces = NDArray[np.uint8]
Publish = Callable[[Faces, list[str]], Faces]

EPSILONS = ("100", "none", "10", "30", "50", "200", "500", "1", "5")
KEY = os.urandom(32)


def show(log: Path | None = None, **entry: Any) -> None:
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in entry.items()}
    print(json.dumps(rounded), flush=True)
    if log is not None:
        with log.open("a") as file:
            file.write(json.dumps(rounded) + "\n")


def measured(log: Path | None) -> set[tuple[str, str]]:
    """Methods and epsilons that an earlier run has written to the log."""
    lines = log.read_text().splitlines() if log is not None and log.exists() else []
    found = (json.loads(line) for line in lines)
    return {(entry["method"], entry["epsilon"]) for entry in found if "method" in entry}


def publish(method: Anonymizer) -> Publish:
    if method.needed_secrets():
        method = method.with_secrets({"identity-key": KEY})

    def run(faces: Faces, people: list[str]) -> Faces:
        draws = system_draws([""] * len(faces), method.draw_size)
        return method(faces, draws, Context({"identity": people}))

    return run


def in_parts(way: Publish, faces: Faces, people: list[str], size: int = 256) -> Faces:
    """What ``way`` publishes, some faces at a time: all of LFW at once would not fit in memory."""
    starts = range(0, len(faces), size)
    return np.concatenate([way(faces[i : i + size], people[i : i + size]) for i in starts])


def without_noise(name: str) -> Publish:
    """The same way with no noise: vector, clipped, drawn."""

    def eigenface(faces: Faces, people: list[str]) -> Faces:
        method = Eigenface(epsilon=1.0)
        found = basis().coefficients(faces) / basis().radius["gaussian"]
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1)
        return basis().pictures(method.natural(found, 0.0))

    def template(faces: Faces, people: list[str]) -> Faces:
        method = Template(epsilon=1.0)
        codes = directions().codes(directions().vectors(method.encoded(faces)), 0.0)
        return method.drawn(codes, system_draws([""] * len(faces), method.draw_size))

    return {"dp-eigenface": eigenface, "dp-template": template}[name]


def plan(chosen: list[str], epsilons: list[str]) -> Iterator[tuple[str, str, Publish]]:
    """Method with its options, epsilon, and what publishes."""
    if "dp-virtual" in chosen:
        for epsilon in ("0", "1", "4", "8"):
            yield "dp-virtual", epsilon, publish(create("dp-virtual", {"epsilon": epsilon}))
    if "dp-template" in chosen:
        for epsilon in epsilons:
            none = epsilon == "none"
            way = None if none else create("dp-template", {"epsilon": epsilon})
            yield (
                "dp-template",
                epsilon,
                without_noise("dp-template") if way is None else publish(way),
            )
    if "dp-eigenface" in chosen:
        for epsilon in (*epsilons, "1000"):
            none = epsilon == "none"
            way = None if none else create("dp-eigenface", {"epsilon": epsilon})
            yield (
                "dp-eigenface",
                epsilon,
                without_noise("dp-eigenface") if way is None else publish(way),
            )
    if "peep" in chosen:
        for epsilon in ("0.5", "8"):
            yield (
                "peep",
                epsilon,
                publish(create("dp-eigenface", {"epsilon": epsilon, "claim": "peep"})),
            )


def curves(arguments: argparse.Namespace) -> None:
    faces, paths, people = read(arguments.faces)
    where = {path: index for index, path in enumerate(paths)}
    table = pq.read_table(arguments.pairs).to_pandas()
    every = max(1, round(1 / arguments.share))
    table = table[table.groupby(["fold", "same"]).cumcount() % every == 0]
    a, b = (np.array([where[path] for path in table[side]]) for side in "ab")
    same, folds = table["same"].to_numpy(bool), table["fold"].to_numpy()
    used, places = np.unique(np.concatenate([a, b]), return_inverse=True)
    first, second = places[: len(a)], places[len(a) :]
    models = [Recognizer(RecognizerSpec.parse(text), 1) for text in arguments.fr]
    originals = {model.name: model.embed(faces[used]) for model in models}
    names = [str(person) for person in people[used]]

    def accuracy(one: Any, other: Any) -> float:
        return float(verify(np.einsum("nd,nd->n", one[first], other[second]), same, folds).accuracy)

    show(
        arguments.log,
        what="originals",
        pairs=len(a),
        faces=len(used),
        **{name: accuracy(found, found) for name, found in originals.items()},
    )
    done = measured(arguments.log)
    for name, epsilon, way in plan(arguments.method, arguments.epsilon):
        if (name, epsilon) in done:
            continue
        seen = coded(in_parts(way, faces[used], names))
        entry: dict[str, Any] = {"method": name, "epsilon": epsilon}
        for model in models:
            found = model.embed(seen)
            entry[f"{model.name}_pp"] = accuracy(found, found)
            entry[f"{model.name}_po"] = accuracy(found, originals[model.name])
        show(arguments.log, **entry)


def speed(arguments: argparse.Namespace) -> None:
    """Records/s of the methods, interleaved, the median of five rounds."""
    faces, _, people = read(arguments.faces)
    faces, names = faces[: arguments.speed], [str(p) for p in people[: arguments.speed]]
    chosen = {
        "stochastic-local, original": create("stochastic-local", {"identity": "original"}),
        "stochastic-local, virtual": create("stochastic-local", {"identity": "virtual"}),
        "dp-eigenface": create("dp-eigenface", {"epsilon": "8"}),
        "dp-template": create("dp-template", {"epsilon": "8"}),
        "dp-virtual": create("dp-virtual", {"epsilon": "8"}),
        "dp-virtual, epsilon 0": create("dp-virtual", {"epsilon": "0"}),
    }
    ways = {name: publish(method) for name, method in chosen.items()}
    took: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(6):  # the first loads the models
        for name, way in ways.items():
            began = time.process_time()
            way(faces, names)
            if turn:
                took[name].append(time.process_time() - began)
            chosen[name].forget()
    base = float(np.median(took["stochastic-local, original"]))
    for name, times in took.items():
        seconds = float(np.median(times))
        show(
            what="speed",
            method=name,
            records=len(faces),
            records_per_cpu_second=len(faces) / seconds,
            ratio_to_stochastic_local=base / seconds,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--fr", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument(
        "--method",
        nargs="*",
        default=["dp-virtual", "dp-template", "dp-eigenface", "peep"],
    )
    parser.add_argument("--epsilon", nargs="*", default=list(EPSILONS))
    parser.add_argument("--share", type=float, default=1.0, help="of the pairs of every fold")
    parser.add_argument("--log", type=Path, help="written to as well; what it holds is not redone")
    parser.add_argument("--speed", type=int, metavar="RECORDS", help="measure this instead")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.speed:
        speed(arguments)
    else:
        curves(arguments)


if __name__ == "__main__":
    main()
