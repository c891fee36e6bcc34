"""Histories of the configuration for tests."""

from __future__ import annotations

from typing import Any

from engine.config_chain import Accepted, ConfigChain
from schemas.config import Config
from schemas.config_change import DELAY_S, ConfigChange, encode_change


def change_of(config: Config, section: str, values: dict[str, Any], tick: int, base: int, **more: Any) -> ConfigChange:
    """As an operator writes it just in time."""
    fields = {"who": "op", "why": "test", "at_ms": 1000 * (tick - config.time.lateness_s - DELAY_S), **more}
    return ConfigChange(section=section, values=values, base=base, effective_tick=tick, **fields)


def offer(chain: ConfigChain, section: str, values: dict[str, Any], tick: int, **more: Any) -> Accepted:
    """Change what is in force."""
    fields = {"base": chain.last.version, **more}
    change = change_of(chain.first.config, section, values, tick, **fields)
    return chain.offer(encode_change(change), offset=len(chain.accepted))


def history(config: Config, *changes: tuple[str, dict[str, Any], int], **more: Any) -> ConfigChain:
    """Forced changes (section, values, tick), one after the other."""
    chain = ConfigChain(config)
    for section, values, tick in changes:
        offer(chain, section, values, tick, **{"forced": True, **more})
    return chain
