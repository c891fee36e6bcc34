"""The cable between two network namespaces: what goes through it, and that nothing of it is left."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from drills.cable import Cable, cable, namespace
from drills.signals import undisturbed
from schemas.errors import EdgeError
from tests.namespaces import namespaces_of, need_namespaces

CLIENTS = ("203.0.113.7", "2001:db8:1::7")
SERVICES = ("192.0.2.1", "2001:db8::1")


@pytest.fixture
def between() -> Iterator[Cable]:
    need_namespaces()
    with cable(CLIENTS, SERVICES) as made:
        yield made


@pytest.mark.parametrize(("client", "service"), list(zip(CLIENTS, SERVICES, strict=True)))
def test_a_connection_comes_from_the_address_that_it_was_bound_to(between: Cable, client: str, service: str) -> None:
    family = socket.AF_INET6 if ":" in client else socket.AF_INET
    with between.server.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((service, 0))
        listener.listen()
        listener.settimeout(5)
        with between.client.socket(family, socket.SOCK_STREAM) as connection:
            connection.bind((client, 0))
            connection.settimeout(5)
            connection.connect(listener.getsockname()[:2])
            accepted, peer = listener.accept()
            accepted.close()
    assert peer[0] == client


def test_the_hosts_network_is_not_touched(between: Cable) -> None:
    inside = [[name for _, name in end.inside(socket.if_nameindex)] for end in (between.client, between.server)]
    assert all("cable" in names for names in inside)
    assert "cable" not in [name for _, name in socket.if_nameindex()]
    with pytest.raises(OSError, match="Cannot assign requested address"), socket.socket() as here:
        here.bind((CLIENTS[0], 0))


def test_its_namespaces_carry_our_number_and_go_with_it(between: Cable) -> None:
    assert {between.client.name, between.server.name} <= set(namespaces_of(os.getpid()))
    with cable((), ()) as another:
        names = {another.client.name, another.server.name}
        assert names <= set(namespaces_of(os.getpid()))
    assert not names & set(namespaces_of(os.getpid()))


@pytest.mark.parametrize("what", [KeyboardInterrupt, ValueError])
def test_a_failure_or_an_interrupt_leaves_no_namespace(what: type[BaseException]) -> None:
    need_namespaces()
    with pytest.raises(what), cable(CLIENTS, SERVICES):
        raise what
    assert namespaces_of(os.getpid()) == []


def test_an_address_that_is_none_is_named_and_leaves_no_namespace() -> None:
    need_namespaces()
    expected = r"expected `ip -n fw-client-\S+ -batch -` to work, got: .*300\.0\.0\.1"
    with pytest.raises(EdgeError, match=expected), cable(("300.0.0.1",), SERVICES):
        pass
    assert namespaces_of(os.getpid()) == []


def test_a_second_signal_does_not_disturb_cleaning_up() -> None:
    before = signal.getsignal(signal.SIGINT)
    with undisturbed():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
    assert signal.getsignal(signal.SIGINT) is before


def test_without_ip_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EdgeError, match="expected the program ip, found none on the path: install iproute2"), namespace("x"):
        pass


@pytest.mark.parametrize("complaint", ["mkdir /var/run/netns failed: Permission denied", "mount: Operation not permitted"])
def test_without_the_right_it_says_whose_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, complaint: str) -> None:
    program = tmp_path / "ip"
    program.write_text(f"#!/bin/sh\necho '{complaint}' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(EdgeError) as caught, namespace("x"):
        pass
    assert str(caught.value) == f"expected the right to make network namespaces, got: {complaint}; run as root"
