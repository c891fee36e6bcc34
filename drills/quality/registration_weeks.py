"""Weeks of registrations as rows, honest and hostile, for the study of what finds floods of them.

Traffic of months is too much to be made as requests. This makes what a judge would have of it, registration by registration,
with the seasons, names and mail domains of drills, and leaves everything behind that to the product's own code. Attacks last
ten minutes at a share of the mean rate, and differ in what they do not bother to imitate.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.kernels.names import DIGIT, OTHER, SURPRISE_SCALE, SURPRISES, SYMBOLS, symbol_of
from detectors.learning.floods import STEP_S
from detectors.learning.marks import Attribute, Rows
from drills.columns import generator
from drills.run import START_S
from drills.service.season import Season
from drills.service.words import (
    DOMAINS_DISPOSABLE,
    DOMAINS_FIRMS,
    DOMAINS_USUAL,
    FIRST_BOT_NAME,
    FIRST_DISPOSABLE,
    FIRST_FIRM,
    NAMES,
    NAMES_PER_KIND,
)

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
DAY_STEPS = 86_400 // STEP_S
FIRST_STEP = START_S // STEP_S
PER_STEP = 1.0
"""Registrations in ten seconds, on average over a week: 360 an hour."""
ATTACK_STEPS = 60
AGENTS, COUNTRIES = 30, 40
RELEASE_DAYS = 9
"""So often a browser's new version begins to take over."""
HOSTED_SHARE, DISPOSABLE_SHARE, FIRM_SHARE, REFUSED_SHARE = 0.02, 0.03, 0.26, 0.07
HOMES, SHARED = 600_000, 9000
"""Networks of homes, and those that many share, as drills have them (`drills.service.newcomers`) …"""
SHARED_SHARE, TWICE_SHARE, TWICE_ROWS = 0.26, 0.03, 1080.0
"""… from which so many register, and so many from where somebody did hours before: so many registrations ago, on average."""
CAMPAIGN_FACTOR, CAMPAIGN_STEPS = 4.0, 720
"""Each Tuesday morning marketing brings so many times the usual for two hours."""
CAMPAIGN_AT = DAY_STEPS + 32_400 // STEP_S


def _of_names() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    surprise, digits = [], []
    for name in NAMES:
        symbols = [OTHER, *(symbol_of(byte) for byte in name.encode()), OTHER]
        pairs = itertools.pairwise(symbols)
        bits = sum(int(SURPRISES[one * SYMBOLS + other]) for one, other in pairs) // (len(name) + 1)
        surprise.append(bits / SURPRISE_SCALE)
        digits.append(sum(symbol == DIGIT for symbol in symbols) / len(name))
    return np.array(surprise), np.array(digits)


SURPRISE, DIGITS = _of_names()
LISTED = np.zeros(FIRST_DISPOSABLE + len(DOMAINS_DISPOSABLE), np.bool_)
LISTED[FIRST_DISPOSABLE::2] = True
"""Which mail domains are on the list of disposable ones: half of them, the others are newer than it."""


def _zipf(random: np.random.Generator, many: int, count: int, power: float = 1.0) -> I64:
    weights = np.cumsum(1 / np.arange(1, many + 1) ** power)
    found: I64 = np.searchsorted(weights, random.random(count) * weights[-1], "right").astype(np.int64)
    return found


def _networks(random: np.random.Generator, count: int) -> I64:
    """Those that people register from, one after the other."""
    kind = random.random(count)
    found = 1 + SHARED + random.integers(0, HOMES, count)
    found[kind < SHARED_SHARE] = 1 + _zipf(random, SHARED, int((kind < SHARED_SHARE).sum()))
    twice = np.flatnonzero(kind > 1 - TWICE_SHARE)
    before = twice - 1 - random.exponential(TWICE_ROWS, len(twice)).astype(np.int64)
    found[twice[before >= 0]] = found[before[before >= 0]]
    return found


