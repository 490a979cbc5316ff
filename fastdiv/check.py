"""CHECK: rules that a run must not break, such as ``loss > +5%``, for jobs that gate a model.

A rule is ``METRIC OPERATOR VALUE`` and says when the check fails:

- METRIC is a column of numbers of `epochs` or `transitions`; a name that both have is that of
  `epochs`. OPERATOR is one of ``>``, ``>=``, ``<``, ``<=``.
- VALUE without a sign is compared with the metric itself, in the epoch that is checked:
  ``loss > 0.9``, ``n_invalid > 0``, ``ece > 0.05``. For a share ``1%`` is the same as ``0.01``.
- VALUE with a sign is compared with the metric's change since the epoch that is compared with:
  ``loss > +0.02`` (nats), ``accuracy < -0.005``.
- A signed ``%`` is always relative to the earlier value: ``loss > +5%``, and ``accuracy < -1%``
  fails where .900 becomes less than .891.
- ``points`` are percentage points of a share, with a sign: ``accuracy < -0.5 points`` fails where
  .900 becomes less than .895.
- Metrics of `transitions` belong to a pair already, so there a sign is that of the number:
  ``delta_loss < -0.02``, ``delta_accuracy < -0.5 points``. No other rule can name a value below 0.

Numbers are compared as they are written in decimals, so that .525 after .5 is +5 % and not more.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from operator import ge, gt, le, lt
from typing import Any, NoReturn

from fastdiv.errors import UsageError
from fastdiv.metrics import EPOCH_METRICS, INT, REAL, TRANSITION_METRICS

Row = Mapping[str, Any]

OPERATORS = {">": gt, ">=": ge, "<": lt, "<=": le}
NAMES_OF_EPOCHS = {"epoch", "epoch_from", "epoch_to"}  # numbers, but nothing measured
SHARES = {  # of samples, or means of such; from 0 to 1
    "accuracy", "top5_accuracy", "balanced_accuracy", "accuracy_majority", "f1_macro",
    "f1_weighted", "confidence", "ece", "ece_overconfident", "mce", "churn", "negative_flip_rate",
    "delta_accuracy",
}  # fmt: skip
IN_NATS = {"margin", "refinement", "calibration", "prior_entropy"}  # and all losses
OF_EITHER_SIGN = {"margin", "mcc", "d2_log_loss"}  # and all changes
SIGNED = "delta_"  # how the names of metrics start that are changes themselves


def _measured(metrics: Iterable[Any]) -> dict[str, Any]:
    """Return the types of what rules may be about, by name."""
    kinds = {m.name: m.type for m in metrics if m.type in (INT, REAL)}
    return {name: kind for name, kind in kinds.items() if name not in NAMES_OF_EPOCHS}


OF_EPOCHS = _measured(EPOCH_METRICS)
OF_TRANSITIONS = {k: v for k, v in _measured(TRANSITION_METRICS).items() if k not in OF_EPOCHS}
TYPES = OF_EPOCHS | OF_TRANSITIONS

FORM = re.compile(r"\s*(?P<metric>[A-Za-z_]\w*)\s*(?P<operator>[<>=!~]+)\s*(?P<value>.*?)\s*", re.S)
VALUE = re.compile(
    r"(?P<sign>[+\-−]?)\s*(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)\s*"
    r"(?P<unit>%|points?|nats?|)"
)


class Quantity(Enum):
    """What of a metric a rule compares."""

    VALUE = "value"
    CHANGE = "change"
    RELATIVE = "relative change"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that was read: the check fails where ``quantity operator limit`` holds.

    Attributes
    ----------
    text : str
        As it was written.
    metric : str
        A column of `epochs` or `transitions`.
    quantity : Quantity
    operator : str
    limit : Fraction
        In the metric's own unit, a relative change as a share: .05 for 5 %.
    unit : str
        "%", "points" or "".
    """

    text: str
    metric: str
    quantity: Quantity
    operator: str
    limit: Fraction
    unit: str

    @property
    def of_transition(self) -> bool:
        """Whether the metric is one of `transitions`."""
        return self.metric in OF_TRANSITIONS


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rule came to.

    Attributes
    ----------
    rule : Rule
    value : float or None
        What was compared with the limit, in its unit, possibly infinite; None where there is
        nothing to compare.
    failed : bool
        Also where there is nothing to compare: what cannot be checked does not pass.
    text : str
        The rule, and what was found.
    """

    rule: Rule
    value: float | None
    failed: bool
    text: str


def parse_rule(text: str) -> Rule:
    """Read a rule, see the module.

    Raises
    ------
    UsageError
        Where it cannot be read, its metric is unknown, its unit means nothing for the metric,
        or no run could ever break it.
    """

    def refuse(why: str) -> NoReturn:
        raise UsageError(f"rule {text.strip()!r}: {why}")

    form = FORM.fullmatch(text)
    if form is None:
        refuse('a rule is METRIC OPERATOR VALUE, such as "loss > +5%" or "churn >= 3%"')
    metric, operator = form["metric"], form["operator"]
    if metric not in TYPES:
        near = difflib.get_close_matches(metric, TYPES, 1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        refuse(f"there is no metric {metric!r}; {meant}there are {', '.join(TYPES)}")
    if operator not in OPERATORS:
        refuse(f"there is no operator {operator!r}; there are {', '.join(OPERATORS)}")
    value = VALUE.fullmatch(form["value"])
    if value is None:
        refuse(
            f"{form['value']!r} is no value: write a number with a decimal point, with + or - for "
            "a change, and % or points after it if need be"
        )
    sign, unit = value["sign"].replace("−", "-"), value["unit"].replace("points", "point")
    rule = Rule(
        text.strip(),
        metric,
        _quantity(metric, sign, unit),
        operator,
        Fraction(sign + value["number"]) / (100 if unit in ("%", "point") else 1),
        {"%": "%", "point": "points"}.get(unit, ""),
    )
    why = _misuse(rule, sign, unit) or _never(rule)
    if why:
        refuse(why)
    return rule


def _quantity(metric: str, sign: str, unit: str) -> Quantity:
    if metric in OF_TRANSITIONS or not sign:
        return Quantity.VALUE
    return Quantity.RELATIVE if unit == "%" else Quantity.CHANGE


def _misuse(rule: Rule, sign: str, unit: str) -> str | None:
    """Return why a sign or unit means nothing for the metric, if so."""
    metric = rule.metric
    is_change = metric.startswith(SIGNED)
    if unit.startswith("nat") and not (
        metric in IN_NATS or metric.startswith(("loss", "delta_loss"))
    ):
        return f"{metric} is not in nats"
    if unit == "point" and metric not in SHARES:
        return f"points are percentage points of a share, and {metric} is none"
    if unit == "point" and not sign:
        return "points are a change: write + or - before the number, or % for the share itself"
    if rule.of_transition and is_change and unit == "%":
        of = metric.removeprefix(SIGNED)
        return (
            f"{metric} is a change already; for one relative to the earlier value write a rule "
            f"about {of if of in OF_EPOCHS else 'the metric itself'}"
            + (f", or points for {metric}" if metric in SHARES else "")
        )
    if rule.of_transition and sign and not is_change:
        return f"{metric} belongs to a pair of epochs and has no change: write it without a sign"
    if unit == "%" and not sign and metric not in SHARES:
        return (
            f"{metric} is not a share, so % means nothing without a sign: write +5% or -5% for a "
            "change relative to the earlier value"
        )
    return None


def _never(rule: Rule) -> str | None:
    """Return what is wrong with a limit that nothing can break, as of a share above 1."""
    lowest: float = 0.0
    highest = math.inf
    if rule.metric in SHARES and rule.quantity is not Quantity.RELATIVE:
        highest = 1.0
    if rule.quantity is Quantity.RELATIVE:
        lowest = -math.inf if rule.metric in OF_EITHER_SIGN else -1.0
    elif rule.quantity is Quantity.CHANGE or rule.metric.startswith(SIGNED):
        lowest = -highest
    elif rule.metric in OF_EITHER_SIGN:
        lowest = -math.inf
    meets = OPERATORS[rule.operator]
    if lowest <= rule.limit <= highest and (
        meets(highest, rule.limit) or meets(lowest, rule.limit)
    ):
        return None
    if highest == 1 and abs(rule.limit) >= 1:
        unit = "points" if lowest < 0 else "%"
        return (
            f"{rule.metric} is a share, from 0 to 1: if that is in percent, write {unit} after it"
        )
    return f"nothing could ever break it: {rule.quantity.value} is never below {lowest:g}"


def check(
    rules: Iterable[Rule], before: Row | None, after: Row | None, transition: Row | None
) -> list[Outcome]:
    """Tell of each rule whether it is broken.

    Parameters
    ----------
    rules : iterable of Rule
    before, after : mapping or None
        Rows of `epochs`: of the epoch that is compared with, and of the one that is checked.
    transition : mapping or None
        The row of `transitions` from one to the other.

    Returns
    -------
    list of Outcome
        In the order of the rules.
    """
    return [_outcome(rule, before, after, transition) for rule in rules]


def _outcome(rule: Rule, before: Row | None, after: Row | None, transition: Row | None) -> Outcome:
    if rule.of_transition:
        now, why = _number(rule.metric, transition, "there is no pair of epochs to compare")
    else:
        now, why = _number(rule.metric, after, "there is no such epoch")
    then = None
    if why is None and rule.quantity is not Quantity.VALUE:
        then, why = _number(rule.metric, before, "there is no earlier epoch to compare with")
        why = why and f"before, {why}"
    if why is None and now is not None:
        value = _compared(rule.quantity, now, then)
        if value is not None:
            failed = bool(OPERATORS[rule.operator](value, rule.limit))
            return Outcome(
                rule, float(value), failed, f"{rule.text}: {_found(rule, value, now, then)}"
            )
        why = f"{rule.metric} is infinite in both epochs, so its change cannot be told"
    return Outcome(rule, None, True, f"{rule.text}: cannot be checked, so it fails: {why}")


def _number(metric: str, row: Row | None, absent: str) -> tuple[float | None, str | None]:
    """Return a metric's value, or why there is none."""
    if row is None:
        return None, absent
    if metric not in row:
        return None, f"this run has no {metric}"
    value = row[metric]
    if value is None or math.isnan(value):
        return None, f"{metric} is not known (null): nothing there to measure it on"
    return value, None


