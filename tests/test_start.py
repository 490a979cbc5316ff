"""How a process starts: what is imported, where machine code comes from, what is said meanwhile."""

import json
import os
import pickle
import pty
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastdiv_kernels.cpu import cache as cache_module
from fastdiv_kernels.cpu import entry, jit, machine_code, notice
from fastdiv_kernels.cpu.cache import packed, unpacked
from fastdiv_kernels.cpu.machine_code import Code, form_of
from fastdiv_kernels.cpu.score_tile import score_tile

ROOT = Path(__file__).parent.parent
NOT_TO_START = {
    "numba", "scipy", "cupy", "torch", "rich", "click", "plotly", "jinja2", "pandas", "sklearn",
}  # fmt: skip
SUM = """
import numpy as np
from fastdiv_kernels.cpu.jit import kernel

@kernel
def total(x, scale):
    scratch = np.zeros(len(x))
    for i in range(len(x)):
        scratch[i] = x[i] * scale
    return scratch.sum(), float(len(x))

if __name__ == "__main__":
    import sys
    found = total(np.arange(5.0), 2)
    print(found, "numba" in sys.modules)
"""
NO_PANDAS = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "pandas":
            raise ImportError("not here", name=name)

sys.meta_path.insert(0, Missing())
"""


def python(code, *arguments, expect=0, **settings):
    """Run code in a process of its own; return what it printed on stdout and stderr."""
    environment = {k: v for k, v in os.environ.items() if k != "FASTDIV_QUIET"}
    environment |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}
    environment |= {k: str(v) for k, v in settings.items() if v is not None}
    for name in [name for name, value in settings.items() if value is None]:
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, env=environment, timeout=300, cwd=ROOT / "tests",
    )  # fmt: skip
    assert done.returncode == expect, done.stderr
    return done.stdout, done.stderr


def total(tmp_path, **settings):
    """Run the small kernel above; it must be in a file, whose name is part of the key."""
    path = tmp_path / "small_kernel.py"
    if not path.exists():
        path.write_text(SUM)
    settings = {"TMPDIR": tmp_path, **settings}  # where code goes that cannot go elsewhere
    out, err = python("import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')",
                      path, **settings)  # fmt: skip
    values, imported = out.rsplit(" ", 1)
    assert values == "(20.0, 5.0)"
    return imported.strip() == "True", err


def codes(directory):
    """Return the files of machine code under a directory."""
    return [p for p in Path(directory).rglob("*-*") if p.is_file() and p.suffix != ".lock"]


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    """Two epochs of a small dump, in a file."""
    path = tmp_path_factory.mktemp("start") / "dump.parquet"
    rng = np.random.default_rng(1)
    n, c = 300, 10
    tables = []
    for epoch in range(2):
        logits = pa.FixedSizeListArray.from_arrays(
            pa.array(rng.standard_normal(n * c, np.float32)), c
        )
        columns = {"id": np.arange(n), "epoch": np.full(n, epoch), "label": np.arange(n) % c}
        tables.append(pa.table({**columns, "logits": logits}))
    pq.write_table(pa.concat_tables(tables), path)
    return path


# -- imports ----------------------------------------------------------------------------------


def seconds(code, times=7):
    """Return the median time of fresh processes."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        python(code)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def test_importing_fastdiv_takes_no_time_beside_pyarrow():
    base = "import pyarrow"
    bare = seconds(base)
    both = seconds(f"{base}; import fastdiv")
    assert both < bare * 1.5 + 0.08


def test_importing_fastdiv_loads_nothing_heavy():
    out, _ = python("import fastdiv, sys; print(*{m.split('.')[0] for m in sys.modules})")
    assert not set(out.split()) & (NOT_TO_START | {"numpy", "pyarrow", "llvmlite"})


