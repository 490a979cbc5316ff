"""Which backend `auto` takes for dumps: the one that a trial on this machine found faster."""

import json
import sys
import types
from dataclasses import asdict

import cuda_host
import pytest
from dumps import make, write_files
from test_cuda_engine import check_same

import fastdiv
from fastdiv import backends, doctor, trial
from fastdiv.backends import chosen, resolve_for_dumps
from fastdiv.trial import Case, Trial, kept_trial
from fastdiv_kernels.cuda import CudaBackend

GAINS = {"faster": (3.0, 1.5), "slower": (0.5, 0.2), "mixed": (3.0, 0.9)}


def made(gains=(3.0, 1.5), version=fastdiv.__version__, on="g++"):
    cases = [
        Case(c, {"cpu": 100.0, "cuda": 100.0 * g}) for c, g in zip((10, 1000), gains, strict=True)
    ]
    return Trial(version, {"cpu": "this", "cuda": on}, 4, cases)


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fastdiv"


@pytest.fixture
def gpu(monkeypatch):
    """Let the GPU be this host, or not be there."""
    state = types.SimpleNamespace(why=None)
    module = types.SimpleNamespace(
        load=lambda: CudaBackend(cuda_host.HostDevice()), why_not=lambda: state.why,
        examination=lambda: {"cuda": "1", "driver": "1", "devices": []},
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "cuda_of_a_trial", module)
    monkeypatch.setitem(backends.BACKENDS, "cuda", "cuda_of_a_trial")
    return state


def test_without_a_trial_it_is_the_cpu_and_nothing_is_imported_for_it(monkeypatch):
    monkeypatch.setitem(backends.BACKENDS, "cuda", "a_module_that_is_not_there")
    name, why = chosen()
    assert name == "cpu"
    assert "fastdiv doctor --measure" in why
    assert resolve_for_dumps().name == "cpu"


@pytest.mark.parametrize(("how", "gains"), GAINS.items(), ids=GAINS)
def test_the_faster_in_every_case_is_taken(gpu, how, gains):
    trial.keep_trial(made(gains))
    name, why = chosen()
    assert name == resolve_for_dumps().name == ("cuda" if how == "faster" else "cpu")
    assert f"{gains[0]:.2g} with 10 classes, {gains[1]:.2g} with 1000 classes" in why
    assert resolve_for_dumps("cpu").name == "cpu"
    assert resolve_for_dumps("cuda").name == "cuda"


@pytest.mark.parametrize("what", ["version", "device", "gone"])
def test_a_trial_of_something_else_does_not_count(gpu, what):
    trial.keep_trial(made(version="0.0" if what == "version" else fastdiv.__version__,
                          on="another" if what == "device" else "g++"))  # fmt: skip
    gpu.why = "it was taken out" if what == "gone" else None
    name, why = chosen()
    assert name == "cpu"
    said = {"version": "since fastdiv 0.0", "device": "but another", "gone": "it was taken out"}
    assert said[what] in why


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"version": 1}', "\0",
     '{"version": "1", "on": {}, "threads": 1, "cases": []}',
     json.dumps(asdict(made()) | {"on": {"cpu": "this"}}),
     '{"version": "1", "on": {}, "threads": 1, "cases": [{"classes": 2, "rows_per_s": {"cpu": 0, '
     '"cuda": 1}}]}',
     '{"version": "1", "on": {}, "threads": 1, "cases": [{"classes": 2, "rows_per_s": {}}]}',
    ],
)  # fmt: skip
def test_a_file_that_is_no_trial_counts_as_none(home, text):
    home.mkdir(parents=True)
    (home / "trial.json").write_text(text)
    assert kept_trial() is None
    assert chosen()[0] == "cpu"


def test_what_is_kept_is_read_again(home):
    one = made()
    assert trial.keep_trial(one) == home / "trial.json"
    assert kept_trial() == one
    assert [path.name for path in home.iterdir()] == ["trial.json"]


def test_where_nothing_can_be_kept_it_says_so(home, monkeypatch):
    home.parent.mkdir(parents=True)
    home.write_text("no directory")
    with pytest.raises(fastdiv.UsageError, match=r"cannot be kept in .*trial\.json"):
        trial.keep_trial(made())
    monkeypatch.setattr(trial, "cache_of_the_user", lambda: None)
    assert kept_trial() is None
    with pytest.raises(fastdiv.UsageError, match="XDG_CACHE_HOME"):
        trial.keep_trial(made())


@pytest.mark.skipif(cuda_host.COMPILER is None, reason="there is no g++")
def test_the_doctor_tries_both_and_auto_takes_the_faster_cuda(
    gpu, cli, monkeypatch, home, tmp_path
):
    monkeypatch.setattr(doctor, "BATCH_BYTES", 1 << 14)
    monkeypatch.setattr(doctor, "TRIAL_BYTES", 1 << 15)
    ended = cli("doctor", "--measure")
    assert ended.code == 0
    told = json.loads((home / "trial.json").read_text())
    assert [case["classes"] for case in told["cases"]] == [10, 1000]
    assert all(x > 0 for case in told["cases"] for x in case["rows_per_s"].values())
    assert told["on"]["cuda"] == "g++"
    assert "auto        cpu: with data of the host the GPU was as fast as" in ended.out
    trial.keep_trial(made())
    write_files(tmp_path / "dump", make(range(2), n=50, c=4))
    assert fastdiv.analyze(tmp_path / "dump").summary["backend"]["name"] == "cuda"
    assert fastdiv.analyze(tmp_path / "dump", backend="cpu").summary["backend"]["name"] == "cpu"


def test_there_must_be_something_to_try(gpu, cli):
    gpu.why = "there is no GPU"
    ended = cli("doctor", "--measure")
    assert ended.code == 2
    assert "there is nothing to try: backend 'cuda' cannot run here: there is no GPU" in ended.err
    assert cli("doctor").out.splitlines()[-1] == "auto        cpu: no GPU can be used here"


def test_a_run_made_on_a_gpu_can_be_explained_without_one_cuda(gpu, tmp_path):
    write_files(tmp_path / "dump", make(range(2), n=200, c=5))
    made_there = fastdiv.analyze(tmp_path / "dump", backend="cuda", output=tmp_path / "run")
    wanted = str(made_there.explain(0, 1))
    gpu.why = "there is no GPU"
    run = fastdiv.load(tmp_path / "run")
    assert run.summary["backend"]["name"] == "cuda"
    assert str(run.explain(0, 1)).splitlines()[0] == wanted.splitlines()[0]
    check_same(run, made_there)
