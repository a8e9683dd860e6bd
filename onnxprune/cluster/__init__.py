"""The sums of a run, spread over other processes by dask.distributed; nothing else knows of it."""
