"""Changes of the configuration that a judge knows of and that do not hold yet, in the order of their seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from detectors.kernels.windows import NEVER
from detectors.windowed import WindowPlan
from engine.reconfigure import is_laid_out_alike
from engine.standing import Standing


@dataclass(frozen=True, slots=True)
class Change:
    """What holds from a second on."""

    tick: int
    standing: Standing
    plan: WindowPlan
    is_alike: bool
    """Its windows are laid out as those before: rows of its seconds may come in before it holds."""


class PlannedChanges:
    """Those of one judge."""

    def __init__(self) -> None:
        self.known_to: int | None = None
        """Up to this second no other change can come any more; later ones wait. None: all changes are known."""
        self._changes: list[Change] = []

    def add(self, standing: Standing, since: int, plan: WindowPlan) -> None:
        """Another standing from ``since`` on; ``plan`` is the one in force. Its own later steps come with it."""
        self._changes = [change for change in self._changes if change.tick < since]
        self.add_steps(standing, [since, *standing.steps(since)], self._changes[-1].plan if self._changes else plan)

    def add_steps(self, standing: Standing, ticks: list[int], plan: WindowPlan) -> None:
        """What a standing, be it the one in force, is from several seconds on."""
        for tick in ticks:
            following = standing.plan(tick)
            self._changes.append(Change(tick, standing, following, is_laid_out_alike(plan, following)))
            plan = following

    def take_due(self, closed: int) -> Change | None:
        """The next one, if it holds from the second after the last closed one on."""
        return self._changes.pop(0) if self.is_due(closed) else None

    def is_due(self, closed: int) -> bool:
        """Whether there is one to take."""
        return bool(self._changes) and closed != NEVER and self._changes[0].tick <= closed + 1

    def last_tick(self, target: int) -> int:
        """Up to where ticks can be closed under the rules in force."""
        return min(target, self._changes[0].tick - 1) if self._changes else target

    def reach(self, limit: int, least: int = NEVER) -> int:
        """Up to where rows can come in, at most ``limit``: it has to be known what they are summed for."""
        limits = [change.tick - 1 for change in self._changes if not change.is_alike][:1]
        if self.known_to is not None:
            limits.append(self.known_to)
        return min(limit, max(least, min(limits, default=limit)))

    def spans(self, plan: WindowPlan, limit: int) -> Iterator[tuple[int, WindowPlan]]:
        """Up to which second which plan's limits hold, for seconds up to ``limit``; ``plan`` is the one in force."""
        for change in self._changes:
            if change.tick > limit:
                break
            yield change.tick - 1, plan
            plan = change.plan
        yield limit, plan
