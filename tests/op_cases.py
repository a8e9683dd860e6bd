"""One table of one-node cases with unequal sizes above one, for what ONNX's own test cases lack.

Each case says which factors of its rule must be free (``free``), so that a rule that locks too much fails as
well as one that ties too little.  ``chained`` are the slots whose tensor is computed in the pipeline law (all
others are constants).
"""

from __future__ import annotations

import numpy as np
from attention_cases import attention, microsoft
from case import MS, Case, _rng, one, positive, real, small, whole
from quantized_cases import quantized


def _convolutions() -> list[Case]:
    cases = []
    for space, kernel in (((7,), (3,)), ((7, 6), (3, 2)), ((4, 5, 3), (2, 3, 2))):
        d = len(space)
        cases += [
            Case("Conv", f"{d}d plain", (real(2, 3, *space), real(5, 3, *kernel), real(5)), "n i o"),
            Case(
                "Conv", f"{d}d grouped", (real(2, 6, *space), real(10, 3, *kernel), real(10)), "n g i o", {"group": 2}
            ),
            Case("Conv", f"{d}d depthwise", (real(2, 5, *space), real(5, 1, *kernel)), "n g", {"group": 5}),
            Case(
                "Conv", f"{d}d multiplier", (real(2, 5, *space), real(15, 1, *kernel), real(15)), "n g o", {"group": 5}
            ),
            Case("ConvTranspose", f"{d}d plain", (real(2, 3, *space), real(3, 5, *kernel), real(5)), "n i o"),
            Case(
                "ConvTranspose",
                f"{d}d grouped",
                (real(2, 6, *space), real(6, 5, *kernel), real(10)),
                "n g i o",
                {"group": 2},
            ),
            Case("ConvTranspose", f"{d}d depthwise", (real(2, 5, *space), real(5, 1, *kernel)), "n g", {"group": 5}),
            Case("ConvTranspose", f"{d}d multiplier", (real(2, 5, *space), real(5, 3, *kernel)), "n g o", {"group": 5}),
        ]
    cases += [
        Case(
            "Conv",
            "auto_pad strided",
            (real(2, 6, 8, 7), real(9, 2, 3, 3)),
            "n g i o",
            {"group": 3, "auto_pad": "SAME_UPPER", "strides": [2, 2]},
        ),
        Case(
            "DeformConv",
            "grouped",
            (real(2, 6, 5, 5), real(4, 3, 2, 2), real(2, 8, 4, 4), real(4)),
            "n g i o",
            {"group": 2},
        ),
        Case(
            "DeformConv",
            "offset groups",
            (real(2, 6, 5, 5), real(5, 6, 2, 2), real(2, 16, 4, 4), real(5), real(2, 8, 4, 4)),
            "n p i o",
            {"offset_group": 2},
        ),
        Case("Col2Im", "2d", (real(2, 12, 12), whole(5, 4), whole(2, 2)), "n c"),
        Case(
            "CausalConvWithState",
            "bias and state",
            (real(2, 5, 7), real(5, 1, 3), real(5), real(2, 5, 2)),
            "n c",
            outputs=2,
            opset=27,
        ),
        Case(
            "FusedConv",
            "relu",
            (real(2, 6, 7, 6), real(10, 3, 3, 2), real(10)),
            "n g i o",
            {"group": 2, "activation": "Relu"},
            MS,
        ),
        Case(
            "FusedConv",
            "added",
            (real(2, 3, 7, 6), real(5, 3, 1, 1), real(5), real(2, 5, 7, 6)),
            "n i o",
            {"activation": "Relu"},
            MS,
        ),
    ]
    return cases


