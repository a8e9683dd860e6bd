"""Detectors: what their outputs mean, and the average precision of one against another."""
