"""verify: mitigations derived once more from the raw records that their evidence names, and compared.

Each source partition is read once. On the way its digests are added up, so that bytes that are not what they were are found
even where no number changed, and its records are decided again by the engine, under the configuration that held. What is not
there any more is said; a number that was not computed again is never called equal.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from detectors.kernels.long_windows import MINUTE_S
from detectors.leaked import NAME as LEAKED
from detectors.registry import window_rules
from engine.config_chain import ConfigChain
from engine.digesting import Digester, digest_between
from engine.embedded import Embedded
from engine.not_counted import LEFT_OUT, NOT_COUNTED, TOO_LATE
from engine.outbox import Decisions
from engine.seeds import Seeds, make_seeds
from replay.verify_reading import Portion, Source
from schemas.config import Config
from schemas.mitigation import OPERATOR, Finding, Mitigation
from schemas.playbooks import PREFIX
from schemas.tally import UNKNOWN_MS

Outcome = Literal["equal", "differs", "cannot", "said"]
Digested = Literal["seeded", "unseeded"]
SECONDS_MAX = 2 * MINUTE_S
"""Windows up to this are of seconds, and all that is counted in one lies in the evidence."""
END = 1 << 62
"""After every offset."""


@dataclass(frozen=True, slots=True)
class Place:
    """Offsets of a source partition whose bytes are not what they were."""

    source: str
    start: int
    end: int


@dataclass(slots=True)
class Verified:
    """What became of one mitigation. Nobody's name is in it: whoever may see that looks the id up."""

    id: str
    detector: str
    target_type: str
    tick: int
    outcome: Outcome
    numbers: dict[str, tuple[object, object]] = field(default_factory=dict)
    """What differs: as it was recorded, and as it was derived."""
    places: list[Place] = field(default_factory=list)
    equal: list[Place] = field(default_factory=list)
    """Whose bytes are what they were."""
    missing: list[str] = field(default_factory=list)
    """What could not be derived, and why."""
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """Of a run."""

    verified: list[Verified]
    records: int
    bytes_read: int
    complete: bool
    """Every source was read from its beginning."""
    late: int

    @property
    def counts(self) -> dict[str, int]:
        """By outcome."""
        return {name: sum(one.outcome == name for one in self.verified) for name in ("equal", "differs", "cannot", "said")}


class _Sums:
    """The sum of digests of one source, at the offsets that somebody asks about."""

    def __init__(self, key: Seeds, wanted: set[int], first: int) -> None:
        self._wanted, self._digester = sorted(wanted), Digester(key.digest, 0)
        self._next = bisect_left(self._wanted, first)
        self._at = first
        self.at: dict[int, int] = {}

    def add(self, portion: Portion) -> None:
        """What comes next."""
        while self._next < len(self._wanted) and self._wanted[self._next] <= portion.end:
            upto = self._wanted[self._next]
            portion.digest(self._digester, self._at, upto)
            self._at, self.at[upto] = upto, self._digester.total
            self._next += 1
        portion.digest(self._digester, self._at, portion.end)
        self._at = max(self._at, portion.end)

    def begin(self) -> None:
        """Offsets up to where reading begins need no byte."""
        while self._next < len(self._wanted) and self._wanted[self._next] <= self._at:
            self.at[self._wanted[self._next]] = 0
            self._next += 1