def people(random: np.random.Generator, step: I64) -> Rows:
    """Registrations as people make them, in these steps."""
    count = len(step)
    kind = random.random(count)
    domain = _zipf(random, len(DOMAINS_USUAL), count)
    firm = FIRST_FIRM + random.integers(0, len(DOMAINS_FIRMS), count)
    throw_away = FIRST_DISPOSABLE + random.integers(0, len(DOMAINS_DISPOSABLE), count)
    domain = np.where(kind < FIRM_SHARE, firm, np.where(kind > 1 - DISPOSABLE_SHARE, throw_away, domain))
    day = (step - FIRST_STEP) / DAY_STEPS
    release = np.floor(day / RELEASE_DAYS)
    updated = random.random(count) < 0.35 * (day / RELEASE_DAYS - release)
    agent = np.where(updated, 1000 + release.astype(np.int64), _zipf(random, AGENTS, count))
    hosted = random.random(count) < HOSTED_SHARE
    network = np.where(hosted, 10**6 + random.integers(0, 3000, count), _networks(random, count))
    name = random.integers(0, NAMES_PER_KIND, count)
    asn = np.where(hosted, 500 + network % 40, 1 + network % 400)
    words = np.stack([agent + 1, 1 + _zipf(random, COUNTRIES, count), domain + 1, network, asn, np.zeros(count, np.int64)], 1)
    refused = random.random(count) < REFUSED_SHARE
    return Rows(step, np.ones(count), words, SURPRISE[name], DIGITS[name], hosted, LISTED[domain], refused)


