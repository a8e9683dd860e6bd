"""Refit: fit the remaining weights, layer by layer, so that the cut model reproduces the original's activations."""
