"""A damaged file gives a right answer or one clear line: no crash, hang, traceback or silence.

Every command runs in a process of its own under a limit of memory (see damaged.py). What a run
says of a file that is damaged and can be read all the same is compared with what readers that are
not fastdiv's find there (see second_reading.py).

FASTDIV_DAMAGED=100 tries a hundred times as many random damages.
"""

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import claimed
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from damaged import TOGETHER, Case, Server
from dumps import as_kind, as_list, make, whole
from second_reading import READER_REFUSES

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
TIMES = int(os.environ.get("FASTDIV_DAMAGED", "1"))
RANDOM = 100  # damages of each file
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no collected files in {DATA}")
LABEL = ("--label", "labels.npy")
CAT_OR_DOG = ("--class-names", "cat,dog")
LZ4 = pa.ipc.IpcWriteOptions(compression="lz4")
MEMORY = 64 << 20  # more than this is not taken for what a file only claims


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


# Small files of every container ---------------------------------------------------------------


@dataclass
class Sample:
    """A small file, and what is beside it."""

    name: str
    data: bytes
    beside: dict[str, bytes] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    seconds: tuple[str, ...] = ()  # other files of the second reading

    @property
    def container(self):
        return self.name.rpartition(".")[2]


def parquet(t, **options):
    sink = io.BytesIO()
    pq.write_table(t, sink, row_group_size=3, store_schema=False, **options)
    return sink.getvalue()


def csv(t):
    sink = io.BytesIO()
    pyarrow.csv.write_csv(t, sink)
    return sink.getvalue()


def npz(save, **arrays):
    sink = io.BytesIO()
    save(sink, **arrays)
    return sink.getvalue()


def npy(values):
    sink = io.BytesIO()
    np.save(sink, values)
    return sink.getvalue()


def named():
    """Return a table of strings, dictionaries and float16 in lists of one length."""
    tables = [
        pa.table({
            "sample_id": [f"img-{i}" for i in rows.ids],
            "label": pa.array([("cat", "dog")[y] for y in rows.y]).dictionary_encode(),
            "probs": as_list(as_kind(rows, "probs").x, "fixed_size_list"),
            "epoch": pa.array([epoch] * len(rows), pa.int16()),
        })
        for epoch, rows in make((0, 1), n=5, c=2, dtype=np.float16).items()
    ]  # fmt: skip
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def samples():
    dump = make((0, 1), n=3, c=2)
    rows = as_kind(make((0,), n=4, c=3)[0], "probs")
    t = whole(dump)
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    lines = "".join(json.dumps(row) + "\n" for row in t.to_pylist())
    arrays = {"logits": rows.x, "label": rows.y, "sample_id": rows.ids}
    x, y = npy(rows.x), npy(rows.y)
    return {
        "parquet": Sample("a.parquet", parquet(t, compression="snappy")),
        "checked parquet": Sample("a.parquet", parquet(t, write_page_checksum=True)),
        "plain parquet": Sample("a.parquet", parquet(t, **plain)),
        "arrow": Sample("a.arrow", claimed.written(t, stream=False)),
        "arrows": Sample("a.arrows", claimed.written(t, stream=True)),
        "npz": Sample("a.npz", npz(np.savez, **arrays)),
        "deflated npz": Sample("a.npz", npz(np.savez_compressed, **arrays)),
        "npy": Sample("a.npy", x, {"labels.npy": y}, LABEL, ("labels.npy",)),
        "csv": Sample("a.csv", csv(whole(dump, "wide0"))),
        "jsonl": Sample("a.jsonl", lines.encode()),
    }


SAMPLES = samples()
CUT = [of for of in SAMPLES if of != "checked parquet"]  # the others are enough
SAMPLES |= {
    "named parquet": Sample("a.parquet", parquet(named(), compression="zstd"), {}, CAT_OR_DOG),
    "named arrow": Sample("a.arrow", claimed.written(named(), False, LZ4), {}, CAT_OR_DOG),
}
BY_LINES = {"csv", "jsonl"}  # a part of such a file is a file


