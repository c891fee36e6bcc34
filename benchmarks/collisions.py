"""An attack with keys built to collide, against ordinary keys: what an event costs in every table on its way.

The attacker knows the code and not the seed. So the keys collide under everything that a table could hash with if it were
careless: the value itself, its low bits, FNV-1a, SipHash without a seed, ours under another seed, Python's hash of integers;
or they look alike.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from benchmarks.steps import Steps
from detectors.kernels.hashing import hash_bytes_kernel, hash_keys
from engine.embedded import Embedded
from engine.seeds import make_seeds
from schemas.config import parse_config
from schemas.fields import Dimension

Hashes = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]

RATIO_MAX = 2.0
START_S = 1_795_000_000
EVENTS_PER_KEY = 20
WARM_SHARE = 0.25
"""This much is fed before the measurement, so that tables are full and memory is touched."""
SEED = "benchmark"
EVENTS_PER_SECOND = 20_000
CHUNK = 1 << 20
EQUAL_BITS = 10
"""Low bits in which the hashes of chosen keys agree: about 1,024 tries for each."""
TABLES = ("group", "finish", "order", "insert", "close")
"""The steps that look keys up; decoding and writing down decisions are no part of the ratio."""
NETWORK = 0x2001_0DB8_0000_0000
PYTHON_MODULUS = 2**61 - 1
"""Python's integers hash to themselves modulo this."""
TEXT_LENGTH = 32
WITH_SEED = "equal low bits under the seed, which nobody has"
"""No attack, but the proof that an attack would show: it pushes keys out of the table, in bounded time."""


@njit(cache=False)  # type: ignore[untyped-decorator]  # numba ships no types, and this is no kernel of the product
def _unkeyed_bytes(padded: Bytes, length: int) -> Hashes:
    no_seed = np.zeros(2, np.uint64)
    out = np.empty(len(padded), np.uint64)
    for k in range(len(padded)):
        out[k], _ = hash_bytes_kernel(no_seed, padded[k], 0, length)
    return out


def _hash_addresses(values: Hashes, secret: str) -> Hashes:
    """The hash of every /64 under a seed."""
    seeds = make_seeds(parse_config({"engine": {"seed": secret}})).hash
    return hash_keys(seeds, values, np.zeros(len(values), np.uint64), np.full(len(values), Dimension.IP, np.uint8))


def fnv1a(data: Bytes) -> Hashes:
    """FNV-1a of each row of ``data`` (u8[n, length])."""
    hashes = np.full(len(data), 0xCBF29CE484222325, np.uint64)
    for column in range(data.shape[1]):
        hashes = (hashes ^ data[:, column]) * np.uint64(0x100000001B3)
    return hashes


def _chosen(hashes: Hashes) -> npt.NDArray[np.intp]:
    """Where the low bits are all zero."""
    return np.flatnonzero(hashes & np.uint64((1 << EQUAL_BITS) - 1) == 0)


