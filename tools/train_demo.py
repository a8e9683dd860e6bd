"""Train the demo network of ``models/`` on Fashion-MNIST and write it beside its data.

    apt-get install dataset-fashion-mnist            # or any folder that holds the four idx .gz files
    pip install torch==2.13.0 onnx onnxscript onnxruntime numpy
    python tools/train_demo.py --data /usr/share/datasets/fashion-mnist --out models/

Writes demo.onnx (float32, N x 1 x 28 x 28 in [0, 1] -> N x 10 logits), calib.npz (unlabelled training
images) and test.npz (labelled test images). Seeded: the same machine, versions and options give the same
bytes. The recipe is fixed beforehand and the last epoch is what is written; test images are only scored.
Takes about four minutes on one core. Progress goes to stderr, one JSON object with the figures to stdout.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SEED = 20240607
CALIBRATION_IMAGES = 512
TEST_IMAGES = 1000
CLASSES = 10
SIDE = 28
OPSET = 17
MAX_SHIFT = 2
"""Augmentation moves an image by at most this many pixels along each axis."""

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """How long and how hard to train; ``peak_rate`` is the top of the one-cycle learning rate."""

    epochs: int
    batch: int = 128
    peak_rate: float = 0.2
    weight_decay: float = 5e-4
    momentum: float = 0.9
    label_smoothing: float = 0.05


@dataclass(frozen=True)
class Split:
    """Images (uint8, count x 1 x 28 x 28) and their classes (int64, count)."""

    images: Images
    labels: Labels


@dataclass(frozen=True)
class Figures:
    """What the run produced; accuracies are fractions measured by onnxruntime on the written file."""

    epochs: int
    train_seconds: float
    parameters: int
    onnx_bytes: int
    calib_bytes: int
    test_bytes: int
    accuracy_test_npz: float
    accuracy_all_test_images: float


class ConvNorm(nn.Module):
    """Square convolution that keeps the size at stride 1, followed by BatchNorm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y


