"""What clients call themselves, how people are named, and which paths scanners try. All invented; no name is anybody's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from drills.columns import I64, mixed
from drills.requests import AGENTS_API, AGENTS_BROWSER

_CHROME = "Mozilla/5.0 ({system}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{version}.0.0.0 Safari/537.36"
_SYSTEMS = ("Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7", "X11; Linux x86_64", "Linux; Android 10; K")
BROWSERS = AGENTS_BROWSER + tuple(
    _CHROME.format(system=system, version=version) for version in (141, 140, 139, 138, 137, 131) for system in _SYSTEMS
)
SDKS = (
    *AGENTS_API,
    *(f"OpenAI/Python 1.{minor}.0" for minor in (99, 97, 93, 86, 75, 60, 42)),
    *(f"OpenAI/JS 5.{minor}.0" for minor in (12, 9, 3)),
    "langchain/0.3.27", "litellm/1.75.3", "python-requests/2.32.5", "axios/1.11.0", "reqwest/0.12.22",
    "Java-http-client/21.0.8", "aiohttp/3.12.15", "Ruby/3.4.5", "Guzzle/7.9",
)  # fmt: skip
SERVERLESS = ("node-fetch/3.3.2", "OpenAI/JS 5.12.0")
CRAWLERS = (
    "Mozilla/5.0 (compatible; ExampleSearchBot/2.1; +https://search.example/bot.html)",
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; ExampleGPTBot/1.2; +https://answers.example/bot)",
)
BOT_TOOLS = ("python-requests/2.32.3", "curl/8.12.1", "Go-http-client/1.1", "Mozilla/5.0")
"""What bots say that do not hide."""
SCANNERS = (
    "SQLMap/1.9.4#stable (https://sqlmap.org)", "Mozilla/5.00 (NIKTO/2.5.0) (Evasions:None) (Test:Port Check)",
    "Nuclei - Open-source project (github.com/projectdiscovery/nuclei)", "gobuster/3.7", "WPScan v3.8.28 (https://wpscan.com)",
    "masscan/1.3 (https://github.com/robertdavidgraham/masscan)", "ZGrab/0.x", "feroxbuster/2.11.0",
)  # fmt: skip
"""The tools' own names, in any case: a list that compares case misses some."""
AGENTS = tuple(dict.fromkeys(BROWSERS + SDKS + CRAWLERS + BOT_TOOLS + SCANNERS))
AGENT_OF = {agent: index for index, agent in enumerate(AGENTS)}


def fingerprint_of(agent: str) -> str:
    """A JA4 that all clients of one kind share: programs of the same library have the same TLS."""
    family = agent.split("/", maxsplit=1)[0] + (agent[agent.find("Chrome/") :][:10] if "Chrome/" in agent else "")
    word = int(mixed(4, *family.encode())[0])
    kind = "t13d1516h2" if "Mozilla" in agent else "t13d1812h1"
    return f"{kind}_{word & 0xFFFFFFFFFFFF:012x}_{word >> 16 & 0xFFFFFFFFFFFF:012x}"


# Sixty large mail hosts as most people use, a long tail of firms, hosts that give an address for ten minutes, and one
# customer's own domain, which the trap is about.
DOMAINS_USUAL = tuple(f"mail{index}.example" for index in range(60))
DOMAINS_FIRMS = tuple(f"firm-{index:03d}.example" for index in range(900))
DOMAINS_DISPOSABLE = tuple(f"tenminutes{index:03d}.example" for index in range(240))
DOMAIN_OF_CUSTOMER = "customer-of-ours.example"
DOMAINS = (*DOMAINS_USUAL, *DOMAINS_FIRMS, *DOMAINS_DISPOSABLE, DOMAIN_OF_CUSTOMER)
FIRST_FIRM, FIRST_DISPOSABLE = len(DOMAINS_USUAL), len(DOMAINS_USUAL) + len(DOMAINS_FIRMS)
CUSTOMER = len(DOMAINS) - 1

_FIRST = (
    "anna", "ben", "carla", "david", "elena", "felix", "grace", "hugo", "ines", "jan", "kofi", "lena", "mario", "nadia",
    "omar", "priya", "quentin", "rosa", "samir", "tara", "ugo", "vera", "wei", "ximena", "yuki", "zoe", "amir", "bruno", "chen",
)  # fmt: skip
_LAST = (
    "abt", "bauer", "costa", "diaz", "engel", "fischer", "garcia", "haddad", "ito", "jansen", "kaya", "lopez", "meyer",
    "novak", "okafor", "patel", "quist", "rossi", "silva", "tanaka", "urban", "vogel", "weber", "xu", "yilmaz", "zhang",
)  # fmt: skip
NAMES_PER_KIND = 4096
"""Names of each kind; a name is drawn again now and then, as a refused one is tried again."""


def _human_names() -> list[str]:
    """first.last, first_l, flast and the like, some with a year behind."""
    words = mixed(11, np.arange(NAMES_PER_KIND))
    names = []
    for word in words.tolist():
        first, last = _FIRST[word % len(_FIRST)], _LAST[(word >> 8) % len(_LAST)]
        form = (word >> 16) % 6
        whole = (f"{first}.{last}", f"{first}{last}", f"{first}_{last[0]}")
        name = (*whole, f"{first[0]}{last}", f"{last}{first[:2]}", first)[form]
        names.append(name + (str(60 + (word >> 24) % 60) if (word >> 32) % 3 == 0 or form == 5 else ""))
    return names


def _bot_names() -> list[str]:
    """Ten letters and digits by chance."""
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = mixed(12, np.arange(NAMES_PER_KIND)).tolist()
    return ["".join(alphabet[(word >> 6 * place) % 36] for place in range(10)) for word in words]


NAMES = (*_human_names(), *_bot_names())
"""People's names, then those of bots that do not hide."""
FIRST_BOT_NAME = NAMES_PER_KIND

_SCANNED = (
    ".env", ".git/config", ".git/HEAD", "wp-login.php", "wp-admin/", "xmlrpc.php", "phpmyadmin/", "admin/", "administrator/",
    "server-status", "actuator/env", "actuator/heapdump", "config.json", "config.php", "backup.zip", "db.sql", "dump.sql",
    "id_rsa", ".aws/credentials", ".ssh/known_hosts", "console/", "solr/admin/", "jenkins/", "manager/html", "cgi-bin/test.cgi",
    "vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php", "boaform/admin/formLogin", "owa/", "autodiscover/", "api/swagger",
    "swagger-ui/", "graphql", "debug/vars", "metrics", "old/", "test/", "dev/", "staging/", "shell.php", "info.php",
)  # fmt: skip
SCAN_PATHS = tuple(f"/{folder}{name}" for folder in ("", "app/", "site/", "portal/", "v1/", "www/") for name in _SCANNED)


def choice_of(words: Sequence[str], random: np.random.Generator, count: int) -> I64:
    """``count`` indices into `AGENTS`, the first of ``words`` most often (Zipf)."""
    weights = 1 / np.arange(1, len(words) + 1)
    places = np.array([AGENT_OF[word] for word in words])
    return places[random.choice(len(words), count, p=weights / weights.sum())]
