"""What commands print: every cell and line is data, often a peer's, never markup or codes for the terminal.

Imports logs. Changes when commands have to be read in another way.
"""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from interface.logs import escape

#: A table that is cut to 80 columns on its way into a pipe or a file cannot be read.
_PIPE_COLUMNS = 160


class DataTable(Table):
    """A table that breaks what is too long for its column and cuts nothing."""

    def __init__(self, *columns: str | Column, title: str = "") -> None:
        folding = (Column(one, overflow="fold") if isinstance(one, str) else one for one in columns)
        super().__init__(*folding, title=Text(plain(title), style="table.title") if title else None)

    def add_data(self, *cells: str, style: str = "") -> None:
        """Add a row of texts as they are."""
        self.add_row(*(Text(plain(cell)) for cell in cells), style=style)

    def print(self) -> None:
        """Write the table to standard output, wide enough for a pipe."""
        Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS).print(self)


def plain(text: str) -> str:
    """Return `text` with what is not printable made visible; lines stay."""
    return "\n".join(map(escape, text.split("\n")))


def say(text: str) -> None:
    """Print a line that holds what a peer has sent."""
    print(plain(text))
