"""What every demo shares: the play, the picture of it while it runs, and what is said at the end."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from drills.demo_service import Second, Stage, play
from drills.traffic import main_lines
from floodwall.show import moment
from replay.sources import make_buffer
from schemas.config import parse_config
from schemas.mitigation import Target

if TYPE_CHECKING:
    from rich.table import Table

SERVICE = "service"
NFTABLES = "nftables"
_TURNED_AWAY = {SERVICE: "turned away/s", NFTABLES: "packets dropped/s"}
"""Heads of the picture's column, by what enforces."""
ATTACK_S_MAX = 10.0
RECOVERED = 0.95
FELL_TO = 0.9
_COUNT_S = 1.0

Loop = Callable[[Callable[[], bool]], object]
"""Runs beside the play in a thread of its own until the function it is given says stop."""


class Said(Protocol):
    """What the screen shows of a mitigation, however it came."""

    @property
    def tick(self) -> int:
        """The second it is about."""
        ...

    @property
    def action(self) -> str:
        """What is done."""
        ...

    @property
    def target(self) -> Target:
        """To whom."""
        ...

    @property
    def reason(self) -> str:
        """Why."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What is played, and how it is shown."""

    seconds: float
    seed: int
    as_json: bool
    title: str
    try_next: str
    enforced_by: str
    """`SERVICE` or `NFTABLES`."""

    @property
    def attack_at(self) -> float:
        """The second in which the attack begins."""
        return min(ATTACK_S_MAX, self.seconds / 3)


@dataclass(slots=True)
class Story:
    """What the engine said, and when."""

    first: Said | None = None
    first_at: float = 0.0
    targets: dict[str, Said] = field(default_factory=dict)
    began: float = 0.0
    events: int = 0
    rate: float = 0.0
    dropped: dict[str, int] = field(default_factory=dict)
    """Packets that the kernel dropped, by the name of its counter."""
    _counted: tuple[float, int] = (0.0, 0)

    def hear(self, mitigation: Said) -> None:
        """Take note of a mitigation that has reached the edge."""
        if mitigation.action == "notify":
            return
        if self.first is None:
            self.first, self.first_at = mitigation, time.monotonic() - self.began
        self.targets[mitigation.target.value] = mitigation

    def count(self, events: Callable[[], int]) -> None:
        """Ask how many events have been counted so far, at most once a second."""
        now = time.monotonic()
        if now - self._counted[0] >= _COUNT_S:
            self.events = events()
            self.rate = (self.events - self._counted[1]) / (now - self._counted[0]) if self._counted[0] else 0.0
            self._counted = (now, self.events)


def settings_at(proxy_depth: int) -> dict[str, Any]:
    """Of the engine, whatever it runs in, for a service behind so many proxies."""
    return {"profile": "api", "input": {"proxy_depth": proxy_depth}}


def perform(plan: Plan, stage: Stage, story: Story, *loops: Loop) -> int:
    """Play the demo with the loops beside it; 0 when honest clients were served again while the attack went on, else 1."""
    quiet = plan.as_json or not sys.stdout.isatty()
    story.began = time.monotonic()
    with _beside(loops) as check, _screen(stage, story, plan, quiet) as draw:

        def each_tick(passed: float) -> None:
            check()
            draw(passed)

        asyncio.run(play(stage, plan.seconds, plan.attack_at, plan.seed, each_tick))
    return conclude(stage, story, plan)


def warm_up() -> None:
    """Compile, or load, every kernel before the clock begins."""
    from engine.embedded import Embedded

    traffic = main_lines(seed=1, events=400, events_per_second=50)
    engine = Embedded(parse_config(settings_at(1)), early=True)
    buffer = make_buffer(1 << 20)
    buffer[: len(traffic.data)] = memoryview(traffic.data)
    engine.open("warm-up", int(traffic.times_ms[-1]) + 1000)
    engine.feed("warm-up", buffer, len(traffic.data), 0)
    engine.finish()


