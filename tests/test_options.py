"""What an option cannot be is refused at once, whoever asks."""

from __future__ import annotations

import pytest

import onnxprune
from onnxprune.errors import OptionError


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"select": "qrr"}, "did you mean 'qr'.*; there are auto, qr, obs, magnitude, random"),
        ({"effort": "fst"}, "did you mean 'fast'"),
        ({"refit": "x"}, "there are lstsq, none"),
        ({"rules": "x"}, "there are exact, approximate"),
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"round_to": 0}, "round_to must be at least 1"),
        ({"memory": -5}, "memory must be at least 1"),
        ({"threads": -1}, "threads must be at least 0"),
        ({"threads": 10**6}, r"threads: 1000000 are too many for the \d+ cores of this machine; give at most \d+"),
        ({"only": "conv*"}, r"only takes several: give \('conv\*',\)"),
        ({"providers": "CPUExecutionProvider"}, "providers takes several"),
    ],
)
def test_wrong_options_are_refused_before_the_model_is_read(given: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        onnxprune.prune("there is no such file", **given)  # type: ignore[arg-type]
