"""``keys``: a key is used otherwise than it ever was: stolen, shared, resold or let loose.

How it decides: of each key there are eleven numbers every five minutes: requests; networks, countries, user agents and
models that it was never seen with; how rare it is at this hour; errors; tokens in and out of a request; networks; how many of
the last windows were busy. Each is compared with what it usually is for this key, drawn to what is usual of all keys while it
is young. Positive distances are added up (and one more for a key that was not used for a month, in its first hour), and the
sum is compared with what it usually is for the key: some are wild by nature. Two limits are read off the past: for ``notify``
one alarm a day over the whole service, for ``throttle`` far rarer than was ever seen (`detectors.learning`). What is not much,
but lasts, is found by the sum of what scores had too much. What only grows can be told before five minutes are over: every
half minute what there is so far is looked at.

Where it fails: a stolen key that is used as its owner uses it, from his own networks, looks like him. A customer who moves to
other networks with another client looks like a thief for a day: people are told, once, and he is slowed down only if he also
asks for far more than ever. Networks are told apart by 64 bins: a key that has dozens has hardly any that are new. Who was
slow to be noticed becomes usual after six hours of suspicion. A judge partition learns for itself; with fewer than a dozen
keys in each it knows little of what is usual of all.

Costs: 1 kB a key, of the busiest and most recent (`keys_max`), and about a microsecond for each key and window; no more than
some nanoseconds an event.

Confidence: `confidence` of a notice, 0.9 of a throttle. Can its evidence be forged? A request that failed its authentication
is no evidence, and no state: only who has the key can make it look stolen, and then it is.

Key: the API key; never its addresses. Quiet time: `quiet_s` for people; a throttle is renewed while it lasts.

Parameters: `KeysSection`.

>>> import numpy as np
>>> from detectors.learning.key_abuse import KeyAbuse
>>> from detectors.learning.key_state import KeyAbuseConfig
>>> model = KeyAbuse(KeyAbuseConfig(keys=1, notify_per_day=1.0, act_per_day=0.01))
>>> key, chance = np.array([0]), np.random.default_rng(1)
>>> for window in range(300):
...     usual = np.array([[20 + chance.integers(5), 0, 9000, 4000, 1, 1, 1, 1]])
...     model.begin(window)
...     model.learn(window, usual, model.judge(window, key, usual), np.ones(1))
>>> stolen = np.array([[40, 0, 20000, 9000, 0b111111, 1, 1, 0b110]])
>>> model.judge(300, key, stolen).z.round(1).tolist()[0]
[1.9, 7.1, 0.0, 0.0, 4.0, -3.5, 0.0, 0.5, 0.5, 3.6, 0.2]

References: OWASP API2:2023 Broken Authentication, LLM10:2025 Unbounded Consumption; Page, Continuous Inspection Schemes (1954);
Siffer et al., Anomaly Detection in Streams with Extreme Value Theory (2017).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from detectors.windowed import Detector, DetectorSection, Profile, WindowRule, seconds_of
from schemas.fields import Dimension, Item

NAME = "keys"
VERSION = 3


class KeysSection(DetectorSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``keys`` detector."""

    dry_run: bool = True
    """Ships dry: look at whom it would have slowed down, then set this to false."""
    notify_per_day: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0
    """Of honest keys people are told so often, over the whole service: half by scores, half by sums."""
    throttle_per_day: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 0.011
    """Honest keys are slowed down so often, over the whole service: once in 90 days."""
    start: Annotated[float, msgspec.Meta(ge=1, le=1000)] = 12.0
    """Before a day is known, from this score on people are told; nobody is slowed down before a week is."""
    keys_max: Annotated[int, msgspec.Meta(ge=64, le=1 << 22)] = 1 << 14
    """Keys with a level of their own, over the whole service: the busiest and most recent. The rest share one."""
    young_windows: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 12
    """Before a key had so many windows of five minutes with requests, nothing is new to it."""
    wakes_days: Annotated[int, msgspec.Meta(ge=1, le=3650)] = 30
    """A key that was not used for so many days wakes: for an hour that speaks against it, but is no alarm alone."""
    change_max: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.0005
    """Standard deviations that a level that knows a week moves in an hour at most: who teaches it slowly is found. 0: no."""
    suspect_s: Annotated[int, msgspec.Meta(ge=300, le=604_800)] = 21_600
    """Nothing is learned of a key under suspicion for so long; then it is its new normal."""
    models: bool = True
    """Whether the models that a key asks for are looked at, at some nanoseconds for each event that names one. Holds from the
    start only."""
    quiet_s: Annotated[int, msgspec.Meta(ge=300, le=604_800)] = 86_400
    """People are told of a key once in so long."""
    severity: Annotated[int, msgspec.Meta(ge=1, le=10)] = 7
    """10 is the worst."""
    confidence: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.6
    """How often a notice is right, as far as is known."""


def _no_rules(section: KeysSection, profile: Profile) -> list[WindowRule]:
    """It compares with what it has learned (`engine.keys`), and not in the windows."""
    return []


def _describe(rule: WindowRule, target: str, observed: int) -> str:
    return f"API key {target} is used otherwise than usual: {observed} in {seconds_of(rule)}, where {rule.limit} is rare"


def _wants_models(section: KeysSection) -> bool:
    return section.models


DETECTOR = Detector(
    NAME, VERSION, KeysSection, _no_rules, _describe, dimensions=(Dimension.API_KEY,),
    items=(Item.NET, Item.COUNTRY, Item.USER_AGENT), models=_wants_models, fixed=("models",),
)  # fmt: skip