def _products() -> list[Case]:
    cases = [
        Case("MatMul", "2d", (real(3, 4), real(4, 5)), "i k j"),
        Case("MatMul", "batched", (real(2, 3, 4, 5), real(2, 3, 5, 6)), "b0 b1 i k j", chained=(0, 1)),
        Case("MatMul", "broadcast left", (real(3, 4, 5), real(2, 3, 5, 6)), "b0 b1 i k j", chained=(0, 1)),
        Case("MatMul", "broadcast ones", (real(2, 1, 4, 5), real(1, 3, 5, 6)), "b0 b1 i k j"),
        Case("MatMul", "weights", (real(2, 3, 4, 5), real(5, 6)), "b0 b1 i k j"),
        Case("MatMul", "vector left", (real(5), real(2, 5, 6)), "b0 k j"),
        Case("MatMul", "vector right", (real(2, 4, 5), real(5)), "b0 i k"),
        Case("MatMul", "vectors", (real(5), real(5)), "k"),
        Case("FusedMatMul", "transB", (real(2, 3, 4), real(2, 5, 4)), "b0 i k j", {"transB": 1, "alpha": 0.5}, MS),
        Case("FusedMatMul", "transA", (real(2, 4, 3), real(4, 5)), "b0 i k j", {"transA": 1}, MS),
        Case(
            "FusedMatMul",
            "transBatchA",
            (real(3, 2, 4), real(2, 4, 5)),
            "b0 i k j",
            {"transBatchA": 1},
            MS,
        ),
        Case(
            "FusedMatMul",
            "transBatchB transB",
            (real(2, 3, 4), real(5, 2, 4)),
            "b0 i k j",
            {"transBatchB": 1, "transB": 1},
            MS,
        ),
        Case("TransposeMatMul", "transB", (real(3, 4), real(5, 4)), "i k j", {"transB": 1}, MS),
        Case("FusedGemm", "relu", (real(3, 4), real(4, 5), real(5)), "i k j", {"activation": "Relu"}, MS),
    ]
    for a in (0, 1):
        for b in (0, 1):
            left, right = real(*(4, 3) if a else (3, 4)), real(*(5, 4) if b else (4, 5))
            cases.append(
                Case("Gemm", f"trans{a}{b}", (left, right, real(5)), "i k j", {"transA": a, "transB": b, "alpha": 0.5})
            )
    for note, bias in (
        ("full", real(3, 5)),
        ("row", real(1, 5)),
        ("column", real(3, 1)),
        ("scalar", real(1)),
        ("rank0", one(2)),
    ):
        cases.append(Case("Gemm", f"bias {note}", (real(3, 4), real(4, 5), bias), "i k j", {"beta": 0.5}))
    for equation, shapes, free in (
        ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5)), "b i j k"),
        ("bhid,bhjd->bhij", ((2, 3, 4, 5), (2, 3, 6, 5)), "b h i j d"),
        ("...ij,jk->...ik", ((2, 3, 4), (4, 5)), "E0 i j k"),
        ("bnc,oc->bno", ((2, 3, 4), (5, 4)), "b n c o"),
        ("ab,bc,cd->ad", ((2, 3), (3, 4), (4, 5)), "a b c d"),
        ("ij->ji", ((3, 4),), "i j"),
        ("bc,bc->b", ((3, 4), (3, 4)), "b c"),
        ("ij,jk", ((3, 4), (4, 5)), "i j k"),
        ("bij->bj", ((2, 3, 4),), "b i j"),
        ("bij,bj->b", ((2, 3, 4), (2, 4)), "b i j"),
    ):
        cases.append(Case("Einsum", equation, tuple(real(*s) for s in shapes), free, {"equation": equation}))
    return cases


