"""Rules that gate a model: how they are read, what they mean, and that none passes silently."""

import math

import pyarrow as pa
import pytest

from fastdiv.check import IN_NATS, OF_EITHER_SIGN, SHARES, TYPES, Quantity, check, parse_rule
from fastdiv.errors import UsageError
from fastdiv.metrics import EPOCH_METRICS, TRANSITION_METRICS

BEFORE = {"loss": 0.5, "accuracy": 0.9, "ece": 0.04, "n_invalid": 0, "n_ties": 10, "margin": -1.0}
AFTER = {
    "loss": 0.525,
    "accuracy": 0.895,
    "ece": 0.06,
    "n_invalid": 3,
    "n_ties": 12,
    "margin": -2.0,
    "mcc": -0.1,
}
PAIR = {"negative_flip_rate": 0.01, "churn": 0.03, "delta_loss": -0.02, "delta_accuracy": -0.005}


def outcome(rule, before=BEFORE, after=AFTER, pair=PAIR):
    (found,) = check([parse_rule(rule)], before, after, pair)
    return found


@pytest.mark.parametrize(
    ("rule", "value", "failed"),
    [
        ("loss > +5%", 0.05, False),  # exactly 5 %, though .525 / .5 is not 1.05 in binary
        ("loss >= +5%", 0.05, True),
        ("loss>+4.99%", 0.05, True),
        ("loss > +0.02", 0.025, True),
        ("loss > +0.025 nats", 0.025, False),
        ("loss > 0.9", 0.525, False),
        ("loss > .5", 0.525, True),
        ("loss < -1e-3", 0.025, False),
        ("loss > +0", 0.025, True),
        ("accuracy < -0.5 points", -0.005, False),  # .895 - .9 is below -.005 in binary
        ("accuracy <= -0.5 points", -0.005, True),
        ("accuracy < −0.4 points", -0.005, True),  # a typographer's minus
        ("accuracy < - 0.004", -0.005, True),
        ("accuracy < -0.5%", -1 / 180, True),  # relative: 0.556 % of .9
        ("accuracy < -0.6%", -1 / 180, False),
        ("accuracy < 90%", 0.895, True),
        ("accuracy < 0.89", 0.895, False),
        ("ece > 0.05", 0.06, True),
        ("ece > 6 %", 0.06, False),
        ("ece > +1 point", 0.02, True),
        ("ece > +50%", 0.5, False),
        ("n_invalid > 0", 3, True),
        ("n_ties > +20%", 0.2, False),
        ("n_ties > +1", 2, True),
        ("margin < -0.5", -1, True),  # a change
        ("margin < -100%", -1, False),  # relative to how large it was
        ("margin < 0", -2, True),
        ("mcc < 0", -0.1, True),
        ("negative_flip_rate > 1%", 0.01, False),
        ("negative_flip_rate >= 1%", 0.01, True),
        ("churn >= 3%", 0.03, True),
        ("delta_loss < -0.01", -0.02, True),  # the number's own sign
        ("delta_loss > 0", -0.02, False),
        ("delta_accuracy < -0.5 points", -0.005, False),
        ("delta_accuracy < -0.4 points", -0.005, True),
    ],
)
def test_what_a_rule_compares(rule, value, failed):
    found = outcome(rule)
    assert found.value == pytest.approx(value, rel=1e-15)
    assert found.failed is failed
    assert found.text.startswith(f"{rule}: {found.rule.metric} ")


def test_the_text_says_what_was_found():
    assert outcome("loss > +5%").text == "loss > +5%: loss changed by +5 %, from 0.5 to 0.525"
    assert outcome("n_invalid > 0").text == "n_invalid > 0: n_invalid is 3"
    assert outcome("churn >= 3%").text == "churn >= 3%: churn is 3 %"
    assert outcome("accuracy < -1%").text == (
        "accuracy < -1%: accuracy changed by -0.5556 % relative, from 0.9 to 0.895"
    )
    assert outcome("accuracy < -1 points").text == (
        "accuracy < -1 points: accuracy changed by -0.5 points, from 0.9 to 0.895"
    )


@pytest.mark.parametrize(
    ("rule", "before", "after", "value", "failed"),
    [
        ("loss > 0.9", 0.5, math.inf, math.inf, True),
        ("loss < 0.9", 0.5, math.inf, math.inf, False),
        ("loss > +5%", 0.5, math.inf, math.inf, True),
        ("loss > +0.1", math.inf, 0.5, -math.inf, False),
        ("loss < -5%", math.inf, 0.5, -math.inf, True),
        ("loss > +5%", 0.0, 0.1, math.inf, True),  # relative to nothing
        ("loss > +5%", 0.0, 0.0, 0.0, False),
        ("loss > +5%", 0, 1, math.inf, True),
    ],
)
def test_infinite_losses_and_zeros_compare_as_such(rule, before, after, value, failed):
    found = outcome(rule, {"loss": before}, {"loss": after})
    assert (found.value, found.failed) == (value, failed)
    assert "cannot" not in found.text


