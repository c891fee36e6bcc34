"""What docs/ says about structs, made from the structs: JSON Schemas and the reference of the configuration.

``make schemas`` writes it, and a test fails when docs/ say something else.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from detectors.registry import modules, registered
from detectors.windowed import Detector, Profile, WindowRule
from engine.config_chain import LEARNING_LIVE, POLICY_LIVE
from schemas.acknowledgement import Acknowledgement
from schemas.config import Config, Policy
from schemas.config_change import ConfigChange, ConfigStatus
from schemas.errors import SourceError
from schemas.events import KINDS
from schemas.feedback import Feedback
from schemas.leaked import LeakLift, LeakReport
from schemas.mitigation import Finding, Mitigation
from schemas.playbooks import NAME_PATTERN, Playbook

_GENERATED = "Written by `make schemas`; the text stands in"


def field_texts(struct: type[Any]) -> dict[str, str]:
    """The comments beside the fields of a struct and of those it inherits from, each as one paragraph."""
    texts: dict[str, str] = {}
    for owner in reversed(struct.__mro__[:-1]):
        if not issubclass(owner, msgspec.Struct) or owner is msgspec.Struct:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, comment in zip(body.body, body.body[1:], strict=False):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(comment, ast.Expr) and isinstance(comment.value, ast.Constant):
                texts[field.target.id] = " ".join(str(comment.value.value).split())
    return texts


def json_schema(struct: type[Any]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a struct, with the comments beside the fields as descriptions."""
    (document,), definitions = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    for known in _structs_of(struct):
        described = definitions[known.__name__]
        for name, text in field_texts(known).items():
            described["properties"][name]["description"] = text
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": struct.__name__,
        **document,
        "$defs": definitions,
    }


def config_schema() -> dict[str, Any]:
    """The JSON Schema of the configuration with the section of every detector."""
    document = json_schema(Config)
    known = {detector.name: json_schema(detector.section) for detector in registered()}
    for schema in known.values():
        document["$defs"].update(schema["$defs"])
    place = document["$defs"]["Config"]["properties"]["detectors"]
    place.pop("additionalProperties", None)
    place["properties"] = {name: {"$ref": schema["$ref"]} for name, schema in known.items()}
    place["additionalProperties"] = False
    playbook = json_schema(Playbook)
    document["$defs"].update(playbook["$defs"])
    place = document["$defs"]["Config"]["properties"]["playbooks"]
    # What ships may be changed in parts, so that nothing is required of a section by itself.
    document["$defs"]["Playbook"].pop("required", None)
    place["additionalProperties"] = {"$ref": playbook["$ref"]}
    place["propertyNames"] = {"pattern": f"^{NAME_PATTERN.pattern}$"}
    return document


def _structs_of(struct: type[Any]) -> list[type[Any]]:
    """A struct and every struct in its fields."""
    found: list[type[Any]] = []

    def visit(info: Any) -> None:
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in found:
                return
            found.append(info.cls)
            for field in info.fields:
                visit(field.type)
        for part in ("item_type", "value_type"):
            if hasattr(info, part):
                visit(getattr(info, part))
        for part in ("item_types", "types"):
            for inner in getattr(info, part, ()):
                visit(inner)

    visit(msgspec.inspect.type_info(struct))
    return found


def documents() -> dict[str, str]:
    """Path below docs/ -> text of everything that is generated."""
    structs: dict[str, type[Any]] = {
        "mitigation": Mitigation, "finding": Finding, "acknowledgement": Acknowledgement, "config-change": ConfigChange,
        "config-status": ConfigStatus, "leak-report": LeakReport, "leak-lift": LeakLift, "feedback": Feedback, **KINDS,
    }  # fmt: skip
    found = {f"schemas/{name}.json": pretty(json_schema(struct)) for name, struct in structs.items()}
    found["schemas/config.json"] = pretty(config_schema())
    found["detectors.md"] = _detectors()
    found["configuration.md"] = _configuration()
    found["events.md"] = _events()
    found["config-messages.md"] = _config_messages()
    return found


