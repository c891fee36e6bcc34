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
    """Those of one judge. They are laid out when somebody asks: of a long history most are over before the first event."""

    def __init__(self) -> None:
        self.known_to: int | None = None
        """Up to this second no other change can come any more; later ones wait. None: all changes are known."""
        self._steps: list[tuple[int, Standing]] = []
        self._laid_out: list[Change] = []
        """The first of them."""

    def add(self, standing: Standing, since: int) -> None:
        """Another standing from ``since`` on, and its own later steps."""
        while self._steps and self._steps[-1][0] >= since:
            self._steps.pop()
        del self._laid_out[len(self._steps) :]
        self.add_steps(standing, [since, *standing.steps(since)])

    def add_steps(self, standing: Standing, ticks: list[int]) -> None:
        """What a standing, be it the one in force, is from several seconds on."""
        self._steps += [(tick, standing) for tick in ticks]

    def _lay_out(self, plan: WindowPlan) -> list[Change]:
        """All of them; ``plan`` is the one in force."""
        for tick, standing in self._steps[len(self._laid_out) :]:
            before = self._laid_out[-1].plan if self._laid_out else plan
            following = standing.plan(tick)
            self._laid_out.append(Change(tick, standing, following, is_laid_out_alike(before, following)))
        return self._laid_out

    def take_due(self, closed: int) -> Change | None:
        """What holds from the second after the last closed one on, if that is not in force yet: the last of those that do."""
        if not self.is_due(closed):
            return None
        due = sum(tick <= closed + 1 for tick, _ in self._steps)
        tick, standing = self._steps[due - 1]
        known = len(self._laid_out) >= due
        change = self._laid_out[due - 1] if known else Change(tick, standing, standing.plan(tick), False)
        del self._steps[:due], self._laid_out[:due]
        return change

    def is_due(self, closed: int) -> bool:
        """Whether there is one to take."""
        return bool(self._steps) and closed != NEVER and self._steps[0][0] <= closed + 1

    def last_tick(self, target: int) -> int:
        """Up to where ticks can be closed under the rules in force."""
        return min(target, self._steps[0][0] - 1) if self._steps else target

    def reach(self, plan: WindowPlan, limit: int, least: int = NEVER) -> int:
        """Up to where rows can come in, at most ``limit``: it has to be known what they are summed for.

        Args:
            plan: the one in force.
            least: rows of seconds up to this were taken in before.
        """
        limits = [change.tick - 1 for change in self._lay_out(plan) if not change.is_alike][:1] if self._steps else []
        if self.known_to is not None:
            limits.append(self.known_to)
        return min(limit, max(least, min(limits, default=limit)))

    def spans(self, plan: WindowPlan, limit: int) -> Iterator[tuple[int, WindowPlan]]:
        """Up to which second which plan's limits hold, for seconds up to ``limit``; ``plan`` is the one in force."""
        for change in self._lay_out(plan):
            if change.tick > limit:
                break
            yield change.tick - 1, plan
            plan = change.plan
        yield limit, plan
