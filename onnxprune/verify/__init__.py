"""Prove that a pruned model is sound, before anything is written."""