def pretty(document: Any) -> str:
    """Plain data as JSON that people can read."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def _events() -> str:
    parts = [
        "# Our own schema of events",
        f"{_GENERATED} `schemas/events.py`. The same as JSON Schemas: "
        + ", ".join(f"[{name}](schemas/{name}.json)" for name in KINDS)
        + ".",
        "For whoever writes a new producer: one JSON object per line or message, or an array of them. Fields that are not "
        "there are left out or null. Other names are mapped with `input.fields`.",
    ]
    for name, struct in KINDS.items():
        parts.append(f"## {name}\n\n{_doc_of(struct)}")
        parts.append(_table(struct, ("field", "type", "meaning"), defaults=False))
    return "\n\n".join(parts) + "\n"


def _config_messages() -> str:
    parts = [
        "# Messages of the config topic",
        f"{_GENERATED} `schemas/config_change.py`. The same as JSON Schemas: [config-change](schemas/config-change.json), "
        "[config-status](schemas/config-status.json). How they are used: [the config topic](config-topic.md).",
    ]
    for name, struct in {"config": ConfigChange, "config-status": ConfigStatus}.items():
        parts.append(f"## `{name}`\n\n{_doc_of(struct)}")
        parts.append(_table(struct, ("field", "type", "meaning"), defaults=False))
    rows = ["| section | can be changed on the way | holds from the start |", "|---|---|---|"]
    known = [field.encode_name for field in msgspec.structs.fields(Policy)]
    rows.append(_live_row("policy", POLICY_LIVE, [name for name in known if name not in POLICY_LIVE]))
    for detector in registered():
        names = [field.encode_name for field in msgspec.structs.fields(detector.section)]
        section = detector.section()
        is_live = detector.name in LEARNING_LIVE or any(detector.rules(section, profile) for profile in get_args(Profile))
        live = [name for name in names if is_live and name not in detector.fixed]
        rows.append(_live_row(f"detectors.{detector.name}", live, [name for name in names if name not in live]))
    rows.append(_live_row("playbooks.NAME", [field.encode_name for field in msgspec.structs.fields(Playbook)], []))
    rest = "All other sections hold from the start: capacities, seeds, time, input and Kafka."
    parts.append("## What can be changed\n\n" + "\n".join(rows) + f"\n\n{rest}")
    return "\n\n".join(parts) + "\n"


def _live_row(section: str, live: Sequence[str], fixed: Sequence[str]) -> str:
    return f"| `{section}` | {', '.join(f'`{name}`' for name in live)} | {', '.join(f'`{name}`' for name in fixed)} |"


def _configuration() -> str:
    parts = [
        "# Configuration",
        f"{_GENERATED} `schemas/config.py` and the detectors' files. The same as a JSON Schema: [config](schemas/config.json).",
        "A file is TOML; every setting has a default, and a file may be empty. Unknown keys are errors, and a refused value is "
        "named with its path, its bound and what came. `floodwall config check FILE` says whether a file is right, and with "
        "`--json` prints all that is then in force.",
        "| variable | meaning |\n|---|---|\n"
        "| `FLOODWALL_SEED` | the secret of `engine.seed`, so that it need not stand in a file |\n"
        "| `FLOODWALL_KAFKA_PASSWORD` | the password that goes with `kafka.username` |\n"
        "| `FLOODWALL_DEBUG` | `1`: a fault of Floodwall prints where it happened |",
        "## At the top\n\n" + _table(Config, ("setting", "type", "default", "meaning"), defaults=True),
    ]
    parts += _sections(Config, "")
    for detector in registered():
        parts += _sections_of(detector)
    parts.append(f"## `[playbooks.NAME]`\n\n{_doc_of(Playbook)} [Playbooks](playbooks.md) has what ships.")
    parts.append(_table(Playbook, ("setting", "type", "default", "meaning"), defaults=True))
    parts += _sections(Playbook, "playbooks.NAME.")
    return "\n\n".join(parts) + "\n"


def _sections_of(detector: Detector) -> list[str]:
    path = f"detectors.{detector.name}"
    settings = _table(detector.section, ("setting", "type", "default", "meaning"), defaults=True)
    return [f"## `[{path}]`\n\n{_doc_of(detector.section)}", settings, *_sections(detector.section, f"{path}.")]


_INTRO = """A finding says that one key of one dimension did more than it may: which detector, what was observed, the limit,
the window, one sentence. All windowed detectors are judged in one pass over the same exact sliding windows; each has a file in
`detectors/`, a section in the [configuration](configuration.md), defaults, and a recorded case in `tests/cases/`. What
becomes of a finding: [policy](policy.md). [`surge`](surge.md) compares with what it has learned instead, minute by minute, and
looks at each service as a whole and at busy routes (`engine/service.py`, `engine/busy.py`);
[`signature` and `entropy`](distributed.md) compare whole events with those of the last minutes (`engine/distributed.py`);
[`leaked`](leaked-keys.md) asks a list of keys that others have reported (`engine/leaked.py`).

**Evidence** is what may be held against a key: static assets, and requests that we ourselves denied (429, 503), weigh
nothing. In profile `api` a successful authenticated request is evidence about its key and account and never about its
address. A request that failed authentication is no evidence against, and no state for, the key or account it names.

Dimensions: `ip` (IPv4 address, IPv6 /64), `net` (/24, /48), `asn`, `country`, `api_key`, `account`, `route` (method and
path with ids folded), `user_agent`, `fingerprint`, `email_domain`, `service`. A limit is what is allowed; more crosses it."""
_RECIPE = """## Adding one

1. `detectors/NAME.py`: a docstring as above (the first line, how it decides, where it fails, costs, confidence; a test
   looks for them), a section with its settings, defaults, `_rules` that says what they mean as `WindowRule`s, `_describe`,
   and `DETECTOR`. What can be compared: the sum of a measure, the share it has of another, a number of distinct items
   (`detectors/windowed.py`).
