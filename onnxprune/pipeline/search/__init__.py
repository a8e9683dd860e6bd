"""The searches over candidates: of several cuts the one that the budget asks for."""
