"""Baselines: weight magnitude and random order."""

from __future__ import annotations

import numpy as np

from onnxprune.selection.base import Evidence, Ranking

Array = np.ndarray


def magnitude(evidence: Evidence, seed: int) -> Ranking:
    """Rank by weight magnitude: the L2 norm over all tensors that a unit owns, largest first."""
    return _ranked(np.argsort(-evidence.magnitude, kind="stable"), evidence)


def random(evidence: Evidence, seed: int) -> Ranking:
    """Rank at random: a permutation that ``seed`` determines."""
    return _ranked(np.random.default_rng(seed).permutation(len(evidence.magnitude)), evidence)


def _ranked(order: Array, evidence: Evidence) -> Ranking:
    energy = np.maximum(evidence.energies[order], 0.0)
    tail = np.concatenate([np.cumsum(energy[::-1])[::-1], [0.0]])
    return Ranking(order, tail / max(float(tail[0]), 1e-300))
