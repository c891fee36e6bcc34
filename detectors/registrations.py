"""``registrations``: a flood of registrations, by what it changes of how a service's registrations usually are.

How it decides: every ten seconds, for each service, it counts the registrations of the last 10 s, 60 s and 10 min, and every
ten minutes those of the last hour and day, and of each window what they have of twelve *marks*: user agents that are new to
the service, hosting networks, disposable mail domains, countries that hardly anybody comes from, how surprising names are,
their digits, how rare mail domains are, networks that somebody registered from minutes before, failures, and, of accounts
that became an hour and six hours old, how many nobody used since, and, where a service says who is verified, how many were
not (`detectors.learning.uses`, `detectors.learning.verifications`). Each count and mark becomes a
signed z against what is usual at that hour (`detectors.learning.floods`); z are added up, for windows and in a CUSUM. The
largest of these sums is the score. From the past scores alone two limits are read off (`detectors.learning.calibration`):
from ``notify`` on people are told; from ``act`` on, which is far rarer, something may be done. At the end of each hour the
last day is compared with the days before (`detectors.learning.days`): the share of its accounts that nobody used, and the
number of registrations all day long; three sixteenths of ``notify_per_day`` are for that, and nothing is done. Then it says
what the surplus is made of: values of an attribute (user agent, country, mail domain, /24 or /48, autonomous system, referrer)
that more of the last ten minutes have than usual and than chance explains. Networks and disposable mail domains among them
are challenged first and, if the flood lasts into the next cell of renewal, may not register for ``restrict_ttl_s``; user agents
are challenged; all of them together within ``collateral_max``, the share of usual registrations that they match. Countries,
autonomous systems, referrers, and mail domains that are on no list of disposable ones are named and never acted on: for those
there is the operator's playbook.

Where it fails: a flood that mimics everything and stays within chance of the usual number is not seen
(docs/models-registrations.md has how much that is); nor one that was there from the start. An honest campaign is a flood too:
it is told, and nothing is done, because what it has in common is what everybody has. Without names, mail domains or
autonomous systems in the events the marks that need them are silent. The first hour of a service is *cold*: only what is far
off is told, and for a week nothing acts. Unused accounts are only seen where registrations and requests name the account in
the same words and are of one service: of one host, or of hosts that ``input.services`` puts together. Whoever has each
account ask for something once is not seen by them. A sample shows what some accounts do, not all: the share that is used is
that of those. Verifications tell nothing of whoever has each mail address confirmed; an outage that leaves more than half of
them looks like a campaign.

Costs: the sample; 0.2 ms each ten seconds for each service that registers anybody, 1 MB of memory for each, four services in
a judge partition at most.

Confidence: as the limits are: one notice a day and service is chance, and one action in 90 days. Can its evidence be forged?
Whoever registers in somebody's network, country or browser makes those suspected; what is usual is beyond the collateral,
what is rare and honest can be framed for ``restrict_ttl_s``. A mail domain that no list calls disposable cannot, and a failed
registration is no evidence about the domain it names.

Key: the service; what is acted on are networks, mail domains and user agents. Quiet time: people are told
once in an episode, which is over when an hour passes without a score at the limit; of what lasts for hours and days six hours,
and again when it has become ten times rarer than what they were told.

Parameters: `RegistrationsSection`.

>>> section = RegistrationsSection()
>>> section.notify_per_day, round(1 / section.act_per_day)
(1.0, 90)

References: Page, Continuous Inspection Schemes (1954); Siffer et al., Anomaly Detection in Streams with Extreme Value Theory
(2017); Thomas et al., Trafficking Fraudulent Accounts (USENIX Security 2013), for what such accounts have in common.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from detectors.windowed import Detector, DetectorSection, Profile, WindowRule

NAME = "registrations"
VERSION = 3
Path = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
Rate = Annotated[float, msgspec.Meta(gt=0, le=1000)]


class RegistrationsSection(DetectorSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``registrations`` detector."""

    dry_run: bool = True
    """Ships dry: look at what it would have restricted, then set this to false. Notices are published all the same."""
    notify_per_day: Rate = 1.0
    """So often people may be told of a service's registrations for no reason."""
    act_per_day: Rate = 1 / 90
    """So often something may be done for no reason."""
    start_score: Annotated[float, msgspec.Meta(ge=3, le=100)] = 7.0
    """The score to notify from before a day is known."""
    collateral_max: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.02
    """The share of usual registrations that everything acted on at once may match."""
    restrict_ttl_s: Annotated[int, msgspec.Meta(ge=60, le=86400)] = 900
    """For how long a network or a disposable mail domain may not register, after the last window that says so."""
    change_max: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.005
    """Standard deviations that what is usual may move in an hour, after the first week. 0: no cap."""
    disposable_package: bool = True
    """Take the package ``disposable-email-domains`` for a list, if it is installed."""
    disposable_files: tuple[Path, ...] = ()
    """Files of more disposable mail domains, one a line; ``#`` begins a comment, and they may be gzipped."""
    customer_domains: tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=253)], ...] = ()
    """Mail domains that are never disposable, whatever lists say."""
    hosting_asns_files: tuple[Path, ...] = ()
    """Files of the numbers of hosters' autonomous systems, one a line, before a comma."""
    hosting_files: tuple[Path, ...] = ()
    """Files of hosters' addresses and prefixes, one a line."""
    severity: Annotated[int, msgspec.Meta(ge=1, le=10)] = 6
    """10 is the worst."""
    confidence: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.7
    """How often a notice is an attack, as far as is known."""


def _no_rules(section: RegistrationsSection, profile: Profile) -> list[WindowRule]:
    """It compares with what it has learned (`engine.cohorts`), and not in the windows."""
    return []


def _describe(rule: WindowRule, target: str, observed: int) -> str:
    return f"{observed:,} registrations of {target} in {rule.window_s} seconds, where about {rule.limit:,} are usual"


DETECTOR = Detector(NAME, VERSION, RegistrationsSection, _no_rules, _describe, samples=True)
