"""How long layers take: measured through a runtime at the widths that a cut can leave, and added up."""
