"""What every windowed detector is made of: rules over sliding windows, laid out for the kernels.

A detector says what its configured rules mean as `WindowRule`s, and how a crossing reads as a sentence. All of them are
judged in one pass over the same windows (`detectors.kernels.judging`): a rule compares the **sum** of a measure with a
limit, the **share** that a sum has of another, or how many **distinct** items a key was seen with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from detectors.kernels.blocks import OF_KEYS, WANT_LISTED, WANT_MODELS, WANT_REST, WANT_SAMPLE
from detectors.kernels.long_windows import E_CELLS, MINUTE_S, NO_WHOLE, SECONDS_MIN, LongRules
from detectors.kernels.machine import LANES
from detectors.kernels.windows import BINS_SHIFT, DISTINCT, NO_LIMIT, RATIO, SUM, Rules
from detectors.lists import Addresses, lay_out_lists
from schemas.config import Action, Section, dimension_of
from schemas.fields import COMMON, DIMENSIONS, MEASURES, Dimension, Item, Measure

BINS = 64
NEVER_CROSSED = 1 << 62
DISTINCT_MAX = 150
"""A larger number cannot be told from others by 64 bins: with so many items 58 are taken, and one bin more or less is ten
items."""


def estimate(bins: int) -> int:
    """How many items fill ``bins`` of 64 on average (linear counting: Whang, Vander-Zanden, Taylor 1990).

    >>> [estimate(bins) for bins in (1, 8, 32, 58, 64)]
    [1, 9, 44, 152, 266]
    """
    return round(-BINS * math.log1p(-min(bins, BINS - 1) / BINS))


def bins_of(limit: int) -> int:
    """The most bins whose estimate is within a limit."""
    return max(bins for bins in range(BINS + 1) if estimate(bins) <= limit)


class DetectorSection(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every detector can be told."""

    enabled: bool = True
    """False: it decides nothing and costs nothing."""
    dry_run: bool = False
    """What it decides is published, marked so, and never enforced."""


