"""Feedback and changes of the configuration: neither makes the other hold at another second, or forget what it is about."""

from __future__ import annotations

from typing import Any

import pytest

from engine import learned
from engine.config_chain import ConfigChain
from engine.embedded import Embedded
from schemas.config import Config
from schemas.errors import ConfigError
from schemas.feedback import Feedback, encode_feedback
from schemas.mitigation import Mitigation
from tests.engines import Decided, conclude, feed
from tests.histories import history, offer
from tests.learners import Counter
from tests.test_config_history import BOUND_MS, SECONDS, START, TICK, TRAFFIC, about, config, rule, run
from tests.test_feedback import essence


def wrong(mitigation: Mitigation, tick: int) -> Feedback:
    return Feedback(
        id=mitigation.id, verdict="false_positive", detector=mitigation.detector, finding=mitigation.finding,
        detector_version=mitigation.detector_version, target=mitigation.target, who="ana", when=tick - 9, tick=tick,
    )  # fmt: skip


def told(configuration: Config, chain: ConfigChain, record: Feedback, piece: int) -> tuple[Decided, dict[str, Any]]:
    """What was decided, and what the learned detectors know at the end."""
    engine = Embedded(configuration, history=chain)
    engine.receive(encode_feedback(record))
    engine.open("log", BOUND_MS)
    lines, base = TRAFFIC.splitlines(keepends=True), 0
    for first in range(0, len(lines), piece):
        base = feed(engine, "log", b"".join(lines[first : first + piece]), base)
    engine.close("log")
    engine.finish()
    assert engine.feedback_counts()["late"] == 0
    models = engine.models()
    return conclude(engine), models


@pytest.mark.parametrize(("limit", "stands"), [(90, 1), (60, 2)], ids=["nothing follows", "made again as another version"])
def test_what_was_mitigated_before_a_change_is_lifted_after_it(limit: int, stands: int) -> None:
    configuration = config(rule(50))
    chain = history(configuration, ("detectors.rate", {"rules": [rule(limit)]}, TICK))
    before = [m for m in about(run(configuration, chain)) if m.tick < TICK][-1]
    (lift,) = [m for m in told(configuration, chain, wrong(before, TICK + 10), 997)[0].mitigations if m.state == "lifted"]
    assert (lift.tick, lift.target, lift.config_version) == (TICK + 10, before.target, 2)
    assert (lift.id == before.id) == (stands == 1)
    (lifted,) = [m for m in about(run(configuration, chain)) if m.id == lift.id]
    assert lifted.config_version == stands


def test_both_hold_from_the_same_second_for_any_cut_and_no_model_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "MAKERS", {"counter": Counter})
    configuration = config(rule(50))
    chain = history(configuration, ("detectors.rate", {"rules": [rule(60, 30)]}, TICK))  # windows are laid out again
    before = [m for m in about(run(configuration, chain)) if m.tick < TICK][-1]
    whole, known = told(configuration, chain, wrong(before, TICK), len(TRAFFIC))
    (lift,) = [m for m in whole.mitigations if m.state == "lifted"]
    assert (lift.id, lift.tick, lift.config_version) == (before.id, TICK, 2)
    assert known["counter"]["about"]["services"] == 1
    assert known["counter"]["data"]["means"][0][1] >= SECONDS // 10 - 1  # steps from the first second on
    assert max(m.tick for m in about(whole) if m.state != "lifted") < TICK
    for piece in (31, 977):
        cut, model = told(configuration, chain, wrong(before, TICK), piece)
        assert essence(cut) == essence(whole)
        assert str(model) == str(known)


@pytest.mark.parametrize("section", ["leaked", "keys", "registrations"])
def test_what_learns_or_keeps_a_list_says_that_it_cannot_be_changed_on_the_way(section: str) -> None:
    with pytest.raises(ConfigError, match=rf"`\$\.detectors\.{section}`: it holds from the start"):
        offer(ConfigChain(config()), f"detectors.{section}", {"dry_run": False}, START, forced=True)
