"""What honest and hostile clients ask for: pools of requests that the traffic draws from.

A pool holds requests with their answers, so that a status always fits its request, and it is drawn from by index:
rendering a million lines is then a million look-ups. Ids in paths vary from entry to entry and share few routes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

POOL_SIZE = 4096
"""Requests in one pool: enough that sizes, times and ids vary, few enough to stay in the processor's cache."""

AGENTS_API = ("python-httpx/0.28.1", "OpenAI/Python 1.68.2", "node-fetch/3.3.2", "Go-http-client/2.0", "okhttp/4.12.0")
AGENTS_BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:136.0) Gecko/20100101 Firefox/136.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.3 Safari/605.1.15",
)
AGENTS_HOSTILE = ("python-requests/2.32.3", "curl/8.12.1", "Mozilla/5.0")

# Weight, method, path ({n}: a number, {u}: a UUID, {h}: a hash), answers as (weight, status), bytes and milliseconds around.
_Answer = tuple[tuple[float, int], ...]
_Shape = tuple[float, str, str, _Answer, int, int]

_USUAL: _Answer = ((0.955, 200), (0.012, 400), (0.004, 401), (0.009, 404), (0.01, 429), (0.006, 500), (0.004, 499))
_FOUND: _Answer = ((0.7, 200), (0.29, 304), (0.01, 404))

SHAPES: dict[str, tuple[_Shape, ...]] = {
    "api": (
        (60, "POST", "/v1/chat/completions", _USUAL, 1800, 2200),
        (12, "POST", "/v1/embeddings", _USUAL, 6200, 90),
        (6, "GET", "/v1/models", ((1.0, 200),), 2400, 8),
        (6, "GET", "/v1/files/file-{h}", _USUAL, 900, 20),
        (6, "POST", "/v1/threads/{u}/messages", _USUAL, 700, 60),
        (6, "GET", "/v1/batches/{n}?expand=results", _USUAL, 3100, 40),
        (4, "DELETE", "/v1/files/file-{h}", ((0.97, 204), (0.03, 404)), 0, 30),
    ),
    "web": (
        (18, "GET", "/", ((0.93, 200), (0.07, 304)), 15200, 30),
        (14, "GET", "/console/projects/{n}", _USUAL, 9100, 60),
        (10, "GET", "/docs/guides/streaming?lang=en", _FOUND, 22100, 12),
        (6, "POST", "/console/api/usage", _USUAL, 1200, 45),
        (2, "POST", "/login", ((0.94, 302), (0.06, 401)), 310, 140),
        (20, "GET", "/assets/app.{h}.js", _FOUND, 88000, 6),
        (12, "GET", "/assets/site.{h}.css", _FOUND, 14300, 4),
        (14, "GET", "/img/{n}.webp", _FOUND, 31500, 5),
        (4, "GET", "/favicon.ico", _FOUND, 1150, 2),
    ),
    # A flood is answered by the service until it is not; what it or its limiter turned away (429, 503) is no evidence.
    "flood": (
        (70, "POST", "/v1/chat/completions", ((0.52, 400), (0.4, 500), (0.04, 429), (0.04, 503)), 180, 900),
        (30, "GET", "/v1/models?nonce={n}", ((0.96, 200), (0.04, 429)), 2400, 12),
    ),
    "burner": ((100, "GET", "/v1/files/file-{h}", ((0.5, 200), (0.5, 404)), 900, 20),),
    "stuffing": ((100, "POST", "/v1/auth/login", ((0.985, 401), (0.015, 200)), 96, 110),),
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request and its answer."""

    method: str
    path: str
    status: int
    size: int
    duration_ms: int
    referrer: str


def request_pool(kind: str, random: np.random.Generator) -> list[Request]:
    """``POOL_SIZE`` requests of a kind of `SHAPES`; the same for the same state of ``random``."""
    shapes = SHAPES[kind]
    weights = np.array([shape[0] for shape in shapes], float)
    chosen = random.choice(len(shapes), POOL_SIZE, p=weights / weights.sum())
    sizes = random.lognormal(0, 0.5, POOL_SIZE)
    durations = random.lognormal(0, 0.6, POOL_SIZE)
    draws = random.random(POOL_SIZE)
    ids = random.integers(0, 1 << 63, (POOL_SIZE, 2))
    pool = []
    for index in range(POOL_SIZE):
        _, method, path, answers, size, duration = shapes[int(chosen[index])]
        high, low = int(ids[index, 0]), int(ids[index, 1])
        text = f"{high:016x}{low:016x}"
        path = path.replace("{n}", str(high % 10_000_000)).replace("{h}", text[:24])
        path = path.replace("{u}", f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:32]}")
        pool.append(
            Request(
                method,
                path,
                _answer(answers, float(draws[index])),
                round(size * float(sizes[index])),
                max(1, round(duration * float(durations[index]))),
                "https://console.example.com/" if kind == "web" else "-",
            )
        )
    return pool


def _answer(answers: _Answer, draw: float) -> int:
    for weight, status in answers:
        draw -= weight
        if draw < 0:
            return status
    return answers[0][1]
