"""What one run does: set up, allocate, try a candidate, evaluate it, search."""
