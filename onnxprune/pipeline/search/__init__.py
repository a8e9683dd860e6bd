"""Searches over candidates for the cut that the budget asks for."""
