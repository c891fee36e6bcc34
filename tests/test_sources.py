"""Files, folders and archives as whole lines: everything that can be read is read, and what cannot says why."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
import zstandard

from replay.sink import Sink
from replay.sources import LineSource, expand, make_buffer, open_source
from schemas.errors import SourceError

LINE_MAX = 1 << 12
LINES = b"".join(b"%07d and some words that do not repeat: %d\n" % (number, number * 7919) for number in range(20_000))


def read_all(source: LineSource) -> tuple[bytes, list[tuple[int, int]]]:
    """(whole lines, the stretches refused)."""
    buffer = make_buffer(LINE_MAX)
    lines, refused = [], []
    while not source.ended:
        length = source.read(buffer)
        lines.append(bytes(buffer[:length]))
        if source.refusal is not None:
            refused.append((source.refusal.start, source.refusal.length))
    return b"".join(lines), refused


def of_file(path: Path) -> LineSource:
    return open_source(str(path), start=0, line_max=LINE_MAX)


def compressors() -> dict[str, bytes]:
    return {"gzip": gzip.compress(LINES), "zstd": zstandard.ZstdCompressor().compress(LINES)}


@pytest.mark.parametrize("kind", compressors())
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.999])
def test_a_half_written_archive_gives_all_that_can_be_unpacked(kind: str, share: float, tmp_path: Path) -> None:
    packed = compressors()[kind]
    path = tmp_path / "half"
    path.write_bytes(packed[: int(len(packed) * share)])
    source = of_file(path)
    lines, refused = read_all(source)
    assert LINES.startswith(lines)
    assert len(lines) > len(LINES) * share - 300_000  # a block of zstd is 128 KiB
    assert kind != "gzip" or len(lines) > len(LINES) * share * 0.9
    assert source.error == f"the {kind} data has no end"
    assert all(start == len(lines) for start, _ in refused)


@pytest.mark.parametrize("kind", compressors())
def test_damage_costs_what_lies_behind_it(kind: str, tmp_path: Path) -> None:
    packed = bytearray(compressors()[kind])
    packed[len(packed) // 2 : len(packed) // 2 + 64] = bytes(64)
    path = tmp_path / "damaged"
    path.write_bytes(packed)
    source = of_file(path)
    lines, refused = read_all(source)
    assert source.error
    assert lines[: len(LINES) // 3] == LINES[: len(LINES) // 3]
    assert refused or lines.endswith(b"\n")


def test_members_and_padding_of_zeros_are_one_stream(tmp_path: Path) -> None:
    path = tmp_path / "members.gz"
    path.write_bytes(gzip.compress(LINES[:1000]) + gzip.compress(b"") + gzip.compress(LINES[1000:]) + bytes(5000))
    source = of_file(path)
    assert read_all(source) == (LINES, [])
    assert source.error is None


def test_a_small_archive_that_unpacks_to_much_is_taken_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zst"
    path.write_bytes(zstandard.ZstdCompressor(level=19).compress(bytes(200 << 20)))
    stream = open_source(str(path), start=0, line_max=LINE_MAX)
    buffer = make_buffer(LINE_MAX)
    while not stream.ended:
        assert stream.read(buffer) == 0
    assert stream.refusal is not None
    assert stream.refusal.length == 200 << 20


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "open.log").write_bytes(LINES)
    secret = tmp_path / "secret"
    secret.mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:  # root, as which tests may run, is refused nothing
        if str(path) == str(secret):
            raise PermissionError(13, "Permission denied", str(secret))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SourceError, match=rf"expected a readable folder at {secret}, got: Permission denied"):
        expand([str(tmp_path)])


def test_hidden_files_are_left_out_and_names_are_text(tmp_path: Path) -> None:
    for name in ("b.log", "a.log", ".hidden", "sub/c.log", ".git/d.log"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(LINES)
    assert [Path(name).name for name in expand([str(tmp_path)])] == ["a.log", "b.log", "c.log"]
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.log")).write_bytes(LINES)
    with pytest.raises(SourceError, match="whose name is UTF-8"):
        expand([str(tmp_path)])


@pytest.mark.parametrize("name", ["/does/not/exist", "x" * 5000, "a\0b", "/dev/null/x"])
def test_names_that_lead_nowhere_are_one_line(name: str) -> None:
    with pytest.raises(SourceError, match=r"expected a (readable )?file or folder at"):
        expand([name])


def test_an_output_that_is_full_is_named() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    sink = Sink(out=full)
    sink._out.write(b"{}\n")  # type: ignore[union-attr]  # it was opened just above
    with pytest.raises(SourceError, match="expected to write decisions to /dev/full, got: No space left on device"):
        sink.flush()
    sink.close()
