"""What was planted is named first; `python -m benchmarks.verdicts` draws many more."""

import pytest

from benchmarks.verdicts import EXPLAIN, judge
from fastdiv.explain.verdict.explain import explain_pair
from tests import real_training
from tests.planted import CAUSES, PAIRS, cases
from tests.sides import pair_of

DRAWS = 4  # of each cause, strong enough to count
TRIED = 12


def judged(cause):
    """Return what became of some draws that were not used for tuning."""
    found = []
    for case in cases("proof", TRIED, [cause], start=2000):
        if case.classes * case.n > 500_000:  # quick ones
            continue
        record = judge(case, EXPLAIN)
        if record.counts:
            found.append(record)
        if len(found) == DRAWS:
            break
    return found


@pytest.fixture(scope="module")
def records():
    return {cause: judged(cause) for cause in CAUSES}


@pytest.mark.parametrize("cause", [cause for cause in CAUSES if cause != "noise"])
def test_a_cause_that_was_planted_is_named_first(records, cause):
    found = records[cause]
    assert found, "no draw was strong enough"
    wrong = [(r.case, r.named[:3]) for r in found if not r.right]
    assert len(wrong) <= 1, wrong


def test_causes_are_right_nearly_always(records):
    found = [r for cause in CAUSES for r in records[cause]]
    assert sum(r.right for r in found) >= 0.95 * len(found), [
        (r.planted, r.case.seed, r.named[:3]) for r in found if not r.right
    ]


def test_noise_is_called_noise(records):
    assert [r.first for r in records["noise"]] == ["noise"] * DRAWS


def test_the_first_of_a_pair_is_one_of_the_two():
    found = []
    for pair in PAIRS[::6]:
        found += judged(pair)[:1]
    assert len(found) >= 5
    assert sum(r.right for r in found) >= len(found) - 1, [
        (r.planted, r.named[:3]) for r in found if not r.right
    ]


def test_what_was_done_to_networks_in_training_is_named():
    wrong = []
    for name, train in real_training.CASES.items():
        trained = train(1)
        made = explain_pair(pair_of(trained.before, trained.after, trained.labels))
        if made.causes[0].name not in trained.expected:
            wrong.append((name, trained.expected, [(c.name, c.nats) for c in made.causes]))
    assert len(wrong) <= 1, wrong
