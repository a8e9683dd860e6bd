"""The output loss: one number for how far a model's outputs moved (``loss``), and the fields of the outputs (``fields``)."""
