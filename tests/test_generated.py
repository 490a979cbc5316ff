"""Random dumps against the float64 reference, and written in one way against another.

`FASTDIV_DUMPS=10000 pytest tests/test_generated.py` is a long hunt, over dumps that are new each
time; without it a few hundred, always the same.
"""

import os
import tempfile

from dumps import assert_same
from generate import draw_writing, expectation, pick, truths, writings
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from oracle import FLOAT32, assert_tables
from writing import FILES, read_dtype
from written import Dump

import fastdiv

ASKED = os.environ.get("FASTDIV_DUMPS")


def hunt(dumps):
    """Return the settings of a hunt over so many dumps, unless more are asked for."""
    return settings(
        max_examples=int(ASKED or dumps),
        derandomize=ASKED is None,
        database=None,
        deadline=None,
        print_blob=ASKED is not None,
        # The first analysis in a process loads the kernels, which may take seconds.
        suppress_health_check=[HealthCheck.too_slow],
    )


# A loss in float64 is as precise as the reference's, but for what exp and log add.
LOSSES = {"float64": 1e-12}


@st.composite
def analyses(draw):
    """Draw a run, a way to write it, and options of the analysis."""
    truth = draw(truths())
    options = {
        "threads": pick(draw, "threads", (1, 2)),
        "clip": pick(draw, "clip", (None, None, 1e-3, 1e-30)),
        "duplicates": pick(draw, "duplicates", ("error", "error", "first")),
        "scores": pick(draw, "scores", ("all", "rolling")),
    }
    if pick(draw, "some epochs", range(8)) == 7:
        number = pick(draw, "number of epochs", range(len(truth.epochs)))
        options["epochs"] = list(truth.epochs[number:])
    return truth, draw(writings(truth)), options


@hunt(250)
@given(analyses())
def test_dumps_agree_with_the_reference(drawn):
    truth, writing, options = drawn
    with tempfile.TemporaryDirectory() as folder:
        dump = Dump(truth, writing, folder)
        assert repr(dump.read()) == repr(dump.rows), "the writer is wrong"
        check(dump, options)


def check(dump, options):
    """Analyze a dump and compare all that is found with what is due."""
    truth, epochs = dump.truth, options.get("epochs")
    due = expectation(dump, options["clip"], epochs, options["duplicates"])
    if not in_order(dump):
        options = options | {"scores": "all"}
    run = analyze(dump, due, **options)
    if run is None:
        return
    if due.perhaps:  # the class count or the kind may have been mistaken
        assume(run.summary["classes"] == truth.classes and run.summary["kind"] == truth.kind)
    assert due.error is None, f"no error, but one was due: {due.error}"
    assert run.summary["kind"] == truth.kind
    assert run.summary["rows"] == due.rows
    reasons = {r["reason"]: r["n"] for r in run.summary["invalid"]["reasons"]}
    assert reasons == due.reasons
    assert sum(split["n_duplicates"] for split in run.summary["splits"]) == due.duplicates
    dtype = read_dtype(truth, dump.writing.container)
    assert_tables(run, due.tables, LOSSES.get(dtype, FLOAT32))


def analyze(dump, due, **options):
    """Return the run of a dump, or None where it is refused, which must have been due."""
    try:
        return fastdiv.analyze(dump.source(), **dump.options, **options)
    except fastdiv.FastdivError as error:
        message = str(error)
    assert due.error is not None or due.perhaps, f"refused: {message}"
    assert due.perhaps or due.error in message
    assert "\n" not in message
    return None


def in_order(dump):
    """Whether each split's epochs are known to come in order, as rolling scores need it."""
    if dump.writing.container in FILES and min(dump.truth.epochs) < 0:
        return False  # a file of epoch -1 comes after one of epoch 1
    last = {}
    for row in (row for rows in dump.rows for row in rows):
        if row.epoch < last.get(row.split, row.epoch):
            return False
        last[row.split] = row.epoch
    return True


@st.composite
def pairs(draw):
    """Draw a run and two ways to write it in which its numbers are of one dtype."""
    truth = draw(truths())
    first = draw_writing(draw, truth)
    dtype = read_dtype(truth, first.container)
    return truth, first, draw_writing(draw, truth, dtype, "second ")


@hunt(90)
@given(pairs())
def test_the_same_data_in_other_layouts_gives_the_same_bits(drawn):
    truth, *ways = drawn
    runs, errors = [], set()
    for writing in ways:
        with tempfile.TemporaryDirectory() as folder:
            dump = Dump(truth, writing, folder)
            due = expectation(dump)
            assume(not due.perhaps)
            runs.append(analyze(dump, due))
            if runs[-1] is not None:
                _ = runs[-1].samples  # made when first asked for
            errors.add(due.error)
    assert len(errors) == 1
    if errors == {None}:
        assert_same(*runs)
        first, second = (run.summary["invalid"]["n"] for run in runs)
        assert first == second
