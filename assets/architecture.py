"""Draw architecture.svg from architecture.txt: boxes in rows, rows in bands, arrows between boxes.

Stands alone, standard library only, so that nobody needs a drawing program; a test compares picture and text.
Changes when the picture needs another shape.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

WIDTH, MARGIN, LABEL, GAP = 1100, 24, 34, 36
ROW_GAP, BOX_HEIGHT, BAND_PAD = 44, 76, 16
INK, FAINT, BOX_INK = "#1d2b3a", "#5b6b7b", "#7b8b9b"
FONT = "font-family=\"'Segoe UI', 'DejaVu Sans', Arial, sans-serif\""


class PictureWrong(Exception):
    """A line of the text cannot be drawn."""


@dataclass
class Box:
    """One box; `width` counts in columns; x, y, w are set by `place`."""

    name: str
    width: int
    lines: list[str]
    x: float = 0
    y: float = 0
    w: float = 0

    @property
    def middle(self) -> float:
        return self.x + self.w / 2


@dataclass
class Band:
    """A stripe with its rows of boxes; top and bottom are set by `place`."""

    title: str
    colour: str
    rows: list[list[Box]] = field(default_factory=list)
    top: float = 0
    bottom: float = 0


@dataclass
class Picture:
    """What the text says, before and after it has places."""

    title: str = ""
    bands: list[Band] = field(default_factory=list)
    arrows: list[tuple[str, str, str]] = field(default_factory=list)
    height: float = 0

    @property
    def boxes(self) -> dict[str, Box]:
        return {box.name: box for band in self.bands for row in band.rows for box in row if box.name}


def parse(text: str) -> Picture:
    """Return the picture that `text` describes; PictureWrong names the line that cannot be read."""
    picture = Picture()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        try:
            _read(picture, word, [part.strip() for part in rest.split("|")])
        except (IndexError, ValueError) as error:
            raise PictureWrong(f"line {number}: {line!r} ({error})") from error
    for source, target, _ in picture.arrows:
        for name in (source, target):
            if name not in picture.boxes:
                raise PictureWrong(f"an arrow names {name!r}, which is no box")
    return picture


def _read(picture: Picture, word: str, parts: list[str]) -> None:
    if word == "title":
        picture.title = parts[0]
    elif word == "band":
        picture.bands.append(Band(parts[0], parts[1] if len(parts) > 1 else "#ffffff"))
    elif word == "row":
        picture.bands[-1].rows.append([])
    elif word == "gap":
        picture.bands[-1].rows[-1].append(Box("", 1, []))
    elif word == "box":
        name, _, width = parts[0].partition("*")
        picture.bands[-1].rows[-1].append(Box(name.strip(), int(width or 1), parts[1:]))
    elif word == "arrow":
        source, target = (name.strip() for name in parts[0].split(">"))
        picture.arrows.append((source, target, parts[1] if len(parts) > 1 else ""))
    else:
        raise ValueError(f"unknown word {word!r}")


def place(picture: Picture) -> None:
    """Give every band and box its place."""
    y = MARGIN + 40.0
    for band in picture.bands:
        band.top = y
        y += BAND_PAD + 6
        for number, row in enumerate(band.rows):
            y += ROW_GAP if number else 0
            _place_row(row, y)
            y += BOX_HEIGHT
        band.bottom = y = y + BAND_PAD
        y += 14
    picture.height = y + MARGIN - 14


def _place_row(row: list[Box], y: float) -> None:
    left, right = MARGIN + LABEL, WIDTH - MARGIN - 16
    column = (right - left - GAP * (len(row) - 1)) / sum(box.width for box in row)
    x: float = left
    for box in row:
        box.x, box.y, box.w = x, y, column * box.width
        x += box.w + GAP


def render(text: str) -> str:
    """Return the SVG of `text`; the same text gives the same bytes."""
    picture = parse(text)
    place(picture)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {picture.height:.0f}" {FONT} role="img">',
        f"<title>{escape(picture.title)}</title>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z" fill="{INK}"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{picture.height:.0f}" fill="#ffffff"/>',
        _text(MARGIN, MARGIN + 16, picture.title, 20, INK, "start", bold=True),
    ]
    parts += [shape for band in picture.bands for shape in _draw_band(band)]
    parts += [_draw_arrow(picture.boxes[a], picture.boxes[b], label) for a, b, label in picture.arrows]
    parts += [shape for box in picture.boxes.values() for shape in _draw_box(box)]
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, text: str, size: int, colour: str, anchor: str = "middle", bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"{weight}>'
        f"{escape(text)}</text>"
    )


def _draw_band(band: Band) -> list[str]:
    height = band.bottom - band.top
    stripe = (
        f'<rect x="{MARGIN}" y="{band.top:.1f}" width="{WIDTH - 2 * MARGIN}" height="{height:.1f}" rx="8" '
        f'fill="{band.colour}" stroke="#d5dde5"/>'
    )
    x, y = MARGIN + 20, (band.top + band.bottom) / 2
    title = f'<g transform="rotate(-90 {x} {y:.1f})">{_text(x, y, band.title, 12, FAINT)}</g>'
    return [stripe, title]


def _draw_box(box: Box) -> list[str]:
    shape = (
        f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.w:.1f}" height="{BOX_HEIGHT}" rx="6" '
        f'fill="#ffffff" stroke="{BOX_INK}"/>'
    )
    top = box.y + (BOX_HEIGHT - 18 * len(box.lines)) / 2 + 14
    lines = [
        _text(box.middle, top + 18 * n, line, 12 if n else 15, FAINT if n else INK, bold=not n)
        for n, line in enumerate(box.lines)
    ]
    return [shape, *lines]


def _draw_arrow(source: Box, target: Box, label: str) -> str:
    if source.y == target.y:
        step = 1 if target.x > source.x else -1
        x1 = source.x + (source.w if step > 0 else 0)
        x2 = target.x + (0 if step > 0 else target.w) - 2 * step
        y = source.y + BOX_HEIGHT / 2
        path, place_at = f"M{x1:.1f},{y:.1f} H{x2:.1f}", ((x1 + x2) / 2, y - 6)
    else:
        y1, y2 = source.y + BOX_HEIGHT, target.y - 2
        x1 = min(max(target.middle, source.x + 30), source.x + source.w - 30)
        x2 = min(max(x1, target.x + 30), target.x + target.w - 30)
        bend = y2 - 14
        path = f"M{x1:.1f},{y1:.1f} V{bend:.1f} H{x2:.1f} V{y2:.1f}" if x1 != x2 else f"M{x1:.1f},{y1:.1f} V{y2:.1f}"
        place_at = (x1 + 8, y1 + 17)
    line = f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="1.5" marker-end="url(#head)"/>'
    return line + (_text(*place_at, label, 12, INK, "start") if label else "")


def main() -> int:
    """Write the picture beside its text."""
    folder = Path(__file__).parent
    svg = render((folder / "architecture.txt").read_text(encoding="utf-8"))
    (folder / "architecture.svg").write_text(svg, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
