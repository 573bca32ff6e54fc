"""A measured figure with its bar, and how a growing queue is told from one that only goes up and down.

Pure. Changes when another kind of bar is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    """Return by how much a queue grows for good, in percent of what arrives; below 0 it shrinks.

    That is the rise of its lowest level from the first third of the time to the last. A queue that falls behind never
    comes back to where it was; one that is emptied in bursts, or that others on the machine keep waiting for a while,
    does, however high it was in between: so neither its heights nor its median would tell the two apart. `at_s`, in
    order, is not to be in step with the bursts. ZeroDivisionError without time between the samples.
    """
    third_s = (at_s[-1] - at_s[0]) / 3
    samples = list(zip(at_s, waiting, strict=True))
    first = min(count for at, count in samples if at <= at_s[0] + third_s)
    last = min(count for at, count in samples if at >= at_s[-1] - third_s)
    return (last - first) / (2 * third_s) / arriving_per_s * 100
