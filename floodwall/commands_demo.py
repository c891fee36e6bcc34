"""``floodwall demo``: puts the service, the engine and the edge together, and draws what happens."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from drills.demo_service import Second, Stage, play
from drills.traffic import main_lines
from edge.in_process import InProcessEdge
from engine.clock import SystemClock
from floodwall.show import moment
from replay.follow import watch
from replay.sink import Sink
from schemas.config import parse_config

if TYPE_CHECKING:
    from rich.table import Table

    from engine.embedded import Decisions, Embedded
    from schemas.mitigation import Mitigation

CONFIG: dict[str, Any] = {"profile": "api", "input": {"proxy_depth": 1}}
RECOVERED = 0.95
FELL_TO = 0.9
_NEXT = "Try next:  floodwall replay /var/log/nginx/access.log"


@dataclass(slots=True)
class Story:
    """What the engine said, and when."""

    edge: InProcessEdge
    first: Mitigation | None = None
    first_at: float = 0.0
    targets: dict[str, Mitigation] = field(default_factory=dict)
    began: float = 0.0
    events: int = 0
    rate: float = 0.0
    _counted: tuple[float, int] = (0.0, 0)

    def hear(self, engine: Embedded) -> None:
        """Count what has been decided."""
        self.events = engine.account().events
        now = time.monotonic()
        if now - self._counted[0] >= 1.0:
            self.rate = (self.events - self._counted[1]) / (now - self._counted[0]) if self._counted[0] else 0.0
            self._counted = (now, self.events)


class _EdgeSink(Sink):
    """Hands every mitigation to the edge as it is made."""

    def __init__(self, story: Story) -> None:
        super().__init__()
        self._story = story

    def write(self, decisions: Decisions) -> None:
        super().write(decisions)
        story = self._story
        for mitigation in decisions.mitigations:
            story.edge.apply(mitigation)
            if mitigation.action == "notify":
                continue
            if story.first is None:
                story.first, story.first_at = mitigation, time.monotonic() - story.began
            story.targets[mitigation.target.value] = mitigation


def run(seconds: float, seed: int, as_json: bool) -> int:
    """Play the demo; 0 when the honest clients were served again while the attack went on, else 1."""
    quiet = as_json or not sys.stdout.isatty()
    config = parse_config(CONFIG)
    _warm_up()
    story = Story(InProcessEdge(config.policy.allowlist_core))
    attack_at = min(10.0, seconds / 3)
    with tempfile.TemporaryDirectory(prefix="floodwall-demo-") as folder:
        log = Path(folder) / "access.log"
        log.touch()
        stage = Stage(log, story.edge.decide)
        stopping = threading.Event()
        failures: list[BaseException] = []

        def follow() -> None:
            try:
                sink = _EdgeSink(story)
                watch(config, str(log), sink, SystemClock(), from_start=True, stop=stopping.is_set, tell=story.hear)
            except BaseException as error:
                failures.append(error)

        follower = threading.Thread(target=follow, name="floodwall")
        story.began = time.monotonic()
        follower.start()
        try:
            with _screen(stage, story, attack_at, seconds, quiet) as draw:
                asyncio.run(play(stage, seconds, attack_at, seed, draw))
        finally:
            stopping.set()
            follower.join()
        if failures:
            raise failures[0]
    return conclude(stage, story, attack_at, seconds, as_json=as_json)


def _warm_up() -> None:
    """Compile, or load, every kernel before the clock begins."""
    from engine.embedded import Embedded
    from replay.sources import make_buffer

    traffic = main_lines(seed=1, events=400, events_per_second=50)
    engine = Embedded(parse_config(CONFIG), early=True)
    buffer = make_buffer(1 << 20)
    buffer[: len(traffic.data)] = memoryview(traffic.data)
    engine.open("warm-up", int(traffic.times_ms[-1]) + 1000)
    engine.feed("warm-up", buffer, len(traffic.data), 0)
    engine.finish()


@contextlib.contextmanager
def _screen(stage: Stage, story: Story, attack_at: float, seconds: float, quiet: bool) -> Any:
    if quiet:
        yield lambda passed: None
        return
    from rich.live import Live

    with Live(_picture(stage, story, attack_at, seconds, 0.0), refresh_per_second=5) as live:
        yield lambda passed: live.update(_picture(stage, story, attack_at, seconds, passed))


def _picture(stage: Stage, story: Story, attack_at: float, seconds: float, passed: float) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"floodwall demo · {passed:4.0f} of {seconds:.0f} s · {story.rate:,.0f} events decided per second")
    for name in ("second", "honest served", "", "attack/s", "turned away/s", "what happened"):
        table.add_column(name, justify="right" if name in ("second", "attack/s", "turned away/s") else "left")
    for at in range(max(0, int(passed) - 17), int(passed) + 1):
        second = stage.seconds.get(at, Second())
        style = "green" if second.success >= RECOVERED else "yellow" if second.success >= 0.6 else "red"
        words = Text()
        if at == int(attack_at):
            words = Text("the attack begins", "bold red")
        if story.first is not None and at == int(story.first_at):
            words = Text(f"{story.first.action}: {story.first.reason}", "bold green")
        bar = Text("█" * round(second.success * 20), style)
        table.add_row(str(at), f"{second.success:4.0%}", bar, f"{second.attack:,}", f"{second.denied:,}", words)
    return table


def conclude(stage: Stage, story: Story, attack_at: float, seconds: float, *, as_json: bool) -> int:
    """Say what happened; the exit code."""
    whole = int(seconds)
    before = [stage.seconds.get(at, Second()).success for at in range(2, int(attack_at))]
    during = [stage.seconds.get(at, Second()).success for at in range(int(attack_at) + 1, whole)]
    after = during[-5:]
    lowest, recovered_to = min(during, default=1.0), sum(after) / max(len(after), 1)
    fell = lowest < FELL_TO
    recovered = fell and recovered_to >= RECOVERED and story.first is not None
    decided_after = story.first_at - attack_at if story.first is not None else None
    if as_json:
        document = {
            "recovered": recovered, "success_before": round(sum(before) / max(len(before), 1), 4),
            "success_lowest": round(lowest, 4), "success_after": round(recovered_to, 4),
            "decided_after_s": None if decided_after is None else round(decided_after, 2), "events": story.events,
            "targets": {value: [m.action, m.reason] for value, m in sorted(story.targets.items())},
        }  # fmt: skip
        sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")
        return 0 if recovered else 1
    print(f"honest clients served: {sum(before) / max(len(before), 1):.0%} before the attack, {lowest:.0%} at the worst, "
          f"{recovered_to:.0%} in the last five seconds, while the attack went on")  # fmt: skip
    if decided_after is not None:
        print(f"first mitigation {decided_after:.1f} s after the attack began; {story.events:,} events decided in all")
    for value, mitigation in sorted(story.targets.items()):
        print(f"  {moment(mitigation.tick)}  {mitigation.action}  {value}: {mitigation.reason}")
    if not recovered:
        print("nothing recovered" if fell else "the attack did no harm, so there was nothing to recover from", file=sys.stderr)
    print(_NEXT)
    return 0 if recovered else 1