def verify(
    config: Config,
    records: list[Mitigation],
    sources: dict[str, Source],
    absent: list[str],
    *,
    whole: bool = False,
    history: ConfigChain | None = None,
    feedback: Sequence[bytes] = (),
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Derive mitigations again.

    Args:
        config: of the deployment.
        records: the mitigations, as they were published; of an id all that there are.
        sources: where their evidence lies, by the names that it has there.
        absent: sentences about evidence that is not here at all.
        whole: read all that is kept, also where the evidence alone would do.
        history: the configuration as it was.
        feedback: what operators said, record by record.

    Raises:
        SourceError: a source cannot be read. BrokerError: Kafka cannot.
    """
    ours = make_seeds(config)
    run = _Run(config, records, sources, ours, history)
    if run.derivable:
        run.read(whole=whole or any(not run.rests_on_evidence(one) for one in run.derivable), feedback=feedback, tell=progress)
    by_id: dict[str, list[Mitigation]] = {}
    for one in records:
        by_id.setdefault(one.id, []).append(one)
    verified = [_verified(run, _shown(some), absent) for some in by_id.values()]
    return Report(verified, len(records), run.bytes_read, run.complete, run.late)


def _shown(some: list[Mitigation]) -> Mitigation:
    """Of the records of one id the one to be verified: its first final one, which decided; else the early one."""
    finals = [one for one in some if one.stage == "final" and one.state != "lifted"]
    return min(finals or some, key=lambda one: (one.tick, one.issued_at))


class _Run:
    """One pass over the sources."""

    def __init__(
        self, config: Config, records: list[Mitigation], sources: dict[str, Source], seeds: Seeds, history: ConfigChain | None
    ) -> None:
        self.config, self.sources, self.seeds, self.history = config, sources, seeds, history
        self._windowed = {rule.detector.name for rule in window_rules(config)}
        self.derivable = [one for one in records if not is_said(one) and one.evidence.offsets]
        self._ids, self._findings = {one.id for one in self.derivable}, {one.finding for one in self.derivable}
        self.mitigations: dict[tuple[str, str], Mitigation] = {}
        """By id and finding, the final ones."""
        self.ids: set[str] = set()
        self.findings: dict[str, Finding] = {}
        self.sums: dict[str, dict[Digested, dict[int, int]]] = {}
        self.read_from: dict[str, int] = {}
        self.reached: dict[str, int] = {}
        self.bytes_read, self.late = 0, 0
        self.complete = True

    def rests_on_evidence(self, one: Mitigation) -> bool:
        """What its evidence names is all that its numbers were made of."""
        return one.detector in self._windowed and one.window.end - one.window.start <= SECONDS_MAX

    def read(self, *, whole: bool, feedback: Sequence[bytes], tell: Callable[[int], None] | None) -> None:
        """Read everything once."""
        engine = Embedded(self.config, seeds=self.seeds, history=self.history)
        for said in feedback:
            engine.receive(said)
        wanted = self._boundaries()
        keys: dict[Digested, Seeds] = {"seeded": self.seeds, "unseeded": Seeds("", configured=False)}
        last_ms = 1000 * (max(one.window.end for one in self.derivable) + self.config.time.lateness_s)
        sums: dict[str, dict[Digested, _Sums]] = {}
        streams = {}
        for name, source in self.sources.items():
            if not whole and name not in wanted:
                continue
            start = source.first if whole else max(source.first, min(wanted[name]))
            self.read_from[name] = self.reached[name] = start
            self.complete &= start <= source.begins_at
            came = {one.evidence.digested for one in self.derivable if name in one.evidence.digests}
            kinds = [kind for kind in keys if kind in came]
            sums[name] = {kind: _Sums(keys[kind], wanted.get(name, set()), start) for kind in kinds}
            for some in sums[name].values():
                some.begin()
            engine.open(name, source.bound_ms(), start)
            streams[name] = source.portions(start, max(wanted.get(name, {END})))
        while streams:
            name = min(streams, key=lambda one: _order(engine.newest_ms(one)))
            portion = next(streams[name], None)
            if portion is None or (name not in wanted and engine.newest_ms(name) >= last_ms):
                engine.close(name)
                del streams[name]
                continue
            for one in sums[name].values():
                one.add(portion)
            portion.feed(engine, name)
            self.bytes_read += (size := _size(portion))
            self.reached[name] = max(self.reached[name], portion.end)
            self._take(engine.take())
            if tell is not None:
                tell(size)
        engine.finish()
        self.late = engine.account().late
        self._take(engine.take())
        engine.stop()
        self.sums = {name: {kind: one.at for kind, one in some.items()} for name, some in sums.items()}

    def _boundaries(self) -> dict[str, set[int]]:
        wanted: dict[str, set[int]] = {}
        for one in self.derivable:
            for name, span in one.evidence.offsets.items():
                wanted.setdefault(name, set()).update(span, (to for to, _ in one.evidence.digests.get(name, ())))
        return wanted

    def _take(self, decided: Decisions) -> None:
        for mitigation in decided.mitigations:
            if mitigation.id in self._ids:
                self.ids.add(mitigation.id)
                self.mitigations.setdefault((mitigation.id, mitigation.finding), mitigation)
        for finding in decided.findings:
            if finding.id in self._findings:
                self.findings[finding.id] = finding


def is_said(one: Mitigation) -> bool:
    """It was said by somebody, and follows from no traffic."""
    return one.detector == OPERATOR or (one.state == "lifted" and "who" in one.evidence.features)


def _verified(run: _Run, one: Mitigation, absent: list[str]) -> Verified:
    found = Verified(one.id, one.detector, one.target.type, one.tick, "said" if is_said(one) else "equal")
    if found.outcome == "said":
        found.notes.append("an operator said so: it follows from no traffic")
        return found
    if not one.evidence.offsets:
        found.missing.append("its evidence names no records")
    _look_for_records(run, one, found, absent)
    _compare_bytes(run, one, found)
    _compare_numbers(run, one, found)
    if found.places or found.numbers:
        found.outcome = "differs"
    elif found.missing:
        found.outcome = "cannot"
    return found


def _look_for_records(run: _Run, one: Mitigation, found: Verified, absent: list[str]) -> None:
    for name, (first, end) in one.evidence.offsets.items():
        source = run.sources.get(name)
        if source is None:
            found.missing += [sentence for sentence in absent if name in sentence] or [f"{name} is not here"]
        elif source.first > first:
            gone = f"[{first}, {min(end, source.first)}) is gone"
            found.missing.append(f"{name} keeps offsets from {source.first} on, the evidence begins at {first}: {gone}")
        elif (reached := run.reached.get(name, 0)) < end:
            gone = f"[{max(first, reached)}, {end}) is not there"
            found.missing.append(f"{name} ends at {reached}, the evidence at {end}: {gone}")


def _compare_bytes(run: _Run, one: Mitigation, found: Verified) -> None:
    """Piece by piece, as far as they can be read."""
    theirs = one.evidence.features.get("seed")
    if not one.evidence.digests:
        found.notes.append("it has no digests: bytes were not compared")
        return
    if one.evidence.digested == "seeded" and theirs != run.seeds.fingerprint:
        found.missing.append(f"its digests are under the seed {theirs}, here is {run.seeds.fingerprint}: set FLOODWALL_SEED")
        return
    for name, pieces in one.evidence.digests.items():
        sums = run.sums.get(name, {}).get(one.evidence.digested or "unseeded", {})
        start = one.evidence.offsets[name][0]
        for end, digest in pieces:
            if start in sums and end in sums and start >= run.read_from.get(name, 0):
                same = digest_between(sums[start], sums[end]) == digest
                (found.equal if same else found.places).append(Place(name, start, end))
            start = end
    without = sorted(one.evidence.offsets.keys() - one.evidence.digests.keys())
    if without:
        found.notes.append(f"no digests of {', '.join(without)}: bytes were not compared there")


def _compare_numbers(run: _Run, one: Mitigation, found: Verified) -> None:
    why = _underivable(run, one)
    if why is not None:
        found.missing.append(why)
        return
    # A playbook's step has no finding of its own: the one that it names is what the run rests on.
    own = run.mitigations if one.detector.startswith(PREFIX) else None
    found_again = run.findings.get(one.finding) if own is None else own.get((one.id, one.finding))
    lacking = "" if found.places else _lacking(one)
    if found_again is None:
        if lacking:
            found.missing.append(f"{lacking}: now comes no finding")
        elif not found.missing and (run.complete or run.rests_on_evidence(one)):
            found.numbers["finding"] = (f"{one.observed} where {one.limit} are allowed", "none")
        elif not found.missing:
            found.missing.append(_history(run, one, "no finding"))
        return
    pairs: dict[str, tuple[object, object]] = {
        "observed": (one.observed, found_again.observed), "limit": (one.limit, found_again.limit),
        "tick": (one.tick, found_again.tick),
        "window": ([one.window.start, one.window.end], [found_again.window.start, found_again.window.end]),
        "severity": (one.severity, found_again.severity), "dry_run": (one.dry_run, found_again.dry_run),
        "detector_version": (one.detector_version, found_again.detector_version),
        "target": ("as recorded", "as recorded" if one.target == found_again.target else "another"),
    }  # fmt: skip
    pairs |= {
        f"features.{name}": (value, found_again.evidence.features.get(name))
        for name, value in one.evidence.features.items()
        if name not in ("seed", "held", *NOT_COUNTED)
    }
    if one.id not in run.ids:
        pairs["id"] = (one.id, "none")
    same = run.mitigations.get((one.id, one.finding))
    if run.complete and same is not None:
        pairs |= {"action": (one.action, same.action), "state": (one.state, same.state)}
    elif not run.complete:
        found.notes.append("its action and its end rest on what came before, which was not read")
    if one.stage == "early":
        pairs = {name: pair for name, pair in pairs.items() if name in ("limit", "tick", "window", "id", "target")}
        found.notes.append(f"early: it was decided at {one.observed} of {found_again.observed}")
        if one.observed > found_again.observed:
            pairs["observed"] = (one.observed, found_again.observed)
    differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    others = ", ".join(f"{name} {derived} for {recorded}" for name, (recorded, derived) in differing.items())
    if differing and lacking:
        found.missing.append(f"{lacking}: now comes {others}")
    elif differing and found.missing:
        found.missing.append(f"from what is left comes {others}")
    elif differing and not run.complete and not run.rests_on_evidence(one):
        found.missing.append(_history(run, one, others))
    else:
        found.numbers = differing


def _underivable(run: _Run, one: Mitigation) -> str | None:
    """Why the numbers cannot be computed again."""
    if one.detector == LEAKED:
        return "it rests on a report of a leaked key, and not on traffic"
    if one.config_version > 1 and run.history is None:
        return f"it was decided under version {one.config_version} of the configuration: name its history"
    seed = one.evidence.features.get("seed")
    if one.target.type == "api_key" and seed != run.seeds.fingerprint and one.finding not in run.findings:
        return f"keys have other fingerprints under another seed, it was decided under {seed}: set FLOODWALL_SEED"
    return None


def _lacking(one: Mitigation) -> str:
    """What was not counted when it was decided, and is in what is read now; empty: nothing."""
    features = one.evidence.features
    parts = [f"up to {late} events came when their seconds had been decided"] if (late := features.get(TOO_LATE)) else []
    parts += [f"up to {many} rows and events were left out by a bound"] if (many := features.get(LEFT_OUT)) else []
    return " and ".join(parts) and f"{' and '.join(parts)} and were not counted"


def _history(run: _Run, one: Mitigation, what: str) -> str:
    since = ", ".join(f"{name} from {run.read_from[name]} on" for name in sorted(one.evidence.offsets) if name in run.read_from)
    return f"{one.detector} judges by what it has learned from the beginning, which is not kept; from {since} comes {what}"


def _order(newest_ms: int) -> int:
    return newest_ms if newest_ms != UNKNOWN_MS else -(2**63)


def _size(portion: Portion) -> int:
    length = getattr(portion, "length", None)
    if length is not None:
        return int(length)
    ends, starts = getattr(portion, "ends", None), getattr(portion, "starts", None)
    return 0 if ends is None or starts is None else int(ends[-1] - starts[0])
