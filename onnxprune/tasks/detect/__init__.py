"""Detectors: the meaning of their outputs, and the average precision of one detector against another."""
