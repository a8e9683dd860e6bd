"""Which units of a group leave first: selectors give an order, and the error that each prefix leaves."""
