"""Cases for tuning: operators at each opset that gave them another meaning, and plain arithmetic."""

from __future__ import annotations

import numpy as np
from case import Case, one, positive, real, whole


def _one_input() -> list[Case]:
    anywhere = [
        "Neg",
        "Abs",
        "Exp",
        "Erf",
        "Sign",
        "Floor",
        "Ceil",
        "Sin",
        "Cos",
        "Atan",
        "Sinh",
        "Cosh",
        "Asinh",
        "Relu",
        "Sigmoid",
        "Tanh",
        "Softplus",
        "Softsign",
        "HardSwish",
        "HardSigmoid",
        "LeakyRelu",
        "ThresholdedRelu",
        "Elu",
        "Celu",
        "Selu",
        "Gelu",
        "Mish",
        "Shrink",
        "Identity",
        "IsNaN",
        "IsInf",
    ]
    cases = [Case(op, "plain", (real(3, 4) * np.float32(2),), "") for op in anywhere]
    cases += [Case(op, "positive", (positive(3, 4),), "") for op in ("Sqrt", "Log", "Reciprocal")]
    cases += [Case(op, "inside", (real(3, 4).clip(-0.9, 0.9),), "") for op in ("Asin", "Acos", "Atanh", "Tan")]
    cases += [
        Case("Acosh", "above one", (positive(3, 4) + 1,), ""),
        Case("Gelu", "tanh", (real(3, 4),), "", {"approximate": "tanh"}),
        Case("Round", "halves", (np.asarray([0.5, 1.5, 2.5, -0.5, 1.2], np.float32),), ""),
        Case("HardSigmoid", "stated", (real(3, 4),), "", {"alpha": 0.1, "beta": 0.3}),
        Case("Selu", "stated", (real(3, 4),), "", {"alpha": 1.2, "gamma": 0.7}),
        Case("Shrink", "stated", (real(3, 4),), "", {"bias": 0.2, "lambd": 0.4}),
        Case("Not", "plain", (np.asarray([True, False]),), ""),
        Case("Swish", "alpha", (real(3, 4),), "", {"alpha": 0.7}, opset=24),
    ]
    return cases


def _two_inputs() -> list[Case]:
    a, b = real(2, 3, 4), real(3, 1)
    cases = [Case(op, "broadcast", (a, b), "") for op in ("Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean")]
    cases += [
        Case(op, "floats", (a, a[:1]), "") for op in ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")
    ]
    cases += [Case(op, "truth", (a > 0, a[:1] > 0), "") for op in ("And", "Or", "Xor")]
    cases += [
        Case("Div", "floats", (a, positive(4)), ""),
        Case("Div", "whole numbers", (whole(7, -7, 9), whole(2, 2, -4)), ""),
        Case("Mod", "whole numbers", (whole(7, -7, 9), whole(2, 2, -4)), ""),
        Case("Mod", "fmod", (a, positive(4)), "", {"fmod": 1}),
        Case("Pow", "square", (a, one(2.0)), ""),
        Case("Pow", "tensors", (positive(3, 4), real(4)), ""),
        Case("Where", "whole numbers", (np.asarray([True, False]), whole(1, 2), whole(3, 4)), ""),
    ]
    return cases