@pytest.mark.parametrize("what", ["score", "analyze", "tracker"])
def test_with_its_kernels_kept_a_process_imports_no_numba(what, dump, tmp_path):
    """Nor anything else that only some calls need; pandas is pyarrow's doing."""
    code = {
        "score": "import numpy as np; fastdiv.score(np.eye(9), np.arange(9), kind='probs')",
        "analyze": f"fastdiv.analyze({str(dump)!r})",
        "tracker": "t = fastdiv.Tracker(kind='logits'); import numpy as np\n"
        "for e in range(2): t.update(np.eye(9, dtype='f4'), np.arange(9)); t.end_epoch()",
    }[what]
    code = f"{NO_PANDAS}\nimport fastdiv\n{code}\nprint(*{{m.split('.')[0] for m in sys.modules}})"
    python(code)
    out, err = python(code)
    assert not set(out.split()) & NOT_TO_START
    assert err == ""


def test_a_first_result_comes_soon(dump):
    """Within twice what importing pyarrow takes, and half a second where that is fast."""
    code = f"{NO_PANDAS}\nimport fastdiv; fastdiv.analyze({str(dump)!r})"
    python(code)
    # 0.32 s beside 0.09 s, with NumPy and pyarrow's other modules; busy machines differ.
    assert seconds(code, 5) < 6 * seconds("import pyarrow", 5) + 0.2


# -- machine code -----------------------------------------------------------------------------


def test_code_is_kept_and_then_called_without_numba(tmp_path):
    kept = tmp_path / "kept"
    assert total(tmp_path, NUMBA_CACHE_DIR=kept)[0]
    (file,) = codes(kept)
    before = file.stat().st_mtime_ns
    assert not total(tmp_path, NUMBA_CACHE_DIR=kept)[0]
    assert file.stat().st_mtime_ns == before
    assert not [p for p in kept.rglob("*") if p.suffix == ".lock" or p.name.startswith(".")]
    source = tmp_path / "small_kernel.py"
    source.write_text(source.read_text() + "# changed\n")
    assert total(tmp_path, NUMBA_CACHE_DIR=kept)[0]


def test_code_from_the_cache_does_what_numba_does_to_the_bit():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((500, 11), np.float32), rng.integers(-1, 12, 500)

    def run(call):
        n = len(x)
        dtypes = ("f4", "?", "i4", "f4", "f4", "f4", "i4", "u1")
        out = [np.zeros(n, dtype) for dtype in dtypes]
        call(x, y, 0, 1e-4, *out)
        return [values.tobytes() for values in out]

    assert run(score_tile) == run(score_tile.made())


@jit.kernel
def sum_of(arrays, scale, twice):
    scratch = np.zeros(len(arrays[0]))
    for i in range(len(scratch)):
        scratch[i] = arrays[0][i] + arrays[1][i]
    return scratch.sum() * scale * (2 if twice else 1)


@jit.kernel
def weigh(x, times):
    total = 0.0
    for one in x:
        total += one
    return total * times


@jit.kernel
def first_of(records):
    return records[0].a + records[0].b


@jit.kernel
def refuse(n, x):
    flat = x.reshape(x.size)
    scratch = np.zeros(n)
    if n == 3:
        raise ValueError("three")
    return len(scratch) + len(flat)


def test_tuples_scalars_strides_and_results_pass_through():
    a, b = np.arange(6.0), np.arange(6, dtype=np.int32)
    assert sum_of((a, b), 2.0, 0) == 60
    assert sum_of((a[::2], b[::-2]), np.float32(0.5), 1) == (6 + 9)
    assert sum_of((a[:0], b[:0]), 1, 0) == 0
    assert sum_of((a, b), 2.0, True) == 120  # a bool goes to Numba's dispatcher
    assert form_of(((a, b), 2.0, True)) is None