class Gate(nn.Module):
    """Scale every channel by a number in (0, 1) computed from the means of all channels."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.excite = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        means = F.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(means))))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, gate: nn.Module) -> None:
        super().__init__()
        changes = stride != 1 or inputs != outputs
        self.first = ConvNorm(inputs, outputs, 3, stride)
        self.second = ConvNorm(outputs, outputs, 3)
        self.gate = gate
        self.shortcut: nn.Module = ConvNorm(inputs, outputs, 1, stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.gate(self.second(F.relu(self.first(x))))
        return F.relu(y + self.shortcut(x))


class DepthwiseBlock(nn.Module):
    """Widen by 1x1, filter each channel alone by 3x3, narrow by 1x1; the sum has no activation."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.widen = ConvNorm(channels, hidden, 1)
        self.filter = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.narrow = ConvNorm(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.narrow(F.relu(self.filter(F.relu(self.widen(x)))))
        return x + y


class DemoNet(nn.Module):
    """Stem, three residual stages at 14, 7 and 4 pixels, global average pool, linear classifier.

    One block is depthwise and one is gated so that pruning meets those couplings too. Widths are more
    generous than the task needs, which leaves something to prune.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(1, 16, 3)
        self.stage1 = nn.Sequential(
            BasicBlock(16, 24, 2, nn.Identity()),
            BasicBlock(24, 24, 1, nn.Identity()),
        )
        self.stage2 = nn.Sequential(
            BasicBlock(24, 40, 2, nn.Identity()),
            DepthwiseBlock(40, 80),
        )
        self.stage3 = nn.Sequential(
            BasicBlock(40, 48, 2, nn.Identity()),
            BasicBlock(48, 48, 1, Gate(48, 12)),
        )
        self.head = nn.Linear(48, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = self.stage3(self.stage2(self.stage1(x)))
        logits: Tensor = self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


def read_idx(path: Path) -> Images:
    """Read a gzipped idx file of unsigned bytes; the shape is the one its header gives.

    Raises ``SystemExit`` naming the file when it is missing or is not such a file.
    """
    if not path.is_file():
        raise SystemExit(f"{path}: not found; pass --data a folder with the four Fashion-MNIST idx .gz files")
    raw = gzip.decompress(path.read_bytes())
    # Header: two zero bytes, the element type (8 = uint8), the rank, then one big-endian int32 per axis.
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise SystemExit(f"{path}: not an idx file of unsigned bytes")
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", rank, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def load_split(folder: Path, prefix: str) -> Split:
    """Read the images and labels that Fashion-MNIST stores under ``prefix`` ("train" or "t10k")."""
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
    return Split(images.reshape(-1, 1, SIDE, SIDE), labels.astype(np.int64))


def augment(images: Tensor, random: torch.Generator) -> Tensor:
    """Shift each image (count x 1 x 28 x 28) by its own offset, zeros coming in, and mirror half of them."""
    count = len(images)
    padded = F.pad(images, (MAX_SHIFT,) * 4)[:, 0]
    line = torch.arange(SIDE)
    top = torch.randint(0, 2 * MAX_SHIFT + 1, (count, 1), generator=random)
    left = torch.randint(0, 2 * MAX_SHIFT + 1, (count, 1), generator=random)
    mirrored = torch.rand((count, 1), generator=random) < 0.5
    rows = top + line
    columns = left + torch.where(mirrored, line.flip(0), line)
    which = torch.arange(count)[:, None, None]
    return padded[which, rows[:, :, None], columns[:, None, :]][:, None]


def train(model: nn.Module, data: Split, recipe: Recipe) -> None:
    """Fit ``model`` in place by SGD with a one-cycle rate; one line per epoch on stderr."""
    random = torch.Generator().manual_seed(SEED)
    images = torch.from_numpy(data.images.astype(np.float32) / 255)
    labels = torch.from_numpy(data.labels)
    steps = len(images) // recipe.batch
    # Decay pulls BatchNorm scales and biases to zero for no gain in generalization, so it is kept off them.
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=recipe.peak_rate, momentum=recipe.momentum, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.peak_rate, total_steps=steps * recipe.epochs, pct_start=0.25, cycle_momentum=False
    )
    model.train()
    for epoch in range(recipe.epochs):
        began, total = time.perf_counter(), 0.0
        order = torch.randperm(len(images), generator=random)
        for step in range(steps):
            chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
            batch = augment(images[chosen], random).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(model(batch), labels[chosen], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds = time.perf_counter() - began
        print(f"epoch {epoch + 1}/{recipe.epochs}  loss {total / steps:.4f}  {seconds:.1f} s", file=sys.stderr)


def export(model: nn.Module, path: Path) -> None:
    """Write ``model`` as ONNX with every BatchNormalization still a node, and check the file.

    Raises ``SystemExit`` where the exporter folded one away after all.
    """
    model.eval()
    with warnings.catch_warnings():
        # The exporter is called by its legacy name on purpose; its advice to move is not news here.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model,
            (torch.zeros(1, 1, SIDE, SIDE),),
            str(path),
            dynamo=False,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
            opset_version=OPSET,
            # EVAL would fuse BatchNorm into the convolutions; the model is in eval mode already.
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    written = onnx.load(path)
    onnx.checker.check_model(written, full_check=True)
    wanted = sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    kept = sum(n.op_type == "BatchNormalization" for n in written.graph.node)
    if kept != wanted:
        raise SystemExit(f"{path}: the exporter kept {kept} of {wanted} BatchNormalization nodes")


def choose(labels: Labels, count: int) -> npt.NDArray[np.int64]:
    """Draw ``count`` indices, as many of each class as divides evenly, in random order, seeded."""
    random = np.random.default_rng(SEED)
    shuffled = random.permutation(len(labels))
    # Rank of each shuffled sample within its class: taking the lowest ranks deals classes out in turn.
    rank = np.empty(len(labels), np.int64)
    for label in range(CLASSES):
        members = labels[shuffled] == label
        rank[members] = np.arange(members.sum())
    taken = shuffled[np.argsort(rank, kind="stable")[:count]]
    return random.permutation(taken)


def accuracy(path: Path, data: Split) -> float:
    """Fraction of ``data`` that the ONNX file classifies correctly in onnxruntime, fed x / 255."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    hits = 0
    for start in range(0, len(data.images), 250):
        batch = data.images[start : start + 250].astype(np.float32) / 255
        (logits,) = session.run(["logits"], {"input": batch})
        hits += int((np.argmax(logits, axis=1) == data.labels[start : start + 250]).sum())
    return hits / len(data.images)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train and export the demo network of models/.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the four Fashion-MNIST idx .gz files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write demo.onnx and the .npz files to")
    parser.add_argument("--epochs", type=int, default=8, help="passes over the training images (default 8)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; changes low-order bits (default 1)")
    return parser.parse_args()


def main() -> None:
    """Train, export, pick the images, score with onnxruntime, print the figures."""
    options = parse()
    recipe = Recipe(epochs=options.epochs)
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    training, testing = load_split(options.data, "train"), load_split(options.data, "t10k")
    options.out.mkdir(parents=True, exist_ok=True)

    model = DemoNet()
    # Channels last is about a quarter faster on CPU; torch's own type stubs leave this argument out.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    began = time.perf_counter()
    train(model, training, recipe)
    seconds = time.perf_counter() - began
    network = options.out / "demo.onnx"
    export(model, network)

    # Drawn from the whole training set, not balanced: calibration must not use the labels at all.
    drawn = np.random.default_rng(SEED).choice(len(training.images), CALIBRATION_IMAGES, replace=False)
    calib, test = options.out / "calib.npz", options.out / "test.npz"
    np.savez_compressed(calib, input=training.images[drawn])
    picked = choose(testing.labels, TEST_IMAGES)
    shown = Split(testing.images[picked], testing.labels[picked])
    np.savez_compressed(test, input=shown.images, labels=shown.labels)

    figures = Figures(
        epochs=recipe.epochs,
        train_seconds=round(seconds, 1),
        parameters=sum(p.numel() for p in model.parameters()),
        onnx_bytes=network.stat().st_size,
        calib_bytes=calib.stat().st_size,
        test_bytes=test.stat().st_size,
        accuracy_test_npz=accuracy(network, shown),
        accuracy_all_test_images=accuracy(network, testing),
    )
    print(json.dumps(asdict(figures)))


if __name__ == "__main__":
    main()
