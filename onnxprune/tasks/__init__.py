"""Tasks: what users read from a model's outputs, and how far two models agree in it."""