def address_keys(count: int, random: np.random.Generator) -> dict[str, Hashes]:
    """Sets of ``count`` distinct IPv6 /64s (their upper halves, u64[count]); the first is what clients are like."""

    def draw(many: int) -> Hashes:
        return np.unique(np.uint64(NETWORK) + random.integers(0, 1 << 48, many, np.uint64))

    def drawn_until(hash_of: Callable[[Hashes], Hashes]) -> Hashes:
        found = np.zeros(0, np.uint64)
        while len(found) < count:
            values = draw(1 << 20)
            found = np.union1d(found, values[_chosen(hash_of(values))])
        return found[:count]

    steps = np.arange(count, dtype=np.uint64)
    sets = {
        "random": draw(2 * count),
        "one after the other (one /48)": np.uint64(NETWORK) + steps,
        "equal low bits": np.uint64(NETWORK) + (steps << np.uint64(16)),
        "equal under Python's hash": np.uint64(NETWORK % PYTHON_MODULUS) + steps[:7] * np.uint64(PYTHON_MODULUS),
        "equal low bits of FNV-1a": drawn_until(lambda values: fnv1a(values.astype("<u8").view(np.uint8).reshape(-1, 8))),
        "equal low bits under a guessed seed": drawn_until(lambda values: _hash_addresses(values, "a guess")),
        WITH_SEED: drawn_until(lambda values: _hash_addresses(values, SEED)),
    }
    # Only seven words of 64 bits are equal under Python's hash: the rest of the set differs from them in the low bits.
    few = sets["equal under Python's hash"]
    sets["equal under Python's hash"] = (few[:, None] + np.arange(-(-count // 7), dtype=np.uint64)[None, :]).ravel()
    return {name: random.permutation(values)[:count] for name, values in sets.items()}


def text_keys(count: int, random: np.random.Generator) -> dict[str, list[str]]:
    """Sets of ``count`` distinct names, all of one length; the first is what accounts are like."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)

    def draw(many: int, prefix: str = "") -> Bytes:
        texts = digits[random.integers(0, 16, (many, TEXT_LENGTH))]
        texts[:, : len(prefix)] = np.frombuffer(prefix.encode(), np.uint8)
        return texts

    def drawn_until(hash_of: Callable[[Bytes], Hashes]) -> list[str]:
        found: set[str] = set()
        while len(found) < count:
            texts = draw(1 << 18)
            found |= set(_words(texts[_chosen(hash_of(texts))]))
        return sorted(found)[:count]

    numbered = [f"{number:0{TEXT_LENGTH}d}" for number in range(count)]
    return {
        "random": _words(draw(count)),
        "numbered": numbered,
        "numbered, differing at the front": [word[::-1] for word in numbered],
        "equal first 8 bytes": _words(draw(count, "a" * 8)),
        "equal first 16 bytes": _words(draw(count, "a" * 16)),
        "equal first 24 bytes": _words(draw(count, "a" * 24)),
        "equal low bits of FNV-1a": drawn_until(fnv1a),
        "equal low bits of SipHash without a seed": drawn_until(
            lambda texts: _unkeyed_bytes(np.pad(texts, ((0, 0), (0, 64))), TEXT_LENGTH)
        ),
    }


def _words(texts: Bytes) -> list[str]:
    return [bytes(text).decode() for text in texts]


def _addresses(keys: Hashes) -> list[str]:
    return [f"{key >> 48:04x}:{key >> 32 & 0xFFFF:04x}:{key >> 16 & 0xFFFF:04x}:{key & 0xFFFF:04x}::1" for key in keys.tolist()]


def lines_of(addresses: list[str], accounts: list[str]) -> Iterator[bytes]:
    """Chunks of NDJSON in which every pair of keys comes back `EVENTS_PER_KEY` times."""
    records = [
        f'"remote_addr":"{address}","account":"{account}","uri":"/v1/models","status":200}}\n'
        for address, account in zip(addresses, accounts, strict=True)
    ]
    lines, size = [], 0
    for number in range(EVENTS_PER_KEY * len(records)):
        second = START_S + number // EVENTS_PER_SECOND
        lines.append(f'{{"time":{second},' + records[number % len(records)])
        size += len(lines[-1])
        if size > CHUNK - 4096:
            yield "".join(lines).encode()
            lines, size = [], 0
    yield "".join(lines).encode()


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run came to."""

    tables_ns: float
    """Nanoseconds per event in `TABLES`."""
    aged_out: int
    """Keys that were pushed out of a table."""


def cost_of(chunks: list[bytes], keys_max: int = 1 << 19) -> Cost:
    """Run the engine over the chunks."""
    rules = [{"dimension": name, "window_s": 10, "limit": 10**9, "measure": "requests"} for name in ("ip", "account")]
    engine = Embedded(parse_config({"detectors": {"rate": {"rules": rules}}, "engine": {"keys_max": keys_max, "seed": SEED}}))
    buffer = np.zeros(2 * CHUNK + 16384, np.uint8)
    engine.open("log", 4_102_444_800_000)
    base, before = 0, 0
    warm = max(1, int(len(chunks) * WARM_SHARE))
    gc.collect()
    with Steps() as steps:
        for index, chunk in enumerate(chunks):
            if index == warm:
                before = engine.account().events
                steps.clear()
            buffer[: len(chunk)] = np.frombuffer(chunk, np.uint8)
            engine.feed("log", buffer, len(chunk), base)
            base += len(chunk)
        engine.finish()
        spent = sum(ns for name, ns in steps.nanoseconds() if name in TABLES)
    account = engine.account()
    return Cost(spent / (account.events - before), account.aged_out)


def cases(count: int) -> dict[str, tuple[list[str], list[str]]]:
    """(addresses, accounts) by name; the first is ordinary."""
    random = np.random.default_rng(11)
    addresses = {name: _addresses(keys) for name, keys in address_keys(count, random).items()}
    accounts = text_keys(count, random)
    found = {"ordinary": (addresses.pop("random"), accounts.pop("random"))}
    ordinary = found["ordinary"]
    found |= {f"addresses: {name}": (keys, ordinary[1]) for name, keys in addresses.items()}
    found |= {f"accounts: {name}": (ordinary[0], keys) for name, keys in accounts.items()}
    return found


def collisions(runs: int, count: int) -> None:
    """Print what every attack costs. Raises SystemExit when one costs more than `RATIO_MAX` times ordinary keys."""
    chunks = {name: list(lines_of(*keys)) for name, keys in cases(count).items()}
    cost_of(chunks["ordinary"])
    costs: dict[str, list[Cost]] = {name: [] for name in chunks}
    for _ in range(runs):
        for name, data in chunks.items():
            costs[name].append(cost_of(data))
    events = EVENTS_PER_KEY * count
    print(f"\nkeys built to collide: n = {events:,} events of {count:,} keys, {runs} runs, nanoseconds per event in the tables")
    first = [cost.tables_ns for cost in costs["ordinary"]]
    worst = 0.0
    for name, results in costs.items():
        values = [cost.tables_ns for cost in results]
        ratio = statistics.median(value / ordinary for value, ordinary in zip(values, first, strict=True))
        if WITH_SEED not in name:
            worst = max(worst, ratio)
        spread = (max(values) - min(values)) / statistics.median(values)
        pushed = max(cost.aged_out for cost in results)
        print(f"  {name:52} {statistics.median(values):7.1f}   spread {spread:4.0%}   {ratio:5.2f} x   {pushed:,} pushed out")
    full = [cost_of(chunks["ordinary"], keys_max=1024) for _ in range(runs)]
    values = [cost.tables_ns for cost in full]
    print(f"  {'ordinary, but tables are full: all 32 slots tried':52} {statistics.median(values):7.1f}   "
          f"{statistics.median(value / ordinary for value, ordinary in zip(values, first, strict=True)):20.2f} x   "
          f"{max(cost.aged_out for cost in full):,} pushed out")  # fmt: skip
    if worst > RATIO_MAX:
        raise SystemExit(f"expected at most {RATIO_MAX} x, got {worst:.2f} x")
