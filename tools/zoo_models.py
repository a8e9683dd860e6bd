"""Compact torch definitions of architectures that neither torchvision nor timm can build small.

Every module takes float32 (tokens: int64) tensors with a leading batch axis and is written the way
its published original is: the same blocks and joins, fewer channels and repeats, so that exports
stay small while their graphs keep every pattern that a structural pruner has to understand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# ---------------------------------------------------------------------------------- classifiers


class AlexNet(nn.Module):
    """AlexNet (2014 single-column form) at ``width`` × its channels; N×3×224×224 -> N×classes."""

    def __init__(self, width: float, classes: int) -> None:
        super().__init__()
        c = [int(width * x) for x in (64, 192, 384, 256, 256, 4096)]
        self.features = nn.Sequential(
            nn.Conv2d(3, c[0], 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(c[0], c[1], 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(c[1], c[2], 3, 1, 1), nn.ReLU(),
            nn.Conv2d(c[2], c[3], 3, 1, 1), nn.ReLU(),
            nn.Conv2d(c[3], c[4], 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(6), nn.Flatten(1), nn.Dropout(),
            nn.Linear(c[4] * 36, c[5]), nn.ReLU(), nn.Dropout(),
            nn.Linear(c[5], c[5]), nn.ReLU(), nn.Linear(c[5], classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class VggBn(nn.Module):
    """VGG-16 with BatchNorm; ``spatial`` is the side of the map that is flattened (7 for 224, 1 for 32)."""

    def __init__(self, width: float, spatial: int, hidden: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        last = 3
        for repeat, planes in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
            for _ in range(repeat):
                out = int(planes * width)
                layers += [nn.Conv2d(last, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
                last = out
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(last * spatial * spatial, hidden), nn.ReLU(), nn.Dropout(),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(), nn.Linear(hidden, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class OptionABlock(nn.Module):
    """Basic block whose shortcut is parameter-free: strided slice, then zero channels on both sides."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.stride = stride
        self.pad = (cout - cin) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(x + y)


class CifarResNet20(nn.Module):
    """ResNet-20 for 32×32 images with option-A shortcuts; N×3×32×32 -> N×10."""

    def __init__(self) -> None:
        super().__init__()
        plan = [(16, 16, 1)] * 3 + [
            (16, 32, 2),
            (32, 32, 1),
            (32, 32, 1),
            (32, 64, 2),
            (64, 64, 1),
            (64, 64, 1),
        ]
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(*(OptionABlock(*row) for row in plan))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(self.stem(x))
        return self.head(F.avg_pool2d(y, y.shape[3]).flatten(1))


