"""docs/detection-quality.md, made from a run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from statistics import median

from drills.attacks.catalogue import ATTACKS
from drills.quality.quiet import Quiet
from drills.quality.scenes import (
    BEFORE_S,
    BEGIN_S,
    BUSY_PER_SECOND,
    QUIET_PER_SECOND,
    SCENES,
    STREAMS_SCENE,
    scene_of,
)
from drills.quality.summary import BARELY_SHARE, Summary, strength_at, strengths_run, summary
from drills.quality.systems import AWS, CROWDSEC, LEFT_OUT, OURS
from drills.quality.trial import Trials
from drills.scoring.score import ALERT_SHARE, false_blocks_text
from drills.scoring.tell import seconds_text, share_text

WRONGED_MAX = 25
KINDS: dict[str, tuple[str, int]] = {
    "flood": ("floods by busy sources", 2),
    "botnet": ("floods by many quiet sources", 10),
    "entry": ("scans, guessed keys and passwords", 5),
    "cost": ("what answers cost", 0),
    "accounts": ("registrations", 0),
    "key": ("one key of many", 0),
}
"""Kinds of attacks in words, and in how many seconds the median of them is to be found; 0: nobody says."""
MOST_SOURCES = "residential"
"""Which has more sources than all others together."""


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join(lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows])


def page(trials: Trials, quiet: dict[str, Quiet], seeds: Sequence[int]) -> str:
    """The whole page."""
    present = {trial.attack for trial in trials.found}
    attacks = [attack for attack in ATTACKS if attack in present]
    parts = [
        "# What is found, and what it costs the honest",
        "Written by `make quality` ([how](drills.md#scoring)): nobody writes here by hand.", _how(seeds),
        "## What is asked of it", _asked(trials, attacks),
        "## At ordinary strength", _ordinary(trials, attacks),
        "## At each strength", _strengths(trials, attacks),
        "## What the honest paid", _honest(trials, attacks),
        *[part for name, one in quiet.items() for part in _quiet(name, one)],
        "## Each detector alone, and limits that others publish", _systems(trials, attacks, seeds[0]),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _how(seeds: Sequence[int]) -> str:
    scenes = "; ".join(
        f"{one.events_per_second:g}/s for {one.span_s / 60:,.0f} min"
        + (f" (attacks up to {one.attack_s_max / 60:,.0f} min)" if one.attack_s_max else " (streams)")
        for one in (*SCENES, STREAMS_SCENE)
    )
    return (
        "Defaults of profile `api` with `signature` armed (it ships with `dry_run`), early records included, over "
        f"`events.ndjson` of drills with the seeds {', '.join(map(str, seeds))}, which no limit was tried against. Each "
        f"attack comes alone, {BEFORE_S} s into honest traffic of {_moment(BEGIN_S)} without storms: "
        f"{scenes}. Strengths that are shares follow the service's rate.\n\n"
        "- *found*: something of its own was mitigated, in a dimension in which it may be; *barely*: "
        f"less than {BARELY_SHARE:.0%} of its sources and of its events; *alerted*: people were told, by a note on a target of "
        f"which at least {ALERT_SHARE:.0%} was the attack's in that window. The worst of the seeds stands here.\n"
        "- *after*: from its first event (which for long requests is the first that ended) to the first mitigation, or note.\n"
        "- *sources*: addresses with an event that the mitigations name. *events covered*: those that came while anything was "
        "in force on any of their names; the same for honest ones. A throttle counts as a block does."
    )


def _asked(trials: Trials, attacks: Sequence[str]) -> str:
    """The kinds of attacks against what they are to be found in, and what of them is not."""
    rows = []
    missed: list[str] = []
    for kind, (text, most_s) in KINDS.items():
        of_kind = {
            attack: found for attack in attacks if ATTACKS[attack].kind == kind and (found := summary(trials.of(attack)))
        }
        asked = {attack: found for attack, found in of_kind.items() if not ATTACKS[attack].learned}
        words = Counter(found.word for found in asked.values())
        missed += [attack for attack, found in asked.items() if found.word in ("missed", "barely")]
        # What was never told of counts as endless, so that a median cannot be bettered by missing more.
        seconds = [math.inf if found.seconds is None or found.word == "missed" else found.seconds for found in asked.values()]
        middle = median(seconds) if seconds else math.inf
        when = seconds_text(middle) if middle < math.inf else "never"
        counted = f"{words['found']} + {words['alerted']} of {len(asked)}"
        rows.append((text, counted, when, f"{most_s} s" if most_s else "", _sources(trials, asked)))
    learned_not = [attack for attack in attacks if not ATTACKS[attack].learned]
    others = [attack for attack in learned_not if attack != MOST_SOURCES]
    rows.append(("all of these", "", "", "", _sources(trials, learned_not)))
    rows.append((f"all but `{MOST_SOURCES}`", "", "", "", _sources(trials, others)))
    names = ("attacks", "found + told of", "median after", "asked for", "sources of loud ones mitigated")
    learned = [f"`{attack}` ({ATTACKS[attack].learned})" for attack in attacks if ATTACKS[attack].learned]
    told = (
        "At ordinary strength, except for the last column: that is of all loud attacks of the kind together, without those "
        "that people are only told of. A distributed attack is found if a signature stops it, or people are told about the "
        f"service. Sources are counted one by one: `{MOST_SOURCES}` has eight in ten of all, each of which asks for something "
        "twice and may have done so before there is a signature; so the others stand for themselves, too."
    )
    text = (
        told
        + "\n\n"
        + table(names, rows)
        + f"\n\nMissed, or barely found: {', '.join(f'`{name}`' for name in missed) or 'none'}."
    )
    return text + (f" Not counted here, because they need a model: {'; '.join(learned)}." if learned else "")


def _sources(trials: Trials, attacks: Iterable[str]) -> str:
    scores = [trial.score for attack in attacks for trial in trials.of(attack, "loud") if trial.score.found]
    sources = sum(score.sources for score in scores)
    return share_text(sum(score.sources_mitigated for score in scores) / sources) if sources else ""


def _moment(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%A, %H:%M} UTC"


def _name(attack: str) -> str:
    return f"`{attack}`" + (" (trap)" if ATTACKS[attack].trap else "")


def _ordinary(trials: Trials, attacks: Sequence[str]) -> str:
    rows = []
    words: Counter[str] = Counter()
    for attack in attacks:
        found = summary(trials.of(attack))
        if found is None:
            continue
        words[found.word] += 1
        rows.append((
            _name(attack), found.word, found.when, share_text(found.sources), share_text(found.covered), _cost(found),
            ", ".join(found.by), ", ".join(found.victims),
        ))  # fmt: skip
    counts = ", ".join(f"{count} {word}" for word, count in words.most_common())
    names = ("attack", "", "after", "sources", "events covered", "honest events covered", "by", "victims mitigated")
    return table(names, rows) + f"\n\nOf {words.total()}: {counts}."


def _cost(found: Summary) -> str:
    return (
        "0"
        if not found.honest_covered
        else f"{found.honest_covered:,} ({share_text(found.honest_covered / found.honest_events)})"
    )


def _strengths(trials: Trials, attacks: Sequence[str]) -> str:
    strengths = strengths_run(trials)
    rows = []
    for attack in attacks:
        cells = [found.cell if (found := summary(trials.of(attack, strength))) else "" for strength in strengths]
        rows.append((_name(attack), *cells, strength_at(0.5, trials, attack), strength_at(0.9, trials, attack)))
    told = (
        "Word, seconds, events covered. The last columns: at how many times its ordinary rate (requests a second, all sources "
        "together) half and nine tenths of its sources are mitigated; between two strengths of [the table](drills.md) "
        "a straight line over the logarithm of the rate, and beyond them a bound."
    )
    return told + "\n\n" + table(("attack", *strengths, "50 %", "90 %"), rows)


def _honest(trials: Trials, attacks: Sequence[str]) -> str:
    ours = [trial for trial in trials.found if trial.system == OURS]
    wronged = {(trial.seed, scene_of(trial.attack).name, one.type, one.value, one.detector): one
               for trial in ours for one in trial.wronged}  # fmt: skip
    # The honest traffic of a scene is the same beside each attack, so that its days count once.
    days = {(trial.seed, scene_of(trial.attack).name): trial.source_days for trial in ours}
    text = f"Beside the attacks: {false_blocks_text(len(wronged), sum(days.values()))}."
    victims = sorted(
        {f"{trial.attack} ({trial.strength}): {kind} {value}" for trial in ours for kind, value in trial.score.victims}
    )
    text += f" Victims of traps and leaks mitigated: {', '.join(victims) or 'none'}."
    if wronged:
        rows = [(f"{kind} {value}", detector, one.action, one.reason)
                for (_, _, kind, value, detector), one in list(wronged.items())[:WRONGED_MAX]]  # fmt: skip
        text += "\n\n" + table(("honest source mitigated", "by", "action", "why"), rows)
    return text


def _length(days: float) -> str:
    return f"{days:.3g} days" if days >= 1 else f"{24 * days:.3g} hours"


def _quiet(name: str, quiet: Quiet) -> list[str]:
    rate = BUSY_PER_SECOND if name == "busy hours" else QUIET_PER_SECOND
    storms = "every storm in each" if name == "busy hours" else "storms at their hours of the week"
    wronged = len({(alarm.type, alarm.value, alarm.since_s // 86_400) for alarm in quiet.wronged})
    told = ", ".join(f"{key} {count}" for key, count in quiet.told.most_common()) or "none"
    alarms = (
        f"Alarms: {len(quiet.alarms)} ({told}), {quiet.learned} of them notices of learned detectors, {quiet.service_alerts} "
        "of the others about the service as a whole"
    )
    if quiet.days >= 1:
        alarms += f"; {quiet.learned / quiet.days:.2g} a day, and {7 * quiet.service_alerts / quiet.days:.2g} a week"
    lines = [
        f"### {name.capitalize()}",
        f"{_length(quiet.days)} at {rate:g} honest events a second, {storms}: {quiet.events:,} events. Honest sources "
        f"mitigated: {false_blocks_text(wronged, quiet.source_days)}. {alarms}.",
    ]
    times = Counter((alarm.type, alarm.value, alarm.detector) for alarm in quiet.alarms)
    first = {(alarm.type, alarm.value, alarm.detector): alarm for alarm in reversed(quiet.alarms)}
    rows = []
    for key, count in times.most_common(WRONGED_MAX):
        alarm = first[key]
        action = alarm.action if alarm.enforced else f"{alarm.action}, not enforced"
        rows.append((f"{alarm.type} {alarm.value}", alarm.detector, action, f"{count}", alarm.reason))
    if rows:
        lines.append(table(("target", "by", "action", "times", "why, the first time"), rows))
    return lines


def _systems(all_trials: Trials, attacks: Sequence[str], seed: int) -> str:
    trials = Trials([trial for trial in all_trials.found if trial.seed == seed])
    present = {trial.system for trial in trials.found}
    alone = sorted(present - {OURS, CROWDSEC, AWS})
    systems = [OURS, *alone, *(peer for peer in (CROWDSEC, AWS) if peer in present)]
    rows = []
    for attack in attacks:
        cells = []
        for system in systems:
            found = summary(trials.of(attack, system=system))
            cells.append("" if found is None or found.word in ("missed", "alerted") else share_text(found.covered))
        rows.append((_name(attack), *cells))
    wronged = []
    for system in systems:
        some = [trial for trial in trials.found if trial.system == system and trial.strength == "ordinary"]
        whom = {(trial.seed, scene_of(trial.attack).name, one.type, one.value) for trial in some for one in trial.wronged}
        wronged.append(f"{len(whom):,}")
    rows.append(("honest sources mitigated", *wronged))
    told = (
        f"Share of events covered at ordinary strength, under seed {seed}; empty: nothing of the attack was stopped. Detectors "
        "share the policy's budgets and nothing else, so what each decides is what it decides alone. Buckets of others are "
        f"said as rules that find nothing that the bucket would not. Left out: {LEFT_OUT}."
    )
    return told + "\n\n" + table(("attack", *systems), rows)
