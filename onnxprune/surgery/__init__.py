"""Making a smaller model out of a model and a plan; the original is never changed."""
