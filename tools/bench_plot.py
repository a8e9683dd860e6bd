"""Plots of ``bench_accuracy.py``: python tools/bench_plot.py DIR, with DIR/accuracy.json; needs matplotlib."""

from __future__ import annotations

import json
import sys
from pathlib import Path

#: Colour per family, by the beginning of a method's name; everything else is of the literature.
FAMILIES = {"onnxprune": "#0b6e4f", "torch-pruning": "#b3541e", "onnxsim": "#7a3e9d"}
LITERATURE = "#2f5d9b"
MARKERS = "ovs^Dp*XP<>hd8"


def main() -> int:
    try:
        import matplotlib
    except ImportError:
        print(f"no plots: matplotlib is not installed for {sys.executable}")
        return 0
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    out = Path(sys.argv[1])
    cells = [c for c in json.loads((out / "accuracy.json").read_text()) if c["top1"] is not None]
    models = list(dict.fromkeys(c["model"] for c in cells))
    for model in models:
        own = [c for c in cells if c["model"] == model]
        figure, axes = plt.subplots(figsize=(8, 5.5))
        original = next((c["top1"] for c in own if c["method"] == "original"), None)
        if original is not None:
            axes.axhline(100 * original, color="black", linewidth=0.8, linestyle=":", label="original")
        drawn: dict[str | None, int] = {}
        methods = dict.fromkeys(c["method"] for c in own if c["method"] != "original")
        for method in sorted(methods, key=lambda m: -max(c["top1"] for c in own if c["method"] == m)):
            line = sorted((c["macs"], 100 * c["top1"]) for c in own if c["method"] == method)
            family = next((f for f in FAMILIES if method.startswith(f)), None)
            drawn[family] = drawn.get(family, -1) + 1
            style = {"color": FAMILIES.get(family, LITERATURE), "linewidth": 1, "markersize": 4, "alpha": 0.75}
            style |= {"marker": MARKERS[drawn[family] % len(MARKERS)]}
            if method == "onnxprune":
                style |= {"linewidth": 3, "markersize": 6, "alpha": 1.0, "zorder": 5}
            elif family == "onnxprune":
                style |= {"linestyle": "--"}
            axes.plot(*zip(*line, strict=True), label=method, **style)
        axes.set_xlabel("MACs kept, share of the original")
        axes.set_ylabel("top-1 on the test images, %")
        axes.set_title(f"{model}: no training, {own[0]['samples']} unlabelled images")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1.01, 0.5))
        figure.savefig(out / f"{model}.png", dpi=150, bbox_inches="tight", metadata={"Software": None})
        plt.close(figure)
    print(f"plots of {', '.join(models)} in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
