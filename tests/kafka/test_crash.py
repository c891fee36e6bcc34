"""Nothing lost: workers and the broker die, pause, join and leave under load, and the decisions stay those of one process.

Run with ``make crash``; FLOODWALL_CRASH_KILLS=200 for the large dose. A seed that failed once stays in SEEDS.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.local import LocalBroker
from streams.failpoints import NAMES
from tests.kafka.deployment import Deployment, deploy
from tests.kafka.test_workers import check_same, last_tick, reference, split

pytestmark = pytest.mark.crash

SEEDS = (1, 2)
KILLS = int(os.environ.get("FLOODWALL_CRASH_KILLS", "20"))
SECONDS_PER_KILL = 6.0
"""How long a worker takes to start on a busy machine, and a little more."""
PAUSE_S_MAX = 2.0
POINTS = tuple(name for name in NAMES if not name.endswith("_model"))
"""Snapshots of models are too seldom to wait for here; `test_models` dies at those."""
ONCE_A_LIFE = {name for name in NAMES if name.endswith(("taking_over", "fenced_predecessor", "rebuilt"))}
"""Failpoints that a worker passes when it starts, and then hardly ever again."""
TIMING = {"lateness_s": 10, "ahead_s": 2}


class Crew:
    """Workers that are killed one after the other. Whoever follows one that was killed has a failpoint in it and dies there;
    whoever follows that one lives until its turn comes again."""

    def __init__(self, deployment: Deployment, chance: random.Random, rounds: int) -> None:
        self._deployment, self._chance = deployment, chance
        # The first of each role is a static member: it gets its partitions back without a rebalance.
        self._posts = [(role, f"{role}-static" if index == 0 else None) for role in ("observe", "judge") for index in range(2)]
        self._workers = [deployment.start(role, instance=instance) for role, instance in self._posts]
        self._points: list[str | None] = [None] * len(self._posts)
        names = chance.sample(POINTS, len(POINTS))
        self._names = {
            role: itertools.cycle([name for name in names if name.startswith(role)]) for role in ("observe", "judge")
        }
        turns = itertools.cycle(chance.sample(range(len(self._posts)), len(self._posts)))
        self._turns = deque(itertools.islice(turns, rounds))
        self._next_s = 0.0
        self.deaths: Counter[str] = Counter()
        """How many died of what: a signal from here, or at which failpoint."""

    @property
    def is_done(self) -> bool:
        """Everybody who was to die has, and all live."""
        return not self._turns and self._all_work()

    def look(self, share: float) -> None:
        """Start again whoever has died; when all work again, see to it after a while that the next one does not."""
        for index, worker in enumerate(self._workers):
            if worker.poll() is not None:
                point = self._points[index]
                assert worker.returncode == -signal.SIGKILL, self._deployment.logs()
                assert point is not None, self._deployment.logs()
                self.deaths[point] += 1
                self._start(index, None)
        if not self._turns or not self._all_work():
            self._next_s = time.monotonic() + self._chance.uniform(0, PAUSE_S_MAX)
        elif time.monotonic() >= self._next_s:
            index = self._turns.popleft()
            self._workers[index].kill()
            self._workers[index].wait()
            self.deaths["signal"] += 1
            self._start(index, next(self._names[self._posts[index][0]]))

    def _all_work(self) -> bool:
        return not any(self._points) and all(
            worker.poll() is None and "took_over" in self._deployment.log_of(worker) for worker in self._workers
        )

    def _start(self, index: int, point: str | None) -> None:
        role, instance = self._posts[index]
        passes = 1 if point in ONCE_A_LIFE else self._chance.randint(1, 20)
        failpoint = None if point is None else f"{point}:{passes}"
        self._workers[index] = self._deployment.start(role, instance=instance, failpoint=failpoint)
        self._points[index] = point


@pytest.mark.parametrize("seed", SEEDS)
def test_kills_at_random_and_at_failpoints(broker: str, tmp_path: Path, unique: Callable[[str], str], seed: int) -> None:
    with deploy(broker, tmp_path, unique(f"kills{seed}")[-40:], 4, time=TIMING) as deployment:
        crew = Crew(deployment, random.Random(seed), KILLS // 2)
        deployment.wait_joined()
        deployment.produce(split(4), seconds=KILLS * SECONDS_PER_KILL, on_share=crew.look)

        def judged() -> bool:
            crew.look(1.0)
            return crew.is_done and deployment.is_judged(last_tick())

        deployment.wait(judged, 60 + KILLS * SECONDS_PER_KILL, "everybody to have died and every judge to be done")
        print(f"seed {seed}: {dict(crew.deaths)}")
        assert crew.deaths["signal"] == KILLS // 2
        assert crew.deaths.total() == 2 * (KILLS // 2)
        check_same(deployment, reference(deployment))


def test_the_broker_is_killed_and_restarted_under_load(
    local_broker: LocalBroker, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    with deploy(
        local_broker.bootstrap, tmp_path, unique("broker")[-40:], 4, time={"lateness_s": 30, "ahead_s": 2}
    ) as deployment:
        deployment.start("all --supervise")
        deployment.wait(lambda: "took_over" in deployment.logs(), 60, "workers")
        killed: list[float] = []

        def kill(share: float) -> None:
            if share > 0.3 and not killed:
                local_broker.kill()
                killed.append(time.monotonic())
                time.sleep(5)
                local_broker.start()
            if share > 0.6 and len(killed) == 1:
                killed.append(time.monotonic())
                local_broker.restart()

        deployment.produce(split(4), seconds=20.0, on_share=kill)
        deployment.wait_judged(last_tick(), 180)
        check_same(deployment, reference(deployment))


def test_paused_past_the_session_and_back(broker: str, tmp_path: Path, unique: Callable[[str], str]) -> None:
    with deploy(broker, tmp_path, unique("paused")[-40:], 4, time=TIMING) as deployment:
        observers = [deployment.start("observe") for _ in range(2)]
        judges = [deployment.start("judge") for _ in range(2)]
        deployment.wait_joined()

        def pause(share: float) -> None:
            for worker, low, high in ((observers[0], 0.2, 0.6), (judges[0], 0.4, 0.8)):
                if worker.poll() is None:  # 40 % of 40 s are 16 s, more than two sessions
                    worker.send_signal(signal.SIGSTOP if low < share < high else signal.SIGCONT)

        deployment.produce(split(4), seconds=40.0, on_share=pause)
        for worker in (observers[0], judges[0]):
            worker.send_signal(signal.SIGCONT)
        deployment.wait_judged(last_tick(), 120)
        check_same(deployment, reference(deployment))


def test_joins_and_leaves(broker: str, tmp_path: Path, unique: Callable[[str], str]) -> None:
    with deploy(broker, tmp_path, unique("joins")[-40:], 4, time=TIMING) as deployment:
        workers = {role: [deployment.start(role)] for role in ("observe", "judge")}
        deployment.wait_joined()
        steps = [(0.1, 2), (0.25, 3), (0.45, 2), (0.6, 1), (0.75, 2)]

        def change(share: float) -> None:
            while steps and share > steps[0][0]:
                _, wanted = steps.pop(0)
                for role, crew in workers.items():
                    alive = [worker for worker in crew if worker.poll() is None]
                    for _ in range(wanted - len(alive)):
                        crew.append(deployment.start(role))
                    for worker in alive[wanted:]:
                        worker.terminate()

        deployment.produce(split(4), seconds=60.0, on_share=change)
        deployment.wait_judged(last_tick(), 120)
        check_same(deployment, reference(deployment))
        ended = [worker for crew in workers.values() for worker in crew if worker.poll() is not None]
        assert ended
        # One that is told to stop while it starts has nothing to end in order.
        assert {worker.returncode for worker in ended} <= {0, -signal.SIGTERM}, deployment.logs()


def test_a_worker_of_the_same_instance_is_told_so(broker: str, tmp_path: Path, unique: Callable[[str], str]) -> None:
    with deploy(broker, tmp_path, unique("twins")[-40:], 2, time=TIMING) as deployment:
        twins = [deployment.start("observe", instance="one") for _ in range(2)]
        deployment.wait(lambda: any(twin.poll() is not None for twin in twins), 90, "one of the two to leave")
        left = next(twin for twin in twins if twin.poll() is not None)
        assert left.returncode == 6, deployment.logs()
        assert "--instance" in deployment.logs()
        with pytest.raises(subprocess.TimeoutExpired):
            next(twin for twin in twins if twin is not left).wait(5)