def test_arguments_of_other_forms_in_turns_reach_code_of_their_own():
    """The latest code compares arguments by itself; where they differ, form_of finds it."""
    import numba

    def total_of(x, times=2.0):
        return weigh(x, times)

    x = np.arange(6)
    turns = [x, x.astype("f4"), x[::2], x.astype("f4").reshape(2, 3).ravel(), x.astype("i1"), x[:0]]
    for _ in range(3):
        assert [total_of(one) for one in turns] == [30, 30, 12, 30, 30, 0]
        assert total_of(x, 3) == total_of(x, np.float32(3)) == 45
        frozen = x.astype("f4")
        frozen.flags.writeable = False
        assert total_of(frozen) == 30
    other = pickle.loads(pickle.dumps(np.dtype([("a", "i4"), ("b", "f8")])))
    records = np.ones(3, [("a", "i4"), ("b", "f8")])
    assert other is not records.dtype
    for _ in range(2):  # equal dtypes are of one form, wherever they lie
        assert first_of(records) == first_of(records.astype(other)) == 2
    with pytest.raises(TypeError):
        weigh(x)
    with pytest.raises(numba.TypingError):
        weigh(object(), 1.0)


def test_where_the_layout_of_objects_is_not_known_numba_calls(monkeypatch):
    assert machine_code.supported()
    monkeypatch.setattr(entry, "DATA", entry.DATA + 8)
    assert not entry.layout_is_known.__wrapped__()
    monkeypatch.setattr(machine_code, "layout_is_known", lambda: False)

    @jit.kernel
    def double(x):
        return x[0] * 2

    assert [double(np.array([3.0])), double(np.array([4.0])), double(np.array([2]))] == [6, 8, 4]


def test_what_a_kernel_raises_is_raised():
    x = np.zeros((2, 3))
    assert refuse(2, x) == 8
    with pytest.raises(ValueError, match="three"):
        refuse(3, x)
    with pytest.raises(MemoryError):
        refuse(1 << 57, x)
    with pytest.raises(OverflowError):
        refuse(1 << 64, x)
    with pytest.raises(NotImplementedError, match="incompatible shape"):
        refuse(2, np.asfortranarray(np.zeros((2, 3))))


def test_memory_is_given_back():
    import resource

    x = np.zeros((2, 3))
    for _ in range(20):
        refuse(1 << 22, x)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(40):
        refuse(1 << 22, x)  # 32 MB, written to
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 200 << 10  # kB


def test_kernels_are_called_on_threads_without_the_lock_of_python():
    from concurrent.futures import ThreadPoolExecutor

    a = np.arange(1000.0)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: sum_of((a, a), 1.0, 0), range(200)))
    assert found == {999000.0}


def test_a_name_that_the_process_lacks_is_no_end_of_it():
    code = Code("f", ("none", 0), ("no_such_function_anywhere",), b"not looked at")
    assert code.load(()) is None


# -- the cache --------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["empty", "half", "one bit", "text", "directory"])
def test_a_damaged_file_is_made_again(damage, tmp_path):
    kept = tmp_path / "kept"
    total(tmp_path, NUMBA_CACHE_DIR=kept)
    (file,) = codes(kept)
    content = file.read_bytes()
    if damage == "directory":
        file.unlink()
        file.mkdir()
        assert total(tmp_path, NUMBA_CACHE_DIR=kept)[0]
        return
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    file.write_bytes(
        {"empty": b"", "half": content[: len(content) // 2], "one bit": bytes(changed),
         "text": b"What is this?" * 9}[damage]
    )  # fmt: skip
    assert total(tmp_path, NUMBA_CACHE_DIR=kept)[0]
    assert unpacked(file.read_bytes()) is not None
    assert not total(tmp_path, NUMBA_CACHE_DIR=kept)[0]


def test_every_bit_of_a_file_counts():
    file = packed(Code("f", ("int64", 2), ("malloc",), bytes(range(100))))
    assert unpacked(file) == Code("f", ("int64", 2), ("malloc",), bytes(range(100)))
    for i in range(len(file)):
        changed = bytearray(file)
        changed[i] ^= 0x10
        assert unpacked(bytes(changed)) is None
        assert unpacked(file[:i]) is None


def test_the_stamp_follows_sources_versions_processor_and_settings(monkeypatch, tmp_path):
    same = cache_module.stamp()
    assert cache_module.stamp() == same
    sources = cache_module.PACKAGE
    copy = tmp_path / "fastdiv_kernels"
    for path in sources.rglob("*.py"):
        target = copy / path.relative_to(sources)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())  # at another time, of another age
    monkeypatch.setattr(cache_module, "PACKAGE", copy)
    assert cache_module.stamp() == same
    seen = {same}

    def is_new():
        assert cache_module.stamp() not in seen
        seen.add(cache_module.stamp())

    with (copy / "cpu" / "sums.py").open("r+b") as file:
        file.write(b"'")  # of the same size
    is_new()
    monkeypatch.setattr(cache_module, "numba_version", lambda: "99.1")
    is_new()
    monkeypatch.setattr(cache_module.llvmlite, "__version__", "99.1")
    is_new()
    monkeypatch.setattr(cache_module.np, "__version__", "99.1")
    is_new()
    monkeypatch.setattr(cache_module.llvm, "get_host_cpu_name", lambda: "i386")
    is_new()
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    is_new()