class Bench:
    """Folders in which commands meet files."""

    def __init__(self, server, folder):
        self.server = server
        self.folder = folder
        self._made = 0

    def case(self, files, *arguments, **options):
        """Return a command in a new folder that holds some files."""
        self._made += 1
        return Case.of(self.folder / f"{self._made:06}", files, *arguments, **options)

    def run(self, cases):
        """Return [(case, how it ended)]."""
        return list(zip(cases, self.server.run(cases), strict=True))

    def analyze(self, sample, damaged, most=None):
        """Analyze damaged versions of a sample's file; return what is wrong, in words.

        `damaged` is {what was done: (the damaged file, a file that has what may be answered)};
        `most` is the memory that may be taken.
        """
        arguments = ("analyze", sample.name, *sample.options, "-o", "run")
        cases = [
            self.case({sample.name: hurt} | sample.beside, *arguments, together=together(most))
            for hurt, _ in damaged.values()
        ]
        problems, seconds = {}, {}
        for what, (case, end) in zip(damaged, self.run(cases), strict=True):
            if problem := end.problem(sample.name, *sample.beside) or too_much(end, most):
                problems[f"{what} ({case.folder})"] = problem
                case.keep()
            elif end.code == 0:
                Path(case.folder, "right").write_bytes(damaged[what][1])
                again = ["run", sample.container, "right", *sample.seconds]
                seconds[what] = Case(case.folder, again, entry="second_reading:main")
        for what, (case, end) in zip(seconds, self.run([*seconds.values()]), strict=True):
            if end.code:
                problems[f"{what} ({case.folder})"] = end.err or f"second reading: {end.code}"
            else:
                shutil.rmtree(case.folder)
        return problems

    def inspect(self, sample, damaged, most=None):
        """Inspect damaged versions of a sample's file; return what is wrong, in words."""
        arguments = ("inspect", sample.name, *sample.options)
        cases = [
            self.case({sample.name: hurt} | sample.beside, *arguments, together=together(most))
            for hurt, _ in damaged.values()
        ]
        problems = {}
        for what, (case, end) in zip(damaged, self.run(cases), strict=True):
            if problem := end.problem(sample.name, *sample.beside) or too_much(end, most):
                problems[f"inspect, {what} ({case.folder})"] = problem
                case.keep()
        return problems


def together(most):
    """Return how many cases a child may take: memory is known of a process."""
    return TOGETHER if most is None else 1


def too_much(end, most):
    """Return what is wrong with the memory that a command took."""
    if most is None or end.taken <= most:
        return ""
    return f"takes {end.taken >> 20} MiB: {end.err or end.out}"


@pytest.fixture
def bench(server, tmp_path):
    return Bench(server, tmp_path)


def listed(problems):
    """Return problems as text, the same ones together, those of the lowest places first."""
    kinds = {}
    for what, problem in problems.items():
        kinds.setdefault("".join(c for c in problem if not c.isdigit()), []).append((what, problem))
    return "".join(
        f"\n{len(found)} × {found[0][1].rstrip()}\n    {'; '.join(what for what, _ in found[:3])}"
        for found in kinds.values()
    )


# Damages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", SAMPLES)
def test_files_that_are_whole(bench, of):
    sample = SAMPLES[of]
    files = {sample.name: sample.data} | sample.beside
    ended = bench.run([
        bench.case(files, "analyze", sample.name, *sample.options, "-o", "run"),
        bench.case(files, "inspect", sample.name, *sample.options),
    ])  # fmt: skip
    assert [end.problem() for _, end in ended] == ["", ""]
    assert [end.code for _, end in ended] == [0, 0]
    assert bench.analyze(sample, {"nothing": (sample.data, sample.data)}) == {}


@pytest.mark.parametrize("of", CUT)
def test_files_that_are_cut(bench, of):
    sample = SAMPLES[of]
    damaged = {}
    for n in range(len(sample.data)):
        cut = sample.data[:n]
        damaged[f"cut at {n} of {len(sample.data)}"] = (
            cut, cut if sample.container in BY_LINES else sample.data,
        )  # fmt: skip
    problems = bench.analyze(sample, damaged)
    assert not problems, listed(problems)


