"""The rules of the house, read from the sources: who may import whom, what things are called."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
KERNEL_SOURCES = sorted((ROOT / "kernels").rglob("*.py"))
SOURCES = sorted([*(ROOT / "fastdiv").rglob("*.py"), *KERNEL_SOURCES])
OTHERS = [path for name in ("tests", "benchmarks") for path in (ROOT / name).rglob("*.py")]
PYTHON = sorted([*SOURCES, *OTHERS])
MOST_LINES = 420

# What each part of fastdiv may import of the others; a folder is one part. Dependencies run one
# way, from what people see down to what data is: render and explain know a Run and its tables,
# the engine knows everything that it drives, and nothing of that knows the engine.
ALLOWED = {
    "errors": set(),
    "pipeline": set(),
    "markup": set(),
    "batch": {"markup"},
    "arrays": {"errors"},
    "trial": {"errors"},
    "backends": {"errors", "trial"},
    "scoring": {"arrays", "backends", "batch", "errors"},
    "sources": {"arrays", "batch", "errors", "scoring"},  # scoring: the names of kinds
    "plan": {"batch", "errors", "sources"},
    "ledger": {"arrays", "batch", "errors"},
    "disk": {"arrays", "errors"},
    "scratch": {"errors"},
    "stored": {"batch"},
    "epoch_file": {"batch", "disk", "ledger", "stored"},
    "store": {"disk", "epoch_file", "errors"},
    "states": {"stored"},
    "scorer": {"batch", "scoring", "states", "stored"},
    "temperature": set(),
    "metrics": {"states", "temperature"},
    "tables": {
        "disk", "epoch_file", "errors", "ledger", "metrics", "states", "store", "stored",
    },
    "run_directory": {"errors"},
    "run": {
        "backends", "errors", "explain", "metrics", "render", "run_directory", "scoring", "scratch",
        "store", "tables",
    },
    "split": {"batch", "epoch_file", "ledger", "metrics", "states", "store", "stored", "tables"},
    "invalid": {"errors", "sources"},
    "scan": {
        "batch", "epoch_file", "errors", "invalid", "metrics", "plan", "run", "run_directory",
        "sources", "split", "states", "tables",
    },
    "engine": {
        "backends", "batch", "errors", "pipeline", "plan", "run", "run_directory", "scan",
        "scorer", "scoring", "scratch", "sources",
    },
    "told": {"errors", "sources"},  # sources: types of columns
    "tracking": {
        "arrays", "backends", "batch", "errors", "invalid", "metrics", "run", "scan", "scoring",
        "scratch", "sources", "split", "states", "stored", "tables", "told",
    },
    "written": {"errors", "sources"},
    "writer": {"errors", "scoring", "scratch", "sources", "told", "written"},
    "conversion": {
        "batch", "errors", "pipeline", "plan", "run_directory", "scan", "scoring", "sources",
        "writer",
    },
    "explain": {"errors", "markup", "metrics", "stored", "tables", "temperature"},
    "check": {"errors", "metrics"},
    "rereading": {
        "backends", "batch", "errors", "explain", "ledger", "pipeline", "plan", "scoring",
        "sources",
    },
    "render": {"check", "errors", "explain", "markup", "metrics", "plan", "rereading"},
    "demo": {"errors"},
    "doctor": {"backends", "batch", "errors", "scorer", "scoring", "trial"},
    "cli": {
        "backends", "check", "demo", "doctor", "engine", "errors", "explain", "plan", "render",
        "run", "scoring", "sources", "trial",
    },
}  # fmt: skip
# Types that a part may name though it may not use what they belong to.
TYPE_NAMES = {("render", "sources"): {"Source"}}
# Of the kernels, all may know the contract and what an exact sum is. Which backends there are is
# known to `backends` alone, by name; the index is kept by the CPU whatever the backend.
KERNELS = {f"fastdiv_kernels.{name}" for name in ("contract", "exact", "grid", "places")}
# Pages are decoded there too.
ON_THE_CPU = {
    "ledger": {"fastdiv_kernels.cpu.lookup"},
    "disk": {"fastdiv_kernels.cpu.writing"},
    "epoch_file": {"fastdiv_kernels.cpu.lookup"},
    "stored": {"fastdiv_kernels.cpu.flags"},
    "sources": {
        "fastdiv_kernels.cpu.columns",
        "fastdiv_kernels.cpu.page_headers",
        "fastdiv_kernels.cpu.page_values",
        "fastdiv_kernels.page_table",
    },
}


def imports(path):
    """Yield (module, name) of what a file imports when it runs: type checkers' imports left out."""
    for_types = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for_types.update(map(id, ast.walk(node)))
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from ((node.module, alias.name) for alias in node.names)


def part_of(path):
    """Return the part of fastdiv that a file belongs to; None for fastdiv itself."""
    first = path.relative_to(ROOT / "fastdiv").parts[0].removesuffix(".py")
    return None if first == "__init__" else first


def edges():
    """Yield (file, part, imported part, name) of imports within fastdiv."""
    for path in SOURCES:
        if not path.is_relative_to(ROOT / "fastdiv") or part_of(path) is None:
            continue
        for module, name in imports(path):
            if module.split(".")[0] != "fastdiv":
                continue
            if "." in module:
                yield path, part_of(path), module.split(".")[1], name
            elif name in ALLOWED:
                yield path, part_of(path), name, ""


