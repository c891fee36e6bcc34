"""Rows of Parquet as JSON are, byte for byte, what the slow way makes of them."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.parquet_rows import rows_as_json
from tests.oracles.rows import rows_as_json as slowly

TEXTS = st.none() | st.text(st.characters(codec="utf-8"), max_size=20)
SMALL = st.none() | st.integers(-(2**31), 2**31 - 1)
COLUMNS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (pa.string(), TEXTS),
    (pa.large_string(), TEXTS),
    (pa.string_view(), TEXTS),
    (pa.dictionary(pa.int32(), pa.string()), TEXTS),
    (pa.int64(), st.none() | st.integers(-(2**63), 2**63 - 1)),
    (pa.uint64(), st.none() | st.integers(0, 2**64 - 1)),
    (pa.int32(), SMALL),
    (pa.float64(), st.none() | st.floats()),
    (pa.float32(), st.none() | st.floats(width=32)),
    (pa.bool_(), st.none() | st.booleans()),
    (pa.null(), st.none()),
    (pa.timestamp("us", "UTC"), SMALL),
    (pa.timestamp("ns"), SMALL),
    (pa.decimal128(9, 3), st.none() | st.decimals(-99_999, 99_999, places=3).map(Decimal)),
    (pa.struct([("ip", pa.string()), ("geo", pa.struct([("asn", pa.int64())]))]),
     st.none() | st.fixed_dictionaries({"ip": TEXTS, "geo": st.none() | st.fixed_dictionaries({"asn": SMALL})})),
]  # fmt: skip


@settings(deadline=None)  # the first call may have to compile
@given(st.data())
def test_every_type_is_written_as_orjson_writes_it(data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 12))
    chosen = data.draw(st.lists(st.sampled_from(range(len(COLUMNS))), min_size=1, max_size=5))
    names = data.draw(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=5, max_size=5, unique=True))
    columns = []
    for index in chosen:
        kind, values = COLUMNS[index]
        columns.append(pa.array(data.draw(st.lists(values, min_size=rows, max_size=rows)), kind))
    first = data.draw(st.integers(0, rows))
    batch = pa.RecordBatch.from_arrays(columns, names=names[: len(columns)]).slice(first)
    buffer, starts, ends = rows_as_json(batch)
    assert [buffer[s:e].tobytes() for s, e in zip(starts.tolist(), ends.tolist(), strict=True)] == slowly(batch)


def test_text_that_is_no_utf8_stays_what_it_is() -> None:
    text = pa.Array.from_buffers(pa.string(), 2, [*pa.array(["ab", "c"]).buffers()[:2], pa.py_buffer(b"\xff\xfe\x00")])
    buffer, starts, ends = rows_as_json(pa.RecordBatch.from_arrays([text], names=["path"]))
    assert buffer[starts[0] : ends[-1]].tobytes() == b'{"path":"\xff\xfe"}\n{"path":"\\u0000"}\n'


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows_are_no_special_case(rows: int, tmp_path: Path) -> None:
    pq.write_table(pa.table({"time": pa.array([1] * rows, pa.int64()), "cost": [0.5] * rows}), tmp_path / "a.parquet")
    for batch in pq.ParquetFile(tmp_path / "a.parquet").iter_batches():
        buffer, starts, ends = rows_as_json(batch)
        assert buffer[starts[0] : ends[-1]].tobytes() == b'{"time":1,"cost":0.5}\n'
