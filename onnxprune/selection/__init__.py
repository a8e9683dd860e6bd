"""Which units of a group leave first.  A selector ranks the units and gives the error for each number kept."""
