"""Small charts drawn on the server: SVG without script or inline style, each with its text for those who cannot see it.

Pure functions over `overview`. Changes when a chart shows something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from internal.overview import Share
from internal.tally import HOUR_MS

PARTS = ("delivered", "moving", "waiting", "held")
_WIDTH, _HEIGHT, _BASE = 720, 236, 208
_BAR = 20
_MARGIN = 44  # for the numbers at the end of the lines, in the larger letters of a telephone too


def share_bar(share: Share, label: str, largest: int | None = None) -> Markup:
    """Return one lying bar of what became of studies; `largest` is the number that fills the whole width."""
    whole = max(largest or share.total, 1)
    x = 0.0
    rects = Markup()
    for part in PARTS:
        width = 100 * getattr(share, part) / whole
        if width:
            rects += Markup('<rect class="fill-{}" x="{}" y="0" width="{}" height="4"/>').format(
                part, f"{x:.2f}", f"{max(width - .4, .4):.2f}")
            x += width
    rest = Markup('<rect class="fill-none" x="{}" y="0" width="{}" height="4"/>').format(f"{x:.2f}", f"{100 - x:.2f}")
    return Markup('<svg class="bar" viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
                  ).format(label, rects + (rest if x < 100 else Markup()))


def hours_chart(hours: Mapping[int, Share], midnight: int, label: str) -> Markup:
    """Return 24 standing bars from `midnight` (epoch ms) on, each stacked by what became of its studies."""
    shares = [hours.get(midnight - midnight % HOUR_MS + number * HOUR_MS, Share()) for number in range(24)]
    top = _round_up(max(share.total for share in shares))
    step = _WIDTH / 24
    drawn = _grid(top)
    for number, share in enumerate(shares):
        drawn += _column(share, number * step + (step - _BAR) / 2 + 4, top)
        if number % 3 == 0:
            drawn += Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
                f"{number * step + step / 2 + 4:.1f}", _BASE + 22, f"{number:02d}")
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH + _MARGIN, _HEIGHT, label, drawn)


def _column(share: Share, x: float, top: int) -> Markup:
    y = float(_BASE)
    drawn = Markup()
    for part in PARTS:
        height = (_BASE - 14) * getattr(share, part) / top
        if height:
            y -= height
            drawn += Markup('<rect class="fill-{}" x="{}" y="{}" width="{}" height="{}" rx="2"/>').format(
                part, f"{x:.1f}", f"{y:.1f}", _BAR, f"{max(height - 1, 1):.1f}")
    return drawn


def _grid(top: int) -> Markup:
    drawn = Markup()
    for value in (0, top // 2, top) if top > 1 else (0, top):
        y = _BASE - (_BASE - 14) * value / top
        drawn += Markup('<line class="grid" x1="4" x2="{}" y1="{}" y2="{}"/>'
                        '<text x="{}" y="{}" text-anchor="end">{}</text>').format(
            _WIDTH + 4, f"{y:.1f}", f"{y:.1f}", _WIDTH + _MARGIN, f"{y + 4:.1f}", value)
    return drawn


def _round_up(value: int) -> int:
    """Return the next number that divides well: 2, 4, 10, 20, 40, 100 ..."""
    for size in _steps():
        if size >= value:
            return size
    return value


def _steps() -> Sequence[int]:
    return [factor * 10**power for power in range(7) for factor in (2, 4, 6, 10)]
