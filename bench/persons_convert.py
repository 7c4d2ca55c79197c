"""Convert the network that tells persons from what is around them into the file that is shipped.

    python -m venv ENV && ENV/bin/pip install mediapipe==0.10.14 tflite onnx onnxruntime
    ENV/bin/python bench/persons_convert.py ppfr_ops/imaging/persons/persons.onnx [pictures.npy]

MediaPipe's selfie segmentation (general), a TensorFlow Lite file in its wheel, becomes ONNX: float
``1 x 3 x 256 x 256`` RGB from 0 to 1 goes in, ``1 x 1 x 256 x 256``, how surely a pixel shows a
person, comes out. Weights stay half precision, as they are there. With pictures, uint8
``N x 256 x 256 x 3`` RGB, it prints how far the masks of 20 of them are from MediaPipe's own.
"""

import hashlib
import sys
from pathlib import Path

import mediapipe
import numpy as np
import onnx
import tflite
from onnx import helper, numpy_helper
from onnx.helper import make_node

SOURCE = "modules/selfie_segmentation/selfie_segmentation.tflite"
NAMES = {value: name for name, value in vars(tflite.BuiltinOperator).items()}
ALIKE = {
    "ADD": "Add",
    "MUL": "Mul",
    "RELU": "Relu",
    "HARD_SWISH": "HardSwish",
    "LOGISTIC": "Sigmoid",
}
HALF, SAME, NO_ACTIVATION = tflite.TensorType.FLOAT16, tflite.Padding.SAME, 0