def honest(seed: int, days: int, spread: float = 0.0) -> Rows:
    """Weeks of them, with a campaign each Tuesday.

    ``spread``: the standard deviation of the logarithm of a day's number, beside what hours differ by.
    """
    random = generator(seed, 9700, 0)
    steps = np.arange(days * DAY_STEPS) + FIRST_STEP
    season = Season(seed, "people")
    minutes = np.array([season.level(int(cell)) for cell in range(FIRST_STEP // 6, FIRST_STEP // 6 + days * 1440)])
    rate = PER_STEP * np.repeat(minutes, 6)
    rate *= np.repeat(np.exp(spread * generator(seed, 9720, 0).standard_normal(days)), DAY_STEPS)
    of_week = np.arange(len(steps)) % (7 * DAY_STEPS)
    rate *= np.where((of_week >= CAMPAIGN_AT) & (of_week < CAMPAIGN_AT + CAMPAIGN_STEPS), CAMPAIGN_FACTOR, 1.0)
    return people(random, np.repeat(steps, random.poisson(rate)))


USED_SHARE, USED_WEEKEND, USED_CAMPAIGN = 0.64, -0.04, -0.12
"""Of people's new accounts so many are ever used; of those made on weekends, and by a campaign's visitors, fewer."""
USED_RANGE = 0.4, 0.7
FIRST_USE_MU, FIRST_USE_SIGMA = 6.2, 1.6
"""Of the logarithm of seconds from a registration to the first request: eight minutes for half, more than six hours for 1 %,
more than an hour for a tenth."""


def shares_used(seed: int, days: int, spread: float) -> F64:
    """f64[days * DAY_STEPS]: how many of the accounts made in a step are ever used.

    Args:
        spread: the standard deviation of whole days, beside weekends and campaigns; hours differ by half of it.
    """
    random = generator(seed, 9710, 0)
    day = np.repeat(random.normal(0, spread, days), 24)
    hours = day + random.normal(0, spread / 2, 24 * days)
    of_day = (FIRST_STEP // DAY_STEPS + np.arange(24 * days) // 24 - 4) % 7
    hours += USED_SHARE + USED_WEEKEND * (of_day >= 5)
    shares = np.repeat(hours, DAY_STEPS // 24)
    of_week = np.arange(len(shares)) % (7 * DAY_STEPS)
    shares += USED_CAMPAIGN * ((of_week >= CAMPAIGN_AT) & (of_week < CAMPAIGN_AT + CAMPAIGN_STEPS))
    found: F64 = np.clip(shares, *USED_RANGE)
    return found


def first_uses(random: np.random.Generator, shares: F64) -> F64:
    """f64[n]: seconds until accounts are used for the first time; infinite where they never are."""
    lag_s = random.lognormal(FIRST_USE_MU, FIRST_USE_SIGMA, len(shares))
    found: F64 = np.where(random.random(len(shares)) < shares, lag_s, np.inf)
    return found


VERIFIED_SHARE = 0.85
VERIFIED_MU, VERIFIED_SIGMA = 5.2, 1.3
"""Of the logarithm of seconds until people confirm their mail address: three minutes for half, half an hour for 95 %."""


def verifications(random: np.random.Generator, seed: int, days: int, spread: float, steps: I64) -> F64:
    """f64[n]: seconds until accounts that were made in these steps are verified; infinite where they never are.

    Args:
        spread: the standard deviation of the share from day to day.
    """
    shares = np.clip(VERIFIED_SHARE + generator(seed, 9720, 0).normal(0, spread, days), 0.0, 1.0)
    lag_s = random.lognormal(VERIFIED_MU, VERIFIED_SIGMA, len(steps))
    found: F64 = np.where(random.random(len(steps)) < shares[(steps - FIRST_STEP) // DAY_STEPS], lag_s, np.inf)
    return found


Disguise = Callable[[np.random.Generator, Rows], None]


def _names(random: np.random.Generator, rows: Rows) -> None:
    name = FIRST_BOT_NAME + random.integers(0, NAMES_PER_KIND, len(rows.step))
    rows.surprise, rows.digits = SURPRISE[name], DIGITS[name]


def _disposable(random: np.random.Generator, rows: Rows) -> None:
    domain = FIRST_DISPOSABLE + random.integers(0, len(DOMAINS_DISPOSABLE), len(rows.step))
    rows.words[:, Attribute.DOMAIN], rows.disposable = domain + 1, LISTED[domain]


def _unlisted(random: np.random.Generator, rows: Rows) -> None:
    domain = FIRST_DISPOSABLE + 1 + 2 * random.integers(0, len(DOMAINS_DISPOSABLE) // 2, len(rows.step))
    rows.words[:, Attribute.DOMAIN], rows.disposable = domain + 1, LISTED[domain]


def _hosted(networks: int) -> Disguise:
    def fill(random: np.random.Generator, rows: Rows) -> None:
        rows.hosted = np.ones(len(rows.step), np.bool_)
        rows.words[:, Attribute.NETWORK] = 2 * 10**6 + random.integers(0, networks, len(rows.step))

    return fill


def _program(random: np.random.Generator, rows: Rows) -> None:
    rows.words[:, Attribute.AGENT] = 9000


def _abroad(random: np.random.Generator, rows: Rows) -> None:
    rows.words[:, Attribute.COUNTRY] = 200 + random.integers(0, 4, len(rows.step))


def _own_domain(random: np.random.Generator, rows: Rows) -> None:
    rows.words[:, Attribute.DOMAIN] = 7000 + random.integers(0, 3, len(rows.step))
    rows.disposable = np.zeros(len(rows.step), np.bool_)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of attack: what differs from people."""

    name: str
    number: int
    differs: tuple[Disguise, ...]


KINDS = (
    Kind("obvious", 1, (_names, _disposable, _hosted(4), _program)),
    Kind("disposable", 2, (_disposable,)),
    Kind("unlisted", 3, (_unlisted,)),
    Kind("hosting", 4, (_hosted(48),)),
    Kind("names", 5, (_names,)),
    Kind("program", 6, (_program,)),
    Kind("abroad", 7, (_abroad, _own_domain)),
    Kind("mimic", 8, ()),
)
STRENGTHS = (0.3, 1.0, 3.0)


def attack(kind: Kind, seed: int, number: int, strength: float, first: int, normal_per_step: float = PER_STEP) -> Rows:
    """Ten minutes of it."""
    random = generator(seed, 9800 + kind.number, 10 * number + STRENGTHS.index(strength))
    counts = random.poisson(strength * normal_per_step, ATTACK_STEPS)
    rows = people(random, np.repeat(np.arange(ATTACK_STEPS) + first, counts))
    for change in kind.differs:
        change(random, rows)
    return rows
