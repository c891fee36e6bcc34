"""In what traffic each attack is scored: every number that the figures of docs/detection-quality.md hang on."""

from __future__ import annotations

from dataclasses import dataclass

from drills.attacks.strengths import DAY_S, HOUR_S, STRENGTHS
from drills.run import START_S

TUNING_SEEDS = (1, 2, 3, 4, 5, 6, 7, 8)
"""Detectors' limits may be tried against these, and against those of tests; never against the others."""
SCORING_SEEDS = (7003, 7004)
"""Never looked at while a limit is chosen: whoever has seen what comes of them takes others for the next time."""
QUIET_SEEDS = (7111, 7112, 7113, 7114, 7115, 7116, 7117, 7118)
"""Of week after week, and of the busy hours; as for scoring."""
ENGINE_SEED = "quality"
"""Sketches and tables are the same in each run."""
BEGIN_S = START_S + 14 * HOUR_S
"""Monday, 14:00 UTC: an ordinary afternoon without storms; those are in the quiet weeks."""
BEFORE_S = 300
"""So much honest traffic comes before an attack: windows are full then."""
QUIET_DAYS = 7
QUIET_PER_SECOND = 12.0
"""Honest events of quiet weeks: as many days as fit. Batch jobs make 300 a second all the same."""
BUSY_PER_SECOND = 350.0
BUSY_S = HOUR_S
"""An hour of full traffic with every storm in it."""
BUSY_HOURS = 2


@dataclass(frozen=True, slots=True)
class Scene:
    """A service of some size for some time, with an attack in the middle of it."""

    name: str
    events_per_second: float
    span_s: int
    attack_s_max: int
    """Attacks up to this long are scored here."""

    @property
    def step_s(self) -> int:
        """So many seconds a judge is given at a time: what lasts for hours is not told within seconds, and days have many."""
        return 1 if self.attack_s_max <= HOUR_S else 10


_FEW, _MANY = 250.0, 120.0
SCENES = (
    Scene("minutes", _FEW, 780, 300),
    Scene("quarter hour", _FEW, 1380, 900),
    Scene("hour", _MANY, 4860, HOUR_S),
    Scene("quarter day", 20.0, 6 * HOUR_S + 900, 6 * HOUR_S),
    Scene("days", 2.0, 3 * DAY_S + HOUR_S, 3 * DAY_S),
)
"""The longer an attack, the smaller the service, so that each fits: strengths that are shares follow its rate."""
STREAMS_SCENE = Scene("streams", _FEW, 2040, 0)
_SCENE_OF = {"stream_exhaustion": STREAMS_SCENE}
"""Streams of ten minutes are told of when they end: theirs is longer than the attack by that much."""


def scene_of(attack: str) -> Scene:
    """Where an attack is scored."""
    duration_s = STRENGTHS[attack][1].duration_s
    return _SCENE_OF.get(attack) or next(scene for scene in SCENES if duration_s <= scene.attack_s_max)
