"""`fastdiv.score` on arrays in pieces: labels of any integers, threads that are kept, forks."""

import os
import subprocess
import sys

import numpy as np
import pytest

import fastdiv
from fastdiv import scoring
from fastdiv_kernels.contract import REASON, Reason


def rows(n=1000, c=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, c)).astype(np.float32), rng.integers(0, c, n)


def as_bytes(scores):
    return [array.tobytes() for array in scores.arrays()]


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(scoring, "PIECE_BYTES", 16 * 70)


@pytest.mark.parametrize(
    "dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", ">i8", ">u8"]
)
def test_labels_may_be_any_integers(small_pieces, dtype):
    x, y = rows()
    wanted = as_bytes(fastdiv.score(x, y.astype(np.int32), kind="logits"))
    given = y.astype(dtype)
    assert as_bytes(fastdiv.score(x, given, kind="logits")) == wanted
    assert as_bytes(fastdiv.score(x, given[:, None], kind="logits")) == wanted
    assert as_bytes(fastdiv.score(x, np.repeat(given, 2)[::2], kind="logits")) == wanted


@pytest.mark.parametrize(
    "label", [-1, 4, 1 << 31, (1 << 32) + 1, -(1 << 32), (1 << 63) - 1, -(1 << 63)]
)
def test_labels_that_32_bits_would_make_valid_are_not(small_pieces, label):
    x, y = rows()
    y[500] = label
    status = fastdiv.score(x, y, kind="logits").status & REASON
    assert status[500] == Reason.LABEL
    assert np.count_nonzero(status) == 1
    if label >= 0:
        assert (fastdiv.score(x, y.astype("u8"), kind="logits").status & REASON == status).all()


@pytest.mark.parametrize("threads", [1, 2, 7, None])
def test_pieces_and_threads_change_no_bit(small_pieces, threads):
    x, y = rows()
    with pytest.MonkeyPatch.context() as whole:
        whole.setattr(scoring, "PIECE_BYTES", 1 << 30)
        wanted = as_bytes(fastdiv.score(x, y, kind="logits"))
    out = fastdiv.score(x[::-1].copy(), y, kind="logits")
    assert as_bytes(fastdiv.score(x, y, kind="logits", out=out, threads=threads)) == wanted


@pytest.mark.parametrize("threads", [1, 4])
def test_an_error_is_raised_when_no_thread_works_any_more(threads):
    done = []

    def work(item):
        if item == 3:
            raise ValueError("three")
        done.append(item)

    with pytest.raises(ValueError, match="three"):
        scoring.run_all(work, range(1000), threads)
    before = len(done)
    scoring.run_all(done.append, range(5), threads)
    assert len(done) == before + 5


FORKS = """
import os
import numpy as np
import fastdiv
from fastdiv import scoring
scoring.PIECE_BYTES = 1 << 10
x, y = np.eye(500, 8, dtype=np.float32), np.arange(500) % 8
wanted = fastdiv.score(x, y, kind="logits", threads=4).loss.tobytes()
child = os.fork()
same = fastdiv.score(x, y, kind="logits", threads=4).loss.tobytes() == wanted
if not child:
    os._exit(0 if same else 1)
assert same
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
def test_a_forked_process_has_threads_of_its_own():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