def _opsets() -> list[Case]:
    x, image = real(2, 6, 4), real(2, 4, 5, 6)
    cases = []
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        cases += [
            Case(op, f"axis {axis}", (x,), "", {"axis": axis}, opset=opset) for opset in (11, 13) for axis in (0, 1, 2)
        ]
        cases += [Case(op, "default", (x,), "", opset=opset) for opset in (9, 13)]
    cases += [
        Case("Clip", "attributes", (x,), "", {"min": -0.5, "max": 0.7}, opset=6),
        Case("Clip", "only below", (x, one(-0.5)), "", opset=11),
        Case("Clip", "only above", (x, None, one(0.5)), "", opset=13),
        Case("Dropout", "opset 7", (x,), "", opset=7),
        Case("Squeeze", "attribute", (real(2, 1, 4, 1),), "", {"axes": [1, 3]}, opset=11),
        Case("Squeeze", "all", (real(2, 1, 4, 1),), "", opset=13),
        Case("Unsqueeze", "attribute", (x,), "", {"axes": [0, 4]}, opset=11),
        Case("Unsqueeze", "negative", (x, whole(-1, 1)), "", opset=13),
        Case("Split", "by outputs", (x,), "", {"axis": 1}, outputs=3, opset=11),
        Case("Split", "uneven", (real(2, 7, 3),), "", {"axis": 1, "num_outputs": 3}, outputs=3, opset=18),
        Case("Slice", "attributes", (x,), "", {"starts": [1, 0], "ends": [5, -1]}, opset=1),
        Case("Slice", "backward", (x, whole(5), whole(-7), whole(1), whole(-2)), "", opset=11),
        Case("Slice", "to the end", (x, whole(-3), whole(1 << 40), whole(1)), "", opset=13),
        Case("Pad", "attribute", (x,), "", {"pads": [0, 1, 2, 0, 0, 1], "value": 0.5}, opset=2),
        Case("Pad", "edge", (x, whole(0, 1, 2, 0, 2, 1)), "", {"mode": "edge"}, opset=13),
        Case("Pad", "axes", (x, whole(1, 2), None, whole(2)), "", opset=18),
        Case("Pad", "wrap", (x, whole(0, 1, 2, 0, 2, 1)), "", {"mode": "wrap"}, opset=19),
        Case("TopK", "attribute", (x,), "", {"axis": 1, "k": 2}, outputs=2, opset=9),
        Case("TopK", "smallest", (x, whole(2)), "", {"axis": 1, "largest": 0}, outputs=2, opset=11),
        Case("CumSum", "reversed", (x, one(1, np.int64)), "", {"reverse": 1, "exclusive": 1}),
        Case("Flatten", "axis 0", (x,), "", {"axis": 0}),
        Case("Flatten", "negative", (x,), "", {"axis": -1}),
        Case("Reshape", "allowzero", (np.zeros((0, 3), np.float32), whole(3, 0)), "", {"allowzero": 1}),
        Case("Shape", "part", (x,), "", {"start": 1, "end": -1}, opset=15),
        Case("Cast", "to whole", (x * np.float32(3),), "", {"to": 7}),
        Case("Cast", "to truth", (x,), "", {"to": 9}),
        Case("BatchNormalization", "opset 9", (x, positive(6), real(6), real(6), positive(6)), "", opset=9),
        Case("GatherND", "plain", (x, np.asarray([[0, 1], [1, -2]])), ""),
        Case(
            "ScatterElements",
            "add",
            (x, np.asarray([[[0, 1, 2, 2]]]), real(1, 1, 4)),
            "",
            {"axis": 1, "reduction": "add"},
        ),
        Case(
            "OneHot", "first axis", (whole(1, -1, 3), one(4, np.int64), np.asarray([0, 2], np.float32)), "", {"axis": 0}
        ),
        Case("ArgMin", "last", (np.asarray([[1, 0, 0]], np.float32),), "", {"axis": 1, "select_last_index": 1}),
    ]
    for op in (
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
    ):
        cases.append(Case(op, "attribute", (x,), "", {"axes": [-1, 1], "keepdims": 0}, opset=11))
        cases.append(Case(op, "input", (x, whole(1, 2)), "", opset=18))
        cases.append(Case(op, "all", (x,), "", {"keepdims": 0}, opset=18))
    cases.append(Case("ReduceLogSumExp", "input", (x, whole(1, 2)), "", opset=18))
    scales = np.asarray([1, 1, 1.5, 2.5], np.float32)
    cases += [
        Case("Upsample", "attribute", (image,), "", {"scales": [1.0, 1.0, 2.0, 3.0]}, opset=7),
        Case("Upsample", "linear", (image, np.asarray([1, 1, 2, 2], np.float32)), "", {"mode": "linear"}, opset=9),
        Case("Resize", "opset 10", (image, scales), "", {"mode": "nearest"}, opset=10),
        Case(
            "Resize", "opset 10 linear", (image, np.asarray([1, 1, 2, 2], np.float32)), "", {"mode": "linear"}, opset=10
        ),
        Case("Resize", "smaller", (image, None, np.asarray([1, 1, 0.6, 0.5], np.float32)), "", {"mode": "linear"}),
        Case("Resize", "cubic", (image, None, scales), "", {"mode": "cubic"}),
        Case("Resize", "cubic excluded", (image, None, scales), "", {"mode": "cubic", "exclude_outside": 1}),
        Case("Resize", "antialias", (image, None, None, whole(2, 4, 3, 3)), "", {"mode": "linear", "antialias": 1}),
    ]
    for how in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"):
        stated = {"coordinate_transformation_mode": how}
        cases.append(Case("Resize", f"linear {how}", (image, None, scales), "", {"mode": "linear", **stated}))
        for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
            more = {**stated, "nearest_mode": nearest}
            cases.append(Case("Resize", f"nearest {how} {nearest}", (image, None, scales), "", more))
    return cases