def _recurrent() -> list[Case]:
    cases = []
    t, b, i, h = 4, 2, 5, 3
    for op, q, outs in (("LSTM", 4, 3), ("GRU", 3, 2), ("RNN", 1, 2)):
        for direction, d in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
            weights = (real(d, q * h, i), real(d, q * h, h), real(d, 2 * q * h))
            x, state = real(t, b, i), real(d, b, h)
            lengths = np.asarray([t, t - 1], np.int32)
            extra = (state, real(d, b, h), real(d, 3 * h)) if op == "LSTM" else (state,)
            attributes: dict[str, object] = {"hidden_size": h, "direction": direction}
            cases.append(Case(op, f"{direction} bare", (x, *weights[:2]), "b i h", attributes, outputs=outs))
            cases.append(
                Case(
                    op,
                    f"{direction} all",
                    (x, *weights, lengths, *extra),
                    "b i h",
                    attributes,
                    outputs=outs,
                    chained=(0, 5),
                )
            )
    gates = (real(2, 9, 5), real(2, 9, 3), real(2, 18))
    linear = {"hidden_size": 3, "direction": "bidirectional", "linear_before_reset": 1, "clip": 0.8}
    cases.append(Case("GRU", "linear before reset clipped", (real(4, 2, 5), *gates), "b i h", linear, outputs=2))
    named = {"hidden_size": 3, "activations": ["HardSigmoid", "Relu", "Tanh"], "input_forget": 1}
    cases.append(
        Case("LSTM", "activations", (real(4, 2, 5), real(1, 12, 5), real(1, 12, 3)), "b i h", named, outputs=3)
    )
    for op, q, outs in (("LSTM", 4, 3), ("GRU", 3, 2), ("RNN", 1, 2)):
        weights = (real(1, q * h, i), real(1, q * h, h), real(1, 2 * q * h))
        cases.append(
            Case(op, "layout 1", (real(b, t, i), *weights), "b i h", {"hidden_size": h, "layout": 1}, outputs=outs)
        )
    packed = (small(2, i, 4 * h, kind=np.int8), small(2, h, 4 * h, kind=np.int8))
    scales, points = positive(2) * np.float32(0.01), np.zeros(2, np.int8)
    cases.append(
        Case(
            "DynamicQuantizeLSTM",
            "per direction",
            (real(t, b, i), *packed, real(2, 8 * h), None, None, None, None, scales, points, scales, points),
            "i h",
            {"hidden_size": h, "direction": "bidirectional"},
            MS,
            3,
        )
    )
    return cases


def _normalizations() -> list[Case]:
    return [
        Case("GroupNormalization", "groups", (real(2, 12, 3, 2), positive(12), real(12)), "n g", {"num_groups": 4}),
        Case(
            "GroupNormalization",
            "opset 18",
            (real(2, 12, 3, 2), positive(4), real(4)),
            "n g",
            {"num_groups": 4},
            opset=18,
        ),
        Case(
            "BatchNormalization",
            "4d",
            (real(2, 5, 3, 2), positive(5), real(5), real(5), positive(5)),
            "n c x0 x1",
            opset=15,
        ),
        Case("BatchNormalization", "2d", (real(2, 5), positive(5), real(5), real(5), positive(5)), "n c", opset=15),
        Case(
            "BatchNormalization",
            "training",
            (real(4, 5, 3, 2), positive(5), real(5), real(5), positive(5)),
            "c",
            {"training_mode": 1},
            outputs=3,
            opset=15,
        ),
        Case("InstanceNormalization", "3d", (real(2, 5, 6), positive(5), real(5)), "n c"),
        Case(
            "LayerNormalization",
            "two axes",
            (real(2, 3, 4, 5), positive(4, 5), real(4, 5)),
            "d0 d1",
            {"axis": 2},
            outputs=3,
        ),
        Case("RMSNormalization", "last", (real(2, 3, 4), positive(4)), "d0 d1", opset=23),
        Case("LRN", "4d", (real(2, 5, 3, 2),), "n x0 x1", {"size": 3}),
        Case("MeanVarianceNormalization", "default", (real(2, 5, 3, 2),), "d1"),
        Case("LpNormalization", "axis 1", (real(2, 5, 3),), "d0 d1 d2", {"axis": 1}),
        Case("LpNormalization", "p 1", (real(2, 5, 3),), "d0 d1 d2", {"p": 1}),
        Case("Softmax", "axis 1", (real(2, 5, 3),), "d0 d2", {"axis": 1}),
        Case("Softmax", "flat opset 11", (real(2, 5, 3),), "d0", {"axis": 1}, opset=11),
        Case("LogSoftmax", "last", (real(2, 5, 3),), "d0 d1"),
        Case(
            "SkipLayerNormalization",
            "all",
            (real(2, 3, 4), real(2, 3, 4), positive(4), real(4), real(4)),
            "d0 d1",
            {},
            MS,
        ),
        Case("SkipLayerNormalization", "broadcast", (real(2, 3, 4), real(3, 4), positive(4)), "d0 d1", {}, MS),
        Case(
            "SkipSimplifiedLayerNormalization",
            "all",
            (real(2, 3, 4), real(2, 3, 4), positive(4), real(4)),
            "d0 d1",
            {},
            MS,
        ),
        Case(
            "EmbedLayerNormalization",
            "segments",
            (
                np.asarray([[1, 2, 3], [4, 0, 2]], np.int32),
                np.asarray([[0, 1, 1], [0, 0, 1]], np.int32),
                real(6, 4),
                real(3, 4),
                real(2, 4),
                positive(4),
                real(4),
            ),
            "b",
            {},
            MS,
            2,
            chained=(),
        ),
    ]


