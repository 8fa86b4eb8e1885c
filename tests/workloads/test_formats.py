"""read_trace sees the format from the content; resolve_data_path finds the data."""

import gzip
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.errors import ConfigError, LeptonError, TraceError
from lepton_rl.workloads import FORMATS, Trace, csv_template, data_folder, read_trace, resolve_data_path

SWF_ROW = "1 0 -1 5 2 -1 -1 2 -1 -1 1 -1 -1 -1 0 -1 -1 -1\n"
CONTENTS = {
    "swf with header": "; Version: 2\n" + SWF_ROW,
    "swf without header": "\n" + SWF_ROW,
    "philly": "timestamp,duration,num_gpus,gpu_time,cluster\n2017-10-01 00:01:00,5,2,10,a\n",
    "pai": "arrival_time,length,cpus\n0,0.00138888888888888889,2\n",
    "plain": "# mine\nsubmit_time,run_time,gpus\n0,5,2\n",
}


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("packed", [False, True])
def test_the_format_is_seen_whatever_the_name(tmp_path: Path, kind: str, packed: bool) -> None:
    path = tmp_path / "workload"
    data = CONTENTS[kind].encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    trace = read_trace(path)
    assert trace.run_time.tolist() == [5.0]
    assert trace.gpus.tolist() == [2.0]
    assert trace.name == "workload"


def test_saved_traces_and_the_template_are_workloads(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(csv_template())
    trace = read_trace(path)
    trace.save(tmp_path / "mine.npz")
    assert read_trace(tmp_path / "mine.npz") == trace
    assert Trace.load(tmp_path / "mine.npz") == trace


def test_a_named_format_overrides_the_content(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(CONTENTS["plain"])
    with pytest.raises(TraceError, match=r"x\.csv:1: no column is called '# mine'"):
        read_trace(path, format="pai")
    with pytest.raises(ConfigError, match="no trace format is called 'phily'; did you mean 'philly'"):
        read_trace(path, format="phily")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "x: the file is empty"),
        (b"  \n\n", "x: the file is empty"),
        (gzip.compress(b"", mtime=0), "x: the file is empty"),
        (b"hello, world\n", "the format is not known from the first lines. Known formats: swf: "),
        (bytes(range(200, 256)) * 9, "the format is not known from the first lines"),
        (
            gzip.compress(b"; Version: 2\n" + SWF_ROW.encode(), mtime=0)[:20],
            "x: the gzip data is damaged or cut short",
        ),
        (b"\x1f\x8bnot gzip at all", "x: the gzip data is damaged or cut short"),
        (b"PK\x03\x04 not a zip", "x: not a trace saved by lepton_rl, or cut short"),
        (b"1 2 3 4 5\n", "x:1: 5 fields; a row of SWF has 18"),
        (b"submit_tme,run_time,gpus\n", "x:1: no column is called 'submit_tme'; did you mean 'submit_time'"),
    ],
)
def test_other_content_is_one_sentence(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(TraceError, match=message) as caught:
        read_trace(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "a;b\n1;2\n", "x.csv:1: no column is called 'a;b'"),
        ("x.swf", "1 0 -1 x 2 -1 -1 2 -1 -1 1 1 1 -1 1 -1 -1 -1\n", "x.swf:1: field 4 "),
        ("x.swf.gz", "hello\n", "x.swf.gz:1: "),
    ],
)
def test_the_name_says_who_complains_of_content_that_no_format_has(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    with pytest.raises(TraceError, match=message):
        read_trace(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="nothing: no such file"):
        read_trace(tmp_path / "nothing")
    with pytest.raises(TraceError, match="is a folder; a file is wanted here"):
        read_trace(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("")
    path.chmod(0)
    with pytest.raises(TraceError, match="cannot be read: Permission denied"):
        read_trace(path)


def test_data_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "work" / "project"
    home.mkdir(parents=True)
    shared = tmp_path / "work" / "shared" / "data"
    shared.mkdir(parents=True)
    monkeypatch.chdir(home)
    monkeypatch.delenv("LEPTON_RL_DATA", raising=False)
    assert data_folder() == shared.resolve()
    assert resolve_data_path("data:a/b.swf", home) == shared.resolve() / "a/b.swf"
    assert resolve_data_path("a.swf", home / "configs") == home / "configs" / "a.swf"
    assert resolve_data_path(str(tmp_path / "a.swf"), home) == tmp_path / "a.swf"
    monkeypatch.setenv("LEPTON_RL_DATA", str(home))
    assert resolve_data_path("data:a", tmp_path) == home.resolve() / "a"
    monkeypatch.setenv("LEPTON_RL_DATA", str(tmp_path / "gone"))
    assert data_folder() is None
    with pytest.raises(TraceError, match=r"LEPTON_RL_DATA is '.*gone', which is no folder; set LEPTON_RL_DATA"):
        resolve_data_path("data:a", tmp_path)


def test_every_format_says_what_it_is() -> None:
    assert list(FORMATS) == ["swf", "philly", "pai", "csv", "npz", "parquet"]
    assert all(form.help for form in FORMATS.values())


starts = st.sampled_from([b"", b"; MaxNodes: 4\n", b"1 0 -1 5 2 ", *(text.encode() for text in CONTENTS.values())])
lines = st.one_of(
    st.binary(max_size=30),
    st.lists(st.sampled_from(["0", "1", "-1", "1e3", "nan", "x", '"', "", "2017-10-01"]), max_size=20).map(
        lambda fields: ",".join(fields).encode()
    ),
    st.lists(st.sampled_from(["0", "7", "-1", "2.5", "1e400", "-", "e1"]), min_size=17, max_size=19).map(
        lambda fields: " ".join(fields).encode()
    ),
)


@given(start=starts, rest=st.lists(lines, max_size=5), cut=st.integers(0, 40), packed=st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_trace_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, start: bytes, rest: list[bytes], cut: int, packed: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "anything"
    data = start + b"\n".join(rest)
    path.write_bytes(gzip.compress(data)[: -cut or None] if packed else data)
    try:
        said = repr(read_trace(path))
    except LeptonError as error:
        said = str(error)
    assert path.name in said
    assert "\n" not in said
