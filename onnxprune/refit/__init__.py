"""Refit: the layers that stay make up for the cut ones by least squares, layer by layer, against the original."""
