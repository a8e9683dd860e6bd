"""The output loss: one number for how much a model's outputs changed (``loss``), and the fields of the outputs (``fields``)."""
