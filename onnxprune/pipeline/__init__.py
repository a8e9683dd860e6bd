"""The steps of a run: set up, allocate, try a candidate, evaluate it, search."""
