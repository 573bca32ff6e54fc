"""A measured figure with its bar, and how a growing queue is told from one that only goes up and down.

Pure. Changes when another kind of bar is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median


@dataclass(frozen=True)
class Figure:
    """One measured figure; `values` of several rounds, `sign` and `bar` what its median should keep to."""

    case: str
    figure: str
    values: Sequence[float]
    sign: str = ""
    bar: float = 0.0

    @property
    def holds(self) -> bool | None:
        """Whether the bar is kept, None without one."""
        if not self.sign:
            return None
        return median(self.values) >= self.bar if self.sign == ">=" else median(self.values) < self.bar


def growth_percent(at_s: Sequence[float], waiting: Sequence[int], arriving_per_s: float) -> float:
    """Return by how much a queue grows on the whole, in percent of what arrives; below 0 it shrinks.

    That is the median of the slopes between all pairs of samples (Theil and Sen): a burst that passes, however high,
    does not move it, and neither does where in its ups and downs the queue is looked at first or last, provided that
    `at_s` is not in step with them. At least two samples, at different times.
    """
    samples = zip(at_s, waiting, strict=True)
    slopes = [(later - earlier) / (until_s - from_s)
              for (from_s, earlier), (until_s, later) in combinations(samples, 2) if until_s != from_s]
    return median(slopes) / arriving_per_s * 100