def test_the_version_of_numba_is_told_without_importing_it():
    import numba

    code = "from fastdiv_kernels.cpu.cache import numba_version as v; import sys; print(v())"
    out, _ = python(f"{code}; assert 'numba' not in sys.modules")
    assert out.strip() == numba.__version__


def nowhere(tmp_path):
    """Return settings under which nothing beside the sources nor at home can be written.

    Root may write to any directory: so there are files where directories would be.
    """
    blocked = tmp_path / "a file"
    blocked.write_text("")
    return {"HOME": blocked / "home", "XDG_CACHE_HOME": None, "NUMBA_CACHE_DIR": None}


def installed_read_only(tmp_path):
    """Return a copy of the kernels whose own directory takes no code."""
    import shutil

    at = tmp_path / "site"
    shutil.copytree(
        ROOT / "kernels", at, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
    )
    (at / "fastdiv_kernels" / "cpu" / "__pycache__").write_text("")
    return at


def test_an_install_that_cannot_be_written_keeps_code_for_the_user(tmp_path):
    site = installed_read_only(tmp_path)
    settings = {"NUMBA_CACHE_DIR": None, "XDG_CACHE_HOME": None, "HOME": tmp_path / "home"}
    for imports_numba in (True, False):
        imported, err = total(tmp_path, PYTHONPATH=site, **settings)
        assert imported == imports_numba
        assert "kept" not in err  # there is nothing to be said of it
    assert len(codes(tmp_path / "home" / ".cache" / "fastdiv")) == 1


def test_without_a_home_code_is_kept_in_a_temporary_directory_and_that_is_said(tmp_path):
    site, temporary = installed_read_only(tmp_path), tmp_path / "temporary"
    temporary.mkdir()
    settings = nowhere(tmp_path) | {"PYTHONPATH": site, "TMPDIR": temporary}
    imported, err = total(tmp_path, **settings)
    assert imported
    (line,) = [line for line in err.splitlines() if "kept in" in line]
    assert str(temporary) in line
    assert "NUMBA_CACHE_DIR" in line
    assert total(tmp_path, **settings) == (False, "")
    (directory,) = temporary.glob("fastdiv-kernels-*")
    assert directory.stat().st_mode & 0o777 == 0o700
    directory.chmod(0o777)  # others may have put code there: it is not run
    imported, err = total(tmp_path, **settings)
    assert imported
    assert "cannot be kept" in err
    assert len(err.splitlines()) <= 2


def test_where_nothing_can_be_written_it_works_all_the_same(tmp_path):
    """As on a full disk: a file may not have a single byte."""
    kept = tmp_path / "kept"
    code = (
        "import resource, runpy, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "runpy.run_path(sys.argv[1], run_name='__main__')"
    )
    (tmp_path / "small_kernel.py").write_text(SUM)
    out, err = python(code, tmp_path / "small_kernel.py", NUMBA_CACHE_DIR=kept, TMPDIR=tmp_path)
    assert out == "(20.0, 5.0) True\n"
    (line,) = [line for line in err.splitlines() if "cannot be kept" in line]
    assert "File too large" in line
    assert codes(kept) == []
    assert not list(kept.rglob(".*"))


