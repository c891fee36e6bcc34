"""What must hold for the project as a whole: the direction of imports, the lock, and calls that have one place."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("floodwall", "broker", "schemas", "detectors", "engine", "streams", "replay", "edge", "drills")

# The clock, chance and waiting are arguments everywhere else, so that a replay decides as the live run did.
BANNED_CALLS = (
    "time.time",
    "time.time_ns",
    "time.sleep",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
    "random",
    "numpy.random",
)
# Files (fnmatch patterns from the root) that may use them: the one clock, seeded drill traffic, and the demo's pacing.
ALLOWED_FILES = ("engine/clock.py", "drills/*.py", "drills/**/*.py", "floodwall/demo*.py", "floodwall/demo*/**/*.py")
# Never, anywhere: what is read back could run code.
BANNED_EVERYWHERE = ("pickle", "cPickle", "cloudpickle", "dill", "shelve", "marshal")

SKIPPED_SUFFIXES = (".egg-info",)
KEPT_HIDDEN = (".ci", ".github", ".gitignore")


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def is_banned(name: str, banned: tuple[str, ...]) -> bool:
    return any(name == entry or name.startswith(entry + ".") for entry in banned)


def dotted(node: ast.expr, imported: dict[str, str]) -> str | None:
    """The full name of `a.b.c` as the imports of its file define `a`; None when `a` was not imported."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in imported:
        return None
    return ".".join([imported[node.id], *reversed(parts)])


def uses(source: str) -> Iterator[tuple[int, str]]:
    """Every imported module or name, and every use of one, with its line; aliases are followed."""
    tree = ast.parse(source)
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]  # `import a.b` binds a, `import a.b as c` binds a.b
                imported[alias.asname or top] = alias.name if alias.asname else top
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield node.lineno, f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and (name := dotted(node, imported)):
            yield node.lineno, name


def violations(source: str, path: str, *, allowed: bool) -> list[str]:
    banned = BANNED_EVERYWHERE if allowed else BANNED_EVERYWHERE + BANNED_CALLS
    return sorted({f"{path}:{line}: {name}" for line, name in uses(source) if is_banned(name, banned)})


def is_allowed(relative: Path) -> bool:
    return any(relative.match(pattern) for pattern in ALLOWED_FILES) or relative.parts[0] == "drills"


def test_imports_point_in_one_direction() -> None:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("name", ["requirements.lock", "deploy/requirements.lock"])
def test_the_lock_names_no_host_and_every_package_has_a_hash(name: str) -> None:
    text = (ROOT / name).read_text()
    for forbidden in ("://", "--index-url", "--extra-index-url", "--find-links", "--trusted-host", " @ ", "-e "):
        assert forbidden not in text, f"{name} contains {forbidden!r}"
    requirements = [block for block in text.replace("\\\n", " ").splitlines() if "==" in block]
    assert requirements
    assert [block.split()[0] for block in requirements if "--hash=sha256:" not in block] == []


def test_no_file_names_a_package_registry_or_a_path_of_this_machine() -> None:
    # Put together here, so that this file does not contain them itself.
    forbidden = ["pypi" + ".org", "python" + "hosted.org", str(Path.home() / ".pyenv")]
    if len(ROOT.parts) > 2:  # "/app" would be found in honest text
        forbidden.append(str(ROOT) + "/")
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if name != "__pycache__"
            and not name.endswith(SKIPPED_SUFFIXES)
            and (not name.startswith(".") or name in KEPT_HIDDEN)
        ]
        for name in files:
            text = (Path(folder) / name).read_bytes()
            found += [f"{Path(folder, name).relative_to(ROOT)}: {word}" for word in forbidden if word.encode() in text]
    assert found == []


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_clock_chance_and_waiting_stay_in_their_one_place(path: Path) -> None:
    relative = path.relative_to(ROOT)
    found = violations(path.read_text(), str(relative), allowed=is_allowed(relative))
    assert found == [], f"allowed only in {', '.join(ALLOWED_FILES)}; pass a clock or a seeded generator instead"


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.time()",
        "import time as t\nt.sleep(1)",
        "from time import time as now\nnow()",
        "from datetime import datetime\ndatetime.now()",
        "import datetime as dt\ndt.datetime.now(dt.UTC)",
        "import random\nrandom.random()",
        "import numpy as np\nnp.random.default_rng()",
        "def f():\n    import pickle\n    return pickle.loads(b'')",
    ],
)
def test_a_banned_call_is_found_under_any_name(source: str) -> None:
    assert violations(source, "file.py", allowed=False)


def test_measuring_a_duration_is_not_reading_the_clock() -> None:
    assert violations("import time\ntime.perf_counter()\ntime.monotonic()", "file.py", allowed=False) == []
