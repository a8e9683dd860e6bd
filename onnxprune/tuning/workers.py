"""Several processes that tune one model.  torch's launcher starts them; each takes its share of every batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Workers:
    """Process number ``rank`` of ``size``.  All do the same, on different samples."""

    rank: int = 0
    size: int = 1

    def share(self, rows: Sequence[int]) -> list[int]:
        """The positions in a batch that belong to this process."""
        return list(range(len(rows)))[self.rank :: self.size]

    def summed(self, tensors: Sequence[Tensor]) -> None:
        """Sum ``tensors`` over all processes, in place."""
        if self.size > 1 and tensors:
            flat = torch.cat([t.reshape(-1) for t in tensors])
            torch.distributed.all_reduce(flat)
            place = 0
            for tensor in tensors:
                tensor.copy_(flat[place : place + tensor.numel()].reshape(tensor.shape))
                place += tensor.numel()

    def agreed(self, value: float) -> float:
        """The ``value`` of the first process: clocks differ."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        torch.distributed.broadcast(shared, 0)
        return float(shared)

    def leave(self) -> None:
        """Leave the group: the processes no longer wait for each other."""
        if self.size > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def join() -> Workers:
    """The group that ``torchrun`` started; a single process without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        return Workers()
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    return Workers(torch.distributed.get_rank(), size)
