"""Put down in the sample who was verified: an entry of its own kind, because nobody asked for anything."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.kernels.blocks import T_ACCOUNT
from detectors.kernels.hashing import hash_words_kernel
from detectors.kernels.sample_table import Q_LEFT_OUT, cell_kernel
from detectors.kernels.sampling import ZERO, attribute_kernel, offer_kernel
from schemas.compiled import part
from schemas.sample import VERIFIED


@part
def sample_verified_kernel(
    sample: Any, t: Any, a: Any, b: Any, seconds: Any, text_start: Any, text_length: Any, buffer: Any, seeds: Any,
    service: Any, texts: Any, i: Any,
) -> None:  # fmt: skip
    """Offer event ``i`` to the sample: only whose account it is, chosen by that alone, as of ACCOUNTS.

    ``t``, ``a`` and ``b`` are its second and the words of its service, ``seconds`` how many the tally spans until now.
    """
    cell = cell_kernel(sample, t, a, b, np.int64(VERIFIED), seconds, text_start, text_length, buffer, service, i)
    if cell < 0:
        sample.progress[Q_LEFT_OUT] += 1
        return
    who = attribute_kernel(texts, seeds, text_start, text_length, buffer, T_ACCOUNT, i)
    priority = hash_words_kernel(seeds, ZERO, ZERO, who)
    offer_kernel(sample, cell, priority, i, np.int64(who), np.int64(0), np.int64(0))
