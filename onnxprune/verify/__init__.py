"""Proof, before anything is written, that a pruned model is sound."""