class _SepConv(nn.Sequential):
    """Depthwise 3×3, pointwise, BatchNorm."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__(
            nn.Conv2d(cin, cin, 3, 1, 1, groups=cin, bias=False),
            nn.Conv2d(cin, cout, 1, bias=False),
            nn.BatchNorm2d(cout),
        )


class _XceptionBlock(nn.Module):
    def __init__(self, cin: int, cout: int, repeat: int, stride: int, first_relu: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(repeat):
            if i or first_relu:
                layers.append(nn.ReLU())
            layers.append(_SepConv(cin if i == 0 else cout, cout))
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, 1))
        self.body = nn.Sequential(*layers)
        self.skip = (
            nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))
            if stride > 1 or cin != cout
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.skip(x)


class Xception(nn.Module):
    """Xception: entry, middle and exit flow of separable convolutions at ``width`` × its channels."""

    def __init__(self, width: float, middle: int, classes: int) -> None:
        super().__init__()
        c = [int(width * x) for x in (32, 64, 128, 256, 728, 1024, 1536, 2048)]
        self.stem = nn.Sequential(
            nn.Conv2d(3, c[0], 3, 2, bias=False), nn.BatchNorm2d(c[0]), nn.ReLU(),
            nn.Conv2d(c[0], c[1], 3, bias=False), nn.BatchNorm2d(c[1]), nn.ReLU(),
        )  # fmt: skip
        self.flow = nn.Sequential(
            _XceptionBlock(c[1], c[2], 2, 2, False),
            _XceptionBlock(c[2], c[3], 2, 2, True),
            _XceptionBlock(c[3], c[4], 2, 2, True),
            *(_XceptionBlock(c[4], c[4], 3, 1, True) for _ in range(middle)),
            _XceptionBlock(c[4], c[5], 2, 2, True),
        )
        self.tail = nn.Sequential(_SepConv(c[5], c[6]), nn.ReLU(), _SepConv(c[6], c[7]), nn.ReLU())
        self.head = nn.Linear(c[7], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.tail(self.flow(self.stem(x))).mean((2, 3)))


class ScaledConv(nn.Module):
    """Convolution, BatchNorm, ReLU of Inception v3; channel counts, but the image's, over ``divide``."""

    def __init__(self, divide: int, in_channels: int, out_channels: int, **conv: int | tuple[int, int]) -> None:
        super().__init__()
        cin = in_channels if in_channels == 3 else in_channels // divide
        self.conv = nn.Conv2d(cin, out_channels // divide, bias=False, **conv)  # type: ignore[arg-type]
        self.bn = nn.BatchNorm2d(out_channels // divide, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


def inception_v3(divide: int, classes: int) -> nn.Module:
    """torchvision's Inception v3 with every channel count divided by ``divide``; no auxiliary head."""
    from torchvision.models import inception as source

    conv = partial(ScaledConv, divide)
    names = ("InceptionA", "InceptionB", "InceptionC", "InceptionD", "InceptionE", "InceptionAux")
    blocks = [conv, *(partial(getattr(source, n), conv_block=conv) for n in names)]
    net = source.Inception3(num_classes=classes, aux_logits=False, inception_blocks=blocks, init_weights=False)
    net.fc = nn.Linear(2048 // divide, classes)
    return net


# ------------------------------------------------------------------------------------ detection


class _ConvBn(nn.Sequential):
    def __init__(self, cin: int, cout: int, kernel: int = 1, stride: int = 1) -> None:
        conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False)
        super().__init__(conv, nn.BatchNorm2d(cout, eps=1e-3), nn.SiLU(inplace=True))


class _Residual(nn.Module):
    def __init__(self, width: int, add: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(_ConvBn(width, width, 3), _ConvBn(width, width, 3))
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.add else self.body(x)


class C2f(nn.Module):
    """Split in two, chain residuals on one half, concatenate every intermediate result."""

    def __init__(self, cin: int, cout: int, repeat: int, add: bool) -> None:
        super().__init__()
        half = cout // 2
        self.enter = _ConvBn(cin, 2 * half)
        self.leave = _ConvBn((2 + repeat) * half, cout)
        self.steps = nn.ModuleList(_Residual(half, add) for _ in range(repeat))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.enter(x).chunk(2, 1))
        for step in self.steps:
            parts.append(step(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class Sppf(nn.Module):
    """Three chained max pools concatenated with their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = _ConvBn(width, width // 2)
        self.leave = _ConvBn(width * 2, width)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class DecodeHead(nn.Module):
    """Anchor-free head: per-side distance distributions (DFL) decoded to boxes, joined with class scores.

    Takes three maps at strides 8, 16, 32; gives N×(4+classes)×anchors, boxes as cx, cy, w, h in pixels.
    """

    def __init__(self, widths: Sequence[int], classes: int, bins: int = 16) -> None:
        super().__init__()
        box, cls = max(16, widths[0] // 4, bins * 4), max(widths[0], min(classes, 100))
        self.bins, self.classes = bins, classes
        self.box = nn.ModuleList(
            nn.Sequential(_ConvBn(w, box, 3), _ConvBn(box, box, 3), nn.Conv2d(box, 4 * bins, 1)) for w in widths
        )
        self.cls = nn.ModuleList(
            nn.Sequential(_ConvBn(w, cls, 3), _ConvBn(cls, cls, 3), nn.Conv2d(cls, classes, 1)) for w in widths
        )
        self.dfl = nn.Conv2d(bins, 1, 1, bias=False)
        self.dfl.weight.data = torch.arange(bins, dtype=torch.float32).view(1, bins, 1, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        rows, points, strides = [], [], []
        for i, x in enumerate(maps):
            y = torch.cat((self.box[i](x), self.cls[i](x)), 1)
            h, w = y.shape[2], y.shape[3]
            gy, gx = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
            points.append(torch.stack((gx, gy), 0).view(2, -1))
            strides.append(torch.full((1, h * w), 8.0 * 2**i))
            rows.append(y.view(y.shape[0], 4 * self.bins + self.classes, -1))
        box, cls = torch.cat(rows, 2).split((4 * self.bins, self.classes), 1)
        n, _, a = box.shape
        dist = self.dfl(box.view(n, 4, self.bins, a).transpose(2, 1).softmax(1)).view(n, 4, a)
        lt, rb = dist.chunk(2, 1)
        grid = torch.cat(points, 1).unsqueeze(0)
        x1y1, x2y2 = grid - lt, grid + rb
        boxes = torch.cat(((x1y1 + x2y2) / 2, x2y2 - x1y1), 1) * torch.cat(strides, 1)
        return torch.cat((boxes, cls.sigmoid()), 1)


class YoloC2f(nn.Module):
    """One-stage detector: C2f backbone, SPPF, top-down and bottom-up necks, decoded DFL head."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        w = [width * 2**i for i in range(5)]
        self.low = nn.Sequential(
            _ConvBn(3, w[0], 3, 2), _ConvBn(w[0], w[1], 3, 2), C2f(w[1], w[1], 1, True),
            _ConvBn(w[1], w[2], 3, 2), C2f(w[2], w[2], 2, True),
        )  # fmt: skip
        self.mid = nn.Sequential(_ConvBn(w[2], w[3], 3, 2), C2f(w[3], w[3], 2, True))
        self.top = nn.Sequential(_ConvBn(w[3], w[4], 3, 2), C2f(w[4], w[4], 1, True), Sppf(w[4]))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.n4 = C2f(w[4] + w[3], w[3], 1, False)
        self.n3 = C2f(w[3] + w[2], w[2], 1, False)
        self.d3 = _ConvBn(w[2], w[2], 3, 2)
        self.p4 = C2f(w[2] + w[3], w[3], 1, False)
        self.d4 = _ConvBn(w[3], w[3], 3, 2)
        self.p5 = C2f(w[3] + w[4], w[4], 1, False)
        self.head = DecodeHead((w[2], w[3], w[4]), classes)

    def forward(self, x: Tensor) -> Tensor:
        c3 = self.low(x)
        c4 = self.mid(c3)
        c5 = self.top(c4)
        n4 = self.n4(torch.cat((self.up(c5), c4), 1))
        n3 = self.n3(torch.cat((self.up(n4), c3), 1))
        p4 = self.p4(torch.cat((self.d3(n3), n4), 1))
        p5 = self.p5(torch.cat((self.d4(p4), c5), 1))
        return self.head((n3, p4, p5))


class FocusCsp(nn.Module):
    """Older one-stage detector: space-to-depth by strided slices, CSP blocks, SPP, anchor-based heads.

    Gives one N×3×H×W×(5+classes) tensor per scale, as Reshape then Transpose of the raw map.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        w = [width * 2**i for i in range(4)]
        self.outputs = 5 + classes
        self.stem = _ConvBn(12, w[0], 3)
        self.d1, self.c1 = _ConvBn(w[0], w[1], 3, 2), _Csp(w[1], 1)
        self.d2, self.c2 = _ConvBn(w[1], w[2], 3, 2), _Csp(w[2], 2)
        self.d3, self.c3 = _ConvBn(w[2], w[3], 3, 2), _Csp(w[3], 1)
        self.pools = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in (5, 9, 13))
        self.spp = _ConvBn(w[3] * 4, w[3])
        self.heads = nn.ModuleList(nn.Conv2d(c, 3 * self.outputs, 1) for c in (w[2], w[3]))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        corners = (x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2])
        y = self.c1(self.d1(self.stem(torch.cat(corners, 1))))
        mid = self.c2(self.d2(y))
        top = self.c3(self.d3(mid))
        top = self.spp(torch.cat([top, *(p(top) for p in self.pools)], 1))
        maps = [head(f) for head, f in zip(self.heads, (mid, top), strict=True)]
        return tuple(m.view(m.shape[0], 3, self.outputs, *m.shape[2:]).permute(0, 1, 3, 4, 2) for m in maps)


class _Csp(nn.Module):
    def __init__(self, width: int, repeat: int) -> None:
        super().__init__()
        half = width // 2
        self.a, self.b, self.c = _ConvBn(width, half), _ConvBn(width, half), _ConvBn(width, width)
        self.body = nn.Sequential(*(_Residual(half, True) for _ in range(repeat)))

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.cat((self.body(self.a(x)), self.b(x)), 1))


# -------------------------------------------------------------------------------- image to image


class _DoubleConv(nn.Sequential):
    def __init__(self, cin: int, cout: int) -> None:
        super().__init__(
            nn.Conv2d(cin, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True),
            nn.Conv2d(cout, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True),
        )  # fmt: skip


class UNet(nn.Module):
    """U-Net whose decoder grows maps by ConvTranspose (``up`` "conv") or bilinear Resize ("resize")."""

    def __init__(self, width: int, depth: int, classes: int, up: str) -> None:
        super().__init__()
        w = [width * 2**i for i in range(depth + 1)]
        self.enter = _DoubleConv(3, w[0])
        self.down = nn.ModuleList(_DoubleConv(w[i], w[i + 1]) for i in range(depth))
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(w[i + 1], w[i], 2, 2)
            if up == "conv"
            else nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(w[i + 1], w[i], 1))
            for i in reversed(range(depth))
        )
        self.join = nn.ModuleList(_DoubleConv(2 * w[i], w[i]) for i in reversed(range(depth)))
        self.head = nn.Conv2d(w[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.enter(x)]
        for down in self.down:
            skips.append(down(F.max_pool2d(skips[-1], 2)))
        y = skips.pop()
        for grow, join in zip(self.grow, self.join, strict=True):
            y = join(torch.cat((skips.pop(), grow(y)), 1))
        return self.head(y)


class Espcn(nn.Module):
    """Super-resolution: luminance ×``scale`` by PixelShuffle; N×1×h×w -> N×1×(scale h)×(scale w)."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 64, 5, padding=2), nn.Tanh(), nn.Conv2d(64, 32, 3, padding=1), nn.Tanh(),
            nn.Conv2d(32, scale * scale, 3, padding=1), nn.PixelShuffle(scale),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.body(x))


class Edsr(nn.Module):
    """Residual super-resolution ×4: PixelShuffle in the middle, so that shuffled channels are prunable."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
            for _ in range(blocks)
        )
        self.mid = nn.Conv2d(width, width, 3, padding=1)
        self.up = nn.Sequential(
            nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2),
            nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(width, 3, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        first = self.enter(x)
        y = first
        for block in self.blocks:
            y = y + block(y) * 0.1
        return self.up(first + self.mid(y))


class GanGenerator(nn.Module):
    """Noise N×64 -> image N×3×32×32: Linear, Reshape, then ConvTranspose with BatchNorm and ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.project = nn.Linear(64, width * 4 * 16)
        self.body = nn.Sequential(
            nn.BatchNorm2d(width * 4), nn.ReLU(),
            nn.ConvTranspose2d(width * 4, width * 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(width * 2), nn.ReLU(),
            nn.ConvTranspose2d(width * 2, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.ConvTranspose2d(width, width, 3, 1, 1, groups=4, bias=False),
            nn.BatchNorm2d(width), nn.ReLU(),
            nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        return self.body(self.project(z).view(-1, self.width * 4, 4, 4))


class StyleTransfer(nn.Module):
    """Image to image with reflection padding and InstanceNorm, nearest Resize in the decoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        w = (width, width * 2, width * 4)

        def conv(cin: int, cout: int, kernel: int, stride: int) -> list[nn.Module]:
            return [
                nn.ReflectionPad2d(kernel // 2), nn.Conv2d(cin, cout, kernel, stride),
                nn.InstanceNorm2d(cout, affine=True),
            ]  # fmt: skip

        self.enter = nn.Sequential(
            *conv(3, w[0], 9, 1),
            nn.ReLU(),
            *conv(w[0], w[1], 3, 2),
            nn.ReLU(),
            *conv(w[1], w[2], 3, 2),
            nn.ReLU(),
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(*conv(w[2], w[2], 3, 1), nn.ReLU(), *conv(w[2], w[2], 3, 1)) for _ in range(3)
        )
        self.leave = nn.Sequential(
            nn.Upsample(scale_factor=2), *conv(w[2], w[1], 3, 1), nn.ReLU(),
            nn.Upsample(scale_factor=2), *conv(w[1], w[0], 3, 1), nn.ReLU(),
            nn.ReflectionPad2d(4), nn.Conv2d(w[0], 3, 9),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(x)
        for block in self.blocks:
            y = y + block(y)
        return self.leave(y)


class _TimeBlock(nn.Module):
    def __init__(self, cin: int, cout: int, time: int) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.GroupNorm(8, cin), nn.SiLU(), nn.Conv2d(cin, cout, 3, padding=1))
        self.t = nn.Sequential(nn.SiLU(), nn.Linear(time, cout))
        self.b = nn.Sequential(nn.GroupNorm(8, cout), nn.SiLU(), nn.Conv2d(cout, cout, 3, padding=1))
        self.skip = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.skip(x) + self.b(self.a(x) + self.t(t)[:, :, None, None])


class _MapAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(8, width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.out = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x).reshape(n, c, h * w)).reshape(n * self.heads, -1, h * w).chunk(3, 1)
        weight = torch.einsum("bct,bcs->bts", q, k) / math.sqrt(c / self.heads)
        y = torch.einsum("bts,bcs->bct", weight.softmax(-1), v).reshape(n, c, h * w)
        return x + self.out(y).reshape(n, c, h, w)


class DiffusionUNet(nn.Module):
    """Denoiser: image N×3×32×32 and time step N -> N×3×32×32, GroupNorm, time embedding, Einsum attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        time = width * 4
        self.time = nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.d1 = _TimeBlock(width, width, time)
        self.down = nn.Conv2d(width, width, 3, 2, 1)
        self.d2 = _TimeBlock(width, 2 * width, time)
        self.attend = _MapAttention(2 * width, 4)
        self.mid = _TimeBlock(2 * width, 2 * width, time)
        self.up = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.u1 = _TimeBlock(3 * width, width, time)
        self.leave = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        half = self.width // 2
        rate = torch.exp(-math.log(10000.0) * torch.arange(half) / half)
        angle = step[:, None] * rate[None]
        t = self.time(torch.cat((angle.cos(), angle.sin()), 1))
        skip = self.d1(self.enter(x), t)
        y = self.mid(self.attend(self.d2(self.down(skip), t)), t)
        y = self.up(F.interpolate(y, scale_factor=2.0, mode="nearest"))
        return self.leave(self.u1(torch.cat((y, skip), 1), t))


# ----------------------------------------------------------------------- sequences, audio, video


class Crnn(nn.Module):
    """Text recognition: convolutions, height squeezed away, two bidirectional LSTMs; -> T×N×classes."""

    def __init__(self, width: int, hidden: int, classes: int) -> None:
        super().__init__()
        w = (width, width * 2, width * 4)
        self.cnn = nn.Sequential(
            nn.Conv2d(1, w[0], 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(w[0], w[1], 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(w[1], w[2], 3, 1, 1), nn.BatchNorm2d(w[2]), nn.ReLU(),
            nn.MaxPool2d((2, 2), (2, 1), (0, 1)),
            nn.Conv2d(w[2], w[2], 3, 1, 1), nn.ReLU(), nn.MaxPool2d((2, 2), (2, 1), (0, 1)),
            nn.Conv2d(w[2], w[2], 2), nn.BatchNorm2d(w[2]), nn.ReLU(),
        )  # fmt: skip
        self.rnn1 = nn.LSTM(w[2], hidden, bidirectional=True)
        self.mid = nn.Linear(2 * hidden, hidden)
        self.rnn2 = nn.LSTM(hidden, hidden, bidirectional=True)
        self.head = nn.Linear(2 * hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cnn(x).squeeze(2).permute(2, 0, 1)
        y = self.mid(self.rnn1(y)[0])
        return self.head(self.rnn2(y)[0]).log_softmax(2)


class GruTagger(nn.Module):
    """Tokens N×T int64 -> tag scores N×T×tags: Embedding, two-layer bidirectional GRU, Linear."""

    def __init__(self, vocabulary: int, width: int, hidden: int, tags: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.rnn = nn.GRU(width, hidden, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, tags)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(tokens))[0])


class StatefulLstm(nn.Module):
    """Streaming model: frame N×T×40 and states 1×N×hidden in, mask and new states out."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.enter = nn.Linear(40, hidden)
        self.rnn = nn.LSTM(hidden, hidden, batch_first=True)
        self.head = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 40), nn.Sigmoid())

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.rnn(self.enter(x).tanh(), (h, c))
        return x * self.head(y), h, c


class AudioConv1d(nn.Module):
    """Waveform N×1×8000 -> classes: strided Conv1d with BatchNorm, a gated linear unit, mean pooling."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.front = nn.Sequential(
            nn.Conv1d(1, width, 80, 4), nn.BatchNorm1d(width), nn.ReLU(), nn.MaxPool1d(4),
            nn.Conv1d(width, width * 2, 3, padding=1), nn.BatchNorm1d(width * 2), nn.ReLU(), nn.MaxPool1d(4),
        )  # fmt: skip
        self.gate = nn.Sequential(nn.Conv1d(width * 2, width * 4, 1), nn.GLU(dim=1))
        self.depthwise = nn.Sequential(
            nn.Conv1d(width * 2, width * 2, 15, padding=7, groups=width * 2),
            nn.BatchNorm1d(width * 2),
            nn.SiLU(),
        )
        self.leave = nn.Conv1d(width * 2, width * 2, 1)
        self.head = nn.Linear(width * 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.front(x)
        y = y + self.leave(self.depthwise(self.gate(y)))
        return self.head(y.mean(-1)).log_softmax(-1)


class Tcn(nn.Module):
    """Temporal convolution net: causal padding, doubling dilation, residual and summed skip outputs."""

    def __init__(self, width: int, levels: int, outputs: int) -> None:
        super().__init__()
        self.enter = nn.Conv1d(16, width, 1)
        self.filters = nn.ModuleList(nn.Conv1d(width, width, 3, dilation=2**i) for i in range(levels))
        self.gates = nn.ModuleList(nn.Conv1d(width, width, 3, dilation=2**i) for i in range(levels))
        self.skips = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(levels))
        self.residuals = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(levels))
        self.head = nn.Sequential(nn.ReLU(), nn.Conv1d(width, width, 1), nn.ReLU(), nn.Conv1d(width, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(x)
        total = torch.zeros_like(y)
        for i, (filt, gate) in enumerate(zip(self.filters, self.gates, strict=True)):
            z = F.pad(y, (2 * 2**i, 0))
            z = torch.tanh(filt(z)) * torch.sigmoid(gate(z))
            total = total + self.skips[i](z)
            y = y + self.residuals[i](z)
        return self.head(total)


class _VideoBlock(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(cin, cout, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
            nn.BatchNorm3d(cout), nn.ReLU(),
            nn.Conv3d(cout, cout, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False), nn.BatchNorm3d(cout),
        )  # fmt: skip
        self.skip = nn.Sequential(nn.Conv3d(cin, cout, 1, stride, bias=False), nn.BatchNorm3d(cout))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


class VideoConv3d(nn.Module):
    """Clip N×3×T×H×W -> classes: a full 3-D stem, factorized (2+1)-D residual blocks, a grouped 3-D block."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, width, 3, (1, 2, 2), 1, bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(),
            nn.MaxPool3d(2),
        )
        self.blocks = nn.Sequential(_VideoBlock(width, width, 1), _VideoBlock(width, width * 2, 2))
        self.grouped = nn.Conv3d(width * 2, width * 2, 3, padding=1, groups=4)
        self.head = nn.Linear(width * 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.grouped(self.blocks(self.stem(x))))
        return self.head(F.adaptive_avg_pool3d(y, 1).flatten(1))


# -------------------------------------------------------------------------------- language models


class _EncoderLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, -1).permute(0, 2, 1, 3)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = self._split(self.q(x)), self._split(self.k(x)), self._split(self.v(x))
        score = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias
        y = (score.softmax(-1) @ v).permute(0, 2, 1, 3).contiguous()
        x = self.norm1(x + self.o(y.view(x.shape)))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class BertEncoder(nn.Module):
    """Post-norm encoder: tokens and mask, both N×T int64 -> token states N×T×width and pooled N×width."""

    def __init__(self, vocabulary: int, width: int, heads: int, layers: int, positions: int) -> None:
        super().__init__()
        self.word, self.position = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(_EncoderLayer(width, heads) for _ in range(layers))
        self.pool = nn.Linear(width, width)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        index = torch.arange(tokens.shape[1]).unsqueeze(0)
        x = self.norm(self.word(tokens) + self.position(index))
        bias = (1.0 - mask[:, None, None, :].to(x.dtype)) * -10000.0
        for layer in self.layers:
            x = layer(x, bias)
        return x, torch.tanh(self.pool(x[:, 0]))


class _GptBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = (
            p.view(n, t, self.heads, c // self.heads).transpose(1, 2) for p in self.qkv(self.norm1(x)).split(c, 2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(n, t, c))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GptDecoder(nn.Module):
    """Pre-norm causal decoder sharing embedding and output weight; tokens N×T -> logits N×T×vocabulary."""

    def __init__(self, vocabulary: int, width: int, heads: int, layers: int, positions: int) -> None:
        super().__init__()
        self.word, self.position = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.blocks = nn.Sequential(*(_GptBlock(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.word.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.word(tokens) + self.position(torch.arange(tokens.shape[1]))
        return self.head(self.norm(self.blocks(x)))


class _RmsNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class _LlamaBlock(nn.Module):
    def __init__(self, width: int, heads: int, shared: int) -> None:
        super().__init__()
        self.heads, self.shared, self.size = heads, shared, width // heads
        self.norm1, self.norm2 = _RmsNorm(width), _RmsNorm(width)
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, shared * self.size, bias=False)
        self.v = nn.Linear(width, shared * self.size, bias=False)
        hidden = width * 8 // 3 // 8 * 8
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        n, t, c = x.shape
        y = self.norm1(x)

        def split(z: Tensor, heads: int) -> Tensor:
            return z.view(n, t, heads, self.size).transpose(1, 2)

        def rotate(z: Tensor) -> Tensor:
            a, b = z[..., : self.size // 2], z[..., self.size // 2 :]
            return z * cos + torch.cat((-b, a), -1) * sin

        def repeat(z: Tensor) -> Tensor:
            times = self.heads // self.shared
            wide = z[:, :, None].expand(n, self.shared, times, t, self.size)
            return wide.reshape(n, self.heads, t, self.size)

        q, k = rotate(split(self.q(y), self.heads)), rotate(split(self.k(y), self.shared))
        k, v = repeat(k), repeat(split(self.v(y), self.shared))
        mask = torch.full((t, t), -1e4).triu(1)
        weight = (q @ k.transpose(-1, -2) / math.sqrt(self.size) + mask).softmax(-1)
        x = x + self.o((weight @ v).transpose(1, 2).reshape(n, t, c))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class LlamaDecoder(nn.Module):
    """RMSNorm, rotary positions, grouped key/value heads, gated MLP; tokens N×T -> logits N×T×vocabulary."""

    def __init__(self, vocabulary: int, width: int, heads: int, shared: int, layers: int) -> None:
        super().__init__()
        self.size = width // heads
        self.word = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(_LlamaBlock(width, heads, shared) for _ in range(layers))
        self.norm = _RmsNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        half = self.size // 2
        rate = 1.0 / (10000.0 ** (torch.arange(half) / half))
        angle = torch.arange(tokens.shape[1])[:, None] * rate[None]
        angle = torch.cat((angle, angle), -1)
        cos, sin = angle.cos(), angle.sin()
        x = self.word(tokens)
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.head(self.norm(x))


# ------------------------------------------------------------------------------------- the others


class Siamese(nn.Module):
    """One encoder applied to two images, so that every weight has two users; N×3×64×64 twice -> N×1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        w = (width, width * 2, width * 4)
        self.encoder = nn.Sequential(
            nn.Conv2d(3, w[0], 3, 2, 1), nn.BatchNorm2d(w[0]), nn.ReLU(),
            nn.Conv2d(w[0], w[1], 3, 2, 1), nn.BatchNorm2d(w[1]), nn.ReLU(),
            nn.Conv2d(w[1], w[2], 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(1),
            nn.Linear(w[2] * 4, 64),
        )  # fmt: skip
        self.head = nn.Linear(64, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.head(torch.abs(self.encoder(left) - self.encoder(right)))


class PointNet(nn.Module):
    """Point cloud N×3×P -> classes: a learned 3×3 alignment (MatMul), shared Conv1d, max over points."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()

        def shared(*widths: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for cin, cout in pairwise(widths):
                layers += [nn.Conv1d(cin, cout, 1), nn.BatchNorm1d(cout), nn.ReLU()]
            return nn.Sequential(*layers)

        self.align = shared(3, width, width * 2, width * 4)
        self.matrix = nn.Sequential(nn.Linear(width * 4, width), nn.ReLU(), nn.Linear(width, 9))
        self.body = shared(3, width, width * 2, width * 8)
        self.head = nn.Sequential(nn.Linear(width * 8, width * 2), nn.ReLU(), nn.Linear(width * 2, classes))

    def forward(self, x: Tensor) -> Tensor:
        t = self.matrix(self.align(x).amax(2)).view(-1, 3, 3) + torch.eye(3)
        return self.head(self.body(torch.bmm(x.transpose(2, 1), t).transpose(2, 1)).amax(2))


class FirstOutput(nn.Module):
    """Gives only the entry ``key`` of a model that returns a dict, because ONNX outputs are tensors."""

    def __init__(self, body: nn.Module, key: str) -> None:
        super().__init__()
        self.body, self.key = body, key

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)[self.key]