def _elementwise() -> list[Case]:
    return [
        Case("Add", "residual", (real(2, 5, 3), real(2, 5, 3)), "d0 d1 d2", chained=(0, 1)),
        Case("Mul", "gate", (real(2, 5, 3, 3), real(2, 5, 1, 1)), "d0 d1 d2 d3", chained=(0, 1)),
        Case("Sub", "wider right", (real(5, 1), real(2, 1, 3)), "d0 d1 d2", chained=(0, 1)),
        Case("Where", "three", (np.asarray([[True], [False]]), real(2, 5), real(5)), "d0 d1", chained=(1, 2)),
        Case("PRelu", "per channel", (real(2, 5, 3), positive(5, 1)), "d0 d1 d2"),
        Case("Max", "three", (real(2, 5), real(5), real(2, 1)), "d0 d1", chained=(0, 1)),
        Case("Clip", "bounds", (real(2, 5), one(-0.5), one(0.5)), "d0 d1"),
        Case("Dropout", "mask", (real(2, 5),), "d0 d1", outputs=2),
        Case("CastLike", "half", (real(2, 5), one(1, np.float64)), "d0 d1"),
        Case("SwiGLU", "gate", (real(2, 5), real(2, 5)), "d0 d1", opset=28, chained=(0, 1)),
        Case("FastGelu", "bias", (real(2, 3, 5), real(5)), "d0 d1 d2", {}, MS),
        Case("BiasGelu", "bias", (real(2, 3, 5), real(5)), "d0 d1 d2", {}, MS),
        Case("Gelu", "ms", (real(2, 5),), "d0 d1", {}, MS),
        Case("QuickGelu", "ms", (real(2, 5),), "d0 d1", {"alpha": 1.5}, MS),
        Case("ExpandDims", "ms", (real(2, 5), one(1, np.int32)), "d0 d1", {}, MS),
    ]


