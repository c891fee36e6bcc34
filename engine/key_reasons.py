"""What stood out of a key, in words and in numbers."""

from __future__ import annotations

import math

import numpy as np

from detectors.kernels.key_features import (
    F_BUSY,
    F_ERRORS,
    F_HOUR,
    F_NETS,
    F_NEW_AGENTS,
    F_NEW_COUNTRIES,
    F_NEW_MODELS,
    F_NEW_NETS,
    F_REQUESTS,
    F_TOKENS_IN,
    F_TOKENS_OUT,
    V_ERRORS,
    V_REQUESTS,
    V_TOKENS_IN,
    V_TOKENS_OUT,
    WILD,
    WILD_ERRORS,
)
from detectors.learning.calibration import DAY_S, Calibration
from detectors.learning.key_abuse import KeyAbuse
from detectors.learning.key_state import FEATURE_NAMES, WINDOW_S, WOKEN, Judged
from schemas.columns import I64

NEW = (F_NEW_NETS, F_NEW_COUNTRIES, F_NEW_AGENTS, F_NEW_MODELS)
ONE = {F_NEW_NETS: "new network", F_NEW_COUNTRIES: "new country", F_NEW_AGENTS: "new user agent"}
NAMED = 3
"""So many things that stood out are named …"""
NAMED_FROM = 1.0
"""… if they are so many standard deviations off."""


def sentence(value: str, model: KeyAbuse, judged: Judged, index: int, values: I64, seconds: int) -> str:
    """One sentence that says what stood out, beside what is usual."""
    z = judged.z[index]
    chosen = [f for f in np.argsort(-z, kind="stable")[:NAMED].tolist() if z[f] >= NAMED_FROM] or [int(z.argmax())]
    usual = model.levels.mean[judged.ids[index], 0]
    woke = [_woke(int(judged.slept[index]))] if judged.slept[index] else []
    said = woke + [_said(f, float(judged.features[index, f]), float(usual[f]), values) for f in chosen]
    return f"API key {value} is used otherwise than usual in {seconds} seconds: {', '.join(said)}"


def _woke(slept: int) -> str:
    return f"used again after {slept * WINDOW_S // DAY_S} days"


def _said(f: int, feature: float, usual: float, values: I64) -> str:
    requests = max(int(values[V_REQUESTS]), 1)
    if f == F_REQUESTS:
        return f"{requests:,} requests (usually {_counted(usual, WILD):,.0f})"
    if f == F_ERRORS:
        return f"{int(values[V_ERRORS]):,} failing requests (usually {_counted(usual, WILD_ERRORS):,.0f})"
    if f in (F_TOKENS_IN, F_TOKENS_OUT):
        what, total = ("input", int(values[V_TOKENS_IN])) if f == F_TOKENS_IN else ("output", int(values[V_TOKENS_OUT]))
        return f"{total / requests:,.0f} {what} tokens a request (usually {math.exp(usual):,.0f})"
    if f == F_NEW_MODELS:
        return f"asks for {'a model' if feature == 1 else f'{feature:.0f} models'} it never used (usually {usual:.1f})"
    if f in NEW:
        return f"{feature:.0f} {ONE[f] if feature == 1 else FEATURE_NAMES[f]} (usually {usual:.1f})"
    if f == F_NETS:
        return f"about {math.expm1(feature):.0f} networks (usually {math.expm1(max(usual, 0.0)):.0f})"
    if f == F_HOUR:
        return "at an hour at which it hardly does anything"
    assert f == F_BUSY
    return f"{feature:.0%} of its last windows busy (usually {usual:.0%})"


def _counted(feature: float, wild: float) -> float:
    """Of how many a feature is made."""
    return (math.sinh(max(feature, 0.0) * wild / 2) / wild) ** 2


def evidence(
    model: KeyAbuse, judged: Judged, index: int, calibration: Calibration, observed: float
) -> tuple[tuple[str, int | float | str], ...]:  # fmt: skip
    """Numbers for whoever looks: each feature with its distance, the score, its limits, how rare it is, and how many seconds of
    the last day (whole hours) were left out of what is learned of the key."""
    found: list[tuple[str, int | float | str]] = []
    for f, name in enumerate(FEATURE_NAMES):
        if f in NEW and math.isfinite(judged.features[index, f]):
            found.append((name, round(float(judged.features[index, f]))))
        found.append((f"z {name}", round(float(judged.z[index, f]), 2)))
    if judged.slept[index]:
        found += [("days not used", int(judged.slept[index]) * WINDOW_S // DAY_S), ("z used again", WOKEN)]
    found += [
        ("z sum", round(float(judged.total[index]), 2)), ("score", round(float(judged.score[index]), 2)),
        ("sum of scores", round(float(judged.held[index]), 2)), ("limit", round(calibration.notify, 2)),
        ("cold", "yes" if calibration.cold else "no" if calibration.whole else "partly"),
    ]  # fmt: skip
    frozen = int(model.frozen[judged.ids[index]].sum())
    if frozen:
        found.append(("frozen_s", frozen * WINDOW_S))
    per_day = calibration.per_day(observed)
    if per_day is not None:
        found.append(("times a day", float(f"{per_day:.2g}")))
    return tuple(found)
