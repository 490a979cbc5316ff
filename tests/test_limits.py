"""Where the machine sets limits: open files, closed pipes, signals, names that are hostile."""

import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dumps import arrays, as_kind, make, table, write, write_files

import fastdiv

COMMAND = [sys.executable, "-m", "fastdiv.cli"]
SLOW = """
import sys, time
from fastdiv import cli, scan
commit = scan.Scan.commit
def slowly(*arguments, **named):
    commit(*arguments, **named)
    print("committed", flush=True)
    time.sleep(2)  # what is being committed is finished first
scan.Scan.commit = slowly
cli.main()
"""


def test_more_files_and_epochs_than_may_be_open(tmp_path):
    """Neither the files of a dump nor the epochs of a store are held open together."""
    write_files(tmp_path / "dump", make(range(150), n=5))
    command = " ".join([*COMMAND, "analyze", str(tmp_path / "dump"), "-o", str(tmp_path / "run")])
    limited = f"ulimit -n 90 && exec {command}"
    ended = subprocess.run(["bash", "-c", limited], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    samples = fastdiv.load(tmp_path / "run").samples
    assert samples["n_epochs"].to_pylist() == [150] * 5


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    write_files(tmp_path, make())
    shell = f"{' '.join(COMMAND)} analyze {tmp_path} | head -n 1; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "0"
    assert "Traceback" not in ended.stderr


def test_output_that_cannot_be_written_is_one_line(tmp_path):
    write_files(tmp_path, make())
    shell = f"{' '.join(COMMAND)} analyze {tmp_path} --quiet --json > /dev/full"
    ended = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing_behind(tmp_path, ended_by):
    dump = write_files(tmp_path / "dump", make())
    (tmp_path / "out").mkdir()
    arguments = ["analyze", str(dump), "-o", str(tmp_path / "out" / "run")]
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout.readline() == b"committed\n"
        assert len(list((tmp_path / "out").iterdir())) == 1  # what is under way
        process.send_signal(ended_by)
        assert process.stdout.read() == b""
        process.wait(timeout=20)
    assert process.returncode == 128 + ended_by
    assert list((tmp_path / "out").iterdir()) == []


def test_names_are_never_markup(cli, tmp_path):
    name = "a[/b][red]:100:"
    pq.write_table(table(make()[0], split=name, epoch=0), tmp_path / "a.parquet")
    ended = cli("analyze", tmp_path / "a.parquet")
    assert ended.code == 0
    assert f"{name} loss" in ended.out


def test_more_class_names_than_a_file_name_is_long(cli, tmp_path):
    c = 100
    rows = make(c=c)[0]
    path = write(table(rows), tmp_path / "a.parquet")
    names = [f"class_{i:03d}" for i in range(c)]
    assert cli("analyze", path, "--class-names", ",".join(names), "--quiet").code == 0
    assert fastdiv.analyze(path, class_names=",".join(names)).summary["class_names"] == names
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    run = fastdiv.analyze(path, class_names=tmp_path / "names.txt")
    assert run.summary["class_names"] == names
    (tmp_path / "names.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(fastdiv.UsageError, match="class names cannot be read"):
        fastdiv.analyze(path, class_names=tmp_path / "names.txt")


def test_columns_of_one_name():
    rows = make()[0]
    t = table(rows).append_column("label", pa.array(rows.y))
    with pytest.raises(fastdiv.UsageError, match="label"):
        fastdiv.analyze(t)
    with pytest.raises(fastdiv.UsageError, match="several columns are called 'label'"):
        fastdiv.analyze(t, label="label")


def test_a_saved_run_is_never_written(tmp_path, dump):
    fastdiv.analyze(arrays(dump), output=tmp_path / "run")
    wanted = fastdiv.load(tmp_path / "run").compare(2, 10)
    loaded = fastdiv.load(tmp_path / "run")
    for samples in loaded._samples:
        samples.store.epoch(2).map()["loss"][:] = 77.0  # a private copy of the page
    assert not loaded.compare(2, 10).equals(wanted)
    assert fastdiv.load(tmp_path / "run").compare(2, 10).equals(wanted)


def test_a_saved_run_beside_its_dump_is_not_read_as_one(tmp_path, dump):
    folder = write_files(tmp_path, dump)
    wanted = fastdiv.analyze(folder, output=folder / "run").epochs
    assert fastdiv.analyze(folder).epochs.equals(wanted)


@pytest.mark.parametrize("rows", [7, 1000])
def test_disk_follows_the_samples_where_only_a_column_tells_the_epochs(tmp_path, rows):
    """One row group of many epochs: the files are as large as the samples, not as the rows."""
    dump = make(range(20), n=rows)
    t = pa.concat_tables([table(r, epoch=e) for e, r in dump.items()]).combine_chunks()
    fastdiv.analyze(t, output=tmp_path / "run")
    stored = sum(path.stat().st_size for path in tmp_path.rglob("*.scores"))
    assert stored <= 20 * (21 + 2 * 3) * max(4096, rows)


def test_logits_close_to_a_distribution_stay_logits():
    rng = np.random.default_rng(0)
    x = (0.1 + rng.normal(0, 1e-3, (50, 10))).astype(np.float32)
    y = np.zeros(50, np.int64)
    t = pa.table({"label": y, "logits": pa.FixedSizeListArray.from_arrays(x.ravel(), 10)})
    assert fastdiv.analyze(t).summary["kind"] == "logits"
    probs = as_kind(make(n=50)[0], "probs")
    assert fastdiv.analyze(table(probs, name="logits")).summary["kind"] == "probs"


def test_epochs_below_zero_and_far_away(tmp_path, cli):
    dump = {e: make(n=9)[0] for e in (-3, -1, 2**61)}
    t = pa.concat_tables([table(r, epoch=e) for e, r in dump.items()])
    path = write(t, tmp_path / "a.parquet")
    started = time.monotonic()
    run = fastdiv.analyze(path, output=tmp_path / "run")
    assert time.monotonic() - started < 20
    assert run.epochs["epoch"].to_pylist() == [-3, -1, 2**61]
    assert fastdiv.analyze(path, epochs=":0").epochs["epoch"].to_pylist() == [-3, -1]
    assert cli("compare", tmp_path / "run", "-3", "-1").code == 0
    with pytest.raises(fastdiv.UsageError, match="step must be positive"):
        fastdiv.analyze(path, epochs=slice(1, None, -1))
