"""What docs/drills.md says about attacks and their strengths, made from the catalogue and the table.

``make schemas`` writes it, and a test fails when the page says something else.
"""

from __future__ import annotations

import sys
from pathlib import Path

from drills.attacks.catalogue import ATTACKS, Attack
from drills.attacks.strengths import DAY_S, HOUR_S, STRENGTHS, Strength
from drills.honest.signups import REGISTRATIONS_SHARE
from drills.service.world import NORMAL_PER_SECOND

BEGIN, END = "<!-- written by `make schemas` from drills/attacks/ -->", "<!-- to here -->"


def span_text(seconds: int) -> str:
    """A duration as people say it."""
    for unit, name in ((DAY_S, "d"), (HOUR_S, "h"), (60, "min")):
        if seconds % unit == 0:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"


def rate_text(per_second: float) -> str:
    """A rate in a unit that leaves whole numbers."""
    for factor, unit in ((1, "s"), (60, "min"), (3600, "h")):
        if per_second * factor >= 0.99:
            return f"{per_second * factor:,.4g}/{unit}"
    return f"{per_second * 86_400:,.4g}/d"


def share_text(share: float) -> str:
    """Per cent with up to three digits that mean something."""
    return f"{100 * share:,.0f} %" if share >= 1 else f"{100 * share:.3g} %"


def strength_text(attack: Attack, strength: Strength) -> str:
    """One cell: sources, the rate of each or of all, the share of normal, the duration."""
    normal = NORMAL_PER_SECOND * (REGISTRATIONS_SHARE if attack.registers else 1.0)
    total, sources = strength.numbers(normal)
    per_second = total / strength.duration_s
    each = f" × {rate_text(strength.per_source)}" if strength.per_source is not None else f", {rate_text(per_second)}"
    of = " registrations" if attack.registers else ""
    return f"{sources:,}{each}, {share_text(per_second / normal)} of normal{of}, {span_text(strength.duration_s)}"


def table() -> str:
    """Every attack with its strengths, as a table in Markdown."""
    rows = ["| attack | weak | ordinary | loud |", "|---|---|---|---|"]
    for name, attack in ATTACKS.items():
        cells = [strength_text(attack, strength) for strength in STRENGTHS[name]]
        rows.append(f"| `{name}`: {attack.text} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def written(page: str) -> str:
    """The page with its table as it should be."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
