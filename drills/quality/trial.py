"""Attacks on their stages: what each system makes of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from drills.attacks.catalogue import ATTACKS
from drills.attacks.strengths import STRENGTH_NAMES, StrengthName
from drills.quality.scenes import Scene, scene_of
from drills.quality.stage import Stage, merged
from drills.quality.systems import OURS, ours, peers
from drills.scoring.decide import decided
from drills.scoring.score import AttackScore, Scorecard, Scorer, Wronged
from engine.in_force import is_enforced


@dataclass(frozen=True, slots=True)
class Trial:
    """One attack at one strength under one seed, as one system sees it."""

    attack: str
    strength: StrengthName
    seed: int
    system: str
    score: AttackScore
    wronged: tuple[Wronged, ...]
    """Honest sources that were mitigated"""
    honest_events: int
    honest_covered: int
    source_days: float
    per_second: float
    """Requests of the attack, on average while it lasts"""


@dataclass(frozen=True, slots=True)
class Work:
    """Attacks that are set into the same honest traffic: what one process does."""

    seed: int
    scene: Scene
    attacks: tuple[str, ...]
    strengths: tuple[StrengthName, ...]
    with_peers: bool
    """Others' limits as well"""


@dataclass(slots=True)
class Trials:
    """All of them."""

    found: list[Trial] = field(default_factory=list)

    def of(self, attack: str, strength: StrengthName = "ordinary", system: str = OURS) -> list[Trial]:
        """One for each seed."""
        return [t for t in self.found if (t.attack, t.strength, t.system) == (attack, strength, system)]


def works(seeds: Sequence[int], attacks: Sequence[str], strengths: Sequence[StrengthName] = STRENGTH_NAMES) -> list[Work]:
    """Every attack at every strength; at ordinary strength each detector alone, under the first seed others' limits as well."""
    by_scene: dict[Scene, list[str]] = defaultdict(list)
    for attack in attacks:
        by_scene[scene_of(attack)].append(attack)
    return [
        Work(seed, scene, tuple(names), tuple(strengths), with_peers=seed == seeds[0])
        for seed in seeds
        for scene, names in by_scene.items()
    ]


def run_work(work: Work) -> list[Trial]:
    """All trials that share their honest traffic."""
    stage = Stage(work.scene, work.seed, ours())
    normal = frozenset(
        (one.detector, one.target.type, one.target.value)
        for one in decided(ours(), merged(stage.honest, None), work.scene.step_s).mitigations
        if not is_enforced(one)
    )
    return [
        trial for name in work.attacks for strength in work.strengths for trial in _trials(stage, work, name, strength, normal)
    ]


def _trials(
    stage: Stage, work: Work, name: str, strength: StrengthName, normal: frozenset[tuple[str, str, str]]
) -> Iterator[Trial]:
    hostile, records = stage.attack(name, strength)
    parts = [stage.honest.exposure, hostile.exposure]
    scorer = Scorer(parts, records, normal)
    duration_s = records[0]["stop"] - records[0]["start"]

    def trial(system: str, card: Scorecard) -> Trial:
        return Trial(
            name, strength, work.seed, system, card.attacks[0], tuple(card.honest_sources), card.honest_events,
            card.honest_covered, card.source_days, len(hostile) / duration_s,
        )  # fmt: skip

    mitigations = decided(ours(), merged(stage.honest, hostile), work.scene.step_s).mitigations
    yield trial(OURS, scorer.score(mitigations))
    if strength != "ordinary":
        return
    # Detectors share nothing but the policy's budgets, so that what one decides is what it would decide alone.
    for detector in sorted({one.detector for one in mitigations}):
        yield trial(detector, scorer.score([one for one in mitigations if one.detector == detector]))
    for system, config in peers().items() if work.with_peers else ():
        yield trial(system, scorer.score(decided(config, merged(stage.honest, hostile), work.scene.step_s).mitigations))


def attack_names() -> list[str]:
    """Of the catalogue, in its order."""
    return list(ATTACKS)
