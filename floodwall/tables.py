"""Plain tables for people, on a terminal or in a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

WIDTH_IN_FILES = 160


def printable(text: str) -> str:
    """Text from elsewhere, without control characters that a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def print_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Cells are shown as they are, folded where a line is too narrow, and never obeyed."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else WIDTH_IN_FILES).print(table)
