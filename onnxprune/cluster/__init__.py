"""Spreads the sums of a run over other processes with dask.distributed.  No other room imports dask."""