@contextlib.contextmanager
def _beside(loops: tuple[Loop, ...]) -> Iterator[Callable[[], None]]:
    """Each loop in its thread; gives what raises the first failure of one, which is raised at the end too."""
    stopping = threading.Event()
    failures: list[BaseException] = []

    def run(loop: Loop) -> None:
        try:
            loop(stopping.is_set)
        except BaseException as error:
            failures.append(error)

    def check() -> None:
        if failures:
            raise failures[0]

    threads = [threading.Thread(target=run, args=(loop,), name="floodwall") for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield check
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    check()


@contextlib.contextmanager
def _screen(stage: Stage, story: Story, plan: Plan, quiet: bool) -> Iterator[Callable[[float], None]]:
    if quiet:
        yield lambda passed: None
        return
    from rich.live import Live

    with Live(_picture(stage, story, plan, 0.0), refresh_per_second=5) as live:
        yield lambda passed: live.update(_picture(stage, story, plan, passed))


def _picture(stage: Stage, story: Story, plan: Plan, passed: float) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{plan.title} · {passed:4.0f} of {plan.seconds:.0f} s · {story.rate:,.0f} events decided per second")
    turned_away = _TURNED_AWAY[plan.enforced_by]
    for name in ("second", "honest served", "", "attack/s", turned_away, "what happened"):
        table.add_column(name, justify="right" if name in ("second", "attack/s", turned_away) else "left")
    for at in range(max(0, int(passed) - 17), int(passed) + 1):
        second = stage.seconds.get(at, Second())
        style = "green" if second.success >= RECOVERED else "yellow" if second.success >= 0.6 else "red"
        words = Text()
        if at == int(plan.attack_at):
            words = Text("the attack begins", "bold red")
        if story.first is not None and at == int(story.first_at):
            words = Text(f"{story.first.action}: {story.first.reason}", "bold green")
        bar = Text("█" * round(second.success * 20), style)
        table.add_row(str(at), f"{second.success:4.0%}", bar, f"{second.attack:,}", f"{second.turned_away:,}", words)
    return table


def conclude(stage: Stage, story: Story, plan: Plan) -> int:
    """Say what happened; the exit code."""
    whole, attack_at = int(plan.seconds), plan.attack_at
    before = [stage.seconds.get(at, Second()).success for at in range(2, int(attack_at))]
    during = [stage.seconds.get(at, Second()).success for at in range(int(attack_at) + 1, whole)]
    after = during[-5:]
    lowest, recovered_to = min(during, default=1.0), sum(after) / max(len(after), 1)
    fell = lowest < FELL_TO
    recovered = fell and recovered_to >= RECOVERED and story.first is not None
    decided_after = story.first_at - attack_at if story.first is not None else None
    if plan.as_json:
        document = {
            "recovered": recovered, "success_before": round(sum(before) / max(len(before), 1), 4),
            "success_lowest": round(lowest, 4), "success_after": round(recovered_to, 4),
            "decided_after_s": None if decided_after is None else round(decided_after, 2), "events": story.events,
            "enforced_by": plan.enforced_by, "packets_dropped": story.dropped,
            "targets": {value: [m.action, m.reason] for value, m in sorted(story.targets.items())},
        }  # fmt: skip
        sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")
        return 0 if recovered else 1
    print(f"honest clients served: {sum(before) / max(len(before), 1):.0%} before the attack, {lowest:.0%} at the worst, "
          f"{recovered_to:.0%} in the last five seconds, while the attack went on")  # fmt: skip
    if decided_after is not None:
        print(f"first mitigation {decided_after:.1f} s after the attack began; {story.events:,} events decided in all")
    if story.dropped:
        words = ", ".join(f"{packets:,} of {name} sources" for name, packets in sorted(story.dropped.items()) if packets)
        print(f"packets that nftables dropped: {words or 'none'}")
    for value, mitigation in sorted(story.targets.items()):
        print(f"  {moment(mitigation.tick)}  {mitigation.action}  {value}: {mitigation.reason}")
    if not recovered:
        print("nothing recovered" if fell else "the attack did no harm, so there was nothing to recover from", file=sys.stderr)
    print(f"Try next:  {plan.try_next}")
    return 0 if recovered else 1
