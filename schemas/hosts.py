"""Hosts that are one service: the name of the service takes the place of the host, as soon as an event has been read.

A sign-up site, a console and an API are often one service on several hosts. What is counted for a service, and what is learned
of it, is about all of them then. Nothing is done, and no time spent, where `Input.services` is not set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from schemas.columns import I32, U8
from schemas.compiled import entry
from schemas.fields import Text

HOST = int(Text.HOST)


class Hosts:
    """Which hosts are which service.

    Args:
        services: name -> its hosts, as events name them, each of one service.
    """

    def __init__(self, services: Mapping[str, Sequence[str]]) -> None:
        owner = {host: service for service, hosts in services.items() for host in hosts}
        self.names: U8 = np.frombuffer("".join(services).encode(), np.uint8)
        """What has to stand in the buffer of a batch."""
        ends = np.cumsum([0, *(len(name.encode()) for name in services)])
        number = {name: index for index, name in enumerate(services)}
        self._hosts: U8 = np.frombuffer("".join(owner).encode(), np.uint8)
        self._host_ends = np.cumsum([0, *(len(host.encode()) for host in owner)])
        self._name_at = np.array([ends[number[name]] for name in owner.values()], np.int64)
        self._name_length = np.array([len(name.encode()) for name in owner.values()], np.int64)

    def fill(self, buffer: U8, at: int, starts: I32, lengths: I32, count: int) -> None:
        """Write services in the place of their hosts; the names go into the buffer from ``at`` on."""
        buffer[at : at + len(self.names)] = self.names
        hosts_kernel(
            buffer, starts[HOST], lengths[HOST], count, self._hosts, self._host_ends, self._name_at, self._name_length, at
        )


@entry
def hosts_kernel(
    buffer: Any, start: Any, length: Any, count: Any, hosts: Any, ends: Any, name_at: Any, name_length: Any, at: Any
) -> None:
    """Of each of ``count`` hosts that is known, where its service's name stands instead."""
    for i in range(count):
        size = np.int64(length[i])
        if size == 0:
            continue
        for host in range(len(name_at)):
            if ends[host + 1] - ends[host] != size:
                continue
            same = np.int64(0)
            while same < size and buffer[start[i] + same] == hosts[ends[host] + same]:
                same += 1
            if same == size:
                start[i], length[i] = np.int32(at + name_at[host]), np.int32(name_length[host])
                break
