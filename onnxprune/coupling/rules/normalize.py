"""Normalizations and softmaxes.  Along their own axis every position depends on every other, so the axis locks."""

from __future__ import annotations

from onnxprune.coupling.rule import Locked, NodeInfo, Rule, RuleEntry


def batch_normalization(info: NodeInfo) -> Rule | Locked:
    """In training mode the statistics come from the batch, per channel: batch and positions mix, channels do not.

    Before opset 14, the outputs for statistics turn training mode on.
    """
    if info.rank(1) != 1:
        return Locked("normalizes every position of a feature map on its own (spatial=0)")
    statistics = info.node.outputs[1:]
    training = info.node.integer("training_mode", 0) or any(value is not None for value in statistics)
    mixed = ["n", *(f"x{k}" for k in range(info.rank() - 2))] if training else []
    return Rule(f"n c x.., c, c, c, c -> n c x..{', c' * len(statistics)}", mix=frozenset(mixed))


def instance_normalization(info: NodeInfo) -> Rule:
    """The spatial axes mix.  After a Reshape they hold channels: exporters write a GroupNorm that way."""
    space = frozenset(f"x{k}" for k in range(info.rank() - 2))
    return Rule("n c x.., c, c -> n c x..", mix=space, estimates=space)


def group_normalization(info: NodeInfo) -> Rule | Locked:
    scale, data = info.shape(1), info.shape(0)
    space = [f"x{k}" for k in range(info.rank() - 2)]
    if scale is not None and data is not None and scale[0] != data[1]:
        # Opset 18 has one scale per group, later opsets have one per channel.
        text = "n (g c) x.., g, g -> n (g c) x.."
    else:
        text = "n (g c) x.., (g c), (g c) -> n (g c) x.."
    return Rule(text, frozenset({"c", *space}), {"num_groups": "g"}, estimates=frozenset("c"))


def layer_normalization(info: NodeInfo) -> Rule:
    rank = info.rank()
    axis = info.node.integer("axis", -1) % max(rank, 1)
    dims = [f"d{k}" for k in range(rank)]
    data = info.shape(0) or ()

    def parameter(slot: int) -> str:
        shape = info.shape(slot)
        if not shape:
            return "_"
        lead = rank - len(shape)
        return " ".join(dims[lead + k] if s == data[lead + k] else "1" for k, s in enumerate(shape))

    statistics = " ".join([*dims[:axis], *["1"] * (rank - axis)]) or "_"
    full = " ".join(dims)
    mixed = frozenset(dims[axis:])
    return Rule(
        f"{full}, {parameter(1)}, {parameter(2)} -> {full}, {statistics}, {statistics}", mix=mixed, estimates=mixed
    )


def along_axis(info: NodeInfo) -> Rule:
    """Softmax and its variants: one axis mixes.  Before opset 13, all axes from ``axis`` on mix as one flat axis."""
    return along(info, info.graph.opsets.get("", 1) < 13 and info.node.op in ("Softmax", "LogSoftmax", "Hardmax"))


def along(info: NodeInfo, flat: bool) -> Rule:
    rank = info.rank()
    axis = info.node.integer("axis", 1 if flat else -1) % max(rank, 1)
    dims = [f"d{k}" for k in range(rank)]
    full = " ".join(dims) or "_"
    return Rule(f"{full} -> {full}", mix=frozenset(dims[axis:] if flat else dims[axis : axis + 1]))


def lp_normalization(info: NodeInfo) -> Rule:
    """Division by a norm.  A zero adds nothing to the norm, so the masked original zeroes positions that leave."""
    rank = info.rank()
    full = " ".join(f"d{k}" for k in range(rank)) or "_"
    return Rule(f"{full} -> {full}", masks=((0, info.node.integer("axis", -1) % max(rank, 1)),))


def local_response(info: NodeInfo) -> Rule:
    return Rule("n c x.. -> n c x..", mix=frozenset({"c"}))