def name_of(path):
    return str(path.relative_to(ROOT))


def test_the_table_of_dependencies_runs_one_way_and_is_complete():
    tuple(graphlib.TopologicalSorter(ALLOWED).static_order())  # raises on a cycle
    parts = {part_of(path) for path in SOURCES if path.is_relative_to(ROOT / "fastdiv")}
    assert parts - {None} == set(ALLOWED), "a part of fastdiv has no row, or a row no part"


def test_parts_import_only_what_they_may():
    breaches = [
        f"{name_of(path)} imports fastdiv.{imported}" + (f" ({name})" if name else "")
        for path, part, imported, name in edges()
        if imported != part
        and imported not in ALLOWED[part]
        and name not in TYPE_NAMES.get((part, imported), ())
    ]
    assert breaches == []


def test_every_dependency_in_the_table_is_used():
    """Keep the table from allowing what nobody needs; layers to come are exempt."""
    used = {(part, imported) for _, part, imported, _ in edges()}
    of_layers_that_grow = {"explain", "render", "cli"}
    idle = [
        f"{part} -> {imported}"
        for part, allowed in ALLOWED.items()
        if part not in of_layers_that_grow
        for imported in sorted(allowed)
        if (part, imported) not in used
    ]
    assert idle == []


def is_of(module, allowed):
    return any(module == a or module.startswith(f"{a}.") for a in allowed)


@pytest.mark.parametrize("path", KERNEL_SOURCES, ids=name_of)
def test_kernels_know_nothing_of_fastdiv_and_a_backend_nothing_of_another(path):
    own = path.relative_to(ROOT / "kernels" / "fastdiv_kernels").parts[0].removesuffix(".py")
    others = [f"fastdiv_kernels.{name}" for name in ("cpu", "cuda", "reference") if name != own]
    found = [f"{module}.{name}" for module, name in imports(path)]
    assert [m for m in found if is_of(m, ["fastdiv", *others])] == []


@pytest.mark.parametrize("path", sorted(set(SOURCES) - set(KERNEL_SOURCES)), ids=name_of)
def test_fastdiv_knows_of_kernels_only_what_all_backends_share(path):
    allowed = KERNELS | ON_THE_CPU.get(part_of(path), set())
    found = [f"{module}.{name}" for module, name in imports(path)]
    assert [m for m in found if is_of(m, ["fastdiv_kernels"]) and not is_of(m, allowed)] == []


def loaded_after(statement):
    """Return the top-level modules that a fresh process holds after a statement."""
    code = f"{statement}; import sys; print(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"numba", "llvmlite", "cupy", "torch", "pyarrow", "numpy", "pandas", "sklearn", "rich"}


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import fastdiv", set()),
        ("import fastdiv; fastdiv.DataError", set()),
        ("import fastdiv.cli", HEAVY - {"numba", "llvmlite", "cupy", "torch", "sklearn"}),
        ("from fastdiv_kernels import reference", {"numpy"}),
    ],
)
def test_an_import_loads_no_more_than_it_needs(statement, allowed):
    assert not (loaded_after(statement) & HEAVY) - allowed


def test_every_public_name_can_be_had():
    import fastdiv

    for name in fastdiv.__all__:
        assert getattr(fastdiv, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fastdiv.nothing


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_names_say_what_a_thing_is(path):
    assert path.stem not in {"utils", "util", "common", "helpers", "helper", "misc", "base"}
    classes = [n.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ClassDef)]
    assert [c for c in classes if re.match(r"_?Base|.*Manager$", c)] == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_are_short_enough_to_read(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES


# A "~" stands in these for nothing, so that this file does not match itself.
TRACES = {
    "how this was made": r"(?<!scope=\")\bses~sions?\b",
    "the number of an issue": r"(?<![\w/&])#~\d+\b|\bissue ~\d",
    "a path of one machine": r"(?<![\w.])/(?:work|root|home/\w+)/",
}


def is_trace(what, line):
    return re.search(TRACES[what].replace("~", ""), line) is not None


def tracked_files():
    try:
        found = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"git does not say which files are tracked: {error}")
    paths = [ROOT / name for name in found.split("\0") if name]
    if not paths:
        pytest.skip("no files are tracked here")
    return [path for path in paths if path.is_file()]


@pytest.mark.parametrize("what", TRACES)
def test_tracked_files_hold_no_trace_of(what):
    found = []
    for path in tracked_files():
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError:
            continue  # an image or a table
        for number, line in enumerate(lines, 1):
            if is_trace(what, line):
                found.append(f"{name_of(path)}:{number}: {line.strip()[:80]}")
    assert found == []


@pytest.mark.parametrize(
    ("what", "line", "matches"),
    [
        ("how this was made", "as the last ses~sion found", True),
        ("how this was made", '@pytest.fixture(scope="session")', False),
        ("how this was made", "in possession of", False),
        ("the number of an issue", "see #~12", True),
        ("the number of an issue", "of issue ~2", True),
        ("the number of an issue", "grows without bound (apache/arrow#39808)", False),
        ("a path of one machine", "open('/wo~rk/main/x')", True),
        ("a path of one machine", "frame/work/x ../work/", False),
    ],
)
def test_a_trace_is_recognised(what, line, matches):
    assert is_trace(what, line.replace("~", "")) == matches
