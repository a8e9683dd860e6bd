"""Names are short, and still told apart."""

from __future__ import annotations

import pytest

from onnxprune.report.names import elide, essential, shortened

FUSED = [f"net_1.00/block_{k}_project_BN/FusedNorm;net_1.00/block_{k}_project/Conv2D_prequant" for k in range(12)]


def test_elide_keeps_both_ends() -> None:
    assert elide("short", 10) == "short"
    assert elide("/backbone/layer4/conv2/Conv", 16) == "/back…conv2/Conv"
    assert elide("net_1.00/block_1_project/Conv2D", 27, 0.0) == "…/block_1_project/Conv2D"


@pytest.mark.parametrize("width", [28, 38, 60, 200])
def test_shortened_names_differ_where_the_names_do(width: int) -> None:
    found = shortened(FUSED, width)
    assert len(set(found)) == len(FUSED)
    assert max(map(len, found)) <= width


def test_names_that_fit_are_left_whole() -> None:
    names = ["/stem/Conv", "/layer1/Conv", "/stem/Conv"]
    assert shortened(names, 20) == names


def test_what_cannot_be_told_apart_is_still_shortened() -> None:
    names = ["a" * 30 + str(k) + "b" * 30 for k in range(3)]
    assert [len(name) for name in shortened(names, 10)] == [10, 10, 10]


def test_essential_names_leave_out_what_most_share() -> None:
    assert essential(FUSED)[3] == "block_3"
    names = [f"/trunk/block{k}/a/Conv" for k in range(9)] + ["/stem/Conv", "/fc/Gemm"]
    assert essential(names) == [f"block{k}" for k in range(9)] + ["/stem", "/fc/Gemm"]
    assert essential(["node_Conv_5", "node_Conv_6"]) == ["node_Conv_5", "node_Conv_6"]
    assert essential([]) == []
    assert essential(["/a/Conv", "/a"]) == ["/a/Conv", "/a"]
