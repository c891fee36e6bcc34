"""What can be asked of the service: shapes of requests, and the models with their prices."""

from __future__ import annotations

from dataclasses import dataclass

from drills.columns import ACCESS_LOG, REGISTRATIONS, REQUESTS
from drills.service.words import SCAN_PATHS

GATEWAY = ACCESS_LOG | REQUESTS
HOST_API, HOST_WEB = "api.example.com", "www.example.com"


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of request; ``path`` holds at most one place for the event's number."""

    name: str
    method: str
    path: str
    streams: int = GATEWAY
    has_tokens: bool = False
    pool: tuple[str, ...] = ()
    """Instead of ``path``: the number, by the length of the pool, chooses one."""
    anonymous: bool = False
    """The log does not say which key or account it was for."""

    @property
    def host(self) -> str:
        """Who is asked."""
        return HOST_API if self.streams & REQUESTS else HOST_WEB


SHAPES = (
    Shape("chat", "POST", "/v1/chat/completions", has_tokens=True),
    Shape("responses", "POST", "/v1/responses", has_tokens=True),
    Shape("embeddings", "POST", "/v1/embeddings", has_tokens=True),
    Shape("moderations", "POST", "/v1/moderations"),
    Shape("models", "GET", "/v1/models"),
    Shape("model", "GET", "/v1/models/%x"),
    Shape("file", "GET", "/v1/files/file-%024x"),
    Shape("delete_file", "DELETE", "/v1/files/file-%024x"),
    Shape("messages", "POST", "/v1/threads/%032x/messages"),
    Shape("run", "GET", "/v1/threads/%032x/runs"),
    Shape("batch", "GET", "/v1/batches/%d?expand=results"),
    Shape("login", "POST", "/v1/auth/login"),
    Shape("credits", "GET", "/v1/billing/credits"),
    Shape("register", "POST", "/signup", streams=ACCESS_LOG | REGISTRATIONS, anonymous=True),
    Shape("home", "GET", "/", streams=ACCESS_LOG, anonymous=True),
    Shape("pricing", "GET", "/pricing", streams=ACCESS_LOG, anonymous=True),
    Shape("article", "GET", "/blog/the-article-everybody-reads", streams=ACCESS_LOG, anonymous=True),
    Shape("guide", "GET", "/docs/guides/chapter-%03d", streams=ACCESS_LOG, anonymous=True),
    Shape("project", "GET", "/console/projects/%d", streams=ACCESS_LOG),
    Shape("usage", "POST", "/console/api/usage", streams=ACCESS_LOG),
    Shape("script", "GET", "/assets/app.%08x.js", streams=ACCESS_LOG, anonymous=True),
    Shape("style", "GET", "/assets/site.%08x.css", streams=ACCESS_LOG, anonymous=True),
    Shape("image", "GET", "/img/%d.webp", streams=ACCESS_LOG, anonymous=True),
    Shape("icon", "GET", "/favicon.ico", streams=ACCESS_LOG, anonymous=True),
    Shape("search", "GET", "/docs/search?q=%x", streams=ACCESS_LOG, anonymous=True),
    Shape("busting", "GET", "/pricing?nocache=%016x", streams=ACCESS_LOG, anonymous=True),
    Shape("scan", "GET", "", streams=ACCESS_LOG, pool=SCAN_PATHS, anonymous=True),
)
SHAPE_OF = {shape.name: index for index, shape in enumerate(SHAPES)}


@dataclass(frozen=True, slots=True)
class Model:
    """What answers; prices in millionths of the currency for a thousand tokens."""

    name: str
    price_in: int
    price_out: int
    tokens_per_second: float


MODELS = (
    Model("small-3", 150, 600, 120.0),
    Model("medium-3", 2500, 10000, 75.0),
    Model("large-3", 15000, 60000, 40.0),
    Model("embed-3", 20, 0, 4000.0),
)
SMALL, MEDIUM, LARGE, EMBED = range(4)
