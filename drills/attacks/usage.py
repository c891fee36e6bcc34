"""What answers cost: requests that hold places, burn tokens, or carry the model away."""

from __future__ import annotations

import numpy as np

from drills.attacks.base import Sent, Site
from drills.columns import I64, Events, whole
from drills.honest.calls import answers, fail, requests_of, take_time, talk
from drills.service.shapes import EMBED, LARGE, MEDIUM, SMALL
from drills.service.words import SDKS


def _accounts(site: Site, *, at_home: bool = False) -> I64:
    """Sources that each have a key and an account of their own, bought or farmed."""
    keys, accounts = site.world.new_keys(site.sources, 1.0)
    add = site.homes if at_home else site.hosted
    return add(SDKS, keys=keys, accounts=accounts)


def _calls(
    sent: Sent, random: np.random.Generator, shape: str, model: int, tokens: tuple[float, float], max_tokens: int = 0
) -> Events:
    """Calls to one model with about so many tokens in and out."""
    events = requests_of(shape, sent.actor, sent.start_ms, random)
    count = len(events)
    bound = np.full(count, max_tokens)
    talk(events, random, np.full(count, model), np.full(count, tokens[0]), np.full(count, tokens[1]), bound)
    return events


def stream_exhaustion(site: Site) -> None:
    """Streams that are opened and kept open for ten minutes, many at once: each is idle, together they hold all places."""

    def fill(sent: Sent, random: np.random.Generator) -> Events:
        events = _calls(sent, random, "chat", SMALL, (60, 800))
        take_time(events, whole(random.uniform(540_000, 640_000, len(events))))
        return events

    site.wave(_accounts(site), site.counts(), fill)


def slow_requests(site: Site) -> None:
    """Requests whose body comes byte by byte until the server gives up."""

    def fill(sent: Sent, random: np.random.Generator) -> Events:
        events = requests_of("chat", sent.actor, sent.start_ms, random)
        events["status"] = answers(random, ((0.8, 408), (0.2, 499)), len(events))
        events["bytes"] = 0
        take_time(events, whole(random.uniform(60_000, 120_000, len(events))))
        return events

    site.wave(site.few(), site.counts(), fill)


def cancelled_prompts(site: Site) -> None:
    """Prompts of a hundred thousand tokens, dropped before the first word comes back, so that nothing is charged."""

    def fill(sent: Sent, random: np.random.Generator) -> Events:
        events = _calls(sent, random, "chat", LARGE, (1, 1))
        count = len(events)
        events["tokens_in"], events["tokens_out"] = whole(random.normal(110_000, 12_000, count), 60_000), 0
        events["tokens_cached"], events["bytes"], events["status"] = 0, 0, 499
        take_time(events, whole(random.uniform(300, 1500, count)))
        return events

    site.wave(_accounts(site), site.counts(), fill)


def max_tokens(site: Site) -> None:
    """Every request may be answered at length and is answered shortly: room is reserved that nobody uses."""

    def fill(sent: Sent, random: np.random.Generator) -> Events:
        return _calls(sent, random, "chat", MEDIUM, (200, 30), 128_000)

    site.wave(_accounts(site), site.counts(), fill)


def denial_of_wallet(site: Site) -> None:
    """The dearest model, long prompts, long answers: within the limits on requests, not within anybody's budget."""

    def fill(sent: Sent, random: np.random.Generator) -> Events:
        return _calls(sent, random, "chat", LARGE, (40_000, 6000), 16_000)

    site.wave(_accounts(site, at_home=True), site.counts(), fill)


def distillation(site: Site) -> None:
    """Five hundred accounts ask question after question and keep the answers: each of them is a good customer."""

    def fill(sent: Sent, random: np.random.Generator) -> Events:
        events = _calls(sent, random, "chat", MEDIUM, (180, 1400), 4096)
        events["status"] = answers(random, ((0.985, 200), (0.015, 429)), len(events))
        fail(events, random)
        return events

    site.wave(_accounts(site), site.counts(), fill)


def embedding_scraping(site: Site) -> None:
    """Five hundred accounts have whole libraries embedded."""

    def fill(sent: Sent, random: np.random.Generator) -> Events:
        return _calls(sent, random, "embeddings", EMBED, (7000, 0))

    site.wave(_accounts(site), site.counts(), fill)


def _victims_key(site: Site, *, proven: bool) -> tuple[str, str]:
    """Key and account of a busy honest customer, who is a victim."""
    victim = site.busiest_customer()
    key, account = site.world.actors.key[victim], site.world.actors.account[victim]
    # Whoever has the key in hand can use it: stopping the key is right then, and stopping the customer is not.
    site.hostile.victims = {"account": [account]} if proven else {"account": [account], "api_key": [key]}
    return key, account


def _stolen(site: Site, tokens: tuple[float, float], model: int, *, at_home: bool) -> None:
    key, account = _victims_key(site, proven=True)
    add = site.homes if at_home else site.hosted
    actors = add(SDKS, keys=[key] * site.sources, accounts=[account] * site.sources)

    def fill(sent: Sent, random: np.random.Generator) -> Events:
        return _calls(sent, random, "chat", model, tokens)

    site.wave(actors, site.counts(), fill)


def leaked_key_loud(site: Site) -> None:
    """A customer's key is found, and used for all it is worth from networks that it never came from."""
    _stolen(site, (3000, 1200), LARGE, at_home=False)


def leaked_key_quiet(site: Site) -> None:
    """A customer's key is used beside the customer, a little, from one to five new networks."""
    _stolen(site, (500, 250), MEDIUM, at_home=True)


def key_shared(site: Site) -> None:
    """An account sells its key: a hundred homes use it, each like a person."""
    _shared(site)


def stock_key(site: Site) -> None:
    """One key from 500 sources: no address does anything that stock rules count."""
    _shared(site)


def _shared(site: Site) -> None:
    keys, accounts = site.world.new_keys(1)
    actors = site.homes(SDKS, keys=keys * site.sources, accounts=accounts * site.sources)

    def fill(sent: Sent, random: np.random.Generator) -> Events:
        return _calls(sent, random, "chat", MEDIUM, (400, 300))

    site.wave(actors, site.counts(), fill)


def trap_framed_key(site: Site) -> None:
    """Requests name a customer's key and fail to prove it, so that the customer is stopped: nothing may happen to it."""
    key, account = _victims_key(site, proven=False)
    actors = site.few(SDKS, keys=[key] * site.sources, accounts=[account] * site.sources)

    def fill(sent: Sent, random: np.random.Generator) -> Events:
        events = _calls(sent, random, "chat", LARGE, (1, 1))
        events["status"], events["flags"] = 401, 4
        fail(events, random)
        return events

    site.wave(actors, site.counts(), fill)