def _compared(quantity: Quantity, now: float, then: float | None) -> Fraction | float | None:
    """Return what is compared with the limit: exact, infinite, or None where it is neither."""
    if then is None:
        return now if math.isinf(now) else _decimal(now)
    if math.isinf(now) or math.isinf(then):
        return None if now == then else now - then
    change = _decimal(now) - _decimal(then)
    if quantity is Quantity.CHANGE or not change:
        return change
    return change / abs(_decimal(then)) if then else math.copysign(math.inf, change)


def _decimal(value: float) -> Fraction:
    """Return a number as its shortest decimals have it, so that .895 - .9 is -.005."""
    return Fraction(value) if isinstance(value, int) else Fraction(repr(float(value)))


def _found(rule: Rule, value: Fraction | float, now: float, then: float | None) -> str:
    """Say what was found."""
    if then is None:
        return f"{rule.metric} is {_written(value, rule.unit)}"
    way = " relative" if rule.quantity is Quantity.RELATIVE and rule.metric in SHARES else ""
    signed = _written(value, rule.unit)
    if value > 0:
        signed = f"+{signed}"
    return f"{rule.metric} changed by {signed}{way}, from {_plain(then)} to {_plain(now)}"


def _plain(value: float) -> str:
    """Write a number in the metric's own unit."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _written(value: Fraction | float, unit: str) -> str:
    """Write a number in the unit of its rule."""
    if unit:
        return f"{float(value) * 100:.4g} {unit}"
    return _plain(
        int(value) if isinstance(value, Fraction) and value.denominator == 1 else float(value)
    )
