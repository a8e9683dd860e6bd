"""How many threads BLAS gets: one for the many small systems and products of a network, all for the large ones.

OpenBLAS's threads wait for each other at every step.  Where another process takes a core, a Cholesky factorization
of 200 columns (0.2 ms on one thread) then takes up to 500 ms on two; measured on two busy cores, a network of 57 layers
is refitted in 18 s instead of 255 s.  A system of 2,000 columns has enough to do between the steps.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

from threadpoolctl import ThreadpoolController

#: Columns from which on more than one thread is worth its waiting: in a factorization, in a product of many rows.
LARGE, LARGE_PRODUCT = 2048, 512


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    # Finding the libraries takes 7 ms, setting their threads 0.03 ms.
    return ThreadpoolController()


def blas_threads(columns: int) -> AbstractContextManager[object]:
    """While it is entered, BLAS runs with the threads that suit factorizations of so many columns."""
    return _threads(columns >= LARGE)


def product_threads(columns: int) -> AbstractContextManager[object]:
    """While it is entered, BLAS runs with the threads that suit products of thousands of rows of so many columns."""
    return _threads(columns >= LARGE_PRODUCT)


def _threads(all_of_them: bool) -> AbstractContextManager[object]:
    if all_of_them:
        return nullcontext()
    limited: AbstractContextManager[object] = _controller().limit(limits=1, user_api="blas")
    return limited