@pytest.mark.parametrize(
    ("rule", "rows", "why"),
    [
        ("loss > +5%", (None, AFTER, PAIR), "no earlier epoch"),
        ("loss > 9", (BEFORE, None, PAIR), "no such epoch"),
        ("churn > 99%", (BEFORE, AFTER, None), "no pair of epochs"),
        ("loss > 9", (BEFORE, AFTER | {"loss": None}, PAIR), "loss is not known"),
        ("loss > 9", (BEFORE, AFTER | {"loss": math.nan}, PAIR), "loss is not known"),
        ("loss > +9", (BEFORE | {"loss": math.nan}, AFTER, PAIR), "before, loss is not known"),
        ("loss > +9", ({"loss": math.inf}, {"loss": math.inf}, PAIR), "infinite in both"),
        ("brier > 1.9", (BEFORE, AFTER, PAIR), "this run has no brier"),
    ],
)
def test_what_cannot_be_checked_fails_and_says_why(rule, rows, why):
    found = outcome(rule, *rows)
    assert (found.value, found.failed) == (None, True)
    assert "cannot be checked, so it fails" in found.text
    assert why in found.text


def test_a_value_needs_no_earlier_epoch_and_rules_keep_their_order():
    rules = [parse_rule(text) for text in ("loss > 0.5", "loss > +1%", "accuracy < 50%")]
    found = check(rules, None, AFTER, None)
    assert [o.rule for o in found] == rules
    assert [o.failed for o in found] == [True, True, False]


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("", "METRIC OPERATOR VALUE"),
        ("loss +5%", "METRIC OPERATOR VALUE"),
        ("acuracy < 1%", "did you mean 'accuracy'"),
        ("speed > 1", "there are n, n_invalid"),
        ("split > 1", "there is no metric 'split'"),
        ("epoch > 1", "there is no metric 'epoch'"),
        ("loss = 1", "there is no operator '='"),
        ("loss != 1", "there are >, >=, <, <="),
        ("loss > ", "'' is no value"),
        ("loss > 0,5", "with a decimal point"),
        ("loss > nan", "'nan' is no value"),
        ("loss > inf", "'inf' is no value"),
        ("loss > 1 2", "is no value"),
        ("loss > 5%", "write +5% or -5%"),
        ("n_invalid > 1%", "n_invalid is not a share"),
        ("loss > +1 points", "loss is none"),
        ("accuracy < 90 points", "points are a change"),
        ("accuracy < -0.1 nats", "not in nats"),
        ("d2_log_loss < -0.1 nats", "not in nats"),
        ("churn > +3%", "without a sign"),
        ("delta_loss > +5%", "write a rule about loss"),
        ("delta_accuracy < -1%", "points for delta_accuracy"),
        ("delta_loss_rw > +1%", "relative to the earlier value"),
    ],
)
def test_rules_that_mean_nothing_are_refused(rule, why):
    with pytest.raises(UsageError) as caught:
        parse_rule(rule)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("negative_flip_rate > 1", "write % after it"),  # surely 1 % was meant
        ("ece > 5", "write % after it"),
        ("ece > 100%", "share"),
        ("accuracy < 90", "write % after it"),
        ("accuracy < -1", "write points after it"),
        ("delta_accuracy < -2", "write points after it"),
        ("accuracy < 0", "nothing could ever break it"),
        ("loss < 0", "nothing could ever break it"),
        ("loss < -100%", "nothing could ever break it"),
        ("n_invalid < 0", "nothing could ever break it"),
    ],
)
def test_a_rule_that_could_never_fail_is_refused(rule, why):
    with pytest.raises(UsageError, match=why):
        parse_rule(rule)


def test_every_column_of_numbers_can_be_asked_about():
    metrics = [m for m in (*EPOCH_METRICS, *TRANSITION_METRICS) if m.type != pa.string()]
    assert set(TYPES) == {m.name for m in metrics} - {"epoch", "epoch_from", "epoch_to"}
    assert set(TYPES) >= SHARES | IN_NATS | OF_EITHER_SIGN
    for name in TYPES:
        assert parse_rule(f"{name} > 0").quantity is Quantity.VALUE


def test_a_name_of_both_tables_is_that_of_epochs():
    found = outcome("n_invalid > 5", pair=PAIR | {"n_invalid": 100})
    assert (found.value, found.failed) == (3, False)
