"""Export a zoo of architectures, untrained but seeded, to ONNX with both of torch's exporters.

    pip install torch==2.13.0 onnxscript onnxruntime onnxconverter-common pyyaml safetensors huggingface_hub
    pip install --no-deps torchvision==0.28.0 timm==1.0.31
    python tools/export_zoo.py --out /tmp/zoo                      # OUT/ts/NAME.onnx, OUT/dynamo/NAME.onnx
    python tools/export_zoo.py --out /tmp/zoo --variants fp16,external,dynamic   # derives OUT/variants/
    python tools/export_zoo.py --out /tmp/zoo --variants qdq,qdq-channel,qop,qop-channel

Each file is run in onnxruntime against torch on one seeded input; a failure is a row of the table,
never the end of the run. The table goes to stderr line by line, one JSON object to stdout at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import io
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

SEED = 20240607
EXPORTERS = ("ts", "dynamo")
QUANTIZED = {
    "qdq": ("QDQ", False),
    "qdq-channel": ("QDQ", True),
    "qop": ("QOperator", False),
    "qop-channel": ("QOperator", True),
}
"""Variants quantized to 8 bits: name -> (format, one scale per channel)."""
VARIANTS = ("fp16", "external", "dynamic", *QUANTIZED)

VARIANT_SOURCES = (
    "ts/resnet18", "ts/mobilenet_v1", "ts/shufflenet_v2_x0_5", "ts/yolo_c2f", "ts/vgg16_bn_32",
    "dynamo/densenet121", "dynamo/googlenet", "dynamo/seresnet18", "dynamo/convnext_permute",
    "dynamo/vit_fused_qkv",
)  # fmt: skip
"""Files under OUT, without suffix, that ``--variants`` copies: five of each exporter."""
QUANTIZED_SOURCES = ("ts/resnet20_option_a", "ts/mobilenet_v2", "ts/shufflenet_v2_x0_5", "dynamo/vit_fused_qkv")
"""The same for the quantized variants."""


@dataclass(frozen=True)
class Input:
    """One example input; ``dtype`` float32 draws normal values, int64 draws uniform in [0, high)."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    high: int = 1


@dataclass(frozen=True)
class Entry:
    """One architecture: how to build it (under the seed already set), what to feed it, what stays symbolic.

    ``dynamic`` maps input name -> axis -> symbol. ``batchnorm`` is "fold" or "keep": whether the
    exporter may fold BatchNormalization and constants; with "keep" the dynamo graph is left unoptimized.
    ``opset`` holds for the TorchScript exporter; dynamo uses its own default.
    """

    name: str
    build: Callable[[], Any]
    inputs: tuple[Input, ...]
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    batchnorm: str = "fold"
    opset: int = 17


@dataclass(frozen=True)
class Row:
    """One line of the table; ``error`` is the largest difference to torch over the largest output value."""

    name: str
    exporter: str
    nodes: int
    mb: float
    seconds: float
    error: float | None
    status: str


# ---------------------------------------------------------------------------------------- registry


def import_torchvision() -> Any:
    """Import torchvision even where its compiled operators cannot load (a CUDA wheel beside CPU torch).

    Its package import then fails for want of two operator schemas; declaring them is enough, as no
    model here runs them.
    """
    import torch

    try:
        import torchvision
    except RuntimeError:
        for module in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
            del sys.modules[module]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import_torchvision.library = library  # type: ignore[attr-defined]  # a collected Library undefines its ops
        import torchvision
    return torchvision


def _image(side: int, *, batch: int = 1, channels: int = 3) -> tuple[Input, ...]:
    return (Input("input", (batch, channels, side, side)),)


def _tokens(length: int, high: int, *, name: str = "tokens") -> Input:
    return Input(name, (2, length), "int64", high)


BATCH: Mapping[str, Mapping[int, str]] = {"input": {0: "batch"}}
BATCH_HW: Mapping[str, Mapping[int, str]] = {"input": {0: "batch", 2: "height", 3: "width"}}
SEQUENCE: Mapping[str, Mapping[int, str]] = {"tokens": {0: "batch", 1: "sequence"}}


