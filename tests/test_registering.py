"""What is kept of a sample for registrations, as numpy says it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.kernels.names import make_notes, registers
from detectors.kernels.registering import E_NOTES, E_WHO, NOBODY_REGISTERS
from engine.registered import of_registrations
from schemas.sample import CELL_WORDS, E_ATTRIBUTES, E_CELL, ENTRY_WORDS, S_STRATUM, S_TICK, VERIFIED, Sample, Stratum


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 12), st.integers(0, 40), st.booleans())
def test_registrations_and_accounts_are_kept_and_texts_where_anybody_registers(
    seed: int, many: int, count: int, registering: bool
) -> None:
    random = np.random.default_rng(seed)
    cells = random.integers(0, 9, (many, CELL_WORDS))
    cells[:, S_TICK], cells[:, S_STRATUM] = np.sort(cells[:, S_TICK]), random.integers(0, VERIFIED + 1, many)
    entries = random.integers(1, 99, (count if many else 0, ENTRY_WORDS))
    entries[:, E_CELL] = np.sort(random.integers(0, max(many, 1), len(entries)))
    entries[:, E_NOTES] = np.where(random.random(len(entries)) < 0.1, make_notes(2.0, 5, 1, 3), 0) if registering else 0
    sample = Sample(cells, entries, np.array([1, 2]), np.array([0, 1, 2]), np.array([65, 66], np.uint8))

    came = of_registrations(sample)
    chosen = np.flatnonzero((cells[:, S_STRATUM] <= Stratum.ACCOUNTS) | (cells[:, S_STRATUM] == VERIFIED))
    assert came.sample.cells.tolist() == cells[chosen].tolist()
    expected = entries[np.isin(entries[:, E_CELL], chosen)]
    accounts = cells[expected[:, E_CELL], S_STRATUM] == Stratum.ACCOUNTS
    ticks = cells[expected[:, E_CELL], S_TICK][registers(expected[:, E_NOTES])]
    expected[accounts, E_ATTRIBUTES:E_WHO] = 0
    expected[:, E_CELL] = np.searchsorted(chosen, expected[:, E_CELL])
    assert came.sample.entries.tolist() == expected.tolist()
    assert came.registers_from == min(ticks.tolist(), default=NOBODY_REGISTERS)
    assert len(came.sample.words) == (2 if len(ticks) else 0)

    came.pass_over(4)
    assert came.waits_from == min((tick for tick in cells[chosen, S_TICK].tolist() if tick > 4), default=None)
    assert came.left.cells.tolist() == cells[chosen][cells[chosen, S_TICK] > 4].tolist()