def test_eight_processes_with_an_empty_cache_agree(tmp_path):
    kept = tmp_path / "kept"
    code = (
        "import numpy as np, fastdiv, sys, time\n"
        "x = np.random.default_rng(3).standard_normal((100, 7), np.float32)\n"
        "s = fastdiv.score(x, np.arange(100) % 7, kind='logits')\n"
        "import zlib; print(zlib.crc32(s.loss.tobytes() + s.brier.tobytes()))"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(kept), "FASTDIV_QUIET": "1"}
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(8)
    ]  # fmt: skip
    said = [process.communicate(timeout=300) for process in running]
    assert len({out for out, _ in said}) == 1
    assert {err for _, err in said} == {""}
    (file,) = codes(kept)
    assert unpacked(file.read_bytes()) is not None


def test_old_versions_do_not_pile_up(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "MOST_STAMPS", 3)
    for i in range(6):
        (tmp_path / f"old{i}").mkdir()
        os.utime(tmp_path / f"old{i}", (i, i))
    (tmp_path / "current").mkdir()
    cache_module._forget_old(tmp_path, "current")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "old4", "old5"]


def test_what_only_numba_can_call_is_called_by_numba(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_code, "RESULTS", {"none": None})
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    here = cache_module.Cache()
    monkeypatch.setattr(jit, "the_cache", lambda: here)

    @jit.kernel
    def half(x):
        return x[0] / 2

    assert half(np.array([3.0])) == 1.5
    (file,) = codes(tmp_path / "fastdiv")
    assert unpacked(file.read_bytes()) == machine_code.NOT_HERE  # and it is not tried again


# -- what is said -----------------------------------------------------------------------------

SLOW = (
    "from fastdiv_kernels.cpu import notice\nimport time\n"
    "for name in ('first', 'second', 'third'):\n"
    "    with notice.compiling(name): time.sleep(0.7)\n"
)


def test_elsewhere_than_on_a_terminal_one_line_is_printed():
    _, err = python(SLOW)
    assert err == f"{notice.WHAT}: first first\n"


def test_nothing_is_said_where_it_is_quiet_or_quick():
    assert python(SLOW, FASTDIV_QUIET=1)[1] == ""
    assert python(SLOW.replace("0.7", "0.01"))[1] == ""


def test_on_a_terminal_one_line_is_rewritten_and_taken_away():
    ours, theirs = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "FASTDIV_QUIET"}
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"
    process = subprocess.Popen([sys.executable, "-c", SLOW], stderr=theirs, env=environment)
    os.close(theirs)
    said = b""
    while True:
        try:
            piece = os.read(ours, 1000)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        said += piece
    assert process.wait() == 0
    assert b"\n" not in said
    assert b"first, the 1st, 0 s so far" in said
    assert b"third, the 3rd, 1 s so far" in said
    assert said.endswith(b"\r\x1b[K")


def test_a_progress_bar_gets_a_whole_line(capsys, monkeypatch):
    """As rich draws its bar, it puts what it can draw around in the place of stderr."""

    class Drawn:
        lines = ""

        def isatty(self):
            return True

        def write(self, text):
            self.lines += text

        def flush(self):
            pass

    monkeypatch.delenv("FASTDIV_QUIET", raising=False)
    monkeypatch.setattr(notice, "SLOW_S", 0.0)
    drawn = Drawn()
    monkeypatch.setattr(sys, "stderr", drawn)
    said = notice.Notice()
    for name in ("one", "two"):
        with said.compiling(name):
            time.sleep(0.1)
    assert drawn.lines == f"{notice.WHAT}: one first\n"


def test_quiet_commands_keep_quiet(dump, tmp_path):
    code = "import sys; from fastdiv.cli import main; sys.argv[0] = 'fastdiv'; main()"
    settings = {"NUMBA_CACHE_DIR": tmp_path}
    few = ("--scores", "slim")  # kernels to compile
    assert python(code, "analyze", dump, *few, "--quiet", **settings) == ("", "")
    assert len(codes(tmp_path)) >= 5
    out, err = python(code, "analyze", dump, *few, "--json", **settings)
    assert json.loads(out)["splits"]
    assert "compiling" not in err
