"""The cases of docs/cases: what they print, and the numbers and names that they are there for."""

import importlib.util
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastdiv

FOLDER = Path(__file__).parent.parent / "docs" / "cases"
CASES = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
README = (FOLDER / "README.md").read_text()
NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")
BARS = re.compile(r" *█*│█* *$", re.M)


def loaded(name):
    """Import a case from its file."""
    spec = importlib.util.spec_from_file_location(f"case_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def binary(*epochs):
    """Return predictions of class 0 as epochs, all samples being of it."""
    return {
        epoch: (np.stack([p, 1 - p], axis=1), np.zeros(len(p), int))
        for epoch, p in enumerate(epochs, 1)
    }


def nats(explanation):
    return {cause.name: cause.nats for cause in explanation.causes}


def terms(account):
    return {term["name"]: term["value"] for term in account["terms"]}


def found(explanation, name):
    return next((f for f in explanation.findings if f.name == name), None)


def apart(text):
    """Return a text without its numbers and bars, and the numbers."""
    text = BARS.sub("", text)
    numbers = [float(x.replace(",", "")) for x in NUMBER.findall(text)]
    return NUMBER.sub("#", text).split(), numbers


def test_every_case_has_its_script_its_question_and_its_answer_in_the_index():
    assert len(CASES) == 11
    shown = re.findall(r"\[(\w+)\.py\]\(\1\.py\) prints:", README)
    listed = re.findall(r"^\| \[.*\| \[(\w+)\.py\]", README, re.M)
    assert listed == shown
    assert sorted(shown) == CASES
    for name in CASES:
        assert len((FOLDER / f"{name}.py").read_text().splitlines()) <= 80


@pytest.mark.parametrize("name", CASES)
def test_the_index_shows_what_a_case_prints(name, capsys):
    """Words exactly, numbers to the last digits; ``python docs/cases`` writes the index anew."""
    loaded(name).main()
    told = f"[{name}.py]({name}.py) prints:\n\n```text\n"
    shown = README.split(told)[1].split("\n```")[0]
    words, numbers = apart(shown)
    printed_words, printed = apart(capsys.readouterr().out)
    assert printed_words == words
    np.testing.assert_allclose(printed, numbers, rtol=0.05, atol=2e-4)


def test_a_case_runs_as_a_script():
    command = [sys.executable, str(FOLDER / "lower_loss_but_wrong.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "loss 0.7133  wrong" in done.stdout


def test_lower_loss_but_wrong():
    case = loaded("lower_loss_but_wrong")
    scores = fastdiv.score(np.array(list(case.SINGLE.values())), np.zeros(3, int), kind="probs")
    np.testing.assert_allclose(scores.loss, -np.log([0.40, 0.50, 0.49]), rtol=1e-6)
    assert scores.correct.tolist() == [True, True, False]
    assert scores.loss[2] < scores.loss[0]  # wrong, and cheaper than right
    unsure, surer, labels = case.three_samples()
    run = fastdiv.analyze({1: (unsure, labels), 2: (surer, labels)}, kind="probs")
    assert run.epochs["accuracy"].to_pylist() == pytest.approx([1, 2 / 3])
    account = run.split().accounts(1, 2)["loss"]["by_cell"]
    assert terms(account)["rr"] == pytest.approx(2 / 3 * math.log(0.5 / 0.9), abs=1e-6)
    assert terms(account)["rw"] == pytest.approx(1 / 3 * math.log(0.5 / 0.49), abs=1e-6)
    assert account["total"] < 0
    assert not run.explain(1, 2).significant  # of three samples


def test_confidence_grows():
    case = loaded("confidence_grows")
    run = fastdiv.analyze(case.three_epochs(), kind="logits")
    timid, right, bold = run.epochs.to_pylist()
    assert timid["accuracy"] == right["accuracy"] == bold["accuracy"]
    assert [x["temperature"] for x in (timid, right, bold)] == pytest.approx(
        [0.4, 1, 2.5], rel=0.06
    )
    fell, rose = run.explain(1, 2), run.explain(2, 3)
    assert fell.quadrant == "loss_down_accuracy_flat"
    assert rose.quadrant == "loss_up_accuracy_flat"
    for made, name in ((fell, "underconfidence"), (rose, "overconfidence")):
        assert [cause.name for cause in made.causes] == [name]
        assert made.causes[0].nats == pytest.approx(made.delta_loss, abs=1e-3)
        assert made.delta_refinement == pytest.approx(0, abs=1e-5)
    other = fastdiv.analyze(case.knowing_more(), kind="logits")
    knows = other.explain(1, 2)
    assert knows.quadrant == "loss_down_accuracy_flat"
    assert [cause.name for cause in knows.causes] == ["certainty"]
    assert knows.delta_refinement == pytest.approx(knows.delta_loss, abs=5e-3)


def test_one_confident_mistake():
    case = loaded("one_confident_mistake")
    run = fastdiv.analyze(binary(*case.ten_samples()), kind="probs")
    assert run.epochs["accuracy"].to_pylist() == pytest.approx([0.6, 0.7])
    account = terms(run.split().accounts(1, 2)["loss"]["by_cell"])
    assert account["wr"] == pytest.approx(math.log(0.4 / 0.6) / 10, abs=1e-6)
    assert account["ww_same"] == pytest.approx(math.log(0.4 / 0.0001) / 10, abs=1e-6)
    before, after, labels = case.thousand_samples()
    larger = fastdiv.analyze({1: (before, labels), 2: (after, labels)}, kind="logits")
    made = larger.explain(1, 2)
    assert made.quadrant == "loss_up_accuracy_up"
    outliers = next(cause for cause in made.causes if cause.name == "outliers")
    assert outliers.sample_ids == (case.MISTAKE,)
    assert outliers.nats > made.delta_loss > 0
    flips = next(cause for cause in made.causes if cause.name == "borderline_flips")
    assert flips.nats < 0 < flips.points
    without = np.delete(np.arange(1000), case.MISTAKE)
    rest = fastdiv.analyze(
        {e: (z[without], labels[without]) for e, z in ((1, before), (2, after))}, kind="logits"
    )
    assert rest.explain(1, 2).delta_loss < 0  # all others got better


def test_ninety_percent_of_one_class():
    case = loaded("ninety_percent_of_one_class")
    run = fastdiv.analyze(case.three_epochs(), kind="logits")
    knows_shares, learned, drawn = (run.split().imbalance(epoch) for epoch in (1, 2, 3))
    assert knows_shares.accuracy == drawn.accuracy == drawn.majority_accuracy
    assert knows_shares.accuracy == pytest.approx(1 - case.RARE, abs=0.01)
    assert knows_shares.d2 == pytest.approx(0, abs=1e-3)
    assert learned.d2 > 0.15
    assert drawn.d2 < 0
    assert [x.balanced_accuracy for x in (knows_shares, drawn)] == [0.5, 0.5]
    assert learned.balanced_accuracy > 0.55
    assert run.explain(1, 2).quadrant == "loss_down_accuracy_flat"
    made = run.explain(2, 3)
    assert made.quadrant == "loss_up_accuracy_flat"
    assert [cause.name for cause in made.causes] == ["imbalance"]
    assert made.causes[0].nats == pytest.approx(made.delta_loss, rel=0.02)


def test_borderline_flips():
    case = loaded("borderline_flips")
    run = fastdiv.analyze(binary(*case.four_cats()), kind="probs")
    assert run.epochs["accuracy"].to_pylist() == pytest.approx([0.25, 0.75])
    account = terms(run.split().accounts(1, 2)["loss"]["by_margin"])
    assert account["borderline_wr"] == pytest.approx(2 * math.log(0.4 / 0.6) / 4, abs=1e-6)
    assert account["unchanged_wrong"] == pytest.approx(math.log(0.2 / 0.05) / 4, abs=1e-6)
    before, after, labels = case.many_animals()
    zoo = fastdiv.analyze({1: (before, labels), 2: (after, labels)}, kind="logits")
    made = zoo.explain(1, 2)
    assert made.quadrant == "loss_up_accuracy_up"
    assert [cause.name for cause in made.causes] == ["overconfidence", "borderline_flips"]
    worse, flips = made.causes
    assert worse.nats > 0 == worse.points
    assert flips.nats < 0
    assert flips.points == pytest.approx(120 / 3000)
    by_margin = terms(zoo.split().accounts(1, 2)["loss"]["by_margin"])
    assert by_margin["unchanged_wrong"] > made.delta_loss


def test_right_but_unsure():
    case = loaded("right_but_unsure")
    before, after, label = case.one_sample()
    run = fastdiv.analyze({1: (before, label), 2: (after, label)}, kind="probs")
    account = terms(run.split().accounts(1, 2)["loss"]["wrongness_unsureness"])
    assert account["wrongness"] == pytest.approx(math.log(0.35 / 0.40), abs=1e-6)
    assert account["unsureness"] == pytest.approx(0, abs=1e-6)
    before, after, labels = case.thousand_samples()
    larger = fastdiv.analyze({1: (before, labels), 2: (after, labels)}, kind="probs")
    made = larger.explain(1, 2)
    assert made.quadrant == "loss_down_accuracy_up"
    assert made.delta_accuracy == pytest.approx(0.1)
    assert made.delta_loss == pytest.approx(0.1 * math.log(0.35 / 0.40), abs=1e-6)
    assert made.causes[0].name == "borderline_flips"
    assert made.causes[0].points == pytest.approx(0.1)


@pytest.mark.parametrize(("right", "way"), [(0.80, "down"), (0.70, "up")])
def test_same_accuracy_different_loss(right, way):
    case = loaded("same_accuracy_different_loss")
    run = fastdiv.analyze(case.models(right, n=5000), kind="probs")
    expected = [-right * math.log(p) - (1 - right) * math.log(1 - p) for p in (0.6, 0.9)]
    assert run.epochs["loss"].to_pylist() == pytest.approx(expected, abs=1e-6)
    account = terms(run.split().accounts(1, 2)["loss"]["accuracy_and_confidence"])
    assert account["accuracy_effect"] == 0
    assert account["confidence_of_right"] == pytest.approx(right * math.log(0.6 / 0.9), abs=1e-6)
    assert account["confidence_of_wrong"] == pytest.approx((1 - right) * math.log(4), abs=1e-6)
    errors = [run.split().calibration(epoch).ece for epoch in (1, 2)]
    assert errors == pytest.approx([right - 0.6, abs(0.9 - right)], abs=1e-6)
    made = run.explain(1, 2)
    assert made.quadrant == f"loss_{way}_accuracy_flat"
    assert made.causes[0].name == ("overconfidence" if way == "up" else "underconfidence")
    assert made.delta_refinement == pytest.approx(0, abs=1e-6)


def test_huge_loss():
    case = loaded("huge_loss")
    before, after, labels, ids, broken = case.two_epochs()
    run = fastdiv.analyze({1: (before, labels, ids), 2: (after, labels, ids)}, kind="logits")
    broken_ids = {ids[row] for row in broken}
    c = run.split().concentration(2, most=case.BROKEN)
    assert set(c.worst["sample_id"].to_pylist()) == broken_ids
    assert c.mean == pytest.approx(154, abs=0.5)
    assert c.median < math.log(2)
    assert next(x for x in c.carried if x.share == 0.01).of_total > 0.99
    assert run.epochs["accuracy"][1].as_py() == pytest.approx(0.61, abs=0.01)
    made = run.explain(1, 2)
    assert made.quadrant == "loss_up_accuracy_flat"
    assert [cause.name for cause in made.causes] == ["outliers"]
    assert made.causes[0].nats == pytest.approx(made.delta_loss, rel=1e-3)
    assert made.causes[0].n == case.BROKEN
    assert set(made.causes[0].sample_ids) <= broken_ids
    assert found(made, "concentrated").statistic["mean_without"] < math.log(2)


def test_huge_loss_as_probabilities():
    case = loaded("huge_loss")
    before, after, labels, ids, broken = case.two_epochs()
    epochs = {e: (case.as_probabilities(z), labels, ids) for e, z in ((1, before), (2, after))}
    run = fastdiv.analyze(epochs, kind="probs")
    row = run.epochs.to_pylist()[1]
    assert row["n_infinite"] == case.BROKEN
    assert row["loss"] == math.inf
    assert row["loss_finite"] < math.log(2)
    made = run.explain(1, 2)
    assert made.causes[0].name == "infinite"
    assert set(made.causes[0].sample_ids) <= {ids[row] for row in broken}
    assert (made.n_infinite_before, made.n_infinite_after) == (0, case.BROKEN)
    assert found(made, "infinite").statistic["n_after"] == case.BROKEN


def test_threshold_at_half():
    case = loaded("threshold_at_half")
    run = fastdiv.analyze(case.two_epochs(), kind="logits")
    moved = run.split().ranking_change(1, 2)
    assert moved.unchanged
    assert moved.delta_auc == 0
    assert moved.delta_accuracy < -0.05
    assert moved.threshold_share == pytest.approx(1)
    undone = math.log(case.POSITIVE / (1 - case.POSITIVE))
    thresholds = [math.log(t / (1 - t)) for t in (moved.threshold_before, moved.threshold_after)]
    assert thresholds[1] - thresholds[0] == pytest.approx(-undone, abs=1e-6)
    made = run.explain(1, 2)
    assert made.quadrant == "loss_up_accuracy_down"
    assert [cause.name for cause in made.causes] == ["imbalance"]
    assert made.causes[0].points == pytest.approx(made.delta_accuracy)
    told = found(made, "ranking_unchanged")
    assert told.statistic["threshold_after"] == moved.threshold_after
    at = run.split().accuracy_by_threshold(2, [0.5, moved.threshold_after])["accuracy"].to_pylist()
    assert at == pytest.approx([moved.accuracy_after, moved.best_accuracy_before])


def test_brier_or_cross_entropy():
    case = loaded("brier_or_cross_entropy")
    run = fastdiv.analyze(case.two_epochs(), kind="logits")
    accounts = run.split().accounts(1, 2)
    loss, brier = (accounts[quantity]["by_cell"] for quantity in ("loss", "brier"))
    assert loss["total"] > 0 > brier["total"]
    rows = run.epochs.to_pylist()
    assert brier["total"] == pytest.approx(rows[1]["brier"] - rows[0]["brier"], abs=1e-6)
    for account in (loss, brier):
        assert sum(terms(account).values()) == pytest.approx(account["total"], abs=1e-7)
    # They part over what stays wrong: it outweighs in the one, and not in the other.
    assert terms(loss)["ww_same"] > -terms(loss)["rr"]
    assert terms(brier)["ww_same"] < -terms(brier)["rr"]
    made = run.explain(1, 2)
    assert made.quadrant == "loss_up_accuracy_up"
    assert [cause.name for cause in made.causes] == ["overconfidence", "separation"]
    assert nats(made)["separation"] < 0 < nats(made)["overconfidence"]
    assert made.delta_calibration > 0 > made.delta_refinement


def test_both_fall():
    case = loaded("both_fall")
    run = fastdiv.analyze(case.two_epochs(), kind="logits")
    made = run.explain(1, 2)
    assert made.quadrant == "loss_down_accuracy_down"
    assert [cause.name for cause in made.causes] == ["overconfidence", "borderline_flips"]
    calmer, flips = made.causes
    assert calmer.nats < 0 < flips.nats
    assert flips.points == pytest.approx(-150 / 3000)
    had = [
        {row["name"]: row["loss"] for row in run.split().counterfactuals(epoch).to_pylist()}
        for epoch in (1, 2)
    ]
    assert had[0]["as_is"] > had[1]["as_is"]
    assert had[0]["best_temperature"] < had[1]["best_temperature"]