2. `tests/cases/NAME.json`: traffic, and the findings that are to come of it. `tests/test_detectors.py` runs every case, and
   holds every detector to the contract: no cut, order, number of partitions or restart changes what is found, and input is
   never changed.
3. `make schemas` writes this page, the configuration's and its JSON Schema.

Nothing else is touched: the folder is the registry (`detectors/registry.py`). A new *measure* is more: an entry in
`schemas/fields.py`, its value in `detectors/kernels/blocks.py`, and its twin in `tests/oracles/grouping.py`."""


def _detectors() -> str:
    parts = ["# Detectors", f"{_GENERATED} the detectors' files.", _INTRO]
    for name, module in modules().items():
        first, _, rest = (inspect.getdoc(module) or "").replace("``", "`").partition("\n")
        parts += [f"## `{name}`", first.partition(": ")[2].capitalize(), rest.strip(), *_defaults(module.DETECTOR)]
    return "\n\n".join([*parts, _RECIPE]) + "\n"


def _defaults(detector: Detector) -> list[str]:
    tables = {profile: _rules_table(detector.rules(detector.section(), profile)) for profile in get_args(Profile)}
    if len(set(tables.values())) == 1:
        return [f"Defaults:\n\n{next(iter(tables.values()))}"]
    return [f"Defaults in profile `{profile}`:\n\n{table}" for profile, table in tables.items()]


def _rules_table(rules: Sequence[WindowRule]) -> str:
    head = ("dimension", "measure", "limit", "window_s", "at least", "action", "severity", "confidence")
    rows = [
        f"| `{rule.dimension.label}` | `{rule.measure}` | {rule.told_limit:,} | {rule.window_s} | {_share_text(rule)} "
        f"| {rule.action} | {rule.severity} | {rule.confidence} |"
        for rule in rules
    ]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *rows])


def _share_text(rule: WindowRule) -> str:
    return "" if rule.of is None else f"{rule.share:g} of `{rule.of.label}`"


def _sections(struct: type[Any], above: str) -> list[str]:
    parts = []
    for field in msgspec.structs.fields(struct):
        inner, many = _section_of(field.type)
        if inner is None:
            continue
        path = f"{above}{field.encode_name}"
        heading = f"`[[{path}]]`" if many else f"`[{path}]`"
        parts.append(f"## {heading}\n\n{_doc_of(inner)}")
        if any(_section_of(own.type)[0] is None for own in msgspec.structs.fields(inner)):
            parts.append(_table(inner, ("setting", "type", "default", "meaning"), defaults=True))
        parts += _sections(inner, f"{path}.")
    return parts


def _doc_of(struct: type[Any]) -> str:
    return (inspect.getdoc(struct) or "").replace("``", "`")


def _section_of(annotation: Any) -> tuple[type[Any] | None, bool]:
    """(the struct that a field holds, does it hold many)."""
    info = msgspec.inspect.type_info(annotation)
    many = False
    for inner in getattr(info, "types", (info,)):
        if isinstance(inner, msgspec.inspect.VarTupleType):
            many, inner = True, inner.item_type
        if isinstance(inner, msgspec.inspect.StructType):
            return inner.cls, many
    return None, False


def _table(struct: type[Any], columns: tuple[str, ...], *, defaults: bool) -> str:
    texts = field_texts(struct)
    schema = json_schema(struct)
    properties = schema["$defs"][struct.__name__]["properties"]
    rows = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for field in msgspec.structs.fields(struct):
        if defaults and _section_of(field.type)[0] is not None:
            continue
        cells = [f"`{field.encode_name}`", _type_text(properties[field.encode_name])]
        if field.required and not defaults:
            cells[1] += ", required"
        if defaults:
            cells.append(_default_text(field.default, field.required))
        cells.append(texts.get(field.name, ""))
        rows.append("| " + " | ".join(cell.replace("|", "\\|").replace("``", "`") for cell in cells) + " |")
    return "\n".join(rows)


def _default_text(default: Any, required: bool) -> str:
    if required:
        return "required"
    if default is None:
        return "none"
    if default is msgspec.NODEFAULT:
        return "empty"
    return f"`{msgspec.json.encode(default).decode()}`"


def _type_text(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(text for part in schema["anyOf"] if (text := _type_text(part)) != "null")
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = str(schema.get("type", "object"))
    if kind == "array":
        return f"list of {_type_text(schema.get('items', {}))}"
    bounds = [
        f"{sign} {schema[key]}"
        for key, sign in (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
        if key in schema
    ]
    if schema.get("maxLength") is not None:
        bounds.append(f"{schema.get('minLength', 0)} to {schema['maxLength']} characters")
    return f"{kind} {', '.join(bounds)}".strip()


def write(folder: Path) -> list[str]:
    """Bring ``folder`` up to date; the paths that were written. Raises `SourceError` when one cannot be."""
    written = []
    for name, text in documents().items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")
                written.append(name)
        except OSError as error:
            raise SourceError(f"expected a writable file at {path}, got: {error.strerror or error}") from None
    return written


if __name__ == "__main__":
    print("\n".join(write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))) or "everything is up to date")
