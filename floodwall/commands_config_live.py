"""``floodwall config list``, ``get``, ``set``, ``history`` and ``rollback``: the configuration of judges that run."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from floodwall import gate as gates
from floodwall.guard import guarded
from schemas.errors import UsageError

if TYPE_CHECKING:
    from engine.config_chain import Accepted, ConfigChain
    from floodwall.config_store import Store
    from schemas.config_change import ConfigChange

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="The deployment's file, as judges have it; its kafka section says where to.")
]
HistoryPath = Annotated[
    Path | None,
    typer.Option("--history", help="A file with the history, for `watch --config-history`; none: the topic config."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
SectionName = Annotated[str, typer.Argument(help="policy, playbooks.NAME or detectors.NAME.", metavar="SECTION")]
Why = Annotated[str, typer.Option("--why", help="For whoever reads it in a year.")]
Who = Annotated[str | None, typer.Option("--who", help="Who answers for it. [default: your login name]")]
Force = Annotated[bool, typer.Option("--force", help="It may mitigate more than before without having been tried.")]


@guarded
def list_(config: ConfigFile = None, history: HistoryPath = None, as_json: Json = False) -> int:
    """Print the sections, with the version and the second of the last change of each, and what is being tried.

    Example:  floodwall config list --config kafka.toml
    """
    from engine.config_edit import sections_of

    chain = _open(config, history).chain
    last = {one.change.section: one for one in chain.accepted}
    rows: list[dict[str, Any]] = []
    for section in sections_of(chain.last):
        one, trial = last.get(section), chain.last.trials.get(section.removeprefix("detectors."))
        about = {name: None if one is None else getattr(one.change, name) for name in ("effective_tick", "who", "why")}
        version = chain.first.version if one is None else one.standing.version
        tried = None if trial is None else {"version": trial.version, "until": trial.since + trial.trial_s}
        rows.append({"section": section, "version": version, **about, "tried": tried})
    if as_json:
        _print_json({"version": chain.last.version, "sections": rows})
        return 0
    from floodwall.tables import print_table

    typer.echo(f"version {chain.last.version}, since {_time_of(chain.last_tick)}")
    print_table(("section", "version", "since", "by", "why", "being tried"), [_row(row) for row in rows])
    return 0


def _row(row: dict[str, Any]) -> list[str]:
    tried = row["tried"]
    text = "" if tried is None else f"version {tried['version']} until {_time_of(tried['until'])}"
    return [row["section"], str(row["version"]), _time_of(row["effective_tick"] or 0), row["who"] or "", row["why"] or "", text]


@guarded
def get(section: SectionName, config: ConfigFile = None, history: HistoryPath = None) -> int:
    """Print a section as it stands, defaults included, as JSON.

    Example:  floodwall config get detectors.rate --config kafka.toml
    """
    from engine.config_edit import section_of

    found = section_of(_open(config, history).chain.last, section)
    if not found:
        raise UsageError(f"expected a playbook that there is, got {section[:80]!r}")
    _print_json(found)
    return 0


@guarded
def set_(
    section: SectionName,
    why: Why,
    assignments: Annotated[
        list[str] | None,
        typer.Argument(
            help="ttl_s=200, 'rules[0].limit=200', 'allow[+]={…}': a value is JSON, else text.", metavar="SETTING=VALUE"
        ),
    ] = None,
    who: Who = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", help="An entry of a list: 'allow[2]'.")] = None,
    unset: Annotated[list[str] | None, typer.Option("--unset", help="A setting that the file is to decide again.")] = None,
    base: Annotated[
        int | None, typer.Option("--base", help="The version that you have seen; refused if it is not the last.")
    ] = None,
    trial: Annotated[
        int | None, typer.Option("--trial", min=60, help="Try it in dry run beside what is in force, for so many seconds.")
    ] = None,
    arm: Annotated[bool, typer.Option("--arm", help="What has been tried of this section is meant from here on.")] = False,
    force: Force = False,
    only_check: Annotated[bool, typer.Option("--check", help="Say what would become of it, and write nothing.")] = False,
    backtest: gates.Backtest = None,
    max_collateral: gates.MaxCollateral = None,
    source: gates.BacktestSource = None,
    feedback: gates.BacktestFeedback = None,
    config: ConfigFile = None,
    history: HistoryPath = None,
    as_json: Json = False,
) -> int:
    """Change a section on all judges from one second on; windows keep their counts.

    What may mitigate more than before is tried first, in dry run beside what is in force, unless forced. Exit code 2: refused.
    With --backtest it is also tried on recorded traffic, as if it were meant at once: docs/diff.md.

    Example:  floodwall config set detectors.rate 'rules[0].limit=200' --why "flood of tuesday" --config kafka.toml
    """
    return change_section(
        section, assignments or (), why=why, who=who, force=force, config=config, history=history, as_json=as_json,
        remove=remove or (), unset=unset or (), base=base, trial=trial, arm=arm, only_check=only_check,
        gate=gates.gate_of(backtest, max_collateral, source, feedback),
    )  # fmt: skip


def change_section(
    section: str, assignments: Sequence[str], *, why: str, who: str | None, force: bool, config: Path | None,
    history: Path | None, as_json: bool, remove: Sequence[str] = (), unset: Sequence[str] = (), base: int | None = None,
    trial: int | None = None, arm: bool = False, only_check: bool = False, gate: gates.Gate | None = None,
) -> int:  # fmt: skip
    """Change a section, and say what came of it."""
    import msgspec

    from engine.config_chain import WideningError
    from engine.config_edit import edited, meant
    from schemas.config_change import TRIAL_S, ConfigChange

    store = _open(config, history)
    chain, common = store.chain, _common(store, who, why, force)
    if arm and (assignments or remove or unset or trial):
        raise UsageError("expected nothing to change beside --arm: what was tried is meant as it was")
    if arm:
        tried = chain.last.trials.get(section.removeprefix("detectors."))
        common["arms"] = chain.last.version if tried is None else tried.version
    change = ConfigChange(
        section=section, values=edited(chain.last, section, assignments, remove), unset=tuple(unset),
        base=chain.last.version if base is None else base, trial_s=trial, **common,
    )  # fmt: skip
    try:
        chain.judge(change, change.at_ms)
    except WideningError as error:
        if not section.startswith("detectors."):
            raise
        change = msgspec.structs.replace(change, trial_s=TRIAL_S)
        chain.judge(change, change.at_ms)
        if not as_json:
            typer.echo(f"It may mitigate more than before ({error.what}), so it is tried first; --force would not.")
    if gate is not None:
        # Reading a day takes its time: who has changed something meanwhile is told of by the change's base.
        gates.tell(gate.judge(chain.last.config, chain.judge(meant(change), change.at_ms).config), gate.share_max)
        change = msgspec.structs.replace(change, **_timing(store))
    if only_check:
        _print_outcomes(chain, [(change, None)], as_json)
        return 0
    _print_outcomes(chain, [(change, store.write(change))], as_json)
    return 0


@guarded
def history_(config: ConfigFile = None, history: HistoryPath = None, as_json: Json = False) -> int:
    """Print every change, the oldest first: who, when, why, what. What was refused is told on standard error.

    With --json one change a line, as `floodwall replay --config-history` reads them.

    Example:  floodwall config history --config kafka.toml --json > history.ndjson
    """
    import msgspec

    from schemas.config_change import encode_change

    store = _open(config, history)
    for one in store.refused:
        print(f"floodwall: {one.place} does not count: {one.why}", file=sys.stderr)
    if as_json:
        for accepted in store.chain.accepted:
            at_ms = store.times_ms.get(accepted.offset, accepted.change.at_ms)
            typer.echo(encode_change(msgspec.structs.replace(accepted.change, at_ms=at_ms)).decode())
        return 0
    from floodwall.tables import print_table

    print_table(
        ("version", "from", "by", "section", "what", "why"),
        [
            (
                str(one.standing.version), _time_of(one.change.effective_tick), one.change.who, one.change.section,
                _what(store.chain, one.change, one.standing.version), one.change.why,
            )
            for one in store.chain.accepted
        ],
    )  # fmt: skip
    return 0


@guarded
def rollback(
    why: Why,
    version: Annotated[int | None, typer.Argument(help="The version to go back to. [default: the one before the last]")] = None,
    who: Who = None,
    force: Force = False,
    config: ConfigFile = None,
    history: HistoryPath = None,
    as_json: Json = False,
) -> int:
    """Go back to an earlier version, as new changes: nothing is ever taken out of the history.

    Example:  floodwall config rollback --why "limit was a typo" --config kafka.toml
    """
    from engine.config_edit import going_back

    store = _open(config, history)
    to = store.chain.last.version - 1 if version is None else version
    changes = going_back(store.chain, to, **_common(store, who, why, force))
    _print_outcomes(store.chain, [(change, store.write(change)) for change in changes], as_json)
    return 0


def _open(config: Path | None, history: Path | None) -> Store:
    from floodwall.config_store import Store
    from schemas.config import load_config

    return Store(load_config(config), history)


def _common(store: Store, who: str | None, why: str, force: bool) -> dict[str, Any]:
    if not why.strip():
        raise UsageError("expected a reason (--why), got nothing: whoever reads it later wants to know")
    return {"who": who or getpass.getuser(), "why": why, "forced": force, **_timing(store)}


def _timing(store: Store) -> dict[str, int]:
    """When a change is written, and from when on it holds."""
    from engine.clock import SystemClock
    from engine.config_edit import next_tick

    now_ms = SystemClock().now_ms()
    return {"at_ms": now_ms, "effective_tick": next_tick(store.chain, now_ms)}


def _print_outcomes(chain: ConfigChain, outcomes: list[tuple[ConfigChange, Accepted | None]], as_json: bool) -> None:
    """What holds from when on; of a change that was only looked at, what would."""
    from schemas.config_change import encode_change

    for change, accepted in outcomes:
        standing = chain.judge(change, change.at_ms) if accepted is None else accepted.standing
        waiting = max((rule.whole_from for rule in standing.rules), default=0)
        if as_json:
            _print_json(
                {
                    "written": accepted is not None, "version": standing.version, "section": change.section,
                    "effective_tick": change.effective_tick, "tried": change.trial_s is not None,
                    "windows_whole_from": waiting or None, "change": encode_change(change).decode(),
                }
            )  # fmt: skip
            continue
        verb = "would hold" if accepted is None else "holds"
        typer.echo(f"version {standing.version} of {change.section} {verb} from {_time_of(change.effective_tick)} on")
        if change.trial_s is not None:
            until = _time_of(change.effective_tick + change.trial_s)
            name = change.section.removeprefix("detectors.")
            typer.echo(f"It is tried as {name}-trial; from {until} on: floodwall config set {change.section} --arm --why …")
        if waiting:
            typer.echo(f"A window reaches back before what is kept: it is judged from {_time_of(waiting)} on")


def _what(chain: ConfigChain, change: ConfigChange, version: int) -> str:
    from engine.config_edit import differences

    if change.arms is not None:
        return f"arms what was tried as version {change.arms}"
    if change.trial_s is not None:
        return f"tries {', '.join(sorted((*change.values, *change.unset)))}"
    before, after = chain.standing_of_version(version - 1), chain.standing_of_version(version)
    texts = [f"{path}: {_brief(old)} → {_brief(new)}" for path, old, new in differences(before, after, change.section)]
    return "; ".join(texts) or "ends what was tried"


def _brief(value: Any) -> str:
    import msgspec

    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}…"


def _time_of(tick: int) -> str:
    return "the start" if not tick else datetime.fromtimestamp(tick, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _print_json(value: Any) -> None:
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