class Conversion:
    """Names of ONNX values are the tensors' numbers; pictures are channels first."""

    def __init__(self, file: bytes) -> None:
        self.model = tflite.Model.GetRootAs(file)
        self.graph = self.model.Subgraphs(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.halves: dict[int, int] = {}
        """Of a tensor that is dequantized: the constant it is made of."""

    def shape(self, tensor: int) -> list[int]:
        return [int(n) for n in self.graph.Tensors(tensor).ShapeAsNumpy()]

    def weight(self, tensor: int, order: tuple[int, ...]) -> str:
        """The value's name in the graph, its axes in that order."""
        half = self.halves[tensor]
        data = self.model.Buffers(self.graph.Tensors(half).Buffer()).DataAsNumpy()
        array = data.view(np.float16).reshape(self.shape(half)).transpose(order)
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), f"w{tensor}"))
        self.nodes.append(
            make_node("Cast", [f"w{tensor}"], [f"{tensor}"], to=onnx.TensorProto.FLOAT)
        )
        return f"{tensor}"

    def options(self, operator: tflite.Operator, kind: type) -> object:
        options, table = kind(), operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        return options

    def add(self, operator: tflite.Operator) -> None:
        code = self.model.OperatorCodes(operator.OpcodeIndex())
        name = NAMES[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        if name == "CUSTOM":
            name = code.CustomCode().decode()
        inputs = [int(i) for i in operator.InputsAsNumpy()]
        made = int(operator.OutputsAsNumpy()[0])
        if name == "DEQUANTIZE":
            assert self.graph.Tensors(inputs[0]).Type() == HALF
            self.halves[made] = inputs[0]
            return
        values, settings = [str(i) for i in inputs], {}
        if name in ALIKE:
            kind = ALIKE[name]
            if name in ("ADD", "MUL"):
                options = self.options(operator, getattr(tflite, f"{kind}Options"))
                assert options.FusedActivationFunction() == NO_ACTIVATION
        elif name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            kind, settings = "Conv", self.convolution(operator, name, inputs)
            # [out, height, width, in] and [1, height, width, channels] there
            order = (0, 3, 1, 2) if name == "CONV_2D" else (3, 0, 1, 2)
            values[1:] = self.weight(inputs[1], order), self.weight(inputs[2], (0,))
        elif name == "AVERAGE_POOL_2D":
            options = self.options(operator, tflite.Pool2DOptions)
            side = self.shape(inputs[0])[1:3]
            assert [options.FilterHeight(), options.FilterWidth()] == side
            assert self.shape(made)[1:3] == [1, 1]
            assert options.FusedActivationFunction() == NO_ACTIVATION
            kind = "GlobalAveragePool"
        elif name == "RESIZE_BILINEAR":
            options = self.options(operator, tflite.ResizeBilinearOptions)
            corners, centers = options.AlignCorners(), options.HalfPixelCenters()
            way = "half_pixel" if centers else "align_corners" if corners else "asymmetric"
            batch, height, width, channels = self.shape(made)
            size = np.array([batch, channels, height, width], np.int64)
            self.weights.append(numpy_helper.from_array(size, f"size{made}"))
            kind, values = "Resize", [values[0], "", "", f"size{made}"]
            settings = {"mode": "linear", "coordinate_transformation_mode": way}
        elif name == "Convolution2DTransposeBias":
            # Its options are three int32: padding (1: SAME) and the strides.
            assert operator.CustomOptionsAsNumpy().view(np.int32).tolist() == [1, 2, 2]
            assert self.shape(inputs[1])[1:3] == [2, 2]  # as the strides: nothing to pad
            values[1:] = self.weight(inputs[1], (3, 0, 1, 2)), self.weight(inputs[2], (0,))
            kind, settings = "ConvTranspose", {"strides": [2, 2]}
        else:
            raise SystemExit(f"{name} is not known")
        self.nodes.append(make_node(kind, values, [str(made)], **settings))

    def convolution(
        self, operator: tflite.Operator, name: str, inputs: list[int]
    ) -> dict[str, int | list[int]]:
        depthwise = name != "CONV_2D"
        kind = tflite.DepthwiseConv2DOptions if depthwise else tflite.Conv2DOptions
        options = self.options(operator, kind)
        assert options.FusedActivationFunction() == NO_ACTIVATION
        assert options.DilationHFactor() == options.DilationWFactor() == 1
        assert not depthwise or options.DepthMultiplier() == 1
        strides = [options.StrideH(), options.StrideW()]
        kernel, sides = self.shape(inputs[1])[1:3], self.shape(inputs[0])[1:3]
        pads = [0, 0]
        if options.Padding() == SAME:
            pads = [
                max(0, (-(-side // stride) - 1) * stride + taps - side)
                for side, stride, taps in zip(sides, strides, kernel, strict=True)
            ]
        before = [pad // 2 for pad in pads]  # an odd one pads more below and on the right
        after = [pad - first for pad, first in zip(pads, before, strict=True)]
        group = self.shape(inputs[0])[3] if depthwise else 1
        return {"strides": strides, "pads": before + after, "group": group}


def converted(file: bytes) -> onnx.ModelProto:
    made = Conversion(file)
    for i in range(made.graph.OperatorsLength()):
        made.add(made.graph.Operators(i))
    ends = []
    for tensor in (made.graph.Inputs(0), made.graph.Outputs(0)):
        batch, height, width, channels = made.shape(tensor)
        shape = [batch, channels, height, width]
        ends.append(helper.make_tensor_value_info(str(tensor), onnx.TensorProto.FLOAT, shape))
    graph = helper.make_graph(made.nodes, "persons", ends[:1], ends[1:], made.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def compare(path: Path, pictures: np.ndarray) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    theirs = mediapipe.solutions.selfie_segmentation.SelfieSegmentation(model_selection=0)
    apart, shares = [], []
    for picture in pictures:
        given = np.ascontiguousarray(picture)
        image = given.transpose(2, 0, 1)[None] / np.float32(255)
        ours = session.run(None, {session.get_inputs()[0].name: image})[0][0, 0]
        mask = theirs.process(given).segmentation_mask
        apart.append(np.abs(ours - mask))
        shares.append((mask.mean(), mask.std()))
    means = np.array([a.mean() for a in apart])
    print(f"mean absolute difference {means.mean():.6f}, worst picture {means.max():.6f},")
    print(f"worst pixel {max(a.max() for a in apart):.4f}; of {len(apart)} pictures")
    print(f"their masks: mean {np.mean(shares, 0)[0]:.3f}, deviation {np.mean(shares, 0)[1]:.3f}")


def main() -> None:
    path = Path(sys.argv[1])
    file = (Path(mediapipe.__file__).parent / SOURCE).read_bytes()
    print(f"{SOURCE}: sha256 {hashlib.sha256(file).hexdigest()}")
    onnx.save(converted(file), path)
    print(f"{path}: {path.stat().st_size} bytes")
    if len(sys.argv) > 2:
        compare(path, np.load(sys.argv[2], mmap_mode="r")[: 20 * 8 : 8])


if __name__ == "__main__":
    main()