def registry() -> tuple[Entry, ...]:
    """The table of architectures, in the order in which they are exported."""
    return (*_torchvision_entries(), *_timm_entries(), *_own_entries())


def _torchvision_entries() -> tuple[Entry, ...]:
    import_torchvision()
    from torchvision import models as tv
    from torchvision.models import convnext, mobilenetv3, swin_transformer, vision_transformer
    from torchvision.models.segmentation import deeplabv3, lraspp_mobilenet_v3_large
    from zoo_models import FirstOutput, inception_v3

    cls = {"num_classes": 100}

    def convnext_permute() -> Any:
        blocks = [
            convnext.CNBlockConfig(a, b, n) for a, b, n in ((32, 64, 2), (64, 128, 2), (128, 192, 2), (192, None, 2))
        ]
        return convnext.ConvNeXt(blocks, layer_scale=0.1, **cls)

    def swin(version: str) -> Any:
        block = swin_transformer.SwinTransformerBlockV2 if version == "v2" else None
        merge = swin_transformer.PatchMergingV2 if version == "v2" else swin_transformer.PatchMerging
        return swin_transformer.SwinTransformer(
            [4, 4], 32, [2, 2, 2, 2], [2, 4, 8, 8], [4, 4], block=block, downsample_layer=merge, **cls
        )

    def deeplab() -> Any:
        settings, last = mobilenetv3._mobilenet_v3_conf("mobilenet_v3_large", width_mult=0.5, dilated=True)
        backbone = mobilenetv3.MobileNetV3(settings, last)
        return FirstOutput(deeplabv3._deeplabv3_mobilenetv3(backbone, 21, None), "out")

    def lraspp() -> Any:
        return FirstOutput(lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21), "out")

    return (
        Entry("resnet18", partial(tv.resnet18, **cls), _image(96)),
        Entry("resnet18_unfused", partial(tv.resnet18, **cls), _image(96, batch=2), BATCH_HW, batchnorm="keep"),
        Entry("squeezenet1_1", partial(tv.squeezenet1_1, **cls), _image(96), opset=11),
        Entry("mobilenet_v2", partial(tv.mobilenet_v2, **cls), _image(96)),
        Entry("mobilenet_v3_small", partial(tv.mobilenet_v3_small, **cls), _image(96), opset=13),
        Entry("shufflenet_v2_x0_5", partial(tv.shufflenet_v2_x0_5, **cls), _image(96)),
        Entry("shufflenet_v2_x1_0", partial(tv.shufflenet_v2_x1_0, **cls), _image(96, batch=2), BATCH, "keep"),
        Entry("mnasnet0_5", partial(tv.mnasnet0_5, **cls), _image(96)),
        Entry("efficientnet_b0", partial(tv.efficientnet_b0, **cls), _image(96)),
        Entry("efficientnet_b0_unfused", partial(tv.efficientnet_b0, **cls), _image(96), batchnorm="keep"),
        Entry(
            "densenet121",
            partial(tv.DenseNet, 16, (6, 12, 24, 16), 32, **cls),
            _image(96),
            batchnorm="keep",
        ),
        Entry("googlenet", partial(tv.googlenet, aux_logits=False, init_weights=False, **cls), _image(96)),
        Entry("inception_v3", partial(inception_v3, 4, 100), _image(128)),
        Entry("convnext_permute", convnext_permute, _image(96)),
        Entry("swin", partial(swin, "v1"), _image(128)),
        Entry("swin_v2", partial(swin, "v2"), _image(128)),
        Entry(
            "vit_mha",
            partial(vision_transformer.VisionTransformer, 96, 16, 4, 4, 128, 256, **cls),
            _image(96),
        ),
        Entry("deeplabv3_mobilenet_v3", deeplab, _image(128)),
        Entry("lraspp_mobilenet_v3", lraspp, _image(128)),
    )


