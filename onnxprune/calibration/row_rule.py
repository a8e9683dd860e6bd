"""How many rows of a layer are worth having."""

from __future__ import annotations

from dataclasses import dataclass

#: Rows of any layer, and numbers in them, and the least rows of layers with the most unknowns.
MOST_ROWS, MOST_NUMBERS, MOST_LEAST_ROWS = 65_536, 64_000_000, 40_000


@dataclass(frozen=True)
class RowRule:
    """How many rows a layer is worth.  With r rows per unknown, least squares does 1/r worse than the best weights.

    ``usual`` rows per unknown, and ``fewest`` rows of the smallest layers, since positions of one picture resemble each
    other; fewer, down to ``least`` per unknown, where the second moments of a layer would take more than ``macs``.
    """

    usual: int
    fewest: int
    least: int
    macs: float

    def rows(self, groups: int, unknowns: int) -> int:
        """Rows for a layer of so many convolution groups, each of so many unknowns.

        >>> [MOMENTS.rows(1, n) for n in (144, 1152, 2304, 4608)], MOMENTS.rows(960, 9)
        ([16384, 36864, 9419, 18432], 7407)
        >>> [FIT.rows(1, n) for n in (144, 1152, 2304, 4608)], FIT.rows(960, 9)
        ([65536, 55555, 18838, 36864], 7407)
        """
        unknowns = max(unknowns, 1)
        numbers = groups * unknowns
        wanted = min(max(self.fewest, self.usual * unknowns), MOST_ROWS, MOST_NUMBERS // numbers)
        return max(min(wanted, int(self.macs / numbers / unknowns)), min(MOST_LEAST_ROWS, self.least * unknowns))


#: The original's moments rank channels and give the prior; trials only compare candidates.
MOMENTS = RowRule(32, 16_384, 4, 5e10)
#: The fit that stays sees what earlier cuts left, and gains from more: ResNet-20, cut to half its MACs with 512 images,
#: keeps 84.4 % with these rows and 83.6 % with those of the moments.
FIT = RowRule(128, 65_536, 8, 1e11)
