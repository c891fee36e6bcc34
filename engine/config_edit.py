"""How people change the configuration: words of a command line become a change, and a version is gone back to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from detectors.registry import playbooks, registered, settings
from engine.config_chain import POLICY, ConfigChain
from engine.standing import Standing
from schemas.config_change import DELAY_S, ConfigChange
from schemas.errors import UsageError
from schemas.playbooks import SECTION as PLAYBOOKS
from schemas.playbooks import documents_of

_STEP = re.compile(r"\.?([A-Za-z_][A-Za-z0-9_]*)|\[(\d{1,4}|\+)\]")
APPEND = "+"
_OFF = {"state": "off"}


def section_of(standing: Standing, section: str) -> dict[str, Any]:
    """A section as it stands, defaults included.

    Raises:
        UsageError: there is none of that name.
    """
    if section == POLICY:
        return _plain(standing.config.policy)
    if section.startswith(PLAYBOOKS):
        known = playbooks(standing.config)
        name = section.removeprefix(PLAYBOOKS)
        return _plain(known[name]) if name in known else {}
    found = settings(standing.config)
    name = section.removeprefix("detectors.")
    if name not in found or section == name:
        raise UsageError(f"expected policy, playbooks.NAME or detectors.NAME ({', '.join(found)}), got {section[:80]!r}")
    plain = _plain(found[name])
    if plain.get("rules", ()) is None:  # the profile's defaults, so that one of them can be named
        detector = next(one for one in registered() if one.name == name)
        plain["rules"] = [_plain(rule.configured) for rule in detector.rules(found[name], standing.config.profile)]
    return plain


def _plain(section: Any) -> dict[str, Any]:
    """With lists for tuples, as in JSON."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(section))
    return plain


def edited(standing: Standing, section: str, assignments: Sequence[str], removed: Sequence[str] = ()) -> dict[str, Any]:
    """The settings that are named, as they are with what is assigned and without what is removed.

    Args:
        assignments: ``setting=value``, also of a part: ``rules[0].limit=200``, ``allow[+]={…}``; a value is JSON, else text.
        removed: ``rules[2]``.

    Raises:
        UsageError: the words have another form, or name what is not there.
    """
    document = section_of(standing, section)
    touched = set()
    for words in assignments:
        path, sign, text = words.partition("=")
        if not sign:
            raise UsageError(f"expected SETTING=VALUE, got {words[:80]!r}")
        steps = _steps_of(path)
        touched.add(steps[0])
        _assign(document, steps, _value_of(text), path)
    for path in sorted(removed, reverse=True):  # the last of a list first, so that the others keep their numbers
        steps = _steps_of(path)
        touched.add(steps[0])
        _remove(document, steps, path)
    return {str(name): document.get(str(name)) for name in sorted(touched, key=str)}


def _steps_of(path: str) -> list[str | int]:
    steps: list[str | int] = []
    at = 0
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None:
            break
        name, index = found.groups()
        steps.append(name if name else index if index == APPEND else int(index))
        at = found.end()
    if at < len(path) or not steps or not isinstance(steps[0], str) or steps[0] == APPEND:
        raise UsageError(f"expected a setting, as ttl_s, rules[0].limit or allow[+], got {path[:80]!r}")
    return steps


def _value_of(text: str) -> Any:
    try:
        return msgspec.json.decode(text.encode())
    except msgspec.DecodeError:
        return text


def _inner(document: Any, steps: Sequence[str | int], path: str) -> Any:
    for step in steps:
        try:
            document = document[step]
        except (KeyError, IndexError, TypeError):
            raise UsageError(f"expected a setting that is there, got {path[:80]!r}: no {step}") from None
    return document


def _assign(document: dict[str, Any], steps: Sequence[str | int], value: Any, path: str) -> None:
    holder, last = _inner(document, steps[:-1], path), steps[-1]
    if last == APPEND and isinstance(holder, list):
        holder.append(value)
    elif isinstance(last, int) and isinstance(holder, list) and last < len(holder):
        holder[last] = value
    elif isinstance(last, str) and last != APPEND and isinstance(holder, dict):
        holder[last] = value
    else:
        raise UsageError(f"expected a setting that is there, got {path[:80]!r}: no {last}")


def _remove(document: dict[str, Any], steps: Sequence[str | int], path: str) -> None:
    holder, last = _inner(document, steps[:-1], path), steps[-1]
    if not isinstance(holder, list) or not isinstance(last, int) or last >= len(holder):
        raise UsageError(f"expected an entry of a list, as rules[2], got {path[:80]!r}")
    del holder[last]


def meant(change: ConfigChange) -> ConfigChange:
    """A change as if it were in force at once: neither tried first nor refused because it was not."""
    return msgspec.structs.replace(change, trial_s=None, forced=True)


def next_tick(chain: ConfigChain, now_ms: int) -> int:
    """The first second that a change written now can hold from."""
    return max(now_ms // 1000 + chain.first.config.time.lateness_s + DELAY_S, chain.last_tick)


def going_back(chain: ConfigChain, version: int, **common: Any) -> list[ConfigChange]:
    """The changes, one of each section, after which all is as it was as ``version``.

    Args:
        common: who, why, at_ms, effective_tick and forced.

    Raises:
        ConfigError: there was no such version. UsageError: nothing is different.
    """
    then, now = chain.standing_of_version(version), chain.last
    changes: list[ConfigChange] = []
    for section in sections_of(then, now):
        old, new = _document(then, section), _document(now, section)
        values = {key: value for key, value in old.items() if key not in new or new[key] != value}
        unset = tuple(key for key in new if key not in old) if old != _OFF else ()
        name = section.removeprefix("detectors.")
        if not values and not unset and now.trials.get(name) == then.trials.get(name):
            continue
        if not values and not unset:
            values = {"enabled": settings(now.config)[name].enabled}  # any change ends what is tried
        base = now.version + len(changes)
        changes.append(ConfigChange(section=section, values=values, unset=unset, base=base, **common))
    if not changes:
        raise UsageError(f"expected a version that is different from the last one ({now.version}), got {version}")
    return changes


def sections_of(*standings: Standing) -> list[str]:
    """Everything that can be changed on the way."""
    names = {name for standing in standings for name in documents_of(standing.config.playbooks)}
    return [POLICY, *(PLAYBOOKS + name for name in sorted(names)), *(f"detectors.{one.name}" for one in registered())]


def _document(standing: Standing, section: str) -> dict[str, Any]:
    if section == POLICY:
        return _plain(standing.config.policy)
    if section.startswith(PLAYBOOKS):
        # A playbook that was not there yet does nothing when it is off.
        document = documents_of(standing.config.playbooks).get(section.removeprefix(PLAYBOOKS))
        return dict(_OFF) if document is None else _plain(document)
    return standing.config.detectors.get(section.removeprefix("detectors."), {})


def differences(before: Standing, after: Standing, section: str) -> list[tuple[str, Any, Any]]:
    """(setting, before, after) of a section."""
    old, new = section_of(before, section), section_of(after, section)
    found: list[tuple[str, Any, Any]] = []
    for key, value in new.items():
        found += _differences(key, old.get(key), value)
    return found


def _differences(path: str, old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        return [one for key in new for one in _differences(f"{path}.{key}", old[key], new[key])]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [one for index in range(len(new)) for one in _differences(f"{path}[{index}]", old[index], new[index])]
    return [(path, old, new)]