def _spatial() -> list[Case]:
    return [
        Case("AveragePool", "3d", (real(2, 5, 4, 4, 3),), "n c", {"kernel_shape": [2, 2, 2]}),
        Case("MaxPool", "2d", (real(2, 5, 4, 4),), "n c", {"kernel_shape": [2, 2]}),
        Case("MaxPool", "indices", (real(2, 5, 4, 4),), "", {"kernel_shape": [2, 2]}, outputs=2),
        Case("GlobalAveragePool", "2d", (real(2, 5, 4, 4),), "n c"),
        Case("GlobalMaxPool", "1d", (real(2, 5, 4),), "n c"),
        Case("LpPool", "2d", (real(2, 5, 4, 4),), "n c", {"kernel_shape": [2, 2]}),
        Case("ReduceMean", "space", (real(2, 5, 4, 3), whole(2, 3)), "d0 d1"),
        Case("ReduceMean", "channels", (real(2, 5, 4), whole(1)), "d0 d2"),
        Case("ReduceSum", "squeezed", (real(2, 5, 4), whole(1)), "d0 d1 d2", {"keepdims": 0}),
        Case("ReduceSum", "everything", (real(2, 5, 4),), "d0 d1 d2", {"keepdims": 0}),
        Case("ReduceSum", "two axes", (real(2, 5, 4, 3), whole(-1, 1)), "d0 d1 d2 d3"),
        Case("ReduceL1", "channels", (real(2, 5, 4), whole(1)), "d0 d1 d2"),
        Case("ReduceL2", "attribute", (real(2, 5, 4),), "d0 d1 d2", {"axes": [1]}, opset=13),
        Case("ReduceSumSquare", "last", (real(2, 5, 4), whole(-1)), "d0 d1 d2"),
        Case("ReduceLogSum", "channels", (positive(2, 5, 4), whole(1)), "d0 d1 d2"),
        Case("ReduceLogSumExp", "channels", (real(2, 5, 4), whole(1)), "d0 d2"),
        Case("ReduceMax", "attribute", (real(2, 5, 4),), "d0 d2", {"axes": [-2]}, opset=13),
        Case("ArgMax", "axis 2", (real(2, 5, 4),), "d0 d1", {"axis": 2, "keepdims": 0}),
        Case("CumSum", "axis 1", (real(2, 5, 4), one(1, np.int64)), "d0 d2"),
        Case(
            "Resize",
            "scales",
            (real(2, 5, 4, 3), None, np.asarray([1, 1, 2, 2], np.float32)),
            "d0 d1",
            {"mode": "linear"},
        ),
        Case("Resize", "sizes", (real(2, 5, 4, 3), None, None, whole(2, 5, 7, 6)), "d0 d1", {"mode": "nearest"}),
        Case(
            "Resize",
            "channels last",
            (real(2, 4, 3, 5), None, np.asarray([1, 2, 2, 1], np.float32)),
            "d0 d3",
            {"mode": "nearest"},
        ),
        Case(
            "Resize",
            "named axes",
            (real(2, 5, 4, 3), None, None, whole(8, 6)),
            "d0 d1",
            {"mode": "nearest", "axes": [2, 3]},
        ),
        Case(
            "Upsample",
            "scales",
            (real(2, 5, 4, 3), np.asarray([1, 1, 2, 2], np.float32)),
            "d0 d1",
            {"mode": "nearest"},
            opset=9,
        ),
        Case("Trilu", "upper", (real(2, 5, 4, 3),), "d0 d1"),
        Case("Det", "batch", (real(2, 5, 3, 3),), "d0 d1"),
        Case("GridSample", "2d", (real(2, 5, 4, 4), real(2, 3, 3, 2)), "n c y0 y1", chained=(0,)),
        Case(
            "RoiAlign",
            "rois",
            (real(2, 5, 6, 6), positive(3, 4) * np.float32(3), whole(0, 1, 0)),
            "c r",
            {"output_height": 2, "output_width": 2},
        ),
        Case("CenterCropPad", "axes", (real(2, 5, 4, 3), whole(3, 5)), "d0 d1", {"axes": [2, 3]}),
        Case("DFT", "axis 1", (real(2, 5, 4, 1), None, one(1, np.int64)), "d0 d2", chained=()),
        Case("Inverse", "batch", (real(2, 5, 3, 3),), "d0 d1", {}, MS),
        Case("TopK", "axis 1", (real(2, 5, 4), whole(2)), "d0 d2", {"axis": 1}, outputs=2),
        Case("GatherElements", "axis 1", (real(2, 5, 3), _rng.integers(0, 5, (2, 4, 3))), "d0 d2", {"axis": 1}),
        Case("GatherND", "batch", (real(2, 5, 3, 4), _rng.integers(0, 5, (2, 6, 1))), "d0 d2 d3 q1", {"batch_dims": 1}),
        Case(
            "ScatterElements",
            "axis 1",
            (real(2, 5, 3), _rng.permutation(5)[None, :4, None].repeat(2, 0).repeat(3, 2), real(2, 4, 3)),
            "d0 d2",
            {"axis": 1},
        ),
        Case("ScatterND", "places", (real(6, 5, 3), np.asarray([[4, 2], [1, 0]]), real(2, 3)), "d2"),
        Case("TensorScatter", "cache", (real(2, 3, 6, 4), real(2, 3, 2, 4), whole(1, 2)), "d0 d1 d3", opset=24),
        Case("Compress", "axis 1", (real(2, 5, 3), np.asarray([True, False, True, True, False])), "d0 d2", {"axis": 1}),
        Case(
            "OneHot", "last", (_rng.integers(0, 4, (2, 5)), one(4, np.int64), np.asarray([0, 1], np.float32)), "d0 d1"
        ),
        Case("ReverseSequence", "time", (real(4, 2, 5), whole(3, 4)), "d2", {"time_axis": 0, "batch_axis": 1}),
    ]