def _space() -> list[Case]:
    image = real(2, 3, 7, 6)
    cases = []
    for op in ("AveragePool", "MaxPool", "LpPool"):
        for note, more in (
            ("padded", {"pads": [1, 0, 1, 1]}),
            ("ceil", {"strides": [2, 2], "ceil_mode": 1}),
            ("ceil padded", {"strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
            ("same upper", {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
            ("same lower", {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
            ("dilated", {"dilations": [2, 2]}),
        ):
            cases.append(Case(op, note, (image,), "", {"kernel_shape": [3, 2], **more}, opset=22))
    cases += [
        Case(
            "AveragePool",
            "pads counted",
            (image,),
            "",
            {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1, "strides": [2, 2], "ceil_mode": 1},
            opset=19,
        ),
        Case("MaxPool", "opset 1", (image,), "", {"kernel_shape": [2, 2], "strides": [2, 2]}, opset=8),
        Case("MaxPool", "1d", (real(2, 3, 7),), "", {"kernel_shape": [3], "pads": [1, 1]}),
        Case(
            "Conv", "uneven pads", (image, real(4, 3, 3, 3), real(4)), "", {"pads": [0, 1, 2, 1], "dilations": [2, 1]}
        ),
        Case("Conv", "cropped", (image, real(4, 3, 3, 3)), "", {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
        Case("Conv", "valid", (image, real(4, 3, 3, 3)), "", {"auto_pad": "VALID"}),
    ]
    for note, more in (
        ("pads", {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ("uneven pads", {"pads": [0, 1, 2, 1], "strides": [2, 2]}),
        ("output padding", {"strides": [2, 3], "output_padding": [1, 2], "pads": [1, 1, 1, 1]}),
        ("output shape", {"strides": [2, 2], "output_shape": [14, 13]}),
        ("same upper", {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ("same lower", {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
        ("dilated", {"dilations": [2, 2]}),
    ):
        cases.append(Case("ConvTranspose", note, (image, real(3, 4, 3, 3), real(4)), "", more))
    for mode in ("linear", "nearest", "cubic"):
        for padding in ("zeros", "border", "reflection"):
            more = {"mode": mode, "padding_mode": padding, "align_corners": int(padding == "border")}
            cases.append(
                Case("GridSample", f"{mode} {padding}", (real(2, 3, 4, 4), real(2, 3, 3, 2)), "", more, opset=20)
            )
    return cases


OPSET_CASES: tuple[Case, ...] = (*_one_input(), *_two_inputs(), *_opsets(), *_space())
