"""Coupling: which channels can only be removed together, and which cannot be removed at all."""