def mean_variance(info: NodeInfo) -> Rule:
    rank = info.rank()
    axes = info.node.integers("axes") or (0, 2, 3)
    dims = [f"d{k}" for k in range(rank)]
    full = " ".join(dims)
    return Rule(f"{full} -> {full}", mix=frozenset(dims[a % rank] for a in axes))


def skip_layer_normalization(info: NodeInfo) -> Rule:
    """(input, skip, gamma[, beta], bias) -> output, mean, deviation, sum.  The skip may broadcast over the batch."""
    shape = info.shape(0) or ()
    names = [f"d{k}" for k in range(len(shape))]
    full, width = " ".join(names), names[-1]
    lead = len(shape) - info.rank(1)
    skip = " ".join(names[lead + k] if size == shape[lead + k] else "1" for k, size in enumerate(info.shape(1) or ()))
    statistics = " ".join([*names[:-1], "1"])
    return Rule(
        f"{full}, {skip}, {width}, {width}, {width} -> {full}, {statistics}, {statistics}, {full}",
        mix=frozenset({width}),
        estimates=frozenset({width}),
    )


def embed_layer_normalization(info: NodeInfo) -> Rule:
    """Sum of word, position and segment embeddings, normalized over their width."""
    text = "b s, b s, v d, p d, q d, d, d, b s, b s -> b s d, b, b s d"
    return Rule(text, frozenset({"d", "v", "p", "q", "s"}), estimates=frozenset("d"))


def group_norm(info: NodeInfo) -> Rule:
    """com.microsoft GroupNorm, by default with channels last.  SkipGroupNorm adds a skip and a bias first."""
    if info.node.integer("channels_last", 1):
        data, axis = "n x.. (g c)", info.rank() - 1
    else:
        data, axis = "n (g c) x..", 1
    space = frozenset(f"x{k}" for k in range(info.rank() - 2))
    shape, skip = info.shape(0) or (), info.shape(3)
    other = data
    if skip is not None and skip != shape:
        place = 1 if len(skip) == 2 else axis
        words = ["n", *["1"] * (len(skip) - 1)]
        words[place] = "(g c)"
        other = " ".join(words)
    groups = info.node.integer("groups", 1)
    return Rule(
        f"{data}, (g c), (g c), {other}, (g c) -> {data}, {data}",
        space | {"c"},
        {"groups": "g"},
        sizes={"g": groups},
        estimates=frozenset("c"),
    )


def gated_rms(info: NodeInfo) -> Rule:
    """GatedRMSNorm: RMS over the last axis, times a gate of the same shape."""
    names = [f"d{k}" for k in range(info.rank())]
    full = " ".join(names)
    mixed = frozenset({names[-1]})
    return Rule(f"{full}, {names[-1]}, {full} -> {full}", mix=mixed, estimates=mixed)


TABLE: dict[str, RuleEntry] = {
    "BatchNormalization": batch_normalization,
    "InstanceNormalization": instance_normalization,
    "GroupNormalization": group_normalization,
    "LayerNormalization": layer_normalization,
    "RMSNormalization": layer_normalization,
    # onnxruntime's optimizer registers this operator in the default domain.
    "SimplifiedLayerNormalization": layer_normalization,
    "Softmax": along_axis,
    "LogSoftmax": along_axis,
    "Hardmax": along_axis,
    "LpNormalization": lp_normalization,
    "LRN": local_response,
    "MeanVarianceNormalization": mean_variance,
}
MICROSOFT: dict[str, RuleEntry] = {
    "LayerNormalization": layer_normalization,
    "SimplifiedLayerNormalization": layer_normalization,
    "SkipLayerNormalization": skip_layer_normalization,
    "SkipSimplifiedLayerNormalization": skip_layer_normalization,
    "EmbedLayerNormalization": embed_layer_normalization,
    "GroupNorm": group_norm,
    "SkipGroupNorm": group_norm,
    "GatedRMSNorm": gated_rms,
}
