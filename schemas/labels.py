"""Labels of recorded traffic, as drills write them: which attack each line belongs to, and what is true of each attack.

``NAME.labels`` beside a file holds one unsigned 16-bit number (little-endian) for each line, 0: honest. ``labels.ndjson`` in
the same folder has one object for each attack. docs/drills.md says what is in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from schemas.errors import SourceError

LABELS = "labels.ndjson"
SUFFIX = ".labels"
_PACKED = (".gz", ".zst")
SIGNATURE = "signature"


def labels_beside(name: str) -> npt.NDArray[np.uint16] | None:
    """u16[lines]: the labels of a file's lines, mapped, not read; none: there are none.

    Raises:
        SourceError: they cannot be read.
    """
    plain = next((name.removesuffix(suffix) for suffix in _PACKED if name.endswith(suffix)), name)
    for path in dict.fromkeys((name + SUFFIX, plain + SUFFIX)):
        try:
            if not Path(path).is_file():
                continue
            if not Path(path).stat().st_size:  # an empty file cannot be mapped
                return np.zeros(0, np.uint16)
            return np.memmap(path, "<u2", "r")
        except (OSError, ValueError) as error:
            raise SourceError(f"expected labels of {name} in {path}, got: {error}") from None
    return None


def read_attacks(path: Path) -> list[dict[str, Any]]:
    """The attacks of a drill.

    Raises:
        SourceError: it cannot be read, or is no file of labels.
    """
    try:
        with path.open("rb") as file:
            records = (orjson.loads(line) for line in file)
            return [record for record in records if record["kind"] == "attack"]
    except OSError as error:
        raise SourceError(f"expected a drill's labels at {path}, got: {error.strerror or error}") from None
    except orjson.JSONDecodeError as error:
        raise SourceError(f"expected one JSON object a line in {path}, got: {error}") from None
    except (KeyError, TypeError):
        raise SourceError(f"expected objects with a `kind` in {path}, got another") from None


def may_stop(attack: dict[str, Any], kind: str) -> bool:
    """Whether a target of a type may be stopped for an attack; a signature always may."""
    return kind == SIGNATURE or kind in attack["stops"]
