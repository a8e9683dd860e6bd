"""Which node of an edited graph was which node of the original."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Sequence

import onnx


def origins_of(
    original: Sequence[onnx.NodeProto],
    edited: Sequence[onnx.NodeProto],
    stamps: tuple[object, ...],
    path: str,
) -> list[int | None]:
    """For each edited node the index of the original node it comes from, None for a new one."""
    free = dict.fromkeys(range(len(original)))
    origins: list[int | None] = [None] * len(edited)
    for at, stamp in enumerate(stamps):
        if isinstance(stamp, tuple) and stamp[0] == path and stamp[1] in free:
            origins[at] = stamp[1]
            del free[stamp[1]]
    for keys in (_all_outputs, _each_output, _own_name):
        waiting: defaultdict[Hashable, deque[int]] = defaultdict(deque)
        for index in free:
            for key in keys(original[index]):
                waiting[key].append(index)
        for at, node in enumerate(edited):
            if origins[at] is not None:
                continue
            for key in keys(node):
                queue = waiting[key]
                while queue and queue[0] not in free:
                    queue.popleft()
                if queue:
                    chosen = queue.popleft()
                    origins[at] = chosen
                    del free[chosen]
                    break
    return origins


def _all_outputs(node: onnx.NodeProto) -> list[Hashable]:
    return [(node.op_type, node.domain, tuple(node.output))]


def _each_output(node: onnx.NodeProto) -> list[Hashable]:
    return [(node.op_type, node.domain, name) for name in node.output if name]


def _own_name(node: onnx.NodeProto) -> list[Hashable]:
    return [(node.op_type, node.domain, node.name)] if node.name else []
