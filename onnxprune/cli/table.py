"""All options of all commands.  Parser, help, completion and Options come from these rows.

To add an option, add a row here.  If it changes the run, also add a field of the same name to
:class:`onnxprune.options.Options`.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from onnxprune.cli import values
from onnxprune.cli.option import HELP_FLAGS, Option
from onnxprune.devices import TARGETS
from onnxprune.options import AUGMENTS, DEVICE_NAMES, EFFORT_NAMES, PRESET_NAMES, REFITS, SELECTORS, TASKS, Options

PRUNE, DATA, ENGINE = ("prune",), ("prune", "compare", "tune"), ("prune", "compare", "apply", "tune")
EVERY = ("prune", "inspect", "why", "compare", "apply", "tune")
TUNE = ("prune", "tune")
MODEL_FILE = "where to write the new model"
#: What ``--data`` takes.
SOURCES = "folder of images, .npz, .npy, FILE.py:FUNC, module:FUNC, hf:NAME[:SPLIT[:COLUMN]]"

OPTIONS = (
    Option("output", ("-o", "--output"), ("prune",), values.output, "FILE", MODEL_FILE, unsaid="MODEL.pruned.onnx"),
    Option("output", ("-o", "--output"), ("apply",), values.output, "FILE", MODEL_FILE, unsaid="MODEL.applied.onnx"),
    Option("output", ("-o", "--output"), ("tune",), values.output, "FILE", MODEL_FILE, unsaid="MODEL.tuned.onnx"),
    Option("per_op", ("--per-op",), ("compare",), help="time of both models by operator, on the CPU",
           default=False),
    Option("gate", ("--max-drop",), ("compare",), values.largest_drop, "X",
           "a gate for CI: exit code 1 if the drop is above X"),
    # -- data
    Option("data", ("--data",), ("prune", "compare"), str, "SRC", SOURCES, "data", unsaid="made-up inputs"),
    Option("data", ("--data",), ("tune",), str, "SRC", f"{SOURCES}; required", "data"),
    Option("samples", ("--samples",), DATA, values.integer(1), "N", "maximum samples", "data",
           unsaid="64 to 2048, depending on model cost"),
    Option("preset", ("--preprocess",), DATA, None, "P", "how to turn pixels into numbers; adjust it with:", "data", choices=PRESET_NAMES),
    Option("mean", ("--mean",), DATA, values.numbers, "A,B,C", group="data"),
    Option("std", ("--std",), DATA, values.numbers, "A,B,C", group="data"),
    Option("resize", ("--resize",), DATA, values.integer(1), "N", group="data"),
    Option("crop", ("--crop",), DATA, values.crop, "N|HxW", group="data"),
    Option("bgr", ("--bgr",), DATA, group="data", default=False),
    Option("fit", ("--letterbox",), DATA, group="data", default=None, on="letterbox"),
    Option("fit", ("--stretch",), DATA, group="data", default=None, on="stretch"),
    Option("test", ("--test",), DATA, str, "SRC", "labelled data, only to report the accuracy", "data"),
    Option("evaluate", ("--eval",), ("prune", "compare"), str, "FILE.py:FUNC",
           "your metric, f(session_runner) -> float, higher is better; the drop is its decrease", "data"),
    Option("task", ("--task",), DATA, None, "T", "how to measure the drop; see 'onnxprune help tasks'", "data",
           choices=TASKS),
    Option("layout", ("--layout",), DATA, str, "WORDS", "layout of a detector's outputs, if it is not recognised",
           "data"),
    # -- budget
    Option("macs", ("--macs",), PRUNE, values.fraction, "R", group="budget"),
    Option("params", ("--params",), PRUNE, values.fraction, "R", group="budget"),
    Option("latency", ("--latency",), PRUNE, values.fraction, "R", group="budget"),
    Option("size", ("--size",), PRUNE, values.size_or_bytes, "R-or-BYTES", group="budget"),
    Option("max_drop", ("--max-drop",), PRUNE, values.largest_drop, "X",
           "smallest model whose drop on held-out samples is <= X", "budget"),
    # -- how
    Option("select", ("--select",), PRUNE, None, "RANKING", group="how", choices=SELECTORS),
    Option("refit", ("--refit",), PRUNE, None, "METHOD", "refit the weights", "how", choices=REFITS),
    Option("effort", ("--effort",), PRUNE, None, "LEVEL", "how much to compute for accuracy; without --data the default is fast", "how",
           choices=EFFORT_NAMES),
    Option("rounding", ("--round",), PRUNE, values.rounding, "auto|N",
           "multiples of N channels; auto: fast on this CPU; auto:8: fast with kernels of 8 channels",
           "how", "auto",
           words=("auto", "auto:8", "auto:16", "8", "16", "32")),
    Option("latency_table", ("--latency-table",), PRUNE, Path, "FILE",
           "layer times measured on another device; optimize for it", "how"),
    Option("target", ("--target",), PRUNE, values.target, "DEVICE", "channel counts for DEVICE; 'onnxprune help targets'",
           "how", words=tuple(TARGETS)),
    Option("exclude", ("--exclude",), PRUNE, str, "GLOB", "leave nodes, tensors, groups or op:TYPE alone; repeatable", "how",
           collect=tuple),
    Option("only", ("--only",), PRUNE, str, "GLOB", "prune only these; repeatable", "how", collect=tuple),
    Option("keep", ("--keep",), PRUNE, values.width, "GLOB=N|R", "keep exactly N channels or the share R; repeatable", "how",
           collect=tuple),
    Option("at_least", ("--at-least",), PRUNE, values.width, "GLOB=N|R", "keep at least this many; repeatable", "how", collect=tuple),
    Option("at_most", ("--at-most",), PRUNE, values.width, "GLOB=N|R", "keep at most this many; repeatable", "how", collect=tuple),
    Option("shapes", ("--shape",), EVERY, values.shape, "NAME=DIMS",
           "shape of a dynamic input: x=1x3x640x640; repeatable", "how", collect=values.shapes_by_name),
    Option("rules", ("--approximate",), ("prune", "inspect", "why"),
           help="also cut channels in normalizations and gates, whose statistics then cover only the others",
           group="how", on="approximate"),
    Option("providers", ("--providers",), ENGINE, values.providers, "LIST", group="how", unsaid="cpu",
           words=tuple(values.PROVIDERS)),
    Option("threads", ("--threads",), ENGINE, values.integer(0), "N", group="how", unsaid="all"),
    Option("memory", ("--memory",), ENGINE, values.byte_count, "BYTES", group="how", unsaid="all"),
    Option("workers", ("--workers",), PRUNE, values.integer(1), "N", group="how", unsaid="none"),
    Option("seed", ("--seed",), DATA, values.integer(0), "N", group="how", unsaid="0"),
    Option("cluster", ("--cluster",), PRUNE, str, "tcp://HOST:PORT", "share the work; 'onnxprune help cluster'", "how"),
    Option("config", ("--config",), PRUNE, str, "FILE.toml", "options from a file; the command line wins", "how"),
    # -- tuning
    Option("teacher", ("--teacher",), ("tune",), Path, "NET.onnx", "the original, whose outputs are the targets", "tuning"),
    Option("tune", ("--tune",), PRUNE, values.tuning_length, "[TIME|Nx]",
           "then train for a time (10m) or passes over the data (20x); without a value, until nothing improves",
           "tuning", on=values.tuning_length("auto"), may_follow=r"\d[\d.]*[a-zA-Z]*|auto"),
    Option("tune", ("--for",), ("tune",), values.tuning_length, "TIME|Nx",
           "10m, 90s, or 20x (passes over the data)", "tuning", unsaid="until nothing improves, at most 10m"),
    Option("augment", ("--augment",), TUNE, values.augmentations, "LIST",
           "for images: auto, none or some of mirror,shift,mix,cut", "tuning",
           words=("auto", "none", *AUGMENTS)),
    Option("device", ("--device",), TUNE, None, "D", "device for torch", "tuning", choices=DEVICE_NAMES),
    # -- output
    Option("plan", ("--plan",), PRUNE, values.output, "FILE", "write the plan (JSON)", "output"),
    Option("report", ("--report",), ("prune", "apply", "inspect"), values.output, "FILE.html",
           "write an HTML report with plots and the graph", "output"),
    Option("report", ("--report",), ("tune",), values.output, "FILE.html",
           "write an HTML report with the learning curve", "output"),
    Option("pictures", ("--no-samples",), PRUNE, help="leave held-out images out of the report", group="output", on=0),
    Option("layers", ("--layers",), ("inspect",), values.output, "FILE.json",
           "write the layers, to time them on a device with tools/measure_latency_table.py", "output"),
    Option("json", ("--json",), ("prune", "inspect", "compare", "apply", "tune"),
           help="print one JSON document on stdout and nothing else", group="output", default=False),
    Option("quiet", ("-q", "--quiet"), EVERY, group="output", default=False),
    Option("verbose", ("-v", "--verbose"), EVERY, group="output", default=False),
    Option("help", HELP_FLAGS, (*EVERY, "completion"), group="output", default=False),
)  # fmt: skip

_DEFAULTS = Options()
#: Options that fill the field of the same name in Options.
DIRECT = tuple(option.name for option in OPTIONS if option.name in {field.name for field in fields(Options)})


def options_of(command: str) -> tuple[Option, ...]:
    """The options of a command, in the order of its help."""
    return tuple(option for option in OPTIONS if command in option.commands)


def default_of(option: Option) -> object:
    """The value of an option if it is not given."""
    return getattr(_DEFAULTS, option.name, option.default)