def hurt(data, rng):
    """Return a description and data in which something is different."""
    out = bytearray(data)
    at = int(rng.integers(len(data)))
    size = int(rng.integers(1, 9))
    kind = ["bits", "bytes", "ones", "zeros", "lost", "more", "swapped"][
        rng.choice(7, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05])
    ]
    if kind == "bits":
        for place in rng.integers(8 * len(data), size=rng.integers(1, 4)).tolist():
            out[place // 8] ^= 1 << place % 8
            at = place // 8
    elif kind == "bytes":
        out[at : at + size] = rng.bytes(len(out[at : at + size]))
    elif kind in ("ones", "zeros"):
        out[at : at + size] = bytes([255 * (kind == "ones")]) * len(out[at : at + size])
    elif kind == "lost":
        del out[at : at + size]
    elif kind == "more":
        out[at:at] = rng.bytes(size)
    else:
        other = int(rng.integers(len(data)))
        out[at : at + size], out[other : other + size] = (
            out[other : other + size], out[at : at + size],
        )  # fmt: skip
    return f"{kind} at {at}", bytes(out)


@pytest.mark.parametrize("of", SAMPLES)
def test_files_that_are_hurt_at_random(bench, of):
    sample = SAMPLES[of]
    problems = {}
    for time in range(TIMES):
        damaged = {}
        for seed in range(RANDOM * time, RANDOM * (time + 1)):
            what, data = hurt(sample.data, np.random.default_rng(seed))
            damaged[f"seed {seed}: {what}"] = (data, data)
        problems |= bench.analyze(sample, damaged)
    assert not problems, listed(problems)


@pytest.mark.parametrize("of", SAMPLES)
def test_inspect_of_files_that_are_hurt_at_random(bench, of):
    sample = SAMPLES[of]
    hurts = (hurt(sample.data, np.random.default_rng([1, i])) for i in range(RANDOM // 2 * TIMES))
    damaged = {f"seed [1, {i}]: {what}": (data, data) for i, (what, data) in enumerate(hurts)}
    problems = bench.inspect(sample, damaged)
    assert not problems, listed(problems)


# Broken files that others have collected ------------------------------------------------------


@needs_data
@pytest.mark.parametrize("command", ["analyze", "inspect"])
@pytest.mark.parametrize("folder", ["malformed", "parquet_testing"])
def test_files_that_others_have_collected(bench, folder, command):
    paths = sorted(path for path in (DATA / folder).rglob("*") if path.is_file())
    assert len(paths) > 70
    cases = {path: bench.case({}, command, path) for path in paths}
    problems = {}
    for (path, case), end in zip(cases.items(), bench.server.run([*cases.values()]), strict=True):
        if problem := end.problem(str(path)):
            problems[f"{command} {path}"] = problem
        elif end.code == 0:
            problems[f"{command} {path}"] = f"an answer: {end.out}"
        shutil.rmtree(case.folder, ignore_errors=True)
    assert not problems, listed(problems)


# What headers claim ---------------------------------------------------------------------------

CLAIMS = {
    "a.parquet": claimed.parquet,
    "lists.parquet": claimed.parquet_fixed_size_list,
    "a.arrow": partial(claimed.ipc, stream=False),
    "a.arrows": partial(claimed.ipc, stream=True),
    "lz4.arrow": partial(claimed.ipc, stream=False, compression="lz4"),
    "zstd.arrows": partial(claimed.ipc, stream=True, compression="zstd"),
    "a.npz": claimed.npz,
    "a.npy": claimed.npy,
    "a.csv.gz": partial(claimed.gzip_of_zeros, b"label,p_0,p_1\n0,0.5,"),
    "a.jsonl.gz": partial(claimed.gzip_of_zeros, b'{"label": 0, "probs": ['),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_what_headers_claim_is_checked_before_memory_is_taken_for_it(bench, name):
    whole, claims = CLAIMS[name]()
    sample = Sample(name, whole)
    if name == "a.npy":
        labels = npy(np.zeros(claimed.ROWS, np.int64))
        sample = Sample(name, whole, {"labels.npy": labels}, LABEL, ("labels.npy",))
    damaged = {what: (data, whole) for what, data in claims.items()}
    problems = bench.analyze(sample, damaged, MEMORY) | bench.inspect(sample, damaged, MEMORY)
    assert not problems, listed(problems)


# Text that is no dump -------------------------------------------------------------------------

RECORD = '{"label": %s, "probs": [0.25, 0.75]}\n'
TEXTS = {
    "a.jsonl": [
        "[" * 100_000, '{"a": ' * 100_000, "[]", "{}\n" * 3, "null\n", "\n" * 100, "\0" * 100,
        "\ufeff", RECORD % "1e400", RECORD % f"1{'0' * 400}", RECORD % f"1{'0' * 5000}",
        RECORD % r'"\ud800"', RECORD % "[0]", RECORD % "{}", RECORD % "NaN", RECORD % '"x\0y"',
        '{"label": 0, "probs": [0.25, [0.75]]}\n', '{"label": 0, "probs": {"0": 0.25}}\n',
        '{"label": 0, "\\ud800": [0.25, 0.75]}\n', '{"label": 0, "probs": ["0.25", "0.75"]}\n',
        '{"label": 0, "probs": []}\n' * 3, '{"label": 0, "probs": [0.25, 0.75], "epoch": 1e300}\n',
        '{"label": 0, "probs": [0.25, 0.75], "epoch": [1]}\n', f'[{RECORD % 0}, 7]',
        f"{RECORD % 0}{RECORD % 1}".replace("\n", ","), f"[{RECORD % 0},", f"[{RECORD % 0}]7",
    ],
    "a.csv": [
        "\n" * 100, "\0" * 100, "\ufeff", '"', "label,p_0,p_1", "label,p_0,p_1\n",
        "label,p_0,p_1\n0,0.5\n", "label,p_0,p_1\n0,0.5,0.5,0.5\n", 'label,p_0,p_1\n0,"0.5,0.5\n',
        "label,p_0,p_1\n0,0.5,half\n", "label,p_0,p_1\n,,\n", "label,label,p_0,p_1\n0,0,0.5,0.5\n",
        "label,p_0,p_0\n0,0.5,0.5\n", ",".join(f"p_{i}" for i in range(100_000)),
        "label,p_0,p_1\n1e400,1e400,-1e400\n", "label,p_0,p_1,epoch\n0,0.5,0.5,1e300\n",
        "label,p_0,p_1\n0,0.5,0.5\n".encode("utf-16").decode("latin-1"), "0,0.5,0.5\n",
        ";;;\n;;;\n", f"label,p_0,p_1\n{'9' * 5000},0.5,0.5\n",
        "label,p_0,p_1\n0,0.5,0.5\n" + "x" * (3 << 20),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_text_that_is_no_dump(bench, name):
    sample = Sample(name, b"")
    texts = {f"{text[:60]!r} ({i})": (text.encode(), b"") for i, text in enumerate(TEXTS[name])}
    problems = bench.inspect(sample, texts)
    cases = [bench.case({name: data}, "analyze", name) for data, _ in texts.values()]
    for what, (_, end) in zip(texts, bench.run(cases), strict=True):
        if problem := end.problem(name):
            problems[f"analyze {what}"] = problem
    assert not problems, listed(problems)


# What watches over all this -------------------------------------------------------------------

NOTICED = {
    "crash": "crash: SIGSEGV", "abort": "crash: SIGABRT", "hang": "hangs", "spin": "hangs",
    "leave_a_thread_waiting": "hangs", "raise_an_error": "traceback: KeyError: 'label'",
    "end_without_a_word": "silence", "say_nothing": "silence",
    "fail_without_a_word": "exit code 2, but not with one line",
    "say_too_much": "exit code 2, but not with one line",
    "forget_the_file": "a message that names no file", "fail_after_a_result": "exit code 2 after",
    "leave_a_temporary_file": "leaves ['tmp/tmp", "leave_half_a_run": "leaves ['run']",
    "take_memory": "", "behave": "",
}  # fmt: skip


def test_what_no_command_may_do_is_noticed(bench):
    """Each of these is followed by one that behaves, in the same process if it goes on."""
    names = [name for noticed in NOTICED for name in (noticed, "behave")]
    entries = [f"misbehaving:{name}" for name in names]
    options = {"limit_s": 1.0, "together": len(names)}
    cases = [bench.case({"a.parquet": b"PAR1"}, entry=entry, **options) for entry in entries]
    for name, (_, end) in zip(names, bench.run(cases), strict=True):
        problem = end.problem("a.parquet")
        assert problem.startswith(NOTICED[name]), (name, end)
        assert bool(problem) == bool(NOTICED[name]), (name, end)


def test_memory_that_is_taken_is_noticed(bench):
    entries = ["misbehaving:behave", "misbehaving:fill_memory"]
    cases = [bench.case({"a.parquet": b"PAR1"}, entry=e, together=1) for e in entries]
    (_, little), (_, much) = bench.run(cases)
    assert little.taken < 20 << 20
    assert too_much(little, MEMORY) == ""
    assert 200 << 20 <= much.taken < 300 << 20
    assert too_much(much, MEMORY).startswith("takes 2")


def test_another_result_is_noticed(bench):
    """The second reading finds a run of other rows, a missing column, and a file it cannot read."""
    sample = SAMPLES["parquet"]
    other = parquet(whole(make((0, 1), n=3, c=2, seed=1)))
    for right, words in {
        other: "another result", parquet(pa.table({"x": [1]})): READER_REFUSES, b"": READER_REFUSES,
    }.items():  # fmt: skip
        problems = bench.analyze(sample, {"nothing": (sample.data, right)})
        assert [problem.startswith(words) for problem in problems.values()] == [True]


def test_a_child_ends_as_a_process_of_its_own_does(bench):
    sample = SAMPLES["parquet"]
    for data in (sample.data, sample.data[:100]):
        case = bench.case({"a.parquet": data}, "analyze", "a.parquet", "--quiet", "--json")
        ((_, end),) = bench.run([case])
        case.keep()
        command = [sys.executable, "-m", "fastdiv.cli", *case.arguments]
        alone = subprocess.run(command, cwd=case.folder, capture_output=True, text=True)
        assert (end.code, end.err) == (alone.returncode, alone.stderr)
        assert [*json.loads(end.out or "{}")] == [*json.loads(alone.stdout or "{}")]
