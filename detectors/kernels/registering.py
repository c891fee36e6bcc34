"""What `engine.cohorts` needs of a tally's sample: most of it is neither a registration nor what an account does."""

from __future__ import annotations

from typing import Any

from detectors.kernels.names import registers_kernel
from schemas.compiled import entry
from schemas.sample import CELL_WORDS, E_ATTRIBUTES, E_CELL, ENTRY_WORDS, S_STRATUM, S_TICK, Attribute, Stratum
from schemas.sample import VERIFIED as _VERIFIED

ACCOUNTS, E_WHO, E_NOTES = int(Stratum.ACCOUNTS), E_ATTRIBUTES + int(Attribute.WHO), E_ATTRIBUTES + int(Attribute.NOTES)
VERIFIED = int(_VERIFIED)
NOBODY_REGISTERS = 1 << 62


@entry
def of_registrations_kernel(came_cells: Any, came_entries: Any, cells: Any, entries: Any) -> Any:
    """Copy the cells of a sample that may hold registrations, or what accounts do, and their entries.

    Of what accounts do only who does it is looked at: without texts they are merged faster.

    Args:
        cells, entries: out, with room for all.

    Returns:
        (how many cells, how many entries, the second of the first registration or `NOBODY_REGISTERS`).
    """
    many, count, at, first = 0, 0, 0, NOBODY_REGISTERS
    for cell in range(len(came_cells)):
        stratum = came_cells[cell, S_STRATUM]
        chosen = stratum <= ACCOUNTS or stratum == VERIFIED
        while at < len(came_entries) and came_entries[at, E_CELL] == cell:
            if chosen:
                for column in range(ENTRY_WORDS):
                    entries[count, column] = came_entries[at, column]
                entries[count, E_CELL] = many
                if stratum == ACCOUNTS:
                    entries[count, E_ATTRIBUTES:E_WHO] = 0
                if registers_kernel(entries[count, E_NOTES]):
                    first = min(first, came_cells[cell, S_TICK])
                count += 1
            at += 1
        if chosen:
            for column in range(CELL_WORDS):
                cells[many, column] = came_cells[cell, column]
            many += 1
    return many, count, first
