"""``floodwall models``: what the learned detectors know."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from floodwall.commands_feedback import At, To, Who
from floodwall.guard import guarded
from floodwall.options import ConfigFile
from schemas.errors import UsageError

if TYPE_CHECKING:
    from engine.model_state import ModelPlace
    from replay.shown import Shown

app = typer.Typer(
    no_args_is_help=True,
    help="What the learned detectors know, as judges or a saved state have written it down.\n\n"
    "Example:  floodwall models list --config kafka.toml",
)
StateFile = Annotated[
    Path | None, typer.Option("--state", help="A state that `replay` or `watch` have saved, instead of what is on Kafka.")
]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="The name of a learned detector.")]
Partition = Annotated[int | None, typer.Option("--partition", min=0, help="Of one judge partition only.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
EXIT_NOT_FOUND = 1


@app.command("list")
@guarded
def list_(config: ConfigFile = None, state: StateFile = None, as_json: Json = False) -> int:
    """Print each model: up to when it has learned, how large it is, whether it knows enough, and what was refused.

    Example:  floodwall models list --config kafka.toml
    """
    places = _read(config, state)
    if as_json:
        _print_json([_head(place) for place in places])
    elif not places:
        print("No model has been written down.")
    else:
        _print_table(places)
    return 0


@app.command("show")
@guarded
def show(
    model: Model, partition: Partition = None, config: ConfigFile = None, state: StateFile = None, as_json: Json = False
) -> int:
    """Print what a model says of itself.

    Example:  floodwall models show keys --partition 3 --config kafka.toml
    """
    places = _chosen(_read(config, state), model, partition)
    if not places:
        return _none(model, partition)
    if as_json:
        _print_json([{**_head(place), "about": place.about} for place in places])
        return 0
    from floodwall.tables import printable

    _print_table(places)
    for place in places:
        for name, value in place.about.items():
            where = "" if place.partition is None else f"{place.partition}: "
            print(printable(f"{where}{name.replace('_', ' ')}: {value}"))
    return 0


@app.command("export")
@guarded
def export(
    model: Model,
    partition: Partition = None,
    out: Annotated[Path | None, typer.Option("--out", help="A file; none: standard output.")] = None,
    config: ConfigFile = None,
    state: StateFile = None,
) -> int:
    """Write down everything that a model knows as JSON, arrays with their type and shape.

    Example:  floodwall models export keys --partition 3 --out keys.json
    """
    places = _chosen(_read(config, state), model, partition)
    if not places:
        return _none(model, partition)
    from replay.shown import shown_by
    from schemas.config import load_config

    shown = shown_by(load_config(config))
    document = [{**_head(place), "about": place.about, "data": _plain(place.data, shown)} for place in places]
    if out is None:
        _print_json(document)
        return 0
    import orjson

    from schemas.errors import SourceError

    try:
        out.write_bytes(orjson.dumps(document, option=_options()))
    except OSError as error:
        raise SourceError(f"expected to write a model to {out}, got: {error.strerror or error}") from None
    return 0


@app.command("reset")
@guarded
def reset(
    model: Model,
    reason: Annotated[str, typer.Option("--reason", help="Why, in one sentence.")],
    who: Who = None,
    at: At = None,
    to: To = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> int:
    """Make a model begin anew, on every judge from the same second on. It goes by the feedback topic, with its rights and cap.

    Example:  floodwall models reset keys --reason "prices changed, and so did everybody"
    """
    from engine.learned import MAKERS
    from floodwall.commands_feedback import give, moments, whose
    from schemas.config import load_config
    from schemas.feedback import reset_record

    chosen = load_config(config)
    if model not in MAKERS:
        raise UsageError(f"expected a learned detector ({', '.join(sorted(MAKERS)) or 'there is none'}), got {model[:64]!r}")
    if len(reason) > 256 or not reason.strip():
        raise UsageError(f"expected a reason of 1 to 256 characters, got {len(reason)}")
    when, tick = moments(chosen, at)
    record = reset_record(model, who=whose(chosen, who), reason=reason, when=when, tick=tick)
    give(chosen, record, to, as_json=as_json)
    return 0


def _read(config: Path | None, state: Path | None) -> list[ModelPlace]:
    from schemas.config import load_config

    if state is None:
        from broker.connection import Connection
        from broker.models import read_models

        chosen = load_config(config)
        return read_models(chosen, Connection(chosen.kafka))
    from replay.state import read_saved_models

    return read_saved_models(state)


def _chosen(places: list[ModelPlace], model: str, partition: int | None) -> list[ModelPlace]:
    return [place for place in places if place.model == model and partition in (None, place.partition)]


def _none(model: str, partition: int | None) -> int:
    from floodwall.tables import printable

    where = "" if partition is None else f" of judge partition {partition}"
    print(f"floodwall: expected a model {printable(model[:64])}{where}, none has been written down", file=sys.stderr)
    return EXIT_NOT_FOUND


def _head(place: ModelPlace) -> dict[str, Any]:
    return {
        "model": place.model, "partition": place.partition, "version": place.version, "covered_tick": place.covered_tick,
        "bytes": place.bytes, "cold": place.cold, "refused": place.refused,
    }  # fmt: skip


def _print_table(places: list[ModelPlace]) -> None:
    from floodwall.show import moment
    from floodwall.tables import print_table

    print_table(
        ("model", "judge partition", "version", "learned until", "bytes", "state"),
        [
            (
                place.model, "all" if place.partition is None else str(place.partition),
                "" if place.version is None else str(place.version),
                "" if place.covered_tick is None else moment(place.covered_tick), f"{place.bytes:,}",
                f"cold; refused: {place.refused}" if place.refused else "cold" if place.cold else "warm",
            )
            for place in places
        ],
    )  # fmt: skip


def _plain(value: Any, shown: Shown) -> Any:
    """Arrays with their type and shape, bytes as text, names as they may be shown."""
    import numpy as np

    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.str, "shape": list(value.shape), "values": value.ravel().tolist()}
    if isinstance(value, dict):
        return {shown.name(str(key)): _plain(inner, shown) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, shown) for inner in value]
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    return shown.name(text) if isinstance(text, str) else text


def _options() -> int:
    import orjson

    return orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS


def _print_json(document: object) -> None:
    import orjson

    sys.stdout.buffer.write(orjson.dumps(document, option=_options()) + b"\n")
    sys.stdout.buffer.flush()
