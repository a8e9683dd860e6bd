"""Build a smaller model from a model and a plan.  Never changes the original."""
