"""Seeded random graphs, built from pieces as exporters write them: what no architecture list would contain.

``random_model(seed)`` gives a valid float32 model with one image input (the batch may be dynamic), one to three
outputs and some dozens of nodes.  The same seed gives the same bytes.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper as oh
from random_any_pieces import (
    across,
    activation,
    clip,
    concat,
    constant,
    expanded,
    gated,
    gather,
    halves,
    join,
    normalize,
    pad,
    prelu,
    reversed_channels,
    rolled,
    scaled_by_size,
    select,
    slice_axis,
    split_axis,
    stacked,
    swish,
)
from random_builder import OPSET, Builder, Piece, Value
from random_image_pieces import (
    batch_norm,
    batch_norm_of_the_batch,
    channels_last,
    conv,
    depth,
    depthwise,
    gate,
    group_norm,
    modulated,
    option_a,
    places,
    pool,
    residual,
    resize,
    resized_to,
    shuffle,
    shuffled_by_size,
    tile,
    transposed,
    viewed,
)
from random_token_pieces import (
    attend,
    attend_channels,
    computed_weight,
    first_token,
    flat,
    gemm,
    manual_norm,
    matmul,
    mean_tokens,
    multiplied,
    pooled,
    recur,
    recur_state,
    tokens,
)

ANY: tuple[Piece, ...] = (activation, swish, clip, prelu, constant, join, join, select, concat, split_axis, slice_axis)

ANY += (pad, gather, gated, normalize, halves, scaled_by_size, expanded, reversed_channels, across, stacked)

ANY += (rolled,)

IMAGE: tuple[Piece, ...] = (
    conv,
    conv,
    conv,
    conv,
    depthwise,
    transposed,
    batch_norm,
    residual,
    gate,
    shuffle,
)

IMAGE += (depth, pool, resize, group_norm, tile, tokens, pooled, flat, viewed, shuffled_by_size)

IMAGE += (resized_to, channels_last, places, option_a, attend_channels, batch_norm_of_the_batch, modulated)

TOKENS: tuple[Piece, ...] = (matmul, matmul, matmul, attend, recur, recur_state, mean_tokens)

TOKENS += (first_token, computed_weight, manual_norm)

FLAT: tuple[Piece, ...] = (gemm, gemm, matmul, batch_norm, computed_weight, multiplied)


def random_model(seed: int) -> onnx.ModelProto:
    """The graph of this seed."""
    rng = np.random.default_rng(seed)
    b = Builder(rng, dynamic=bool(rng.random() < 0.5))
    side = b.pick(6, 8)
    b.live.append(Value("image", (2, 3, side, side)))
    first = conv(b, b.live[0])
    assert first is not None
    b.live = [first]
    for _ in range(int(rng.integers(6, 22))):
        place = -1 if b.chance(0.7) else int(rng.integers(len(b.live)))
        x = b.live[place]
        own = {4: IMAGE, 3: TOKENS, 2: FLAT}[len(x.shape)]
        pieces = own if b.chance(0.6) else ANY
        made = pieces[int(rng.integers(len(pieces)))](b, x)
        if made is not None:
            b.live.append(made)
    outputs = [_finish(b, b.live[-1], 0)]
    for extra in range(b.pick(0, 0, 1, 2)):
        outputs.append(_finish(b, b.live[int(rng.integers(len(b.live)))], extra + 1))
    batch: int | str = "batch" if b.dynamic else 2
    graph = oh.make_graph(
        b.nodes,
        f"random_{seed}",
        [oh.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [batch, 3, side, side])],
        [oh.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [batch, width]) for name, width in outputs],
        b.weights,
    )
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", OPSET)], ir_version=8)


def _finish(b: Builder, x: Value, place: int) -> tuple[str, int]:
    """A classifier on ``x``: (name, width) of a graph output."""
    if len(x.shape) == 4:
        x = pooled(b, x) or x
    elif len(x.shape) == 3:
        x = mean_tokens(b, x) or x
    c, out = x.width, f"output_{place}"
    b.nodes.append(oh.make_node("Gemm", [x.name, b.weight(c, 5, fan=c), b.weight(5)], [out]))
    return out, 5