def _movers() -> list[Case]:
    """Most have no rule to check: these only run through the pipeline law."""
    shuffled = _rng.permutation(6)
    return [
        Case("Transpose", "4d", (real(2, 3, 4, 5),), "", {"perm": [0, 2, 3, 1]}),
        Case("Reshape", "merge", (real(2, 3, 4, 5), whole(0, 12, 5)), ""),
        Case("Reshape", "split", (real(2, 12, 5), whole(2, 3, 4, -1)), ""),
        Case("Reshape", "regroup", (real(2, 12, 5), whole(2, 2, 30)), ""),
        Case("Flatten", "axis 1", (real(2, 3, 4),), "", {"axis": 1}),
        Case("Squeeze", "middle", (real(2, 1, 4), whole(1)), ""),
        Case("Unsqueeze", "ends", (real(2, 4), whole(0, 3)), ""),
        Case("Concat", "axis 1", (real(2, 3, 4), real(2, 5, 4)), "", {"axis": 1}, chained=(0, 1)),
        Case("Split", "parts", (real(2, 7, 3), whole(4, 3)), "", {"axis": 1}, outputs=2),
        Case("Split", "equal", (real(2, 8, 3),), "", {"axis": 1, "num_outputs": 2}, outputs=2),
        Case("Split", "attribute", (real(2, 7, 3),), "", {"axis": 1, "split": [4, 3]}, outputs=2, opset=11),
        Case("Slice", "range", (real(2, 7, 5), whole(2), whole(6), whole(1)), ""),
        Case("Slice", "reversed", (real(2, 7, 5), whole(-1), whole(-100), whole(1), whole(-1)), ""),
        Case("Slice", "strided space", (real(2, 7, 5), whole(0), whole(5), whole(2), whole(2)), ""),
        Case("Slice", "attributes", (real(2, 7, 5),), "", {"starts": [1], "ends": [6], "axes": [1]}, opset=9),
        Case("Pad", "channels", (real(2, 5, 3), whole(0, 2, 0, 0, 1, 0)), ""),
        Case("Pad", "negative", (real(2, 7, 3), whole(0, -2, 0, 0, -1, 0)), ""),
        Case("Pad", "reflect", (real(2, 5, 4), whole(0, 0, 1, 0, 0, 2)), "", {"mode": "reflect"}),
        Case("Pad", "reflected channels", (real(2, 5, 4), whole(0, 1, 0, 0, 2, 0)), "", {"mode": "reflect"}),
        Case("Pad", "constant one", (real(2, 5, 3), whole(0, 1, 0, 0, 0, 0), one(1.5)), ""),
        Case("Pad", "attribute", (real(2, 5, 3),), "", {"pads": [0, 1, 0, 0, 0, 1]}, opset=10),
        Case("Pad", "ms", (real(2, 5, 3), whole(0, 1, 0, 0, 0, 1)), "", {}, MS),
        Case("Tile", "channels", (real(2, 3, 4), whole(1, 2, 1)), ""),
        Case("Expand", "broadcast", (real(2, 5, 1), whole(2, 5, 4)), ""),
        Case("DepthToSpace", "DCR", (real(2, 12, 2, 3),), "n c h w", {"blocksize": 2}),
        Case("DepthToSpace", "CRD", (real(2, 12, 2, 3),), "n c h w", {"blocksize": 2, "mode": "CRD"}),
        Case("SpaceToDepth", "2d", (real(2, 3, 4, 6),), "n c h w", {"blocksize": 2}),
        Case("Gather", "permuted", (real(2, 6, 3), shuffled), "", {"axis": 1}),
        Case("Gather", "repeated", (real(2, 6, 3), whole(0, 2, 2, 5)), "", {"axis": 1}),
        Case("Gather", "single", (real(2, 6, 3), one(2, np.int64)), "", {"axis": 1}),
        Case("Identity", "plain", (real(2, 6),), "d0 d1"),
    ]


CASES: tuple[Case, ...] = (
    *_convolutions(),
    *_products(),
    *_recurrent(),
    *_normalizations(),
    *attention(),
    *quantized(),
    *_elementwise(),
    *_spatial(),
    *microsoft(),
    *_movers(),
)
