"""Rows of a table as JSON, one dict after the other."""

from __future__ import annotations

from typing import Any

import orjson
import pyarrow as pa

from replay.parquet_rows import plain


def rows_as_json(batch: Any) -> list[bytes]:
    """Each row as a producer would have sent it."""
    columns = [plain(column) for column in batch.columns]
    rows = pa.RecordBatch.from_arrays(columns, names=batch.schema.names).to_pylist()
    return [orjson.dumps(row) + b"\n" for row in rows]