def _timm_entries() -> tuple[Entry, ...]:
    import_torchvision()
    import timm
    import torch
    from timm.layers import GroupNorm1
    from timm.models import byoanet, byobnet
    from timm.models.convmixer import ConvMixer
    from timm.models.dpn import DPN
    from timm.models.focalnet import FocalNet
    from timm.models.hrnet import HighResolutionNet, cfg_cls
    from timm.models.metaformer import MetaFormer
    from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock
    from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg
    from timm.models.nasnet import NASNetALarge
    from timm.models.xception_aligned import XceptionAligned

    narrow = {"channels": (32, 64, 128, 256), "stem_width": 32, "zero_init_last": False}

    narrower = {**narrow, "channels": (16, 32, 64, 128)}

    def net(name: str, **options: Any) -> Callable[[], Any]:
        return partial(timm.create_model, name, pretrained=False, **{"num_classes": 100, **options})

    def halved(name: str) -> Callable[[], Any]:
        source = {**byobnet.model_cfgs, **byoanet.model_cfgs}[name]

        def half(block: Any) -> Any:
            return replace(block, c=block.c // 2) if hasattr(block, "c") else tuple(half(b) for b in block)

        config = replace(source, blocks=half(source.blocks))
        return partial(byobnet.ByobNet, config, num_classes=100, img_size=128)

    def dpn() -> Any:
        return DPN((2, 2, 3, 2), (16, 32, 32, 64), 64, 32, 100, small=True, num_init_features=16, b=True)

    def hrnet() -> Any:
        config = {k: dict(v) if isinstance(v, dict) else v for k, v in cfg_cls["hrnet_w18_small"].items()}
        for stage in ("stage2", "stage3", "stage4"):
            config[stage]["num_channels"] = tuple(c // 2 for c in config[stage]["num_channels"])
        return HighResolutionNet(config, num_classes=100)

    # XceptionAligned fixes its stem at 32 and 64 channels, so the first block must read 64.
    def xception_aligned() -> Any:
        plan = ((64, 64, 2), (64, 96, 2), (96, 128, 2), (128, 128, 1), (128, 128, 1), (128, 192, 2))
        blocks: list[dict[str, Any]] = [{"in_chs": a, "out_chs": b, "stride": s} for a, b, s in plan]
        blocks.append({"in_chs": 192, "out_chs": (256, 256, 384), "stride": 1, "no_skip": True})
        return XceptionAligned(blocks, num_classes=100)

    def mvit() -> Any:
        config = MultiScaleVitCfg(depths=(1, 1, 2, 1), embed_dim=(32, 64, 96, 128), num_heads=(1, 2, 4, 4))
        return MultiScaleVit(config, img_size=96, num_classes=100)

    def poolformer() -> Any:
        return MetaFormer(
            num_classes=100,
            depths=(1, 1, 2, 1),
            dims=(32, 64, 96, 128),
            mlp_act=torch.nn.GELU,
            mlp_bias=True,
            norm_layers=GroupNorm1,
            layer_scale_init_values=1e-5,
            res_scale_init_values=None,
            use_mlp_head=False,
        )

    tiny = {"img_size": 96, "depth": 4, "embed_dim": 128, "num_heads": 4}
    coat = {"img_size": 128, "embed_dim": (32, 64, 96, 128), "depths": (1, 1, 2, 1), "stem_width": 32}
    return (
        Entry("mobilenet_v1", net("mobilenetv1_100"), _image(96), opset=13),
        Entry("mobilenet_v4_small", net("mobilenetv4_conv_small_050"), _image(96)),
        Entry("efficientnet_lite0", net("tf_efficientnet_lite0"), _image(96)),
        Entry("resnet50", net("resnet50", **narrow), _image(96)),
        Entry("resnet50_d", net("resnet50d", **narrower), _image(96), batchnorm="keep"),
        Entry("resnext50", net("resnext50_32x4d", **narrower), _image(96)),
        Entry("res2net50", net("res2net50_26w_4s", **narrower), _image(96)),
        Entry("resnest14", net("resnest14d", **narrow), _image(96)),
        Entry("sknet18", net("skresnet18", **narrow), _image(96)),
        Entry("seresnet18", net("seresnet18", **narrow), _image(96)),
        Entry("seresnext26", net("seresnext26d_32x4d", **narrow), _image(96)),
        Entry("ecaresnet26", net("ecaresnet26t", **narrow), _image(96)),
        Entry("botnet26", halved("botnet26t"), _image(128)),
        Entry("regnetx_002", net("regnetx_002"), _image(96)),
        Entry("regnety_002", net("regnety_002"), _image(96)),
        Entry("ghostnet", net("ghostnet_050"), _image(96)),
        Entry("ghostnet_v2", net("ghostnetv2_100"), _image(96)),
        Entry("repghostnet", net("repghostnet_050"), _image(96), batchnorm="keep"),
        Entry("repvgg_a0", halved("repvgg_a0"), _image(96)),
        Entry("repvgg_a0_unfused", halved("repvgg_a0"), _image(64), batchnorm="keep"),
        Entry("mobileone_s0", net("mobileone_s0"), _image(96)),
        Entry("hrnet", hrnet, _image(128)),
        Entry("dla46", net("dla46_c"), _image(96)),
        Entry("dla46_grouped", net("dla46x_c"), _image(96)),
        Entry("xception_aligned", xception_aligned, _image(96)),
        Entry(
            "nasnet_mobile",
            partial(NASNetALarge, 100, stem_size=32, channel_multiplier=2, num_features=576),
            _image(96),
        ),
        Entry("dpn48", dpn, _image(96)),
        Entry("vovnet_slim", net("ese_vovnet19b_slim_dw"), _image(96)),
        Entry("hgnet_v2", net("hgnetv2_b0"), _image(96)),
        Entry("starnet", net("starnet_s050"), _image(96)),
        Entry("convnext_conv_mlp", net("convnext_atto"), _image(96)),
        Entry("convmixer", partial(ConvMixer, 64, 4, 7, 4, num_classes=100), _image(64)),
        Entry("mambaout", net("mambaout_femto", depths=(1, 1, 2, 1), dims=(32, 64, 96, 128)), _image(96)),
        Entry("vit_fused_qkv", net("vit_tiny_patch16_224", **tiny), _image(96)),
        Entry("deit_distilled", net("deit_tiny_distilled_patch16_224", **tiny), _image(96)),
        Entry("cait", net("cait_xxs24_224", **tiny), _image(96)),
        Entry("xcit", net("xcit_nano_12_p16_224", img_size=96, depth=4), _image(96)),
        Entry("pit", net("pit_ti_224", img_size=96), _image(96)),
        Entry("mixer", partial(MlpMixer, 100, 96, 3, 16, 4, 128), _image(96)),
        Entry("resmlp", partial(MlpMixer, 100, 96, 3, 16, 4, 128, 4.0, ResBlock, norm_layer=Affine), _image(96)),
        Entry("poolformer", poolformer, _image(96)),
        Entry("mobilevit_xxs", net("mobilevit_xxs"), _image(128)),
        Entry("mobilevit_v2", net("mobilevitv2_050"), _image(128)),
        Entry("edgenext", net("edgenext_xx_small"), _image(128)),
        Entry("levit", net("levit_128s"), _image(224)),
        Entry("coatnet", net("coatnet_nano_rw_224", **coat), _image(128)),
        Entry("maxvit", net("maxvit_nano_rw_256", **coat), _image(128)),
        Entry("efficientformer_v2", net("efficientformerv2_s0"), _image(224)),
        Entry("efficientvit", net("efficientvit_b0"), _image(96)),
        Entry("pvt_v2", net("pvt_v2_b0"), _image(96)),
        Entry("fastvit", net("fastvit_t8"), _image(128)),
        Entry("mvit_v2", mvit, _image(96)),
        Entry("focalnet", partial(FocalNet, 3, 100, embed_dim=32, depths=(1, 1, 2, 1)), _image(96)),
    )


def _own_entries() -> tuple[Entry, ...]:
    import zoo_models as zm

    tags = {"x": {0: "batch"}, "h": {1: "batch"}, "c": {1: "batch"}}
    masked = {"tokens": {0: "batch", 1: "sequence"}, "mask": {0: "batch", 1: "sequence"}}
    states = (Input("x", (2, 10, 40)), Input("h", (1, 2, 64)), Input("c", (1, 2, 64)))
    pair = (Input("left", (2, 3, 64, 64)), Input("right", (2, 3, 64, 64)))
    pairs = {"left": {0: "batch"}, "right": {0: "batch"}}
    return (
        Entry("alexnet", partial(zm.AlexNet, 0.25, 100), _image(224), opset=9),
        Entry("vgg16_bn_224", partial(zm.VggBn, 0.125, 7, 256, 100), _image(224), batchnorm="keep"),
        Entry("vgg16_bn_32", partial(zm.VggBn, 0.5, 1, 256, 10), _image(32)),
        Entry("resnet20_option_a", zm.CifarResNet20, _image(32, batch=2), BATCH),
        Entry("resnet20_option_a_unfused", zm.CifarResNet20, _image(32), batchnorm="keep", opset=12),
        Entry("xception", partial(zm.Xception, 0.25, 4, 100), _image(128)),
        Entry("yolo_c2f", partial(zm.YoloC2f, 16, 20), _image(128)),
        Entry("yolo_c2f_unfused", partial(zm.YoloC2f, 16, 20), _image(96, batch=2), BATCH, "keep"),
        Entry("yolo_focus_csp", partial(zm.FocusCsp, 24, 20), _image(128), opset=12),
        Entry("unet_conv", partial(zm.UNet, 16, 3, 2, "conv"), _image(64, batch=2), BATCH_HW),
        Entry("unet_resize", partial(zm.UNet, 16, 3, 2, "resize"), _image(64), batchnorm="keep"),
        Entry("espcn", partial(zm.Espcn, 3), _image(32, batch=2, channels=1), BATCH_HW),
        Entry("edsr", partial(zm.Edsr, 32, 4), _image(32), opset=10),
        Entry("gan_generator", partial(zm.GanGenerator, 32), (Input("input", (2, 64)),), BATCH),
        Entry("style_transfer", partial(zm.StyleTransfer, 16), _image(64)),
        Entry("diffusion_unet", partial(zm.DiffusionUNet, 32), (*_image(32), Input("step", (1,)))),
        Entry("crnn", partial(zm.Crnn, 16, 64, 37), (Input("input", (2, 1, 32, 100)),), BATCH),
        Entry("gru_tagger", partial(zm.GruTagger, 500, 64, 64, 17), (_tokens(12, 500),), SEQUENCE),
        Entry("lstm_stateful", partial(zm.StatefulLstm, 64), states, tags),
        Entry("audio_conv1d", partial(zm.AudioConv1d, 32, 35), (Input("input", (2, 1, 8000)),), BATCH),
        Entry("tcn", partial(zm.Tcn, 32, 5, 8), (Input("input", (1, 16, 64)),)),
        Entry("video_conv3d", partial(zm.VideoConv3d, 16, 50), (Input("input", (2, 3, 8, 48, 48)),), BATCH),
        Entry(
            "bert_encoder",
            partial(zm.BertEncoder, 1000, 128, 4, 3, 64),
            (_tokens(16, 1000), Input("mask", (2, 16), "int64", 2)),
            masked,
        ),
        Entry("gpt_decoder", partial(zm.GptDecoder, 1000, 128, 4, 3, 64), (_tokens(16, 1000),), SEQUENCE),
        Entry("llama_decoder", partial(zm.LlamaDecoder, 1000, 128, 8, 2, 3), (_tokens(16, 1000),), SEQUENCE),
        Entry("siamese", partial(zm.Siamese, 16), pair, pairs),
        Entry("pointnet", partial(zm.PointNet, 16, 40), (Input("input", (2, 3, 256)),), BATCH),
    )


# ------------------------------------------------------------------------------------------ export


def feeds_of(entry: Entry) -> dict[str, np.ndarray]:
    """Seeded example inputs of ``entry``, by input name."""
    rng = np.random.default_rng(SEED)
    return {
        i.name: rng.integers(0, i.high, i.shape, dtype=np.int64)
        if i.dtype == "int64"
        else rng.standard_normal(i.shape).astype(np.float32)
        for i in entry.inputs
    }


def build(entry: Entry, init: str) -> Any:
    """The torch model in eval mode, seeded; ``init`` "default", or "lively".

    "lively" overwrites every constant-valued parameter (biases, norms, LayerScale, zero-initialized
    layers) by seeded values and fits BatchNorm statistics to a noisy batch: by default many outputs
    hardly depend on the input, and then comparing outputs proves little. No two tensors stay equal.
    """
    import torch

    torch.manual_seed(SEED)
    model = entry.build().eval()
    if init == "lively":
        _enliven(entry, model)
    return model


def _enliven(entry: Entry, model: Any) -> None:
    """Make every branch of ``model`` carry signal, in place; see :func:`build`."""
    import torch

    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            constant = value.is_floating_point() and value.numel() > 1
            if not constant or not bool((value == value.flatten()[0]).all()):
                continue
            noise = torch.rand(value.shape, generator=generator)
            if value.dim() > 1:
                value.copy_((noise - 0.5) * 3.4 * value[0].numel() ** -0.5)
            elif name.endswith(("weight", "var", "gamma")):
                value.copy_(0.5 + noise)
            else:
                value.copy_(0.4 * (noise - 0.5))
        norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
        if not norms:
            return
        for norm in norms:
            norm.momentum, norm.training = 1.0, True
        # Eight copies, since a 1×1 map of one image has no variance.
        feeds = [v.repeat(8, 0) for v in feeds_of(entry).values()]
        rng = np.random.default_rng(SEED)
        noisy = [v + rng.standard_normal(v.shape).astype(np.float32) if v.dtype == np.float32 else v for v in feeds]
        model(*(torch.from_numpy(v) for v in noisy))
        for norm in norms:
            norm.momentum, norm.training = 0.1, False


def export(entry: Entry, exporter: str, path: Path, init: str) -> dict[str, np.ndarray]:
    """Write ``entry`` to ``path``; returns torch's own outputs on :func:`feeds_of`, keyed by position.

    Raises whatever the exporter raises.
    """
    import torch

    model = build(entry, init)
    args = tuple(torch.from_numpy(v) for v in feeds_of(entry).values())
    with torch.no_grad():
        reference = model(*args)
        # Compared before the export, which may move buffers of the model.
        outputs = [t.numpy().copy() for t in (reference if isinstance(reference, tuple | list) else (reference,))]
        names = [i.name for i in entry.inputs]
        quiet = io.StringIO()
        with contextlib.redirect_stdout(quiet), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            keep = entry.batchnorm == "keep"
            if exporter == "ts":
                torch.onnx.export(
                    model,
                    args,
                    str(path),
                    dynamo=False,
                    input_names=names,
                    output_names=_output_names(len(outputs)),
                    dynamic_axes={k: dict(v) for k, v in entry.dynamic.items()} or None,
                    opset_version=entry.opset,
                    training=torch.onnx.TrainingMode.PRESERVE if keep else torch.onnx.TrainingMode.EVAL,
                    do_constant_folding=not keep,
                )
            else:
                shapes = tuple(dict(entry.dynamic.get(n, {})) for n in names) if entry.dynamic else None
                torch.onnx.export(
                    model,
                    args,
                    str(path),
                    dynamo=True,
                    input_names=names,
                    output_names=_output_names(len(outputs)),
                    dynamic_shapes=shapes,
                    external_data=False,
                    optimize=not keep,
                    verbose=False,
                )
    return {str(i): v for i, v in enumerate(outputs)}


def _output_names(count: int) -> list[str]:
    return ["output"] if count == 1 else [f"output_{i}" for i in range(count)]


def run(path: Path, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs of the file in onnxruntime on one CPU thread; inputs the file dropped are not fed."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    return list(session.run(None, {k: v for k, v in feeds.items() if k in wanted}))


def relative_error(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Largest absolute difference over the largest expected value, worst output; inf on a shape clash."""
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        if a.shape != b.shape:
            return float("inf")
        scale = max(float(np.abs(b).max(initial=0.0)), 1e-12)
        difference = np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0.0)
        worst = max(worst, float(difference) / scale)
    return worst


def export_row(entry: Entry, exporter: str, out: Path, init: str) -> Row:
    """Export, measure and check one file; never raises, the reason of a failure is the row's status."""
    start = time.perf_counter()
    path = out / exporter / f"{entry.name}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        expected = export(entry, exporter, path, init)
        error = relative_error(run(path, feeds_of(entry)), list(expected.values()))
    except Exception as failure:
        return Row(entry.name, exporter, 0, _megabytes(path), time.perf_counter() - start, None, _brief(failure))
    status = "ok" if error <= 1e-3 else f"err: onnxruntime differs from torch by {error:.1e}"
    nodes = len(onnx.load(path, load_external_data=False).graph.node)
    return Row(entry.name, exporter, nodes, _megabytes(path), time.perf_counter() - start, error, status)


def _megabytes(path: Path) -> float:
    files = [p for p in (path, path.with_name(path.name + ".data")) if p.exists()]
    return sum(p.stat().st_size for p in files) / 1e6


def _brief(failure: Exception) -> str:
    text = " ".join(str(failure).split())
    return f"err: {type(failure).__name__}: {text[:160]}"


# ---------------------------------------------------------------------------------------- variants


def to_fp16(source: Path, target: Path) -> None:
    """Write ``source`` with every float32 tensor, inputs and outputs included, in float16."""
    from onnxconverter_common import float16

    model = onnx.load(source)
    with warnings.catch_warnings():
        # One warning per weight that float16 rounds to zero.
        warnings.simplefilter("ignore")
        onnx.save(float16.convert_float_to_float16(model, keep_io_types=False), target)


def to_external(source: Path, target: Path) -> None:
    """Write ``source`` with every initializer of 1 kB or more in ``target``.data beside it."""
    target.with_name(target.name + ".data").unlink(missing_ok=True)
    model = onnx.load(source)
    onnx.save(model, target, save_as_external_data=True, location=target.name + ".data", size_threshold=1024)


def to_quantized(entry: Entry, source: Path, target: Path, form: str, per_channel: bool) -> None:
    """Write ``source`` with 8-bit weights and activations, their ranges taken from four seeded inputs."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            rng = np.random.default_rng(SEED)
            self.feeds = iter([{i.name: rng.standard_normal(i.shape).astype(np.float32) for i in entry.inputs}] * 4)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    ready = target.with_suffix(".ready.onnx")
    quantization.quant_pre_process(source, ready, skip_symbolic_shape=True)
    quantization.quantize_static(
        ready,
        target,
        Reader(),
        quant_format=quantization.QuantFormat[form],
        per_channel=per_channel,
        weight_type=quantization.QuantType.QInt8,
    )
    ready.unlink()


def to_dynamic(entry: Entry, exporter: str, target: Path, init: str) -> None:
    """Export ``entry`` again to ``target`` with axis 0 of every input symbolic.

    Not an edit of the existing file: an exporter writes other arithmetic (Shape, Gather, Concat before
    a Reshape) once a size is unknown, and that is what has to be met.
    """
    # Two rows, because the dynamo exporter takes a batch of one for a constant.
    inputs = tuple(replace(i, shape=(2, *i.shape[1:])) for i in entry.inputs)
    dynamic = {i.name: {0: "batch"} for i in inputs}
    export(replace(entry, inputs=inputs, dynamic=dynamic), exporter, target, init)


def variant_row(entry: Entry, exporter: str, variant: str, out: Path, init: str) -> Row:
    """Derive one variant of an exported file and run it against the original; never raises."""
    source = out / exporter / f"{entry.name}.onnx"
    start = time.perf_counter()
    target = out / "variants" / f"{source.stem}.{exporter}.{variant}.onnx"
    target.parent.mkdir(parents=True, exist_ok=True)
    label = f"{source.stem}.{variant}"
    try:
        if variant == "dynamic":
            to_dynamic(entry, exporter, target, init)
        elif variant in QUANTIZED:
            to_quantized(entry, source, target, *QUANTIZED[variant])
        else:
            {"fp16": to_fp16, "external": to_external}[variant](source, target)
        error = _variant_error(source, target, variant)
        nodes = len(onnx.load(target, load_external_data=False).graph.node)
    except Exception as failure:
        return Row(label, exporter, 0, _megabytes(target), time.perf_counter() - start, None, _brief(failure))
    limit = 1.0 if variant in QUANTIZED else 0.1 if variant == "fp16" else 1e-4
    status = "ok" if error <= limit else f"err: differs from its original by {error:.1e}"
    return Row(label, exporter, nodes, _megabytes(target), time.perf_counter() - start, error, status)


def _variant_error(source: Path, target: Path, variant: str) -> float:
    rng = np.random.default_rng(SEED)
    inputs = onnx.load(source, load_external_data=False).graph.input
    shapes = {i.name: [d.dim_value or 2 for d in i.type.tensor_type.shape.dim] for i in inputs}
    singles = [{n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()} for _ in range(3)]
    if variant == "dynamic":
        expected = [run(source, f) for f in singles]
        joined = [np.concatenate(parts) for parts in zip(*expected, strict=True)]
        return relative_error(run(target, {n: np.concatenate([f[n] for f in singles]) for n in shapes}), joined)
    feeds = singles[0]
    half = {n: v.astype(np.float16) for n, v in feeds.items()}
    return relative_error(run(target, half if variant == "fp16" else feeds), run(source, feeds))


# --------------------------------------------------------------------------------------------- cli


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """Do what the command line asks for, one finished file at a time."""
    out: Path = options.out
    import torch

    torch.set_num_threads(1)
    # torch's fused inference kernels for attention have no ONNX form.
    torch.backends.mha.set_fastpath_enabled(False)
    logging.disable(logging.WARNING)
    exporters = EXPORTERS if options.exporter == "both" else (options.exporter,)
    for entry in registry():
        if not any(fnmatch.fnmatch(entry.name, glob) for glob in options.only.split(",")):
            continue
        for exporter in exporters:
            if not options.variants:
                yield export_row(entry, exporter, out, options.init)
            for variant in options.variants or ():
                sources = QUANTIZED_SOURCES if variant in QUANTIZED else VARIANT_SOURCES
                if f"{exporter}/{entry.name}" in sources:
                    yield variant_row(entry, exporter, variant, out, options.init)


def _variant_list(text: str) -> tuple[str, ...]:
    chosen = tuple(text.split(","))
    if unknown := set(chosen) - set(VARIANTS):
        raise argparse.ArgumentTypeError(f"unknown {sorted(unknown)}; choose from {','.join(VARIANTS)}")
    return chosen


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", metavar="GLOB", help="names, or globs, by commas (default: all)")
    parser.add_argument("--exporter", default="both", choices=(*EXPORTERS, "both"))
    parser.add_argument("--out", type=Path, default=Path("/tmp/zoo"), metavar="DIR")
    parser.add_argument("--init", default="default", choices=("default", "lively"), help=build.__doc__)
    parser.add_argument("--variants", type=_variant_list, metavar="LIST", help=f"of {','.join(VARIANTS)}")
    options = parser.parse_args(argv)
    done: list[Row] = []
    print(
        f"{'name':32} {'exporter':8} {'nodes':>6} {'MB':>7} {'sec':>6} {'rel.err':>8}  status",
        file=sys.stderr,
    )
    for row in rows(options):
        error = "-" if row.error is None else f"{row.error:.1e}"
        print(
            f"{row.name:32} {row.exporter:8} {row.nodes:6d} {row.mb:7.2f} {row.seconds:6.1f} {error:>8}",
            f" {row.status}",
            file=sys.stderr,
            flush=True,
        )
        done.append(row)
    failed = [f"{r.exporter}/{r.name}" for r in done if r.status != "ok"]
    summary = {
        "files": len(done) - len(failed),
        "failed": failed,
        "mb": round(sum(r.mb for r in done), 1),
        "rows": [asdict(r) for r in done],
    }
    print(json.dumps(summary))
    return 0 if done else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
