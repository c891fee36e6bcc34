"""Put down in the sample who was verified: an entry of its own kind, because nobody asked for anything."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.kernels.blocks import T_ACCOUNT
from detectors.kernels.hashing import hash_words_kernel
from detectors.kernels.sampling import (
    G_COUNT,
    KEPT_MAX,
    Q_LEFT_OUT,
    TEXTS,
    ZERO,
    attribute_kernel,
    cell_kernel,
    find_equal_kernel,
    is_below_kernel,
    put_entry_kernel,
    raise_level_kernel,
)
from schemas.compiled import inlined, part
from schemas.sample import E_ATTRIBUTES, E_IP_HIGH, E_WEIGHT, ENTRY_WORDS, S_LEVEL, S_TOTAL, Attribute
from schemas.sample import VERIFIED as _VERIFIED

VERIFIED = int(_VERIFIED)
E_WHO = E_ATTRIBUTES + int(Attribute.WHO)


@part
def sample_verified_kernel(
    sample: Any, t: Any, a: Any, b: Any, seconds: Any, text_start: Any, text_length: Any, buffer: Any, seeds: Any,
    service: Any, texts: Any, i: Any,
) -> None:  # fmt: skip
    """Offer event ``i`` to the sample: only whose account it is, chosen by that alone, as of ACCOUNTS.

    ``t``, ``a`` and ``b`` are its second and the words of its service, ``seconds`` how many the tally spans until now.
    """
    cells = sample.cells
    cell = cell_kernel(sample, t, a, b, np.int64(VERIFIED), seconds, text_start, text_length, buffer, service, i)
    if cell < 0:
        sample.progress[Q_LEFT_OUT] += 1
        return
    cells[cell, S_TOTAL] += 1
    who = attribute_kernel(texts, seeds, text_start, text_length, buffer, T_ACCOUNT, i)
    priority = hash_words_kernel(seeds, ZERO, ZERO, who)
    if is_below_kernel(priority, cells[cell, S_LEVEL]):
        keep_account_kernel(sample, cell, priority, who)


@inlined
def keep_account_kernel(sample: Any, cell: Any, priority: Any, who: Any) -> None:
    """Add an entry that says whose account it is to a cell, or to its equal there; drop those that are too many then."""
    equal, entries = find_equal_kernel(sample, cell, priority), sample.entries
    if equal >= 0:
        entries[np.int64(sample.place[cell, equal]), E_WEIGHT] += 1
        return
    entry = put_entry_kernel(sample, cell, priority)
    for column in range(E_IP_HIGH, ENTRY_WORDS):
        entries[entry, column] = 0
    entries[entry, E_WHO] = np.int64(who)
    for attribute in range(TEXTS):
        sample.entry_text[entry, attribute] = -1
    while sample.cells[cell, G_COUNT] > KEPT_MAX:
        raise_level_kernel(sample, cell)
