"""Coupling: which channels must leave together, and which may not leave at all."""
