"""A day of another format becomes a log that attacks can be planted into."""

from __future__ import annotations

import gzip
from pathlib import Path

from benchmarks.planted import BLIND, log_lines
from drills.attacks.catalogue import ATTACKS
from drills.plant import second_of
from tests.engines import config_of, decide


def test_each_host_keeps_an_address_of_its_own_network_and_every_line_is_read(tmp_path: Path) -> None:
    rows = [
        "host\tlogname\ttime\tmethod\turl\tresponse\tbytes\treferer\tuseragent",
        "one.example\t-\t807256800\tGET\t/a\t200\t1713",
        "192.0.2.7\t-\t807256801\tGET\t/b?x\"y\t404\t",
        "two.example\t-\t807256802\tPOST\t/c\t200\t5",
        "one.example\t-\t807256803\tGET\t/a\t304\t0",
    ]  # fmt: skip
    path = tmp_path / "day.tsv.gz"
    path.write_bytes(gzip.compress("\n".join(rows).encode() + b"\n"))
    lines = list(log_lines(path))
    assert [line.split()[0] for line in lines] == [b"21.0.0.7", b"192.0.2.7", b"21.0.2.7", b"21.0.0.7"]
    assert [second_of(line) for line in lines] == [807256800 + n for n in range(4)]
    account = decide(b"".join(lines), 4_102_444_800_000, config_of()).account
    assert (account.counted, account.poison) == (4, {})


def test_what_is_not_planted_are_attacks_that_there_are() -> None:
    assert BLIND.keys() < ATTACKS.keys()
