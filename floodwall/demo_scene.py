"""Where ``floodwall demo --kafka`` is played and what enforces there: nftables in a namespace where it may, else a table."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from drills.demo_network import Loopback, Network, cabled
from drills.demo_service import Admit, Stage
from edge.in_process import InProcessPoint
from edge.nft import NftTable
from edge.nft_rules import Throttle
from engine.clock import Clock
from floodwall.demo_screen import NFTABLES, SERVICE, Story
from schemas.config import Config, parse_prefixes
from schemas.errors import EdgeError
from schemas.prefixes import Prefixes

TABLE = "floodwall"
COUNT_S = 0.2
"""How often the kernel is asked what it has dropped; a call of nft takes a hundredth of a second."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What the play needs of the place that it is in."""

    enforced_by: str
    network: Network
    point: InProcessPoint | NftTable
    admit: Admit | None = None
    dropped: Callable[[], Mapping[str, int]] | None = None
    """Packets that the kernel has dropped, by the name of its counter; None: the service turns away."""


def set_up(stack: contextlib.ExitStack, nft: bool | None, config: Config) -> tuple[Scene, str]:
    """The scene, taken down with the stack, and a sentence about what enforces in it; empty: as it was asked for.

    Args:
        nft: it has to be in it, it must not, or (None) it is if it may.

    Raises:
        EdgeError: nftables has to be in it, and may not.
    """
    said = ""
    if nft is not False:
        try:
            return stack.enter_context(_in_namespaces(config))
        except EdgeError as error:
            if nft:
                raise
            said = f"on loopback, where the service itself enforces: nftables cannot: {error}"
    point = InProcessPoint(Prefixes(parse_prefixes(config.policy.allowlist_core, "policy.allowlist_core")))
    return Scene(SERVICE, Loopback(), point, admit=point.decide), said


@contextlib.contextmanager
def _in_namespaces(config: Config) -> Iterator[tuple[Scene, str]]:
    core = parse_prefixes(config.policy.allowlist_core, "policy.allowlist_core")
    with cabled() as network:
        table = NftTable(TABLE, core, Throttle(), netns=network.namespace)  # which goes with its namespace
        table.open()
        table.replace({}, 0)  # so that its counters are there from the beginning
        said = f"nftables enforces, in the network namespace {network.namespace}"
        yield Scene(NFTABLES, network, table, dropped=table.dropped), said


def count_drops(scene: Scene, stage: Stage, story: Story, clock: Clock, stop: Callable[[], bool]) -> None:
    """Put what the kernel drops into the second in which it did, until told to stop; nothing where no kernel does.

    Raises:
        EdgeError: the kernel's counters cannot be read.
    """
    if scene.dropped is None:
        return
    before: Mapping[str, int] = {}
    ended = False
    while not ended:
        ended = stop()
        counted = scene.dropped()
        for name, packets in counted.items():
            # Fewer than before: the table has been put in place again, and its counters began again with it.
            more = packets - before.get(name, 0) if packets >= before.get(name, 0) else packets
            story.dropped[name] = story.dropped.get(name, 0) + more
            stage.now().turned_away += more
        before = counted
        if not ended:
            clock.wait(COUNT_S)
