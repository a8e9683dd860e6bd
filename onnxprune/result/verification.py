"""The checks of a pruned model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verification:
    """The checks of a pruned model.

    ``masked_max_rel_err`` is the largest relative error between the cut model (without refit) and the masked original.
    ``estimates`` are nodes that now take a statistic over fewer channels; they may make this error large.
    """

    checker: bool
    onnxruntime: bool
    signature: bool
    masked_max_rel_err: float
    complaints: tuple[str, ...] = ()
    estimates: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.complaints
