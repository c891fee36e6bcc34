"""The demo through a real broker and real workers: it recovers, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from broker.local import LocalBroker
from floodwall.demo_screen import NFTABLES, SERVICE
from tests.namespaces import REQUIRED, namespaces_of, why_not

FLOODWALL = str(Path(sys.executable).parent / "floodwall")
START_S_MAX = 150.0
"""Kernels may have to be compiled first."""


@contextmanager
def started(folder: Path, *words: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """The demo with its temporary files in ``folder``, by which its processes are known too."""
    environment = {**os.environ, "TMPDIR": str(folder), **variables}
    demo = subprocess.Popen(
        [FLOODWALL, "demo", "--kafka", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment,
    )  # fmt: skip
    try:
        yield demo
    finally:
        if demo.poll() is None:
            demo.terminate()
        demo.communicate(timeout=60)


def processes_of(folder: Path) -> dict[int, str]:
    """Command lines by their process, of those that name a file in ``folder``: the broker and the workers of a demo."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if any(word.startswith(os.fsencode(folder) + b"/") for word in words):
            found[int(entry.parent.name)] = b" ".join(words).decode(errors="replace")
    return found


def wait_for_processes(folder: Path, many: int) -> None:
    deadline = time.monotonic() + START_S_MAX
    while len(processes_of(folder)) < many:
        assert time.monotonic() < deadline, processes_of(folder)
        time.sleep(0.1)


def assert_nothing_is_left(folder: Path, demo: subprocess.Popen[bytes]) -> None:
    assert processes_of(folder) == {}
    assert list(folder.iterdir()) == []
    assert namespaces_of(demo.pid) == []


@pytest.fixture(scope="module")
def enforced_by() -> str:
    """What has to enforce in a demo that is started here: nftables, where it may."""
    why = why_not()
    if why and os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED}=1, but there is no nft and ip netns here: {why}")
    return SERVICE if why else NFTABLES


@pytest.mark.usefixtures("local_broker")  # for its skips: the demo starts a broker of its own
def test_the_demo_recovers_through_kafka_and_leaves_nothing_behind(enforced_by: str, tmp_path: Path) -> None:
    with started(tmp_path, "--seconds", "16", "--json") as demo:
        out, err = demo.communicate(timeout=START_S_MAX)
    document = orjson.loads(out)
    assert demo.returncode == 0, (document, err)
    assert document["success_before"] > 0.95
    assert document["success_lowest"] < 0.9
    assert document["success_after"] >= 0.95
    assert document["events"] > 1000
    assert document["enforced_by"] == enforced_by
    assert (document["packets_dropped"].get("throttled", 0) > 100) == (enforced_by == NFTABLES)
    assert set(document["targets"]) == {f"203.0.113.{last}" for last in (7, 66, 99, 142)}
    assert_nothing_is_left(tmp_path, demo)


@pytest.mark.parametrize(("number", "processes"), [(signal.SIGINT, 3), (signal.SIGTERM, 1)])
def test_an_interrupted_demo_leaves_nothing_behind(
    local_broker: LocalBroker, enforced_by: str, number: signal.Signals, processes: int, tmp_path: Path
) -> None:
    with started(tmp_path, "--seconds", "300") as demo:
        wait_for_processes(tmp_path, processes)  # 1: the broker is starting; 3: the workers are, too
        assert len(namespaces_of(demo.pid)) == (2 if enforced_by == NFTABLES else 0)
        demo.send_signal(number)
        out, err = demo.communicate(timeout=60)
    assert (demo.returncode, out) == (130, b""), err
    assert_nothing_is_left(tmp_path, demo)


@pytest.mark.usefixtures("local_broker")
def test_a_worker_that_dies_ends_the_demo_with_one_line(tmp_path: Path) -> None:
    with started(tmp_path, "--seconds", "300", "--json") as demo:
        wait_for_processes(tmp_path, 3)
        os.kill(next(pid for pid, words in processes_of(tmp_path).items() if " worker judge " in words), signal.SIGKILL)
        out, err = demo.communicate(timeout=60)
    assert (demo.returncode, out) == (6, b""), err
    assert err.splitlines()[-1].startswith(b"floodwall: expected the worker to judge, it ended with exit code -9")
    assert_nothing_is_left(tmp_path, demo)


def test_without_java_the_demo_says_so_in_one_line(tmp_path: Path) -> None:
    with started(tmp_path, PATH=str(tmp_path), JAVA_HOME="") as demo:
        out, err = demo.communicate(timeout=60)
    assert (demo.returncode, out) == (6, b""), err
    assert err.startswith(b"floodwall: expected Java 17 or newer to run a broker, got none")
    assert err.count(b"\n") == 1
    assert_nothing_is_left(tmp_path, demo)
