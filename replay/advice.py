"""What an operator does next about a mitigation, with the command that does it."""

from __future__ import annotations

import json
import math
import shlex
from typing import Literal

import msgspec

from engine.policy import FOR_EVER
from engine.standing import TRIAL_SUFFIX
from schemas.mitigation import Mitigation

OPERATOR = "operator"
"""The detector of an operator's own records."""
Status = Literal["in_force", "allowed", "lifted", "over", "held", "dry_run", "drill", "notice", "early"]
_ALLOWED_BY_NAME = ("ip", "net", "api_key", "account")
"""What `policy.allow` can except."""


class Advice(msgspec.Struct, frozen=True):
    """What to do, and the command that does it; none: nothing to type."""

    text: str
    command: str = ""


def advise(own: Mitigation, status: Status, left_s: int, *, live: bool) -> list[Advice]:
    """What to do next.

    Args:
        left_s: how long it has still to live.
        live: there is an enforcement topic that can be written to.
    """
    if own.detector == OPERATOR:
        return [Advice("An operator's own record. No longer wanted?", _lift(own))]
    if "playbook" in own.evidence.features:
        return _advise_playbook(own, status, left_s, live=live)
    if not live:
        return _advise_later(own, status)
    forever, section = _forever(own), f"[detectors.{own.detector}]"
    if status == "in_force" and own.expires_at >= FOR_EVER:
        wait = "Right? Leave it so: it does not end by itself, and whose key it is needs another one."
        return [Advice(wait), Advice("Wrong? Lift it, for good:", _lift(own, ttl_s=0))]
    if status in ("in_force", "early"):
        wait = f"Right? Wait: it ends by itself in {length(left_s)} if they stop, and is renewed if they go on."
        return [Advice(wait), Advice("Wrong? Lift it, and keep it lifted for an hour:", _lift(own)), *forever]
    if status == "held":
        return [Advice("Nobody is stopped. Right? Stop this one by hand:", _block(own)), *forever]
    if status == "dry_run" and own.detector.endswith(TRIAL_SUFFIX):
        tried = own.detector.removesuffix(TRIAL_SUFFIX)
        arm = "Nobody is stopped: these rules are tried beside those in force. As it should be, again and again? Mean them:"
        return [Advice(arm, f'floodwall config set detectors.{tried} --arm --why "WHY"')]
    if status == "dry_run":
        arm = f"Nobody is stopped: this detector only reports. Right, again and again? Arm it: dry_run = false in {section}."
        by_hand = Advice("Stop it by hand meanwhile:", _block(own))
        return [Advice(arm), by_hand] if own.target.type in _ALLOWED_BY_NAME else [Advice(arm)]
    if status == "notice":
        return _advise_of_notice(own)
    if status == "allowed":
        return [Advice("An operator keeps detectors away from it. No longer wanted?", _lift(own))]
    if status == "drill":
        return [Advice("A rehearsal: nothing is done to anybody.")]
    if status == "lifted":
        return [Advice("Somebody has lifted it: nothing to do."), *forever]
    return [Advice("It is over: nothing to do."), *forever]


def advise_feedback(identifier: str, status: Status, *, for_good: bool = False) -> list[Advice]:
    """To say that it was wrong, where that would still change something."""
    if status not in ("in_force", "early", "held", "dry_run", "notice", "over"):
        return []
    command = f'floodwall feedback {shlex.quote(identifier)} --false-positive --reason "WHY"'
    if for_good:
        return [Advice("Or say that it was wrong, which lifts it too, and is kept:", command)]
    return [Advice("Wrong? Say so, and it is lifted, not done again for a while, and learned from:", command)]


def _advise_of_notice(own: Mitigation) -> list[Advice]:
    """Nobody is stopped: whoever looks has to judge, and may act."""
    look = Advice("Nobody is stopped by this. Look at the traffic: is it what you expect at this time?")
    if own.target.type in _ALLOWED_BY_NAME:
        return [look, Advice("Not what you expect? Stop it by hand, for ten minutes:", _block(own))]
    return [look, Advice("Not what you expect? See who is stopped already, and for what:", "floodwall mitigations list")]


def _advise_playbook(own: Mitigation, status: Status, left_s: int, *, live: bool) -> list[Advice]:
    """About a step of a playbook: all of its run belongs together."""
    features = own.evidence.features
    name, run = str(features["playbook"]), str(features.get("run", ""))
    wrong = Advice("Wrong? Take back all that this run has done:", f'floodwall playbook revert {run} --why "WHY"')
    arm = Advice("Right, again and again? Arm it:", f'floodwall playbook arm {shlex.quote(name)} --why "WHY"')
    wrong_ones = [wrong] if live else []
    if status in ("in_force", "early"):
        ends = (
            f"it ends by itself in {length(left_s)} if that stops" if own.action != "disable_key" else "it has no end by itself"
        )
        return [Advice(f"Right? Wait: {ends}, and is renewed while the condition holds."), *wrong_ones]
    if status == "notice":
        load = features.get("load_times_usual")
        scale = f" It is asked for {load:g} times as much as usual." if isinstance(load, float) else ""
        more = [arm] if features.get("playbook_state") == "simulated" else []
        return [Advice(f"Nobody is stopped by this notice.{scale} Expected? Scale out by that."), *more, *wrong_ones]
    if status == "held":
        bound = f"Nobody is stopped. Worth it? Let the playbook hit more: collateral_max in [playbooks.{name}]."
        return [Advice(bound), *wrong_ones]
    if status == "dry_run":
        return [Advice("Nobody is stopped: the playbook is only simulated."), arm]
    return [Advice("It is over: nothing to do." if status == "over" else "Nothing is done to anybody now: nothing to do.")]


def _advise_later(own: Mitigation, status: Status) -> list[Advice]:
    """About a file: what was decided there is enforced by nobody."""
    if status == "dry_run":
        return [Advice(f"Right? Arm it: dry_run = false in [detectors.{own.detector}]."), *_forever(own)]
    if status == "notice":
        return [Advice("Nobody is stopped by this. Look at the traffic: is it what you expect at this time?")]
    return [Advice("Right? Then there is nothing to do."), *_forever(own)]


def _forever(own: Mitigation) -> list[Advice]:
    if own.target.type not in _ALLOWED_BY_NAME:
        return []
    words = f'dimension = "{own.target.type}", value = {json.dumps(own.target.value)}, owner = "YOU", reason = "WHY"'
    return [Advice("Wrong, and always will be? Allow it in the configuration:", f"[policy] allow = [{{ {words} }}]")]


def _lift(own: Mitigation, ttl_s: int = 3600) -> str:
    for_s = f" --ttl {ttl_s}" if ttl_s else ""
    return f'floodwall mitigations lift {_whom(own)} --owner YOU --reason "WHY"{for_s}'


def _block(own: Mitigation) -> str:
    return f'floodwall mitigations add {_whom(own)} --action block --owner YOU --reason "WHY" --ttl 600'


def _whom(own: Mitigation) -> str:
    kind = "" if own.target.type in ("ip", "net") else f" --type {own.target.type}"
    return shlex.quote(own.target.value) + kind


def length(seconds: float) -> str:
    """A duration in words.

    >>> [length(s) for s in (0.42, 45, 300, 3700, 90000)]
    ['0.4 s', '45 s', '5 min', '1 h 2 min', '1 d 1 h']
    """
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f} s"
    whole = math.floor(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 and whole < 600 else "")
    if whole < 86_400:
        return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")
    return f"{whole // 86_400} d" + (f" {whole % 86_400 // 3600} h" if whole % 86_400 // 3600 else "")