class RuleSection(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every rule says of what crosses it."""

    action: Action = "throttle"
    """What an edge is asked to do. ``notify``: nothing, but people are told."""
    severity: Annotated[int, msgspec.Meta(ge=1, le=10)] = 5
    """10 is the worst. Where rules cross at once, the severer is decided first."""
    confidence: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.9
    """How often what crosses is really an attack, as far as is known; published with the finding."""


@dataclass(frozen=True, slots=True)
class WindowRule:
    """One rule of a detector, as it is judged."""

    detector: Detector
    configured: Section
    """What it was made of; two rules are the same if theirs are."""
    dry_run: bool
    dimension: Dimension
    value: Measure | Item
    """What is summed, or the items that are counted."""
    window_s: int
    limit: int
    """Up to this much is allowed. Of items at most `DISTINCT_MAX`."""
    action: Action
    severity: int
    confidence: float
    of: Measure | None = None
    """What ``value`` must be a share of …"""
    share: float = 0.0
    """… and which, at least; ``limit`` then is how much there must be before a share means anything."""
    label: str = ""
    """What is measured, in a finding; empty: the value's own name."""
    words: tuple[str, ...] = ()
    """Of user agents: those that hold one are listed."""
    scale: int = 1
    """What is observed is told in so many, and so is the limit."""
    ttl_s: int | None = None
    """How long what comes of it holds, however often it comes back. None: as the policy has it."""
    listed: Addresses | None = None
    """Only of addresses on this list."""
    evidence: tuple[tuple[str, str], ...] = ()
    """What else a reader of a finding has to know to come to the same: digests of lists."""
    alone: bool = False
    """What others say of the target changes nothing, and this changes nothing of theirs: it needs nobody, or it is told when
    seconds that come later have been decided, and voices would hang on the cut."""
    exact: bool = False
    """What an edge is asked to do is just the action, however often the target has come back: a playbook's step."""
    for_ever: bool = False
    """What comes of it does not end by itself."""
    whole_from: int = 0
    """The first second whose window is known as a whole: the rule came later, and what lies before was not kept for it. It
    decides nothing until then."""
    trial: bool = False
    """It is tried beside the rules in force, so it has no voice in what they do."""

    @property
    def kind(self) -> int:
        """SUM, RATIO or DISTINCT."""
        return DISTINCT if isinstance(self.value, Item) else SUM if self.of is None else RATIO

    @property
    def is_long(self) -> bool:
        """Its window is kept in minutes (`detectors.kernels.long_windows`), and not in seconds."""
        return self.window_s > SECONDS_MIN and self.kind != DISTINCT

    def first_tick(self, tick: int) -> int:
        """The first second of the window that ends with ``tick``."""
        if self.is_long:
            return (tick // MINUTE_S + 1) * MINUTE_S - self.window_s
        return tick + 1 - self.window_s

    @property
    def measure(self) -> str:
        """What is measured, as findings name it."""
        return self.label or self.value.label

    def observed(self, counted: int) -> int:
        """What a crossing's number means."""
        if self.kind == DISTINCT:
            return min(estimate(counted & (1 << BINS_SHIFT) - 1), counted >> BINS_SHIFT)
        return counted // self.scale

    @property
    def told_limit(self) -> int:
        """The limit in the same terms."""
        return self.limit // self.scale

    def plain(self) -> list[Any]:
        """For a saved state: two rules decide the same if this is the same."""
        return [
            self.detector.name, self.detector.version, int(self.dimension), self.value.label, self.window_s, self.limit,
            None if self.of is None else self.of.label, round(1000 * self.share),
            *(() if self.listed is None else (self.label,)),
        ]  # fmt: skip


Profile = Literal["web", "api"]
MakeRules = Callable[[Any, Profile], Sequence[WindowRule]]
Describe = Callable[[WindowRule, str, int], str]


@dataclass(frozen=True, slots=True)
class Detector:
    """A windowed detector; its module has it as ``DETECTOR``, and is registered by that (`detectors.registry`)."""

    name: str
    """In configuration (``[detectors.NAME]``), findings and ids."""
    version: int
    """Raised when it decides otherwise on the same events."""
    section: type[DetectorSection]
    """Its configuration; it has ``enabled`` and ``dry_run``."""
    rules: MakeRules
    """(section, profile): its rules."""
    describe: Describe
    """(rule, whom, observed): one sentence with what was observed, in how long, and what would have been allowed."""
    samples: bool = False
    """Whether it needs whole events (`schemas.sample`), which cost time."""
    dimensions: tuple[Dimension, ...] = ()
    """Whose rows it looks at itself, be there a rule about them or none."""
    items: tuple[Item, ...] = ()
    """Of which it looks at the sets in those rows."""
    models: Callable[[Any], bool] | None = None
    """(section): whether it looks at the models that API keys ask for."""
    fixed: tuple[str, ...] = ()
    """Settings that hold from the start only, and no change on the way: they name files of a host, or observers need them."""


def judged(
    detector: Detector, section: DetectorSection, rule: RuleSection, dimension: str, value: Measure | Item, window_s: int,
    limit: int, **more: Any,
) -> WindowRule:  # fmt: skip
    """A configured rule as it is judged; ``more`` are the other fields of `WindowRule`."""
    return WindowRule(
        detector, rule, section.dry_run, dimension_of(dimension), value, window_s, limit, rule.action, rule.severity,
        rule.confidence, **more,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """The rules as the kernels take them, and as configured."""

    arrays: Rules
    long: LongRules
    rules: tuple[tuple[WindowRule, ...], ...]
    """By dimension, in the kernels' numbering: those of long windows behind the others."""
    wanted: int
    """Bits of the items that are counted, and of what else costs time (`detectors.kernels.blocks`)."""
    words: tuple[str, ...]
    """Of listed agents."""
    looked_at: tuple[Dimension, ...] = ()
    """Dimensions whose rows some detector wants beside the windows."""

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """Those that at least one rule judges, or a detector looks at."""
        return tuple(Dimension(index) for index, rules in enumerate(self.rules) if rules or index in self.looked_at)

    @property
    def span_s(self) -> int:
        """The longest window that is kept in seconds; 1 without rules."""
        return max((rule.window_s for rules in self.rules for rule in rules if not rule.is_long), default=1)

    @property
    def long_span_s(self) -> int:
        """The longest window of all."""
        return max((rule.window_s for rules in self.rules for rule in rules), default=1)

    def plain(self) -> list[list[Any]]:
        """For a saved state."""
        return [rule.plain() for rules in self.rules for rule in rules]


def lay_out(
    chosen: Sequence[WindowRule], renew_s: int, *, samples: bool = False, looked_at: tuple[Dimension, ...] = (),
    items: tuple[Item, ...] = (), models: bool = False, tick: int | None = None,
) -> WindowPlan:  # fmt: skip
    """Arrays for the kernels of rules that may come in any order, and what is wanted beside them: whole events, and rows of
    dimensions that are ``looked_at`` with sets of ``items``, and of ``models``.

    ``tick``: the first second that they are for; rules whose windows are not whole by then cross nothing.
    """
    every = [tuple(rule for rule in chosen if rule.dimension == index) for index in range(DIMENSIONS)]
    columns = [_columns(rules) for rules in every]
    by_dimension = [tuple(rule for rule in rules if not rule.is_long) for rules in every]
    slow = [tuple(rule for rule in rules if rule.is_long) for rules in every]
    specs = [_specs(rules, held) for rules, held in zip(by_dimension, columns, strict=True)]
    most_columns, most_specs, most_rules = (max(1, *map(len, what)) for what in (columns, specs, by_dimension))
    lanes = -(-most_specs // LANES) * LANES
    many = np.array([len(rules) for rules in by_dimension], np.int64)

    def table(width: int, fill: int = 0) -> Any:
        return np.full((DIMENSIONS, width), fill, np.int64)

    lists = tuple(dict.fromkeys(rule.listed for rule in chosen if rule.listed is not None))
    ranges = lay_out_lists(lists)
    arrays = Rules(
        column_count=np.array([len(held) for held in columns], np.int64),
        sum_count=np.array([sum(isinstance(value, Measure) for value in held) for held in columns], np.int64),
        tracked=table(most_columns), span=np.array([_span(rules) for rules in every]),
        spec_count=np.array([len(some) for some in specs], np.int64),
        spec_first=np.array([min(some, default=0) for some in specs]), spec_lanes=table(lanes),
        spec_least=table(lanes, NO_LIMIT), tick_count=np.zeros(DIMENSIONS, np.int64), tick_column=table(most_rules),
        tick_least=table(most_rules, NO_LIMIT), rule_count=many,
        union_count=np.zeros(DIMENSIONS, np.int64), union_column=table(most_rules), union_limit=table(most_rules),
        rule_kind=table(most_rules),
        rule_column=table(most_rules),
        rule_spec=table(most_rules, -1), rule_window=table(most_rules, 1), rule_limit=table(most_rules),
        rule_items=table(most_rules), rule_of_column=table(most_rules), rule_of_spec=table(most_rules, -1),
        rule_share=table(most_rules),
        rule_union=table(most_rules), rule_list=table(most_rules, -1), list_start=ranges.start, list_low=ranges.low,
        list_high=ranges.high, busy_least=np.zeros(1, np.int64),
        unions=np.array([max(sum(r.kind == DISTINCT for r in rules) for rules in by_dimension)], np.int64),
        renew_s=np.array([renew_s], np.int64),
    )  # fmt: skip
    for dimension, rules in enumerate(by_dimension):
        held, sums = columns[dimension], specs[dimension]
        for index, value in enumerate(held):
            arrays.tracked[dimension, index] = value if isinstance(value, Measure) else MEASURES + value
        arrays.spec_lanes[dimension, : len(sums)] = -1
        for index, rule in enumerate(rules):
            column = _place(held, rule.value)
            arrays.rule_kind[dimension, index], arrays.rule_column[dimension, index] = rule.kind, column
            arrays.rule_window[dimension, index] = rule.window_s
            if rule.listed is not None:
                arrays.rule_list[dimension, index] = lists.index(rule.listed)
            arrays.rule_limit[dimension, index] = bins_of(rule.limit) if rule.kind == DISTINCT else rule.limit
            if rule.kind == DISTINCT:
                union = arrays.union_count[dimension]
                arrays.rule_union[dimension, index], arrays.rule_items[dimension, index] = union, rule.limit
                arrays.union_column[dimension, union], arrays.union_limit[dimension, union] = column, bins_of(rule.limit)
                arrays.union_count[dimension] += 1
            elif rule.window_s > 1:
                spec = sums.index(column)
                arrays.rule_spec[dimension, index] = spec
                arrays.spec_least[dimension, spec] = min(rule.limit, arrays.spec_least[dimension, spec])
            else:
                _guard_tick(arrays, dimension, column, rule.limit)
            if rule.of is not None:
                whole = _place(held, rule.of)
                arrays.rule_of_column[dimension, index] = whole
                arrays.rule_share[dimension, index] = round(1000 * rule.share)
                if rule.window_s > 1:
                    arrays.rule_of_spec[dimension, index] = sums.index(whole)
    wanted = sum({*(1 << rule.value for rule in chosen if isinstance(rule.value, Item)), *(1 << item for item in items)})
    for item in Item:
        whose = {rule.dimension for rule in chosen if rule.value is item} | ({*looked_at} if item in items else set())
        if whose == {Dimension.API_KEY}:
            wanted |= 1 << OF_KEYS + item
    if any(rule.value is Measure.LISTED for rule in chosen):
        wanted |= 1 << WANT_LISTED
    rest = any(value >= COMMON for dimension, held in enumerate(columns) for value in arrays.tracked[dimension, : len(held)])
    if rest or items:
        wanted |= 1 << WANT_REST
    if samples:
        wanted |= 1 << WANT_SAMPLE
    if models:
        wanted |= 1 << WANT_MODELS
    words = tuple(sorted({word for rule in chosen for word in rule.words}))
    rules_of = tuple((*short, *long) for short, long in zip(by_dimension, slow, strict=True))
    long = _lay_out_long(slow, columns, [len(rules) for rules in by_dimension])
    for dimension, rules in enumerate(rules_of):
        many_short = len(by_dimension[dimension])
        for index, rule in enumerate(rules):
            if tick is not None and rule.whole_from > tick:
                limits, at = (arrays.rule_limit, index) if index < many_short else (long.rule_limit, index - many_short)
                limits[dimension, at] = BINS if rule.kind == DISTINCT else NEVER_CROSSED
    return WindowPlan(arrays, long, rules_of, wanted, words, looked_at)


def _guard_tick(arrays: Rules, dimension: int, column: int, limit: int) -> None:
    """A row may cross a rule about one second when its column has more than the least limit of one."""
    many = int(arrays.tick_count[dimension])
    known = arrays.tick_column[dimension, :many].tolist()
    at = known.index(column) if column in known else many
    arrays.tick_count[dimension] = max(many, at + 1)
    arrays.tick_column[dimension, at] = column
    arrays.tick_least[dimension, at] = min(limit, arrays.tick_least[dimension, at])


def _span(rules: Sequence[WindowRule]) -> int:
    """For how long rows are kept: where all windows are long, until their second closes; 0 without rules."""
    return max((1 if rule.is_long else rule.window_s for rule in rules), default=0)


def _lay_out_long(
    by_dimension: Sequence[Sequence[WindowRule]], columns: Sequence[Sequence[Measure | Item]], first: Sequence[int]
) -> LongRules:
    """Arrays of the rules whose windows are kept in minutes; ``first``: how many others come before them."""
    parts = [sorted({_place(held, r.value) for r in rules}) for rules, held in zip(by_dimension, columns, strict=True)]
    wholes = [
        sorted({_place(held, r.of) for r in rules if r.of is not None} - set(counted))
        for rules, held, counted in zip(by_dimension, columns, parts, strict=True)
    ]
    sums = [[*some, *others] for some, others in zip(parts, wholes, strict=True)]
    most_columns, most_rules = max(1, *map(len, sums)), max(1, *map(len, by_dimension))

    def table(width: int, fill: int = 0) -> Any:
        return np.full((DIMENSIONS, width), fill, np.int64)

    long = LongRules(
        minutes=np.array([max((r.window_s // MINUTE_S for r in rules), default=0) for rules in by_dimension], np.int64),
        part_count=np.array([len(some) for some in parts], np.int64),
        column_count=np.array([len(some) for some in sums], np.int64), column=table(most_columns),
        column_at=table(most_columns), column_minutes=table(most_columns, 1),
        rule_count=np.array([len(rules) for rules in by_dimension], np.int64), rule_first=np.array(first, np.int64),
        rule_part=table(most_rules), rule_whole=table(most_rules, NO_WHOLE), rule_minutes=table(most_rules, 1),
        rule_limit=table(most_rules), rule_share=table(most_rules), words=np.array([E_CELLS + most_rules], np.int64),
    )  # fmt: skip
    for dimension, rules in enumerate(by_dimension):
        held, at = columns[dimension], E_CELLS + most_rules
        for index, rule in enumerate(rules):
            long.rule_part[dimension, index] = sums[dimension].index(_place(held, rule.value))
            if rule.of is not None:
                long.rule_whole[dimension, index] = sums[dimension].index(_place(held, rule.of))
            long.rule_minutes[dimension, index], long.rule_limit[dimension, index] = rule.window_s // MINUTE_S, rule.limit
            long.rule_share[dimension, index] = round(1000 * rule.share)
        for index, place in enumerate(sums[dimension]):
            users = [r for r in rules if place in {_place(held, v) for v in (r.value, r.of) if v is not None}]
            minutes = max(rule.window_s // MINUTE_S for rule in users)
            long.column[dimension, index], long.column_minutes[dimension, index] = place, minutes
            long.column_at[dimension, index] = at
            at += minutes
        long.words[0] = max(long.words[0], at)
    return long


def _columns(rules: Sequence[WindowRule]) -> list[Measure | Item]:
    """What rows of a dimension hold: the requests, the measures that are kept as sums, the other measures, then the sets."""
    measures = {rule.value for rule in rules if isinstance(rule.value, Measure)}
    measures |= {rule.of for rule in rules if rule.of is not None}
    measures -= {Measure.REQUESTS}
    kept = measures & _kept([rule for rule in rules if not rule.is_long])
    items = {rule.value for rule in rules if isinstance(rule.value, Item)}
    return [Measure.REQUESTS, *sorted(kept), *sorted(measures - kept), *sorted(items)]


def _kept(rules: Sequence[WindowRule]) -> set[Measure]:
    """What is summed over the longest window."""
    return {value for r in rules if r.window_s > 1 for value in (r.value, r.of) if isinstance(value, Measure)}


def _specs(rules: Sequence[WindowRule], held: Sequence[Measure | Item]) -> list[int]:
    """The column of every sum that is kept: they follow one another."""
    return sorted({_place(held, value) for value in _kept(rules)})


def _place(held: Sequence[Measure | Item], value: Measure | Item) -> int:
    """Where a value is; both kinds are numbers, so that equality would take one for the other."""
    return next(index for index, one in enumerate(held) if one is value)


SUBJECTS = {
    Dimension.IP: "address", Dimension.NET: "network", Dimension.ASN: "autonomous system", Dimension.API_KEY: "API key",
    Dimension.USER_AGENT: "user agent", Dimension.EMAIL_DOMAIN: "mail domain", Dimension.FINGERPRINT: "TLS fingerprint",
}  # fmt: skip
NOUNS = {
    Measure.EVIDENCE: "requests", Measure.REQUESTS: "requests", Measure.NON_ASSET: "requests for other than assets",
    Measure.CLIENT_ERRORS: "failing requests", Measure.AUTH_FAILURES: "failed authentications",
    Measure.LOGIN_FAILURES: "failed logins",
    Measure.SERVER_ERRORS: "server errors", Measure.OWN_DENIALS: "requests that we denied",
    Measure.CANCELLED: "cancelled requests", Measure.DURATION_MS: "milliseconds of work", Measure.BYTES: "bytes",
    Measure.TOKENS_IN: "input tokens", Measure.TOKENS_OUT: "output tokens",
    Measure.MAX_TOKENS: "tokens asked for", Measure.COST_MICRO: "of cost",
    Measure.REGISTRATIONS: "registrations", Measure.BUSY_MS: "milliseconds of occupied slots",
    Measure.LISTED: "requests of listed agents", Measure.WASTED_TOKENS: "input tokens of cancelled requests",
}  # fmt: skip


def seconds_of(rule: WindowRule) -> str:
    """The window in words."""
    if rule.is_long:
        return f"{rule.window_s // MINUTE_S} minutes"
    return "1 second" if rule.window_s == 1 else f"{rule.window_s} seconds"


def whom_of(rule: WindowRule, target: str) -> str:
    """The target in words, with its preposition."""
    dimension = rule.dimension
    whom = f"{SUBJECTS[dimension]} {target}" if dimension in SUBJECTS else f"{dimension.label} {target}"
    return f"{'on' if dimension in (Dimension.ROUTE, Dimension.SERVICE) else 'from'} {whom}"


def amount(rule: WindowRule, number: float) -> str:
    """A number of what a rule sums, as people say it: cost in whole units, and not in millionths."""
    if rule.value is Measure.COST_MICRO:
        return f"{number / 1_000_000:,.2f}"
    return f"{number:,g}" if number % 1 else f"{int(number):,}"


def describe_sum(rule: WindowRule, target: str, observed: int) -> str:
    """A crossing of a plain limit as a sentence."""
    assert isinstance(rule.value, Measure)
    return (
        f"{amount(rule, observed)} {NOUNS[rule.value]} in {seconds_of(rule)} {whom_of(rule, target)}, where "
        f"{amount(rule, rule.told_limit)} are allowed"
    )
