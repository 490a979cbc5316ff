"""Expected result tables in plain NumPy float64, written from the contract and nothing else.

A run is described as a mapping ``(split, epoch) -> Epoch``; `expect` makes the tables of such a
run as lists of dicts, and `assert_tables` compares the Arrow tables of a real run with them.
Nothing here imports the package under test. Null labels are written as -1 and null or ragged
predictions as a row of NaN: both are invalid, whatever the reason.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import fsum, isfinite, ulp

import numpy as np
import pyarrow as pa

CELLS = ["rr", "rw", "wr", "ww_same", "ww_changed"]
PARTS = [f"delta_loss_{cell}" for cell in CELLS]
KEYS = {
    "epochs": ["split", "epoch"],
    "transitions": ["split", "epoch_from", "epoch_to"],
    "samples": ["split", "sample_id"],
    "classes": ["split", "epoch", "class"],
}
CLASS_INDEX = {"class", "label", "last_predicted"}  # int32, or strings where classes have names
RATIOS = {"accuracy", "top5_accuracy", "delta_accuracy", "churn", "negative_flip_rate"}
RATIOS |= {"precision", "recall", "f1"}
# Means of what is kept as float32 whatever the input is; all else follows the loss.
STORED_FLOAT32 = {("epochs", c) for c in ("confidence", "brier", "margin", "ece", "mce")}
STORED_FLOAT32 |= {("epochs", "ece_overconfident")}
STORED_FLOAT32 |= {("samples", "aum")}
FLOAT32 = 2e-6  # relative error that single precision may cost a mean


@dataclass
class Epoch:
    """What one split holds in one epoch."""

    predictions: np.ndarray  # (n, c) float16, float32 or float64
    labels: np.ndarray  # (n,) integers, out of [0, c) where the label is bad
    kind: str  # logits, probs or logprobs
    ids: np.ndarray | None = None  # (n,) integers or strings; positions if None
    clip: float | None = None
    sixteen_bits: bool | None = None  # whether the predictions came so; by their dtype if None

    def __post_init__(self):
        n, c = self.predictions.shape
        self.labels = np.asarray(self.labels).astype(np.int64)
        self.ids = np.arange(n) if self.ids is None else np.asarray(self.ids)
        known = (self.labels >= 0) & (self.labels < c)
        y = np.where(known, self.labels, 0)
        rows = np.arange(n)
        values = np.asarray(self.predictions).astype(np.float64)
        with np.errstate(all="ignore"):
            sane = known & ~np.isnan(values).any(1) & ~(values == np.inf).any(1)
            if self.kind == "probs":
                sane &= (values >= -1e-6).all(1) & (values <= 1.01).all(1) & (values > 0).any(1)
                p = np.maximum(values, 0.0)
                logp = np.log(p)
            elif self.kind == "logprobs":
                sane &= (np.exp(values) <= 1.01).all(1) & (values > -np.inf).any(1)
                p, logp = np.exp(values), values
            else:
                sane &= (values > -np.inf).any(1)
                shifted = values - values.max(1, keepdims=True)
                others = np.exp(shifted)
                others[rows, shifted.argmax(1)] = 0.0
                logp = shifted - np.log1p(others.sum(1, keepdims=True))
                p = np.exp(logp)
            self.valid = sane
            self.loss = -logp[rows, y]
            if self.clip is not None:
                self.loss = np.minimum(self.loss, -np.log(self.clip))
            self.predicted = values.argmax(1)
            other = logp.copy()
            other[rows, y] = -np.inf
            self.margin = logp[rows, y] - other.max(1)
            onehot = np.zeros((n, c))
            onehot[rows, y] = 1.0
            self.brier = ((p - onehot) ** 2).sum(1)
        self.right = self.predicted == y
        self.confidence = p[rows, self.predicted]
        mine = values[rows, y][:, None]
        ahead = (values > mine) | ((values == mine) & (np.arange(c) < y[:, None]))
        self.rank = ahead.sum(1)
        self.tie = (values == values.max(1, keepdims=True)).sum(1) > 1
        if self.sixteen_bits is None:
            self.sixteen_bits = self.predictions.dtype.itemsize == 2
        tolerance = 1e-2 if self.sixteen_bits else 1e-3
        self.total = p.sum(1)
        self.unnormalized = (self.kind != "logits") & (np.abs(self.total - 1) > tolerance)
        self.infinite = self.valid & np.isinf(self.loss)


def mean(values):
    """Return the correctly rounded mean; infinite if a value is, null over nothing."""
    values = np.asarray(values, np.float64)
    if len(values) == 0:
        return None
    return float("inf") if np.isinf(values).any() else fsum(values) / len(values)


def ratio(numerator, denominator):
    return None if denominator == 0 else float(numerator) / float(denominator)


def calibration_errors(e):
    """Return what 15 bins of the confidence as stored say of calibration."""
    stored = e.confidence[e.valid].astype(np.float32).astype(np.float64)
    right = e.right[e.valid]
    bins = np.clip(np.ceil(15 * stored) - 1, 0, 14)
    gaps = {b: fsum(stored[bins == b]) - right[bins == b].sum() for b in set(bins.tolist())}
    return {
        "ece": ratio(fsum(map(abs, gaps.values())), len(stored)),
        "ece_overconfident": ratio(fsum(g for g in gaps.values() if g > 0), len(stored)),
        "mce": max((float(abs(g) / (bins == b).sum()) for b, g in gaps.items()), default=None),
    }


def class_means(e, loss):
    """Return means over the classes, as scikit-learn defines them."""
    y, said = e.labels[e.valid], e.predicted[e.valid]
    n = len(y)
    if not n:
        names = ["balanced_accuracy", "f1_macro", "f1_weighted", "mcc", "accuracy_majority"]
        return dict.fromkeys([*names, "prior_entropy", "d2_log_loss"])
    occurring = sorted(set(y.tolist()) | set(said.tolist()))
    support = {k: int((y == k).sum()) for k in occurring}
    predicted = {k: int((said == k).sum()) for k in occurring}
    f1 = {k: 2 * ((y == k) & (said == k)).sum() / (support[k] + predicted[k]) for k in occurring}
    labelled = [k for k in occurring if support[k]]
    entropy = -fsum(support[k] / n * np.log(support[k] / n) for k in labelled) + 0.0
    mcc = (y == said).sum() * n - sum(support[k] * predicted[k] for k in occurring)
    for counts in (support, predicted):
        rest = n * n - sum(k * k for k in counts.values())
        mcc = None if mcc is None or not rest else mcc / rest**0.5
    return {
        "balanced_accuracy": fsum(((said == k) & (y == k)).sum() / support[k] for k in labelled)
        / len(labelled),
        "f1_macro": fsum(f1.values()) / len(f1),
        "f1_weighted": fsum(f1[k] * support[k] for k in labelled) / n,
        "mcc": None if mcc is None else float(mcc),
        "accuracy_majority": max(support.values()) / n,
        "prior_entropy": float(entropy),
        "d2_log_loss": None if len(labelled) < 2 else float(1 - loss / entropy),
    }


def epoch_row(split, epoch, e):
    ok = e.valid
    finite_margin = e.margin[ok & np.isfinite(e.margin)]
    return {
        "split": split,
        "epoch": epoch,
        "epoch_name": None,
        "n": len(ok),
        "n_invalid": int((~ok).sum()),
        "n_infinite": int(e.infinite.sum()),
        "n_unnormalized": int((ok & e.unnormalized).sum()),
        "n_ties": int((ok & e.tie).sum()),
        "loss": mean(e.loss[ok]),
        "loss_finite": mean(e.loss[ok & ~e.infinite]),
        "accuracy": ratio(e.right[ok].sum(), ok.sum()),
        "confidence": mean(e.confidence[ok]),
        "brier": mean(e.brier[ok]),
        "margin": mean(finite_margin),
        "loss_right": mean(e.loss[ok & e.right]),
        "loss_wrong": mean(e.loss[ok & ~e.right]),
        "top5_accuracy": (
            ratio((e.rank[ok] < 5).sum(), ok.sum()) if e.predictions.shape[1] > 5 else None
        ),
        **calibration_errors(e),
        **class_means(e, mean(e.loss[ok])),
        # The calibration error is what is left of differences of confidences.
        "_scale": {
            "margin": mean(np.abs(finite_margin)) or 0.0,
            **dict.fromkeys(["ece", "ece_overconfident"], mean(e.confidence[ok]) or 0.0),
            "mce": float(e.confidence[ok].max(initial=0.0)),
            "d2_log_loss": 1.0,
        },
    }


def transition_row(split, epoch_from, a, epoch_to, b):
    _, i, j = np.intersect1d(a.ids, b.ids, assume_unique=True, return_indices=True)
    valid = a.valid[i] & b.valid[j]
    same_label = a.labels[i] == b.labels[j]
    kept = valid & same_label
    ra, rb = a.right[i], b.right[j]
    same = a.predicted[i] == b.predicted[j]
    cells = [ra & rb, ra & ~rb, ~ra & rb, ~ra & ~rb & same, ~ra & ~rb & ~same]
    finite = kept & ~a.infinite[i] & ~b.infinite[j]
    n, n_finite = int(kept.sum()), int(finite.sum())
    row = {
        "split": split,
        "epoch_from": epoch_from,
        "epoch_to": epoch_to,
        "n": n,
        "n_infinite": n - n_finite,
        "n_invalid": int((~valid).sum()),
        "n_relabelled": int((valid & ~same_label).sum()),
        "n_only_from": len(a.ids) - len(i),
        "n_only_to": len(b.ids) - len(j),
    }
    row |= {name: int((kept & cell).sum()) for name, cell in zip(CELLS, cells, strict=True)}
    with np.errstate(invalid="ignore"):
        delta = b.loss[j] - a.loss[i]
    for name, cell in zip(PARTS, cells, strict=True):
        row[name] = ratio(fsum(delta[finite & cell]), n_finite)
    loss_from, loss_to = mean(a.loss[a.valid & ~a.infinite]), mean(b.loss[b.valid & ~b.infinite])
    row["delta_loss"] = ratio(fsum(delta[finite]), n_finite)
    if row["delta_loss"] is None:
        row["delta_loss_membership"] = None
    elif len(a.ids) == len(b.ids) == n_finite:
        row["delta_loss_membership"] = 0.0
    else:
        row["delta_loss_membership"] = loss_to - loss_from - row["delta_loss"]
    row["delta_accuracy"] = ratio(row["wr"] - row["rw"], n)
    row["churn"] = ratio(row["rw"] + row["wr"] + row["ww_changed"], n)
    row["negative_flip_rate"] = ratio(row["rw"], n)
    size = (loss_from or 0.0) + (loss_to or 0.0)
    size += mean(np.abs(a.loss[i][finite]) + np.abs(b.loss[j][finite])) or 0.0
    row["_scale"] = dict.fromkeys([*PARTS, "delta_loss", "delta_loss_membership"], size)
    return row


def class_rows(split, epoch, e, names):
    for k in range(e.predictions.shape[1]):
        mine, said = e.valid & (e.labels == k), e.valid & (e.predicted == k)
        yield {
            "split": split,
            "epoch": epoch,
            "class": names[k] if names else k,
            "support": int(mine.sum()),
            "predicted": int(said.sum()),
            "true_positive": int((mine & said).sum()),
            "loss": mean(e.loss[mine]),
            "precision": ratio((mine & said).sum(), said.sum()),
            "recall": ratio((mine & said).sum(), mine.sum()),
            "f1": ratio(2 * (mine & said).sum(), mine.sum() + said.sum()),
        }


def sample_row(split, sample_id, seen, names):
    """Return the row of one sample from ``seen``: (epoch, its Epoch, row), valid ones, in order."""
    label = predicted = None
    right = [bool(e.right[r]) for _, e, r in seen]
    p = np.exp([-e.loss[r] for _, e, r in seen])
    margins = [e.margin[r] for _, e, r in seen if isfinite(e.margin[r])]
    if seen:
        _, e, r = seen[-1]
        label, predicted = int(e.labels[r]), int(e.predicted[r])
        if names:
            label, predicted = names[label], names[predicted]
    return {
        "split": split,
        "sample_id": sample_id,
        "label": label,
        "n_epochs": len(seen),
        "n_correct": sum(right),
        "learned": any(right),
        "first_learned": next((epoch for epoch, e, r in seen if e.right[r]), None),
        "forgetting_events": sum(x and not y for x, y in pairwise(right)),
        "confidence": mean(p),
        "variability": float(np.std(p)) if seen else None,
        "aum": mean(margins),
        "last_loss": float(e.loss[r]) if seen else None,
        "last_predicted": predicted,
        "last_correct": right[-1] if seen else None,
        "_scale": {"variability": mean(p) or 0.0, "aum": mean(np.abs(margins)) or 0.0},
    }


def expect(run, class_names=None):
    """Return the expected tables of ``run``: (split, epoch) -> Epoch."""
    tables = {name: [] for name in KEYS}
    for split in dict.fromkeys(split for split, _ in run):
        epochs = sorted((epoch, e) for (s, epoch), e in run.items() if s == split)
        seen = {}
        for epoch, e in epochs:
            tables["epochs"].append(epoch_row(split, epoch, e))
            tables["classes"].extend(class_rows(split, epoch, e, class_names))
            for r, sample_id in enumerate(e.ids.tolist()):
                seen.setdefault(sample_id, []).extend([(epoch, e, r)] if e.valid[r] else [])
        for (epoch_from, a), (epoch_to, b) in pairwise(epochs):
            tables["transitions"].append(transition_row(split, epoch_from, a, epoch_to, b))
        tables["samples"].extend(sample_row(split, i, seen[i], class_names) for i in sorted(seen))
    return tables


def assert_tables(run, expected, rel=FLOAT32):
    """Compare the Arrow tables of ``run`` with `expect`'s; ``rel`` is what a loss may be off by."""
    for name, wanted in expected.items():
        assert_table(name, getattr(run, name), wanted, rel)
    assert_laws(run)


def assert_table(name, table, wanted, rel=FLOAT32):
    found = table.to_pylist()
    # The contract does not say which split comes first; within a split the order is fixed.
    order = list(dict.fromkeys(row["split"] for row in found))
    assert len(order) == len({row["split"] for row in wanted} | set(order)), f"{name}: splits"
    wanted = sorted(wanted, key=lambda row: order.index(row["split"]))
    keys = [[row[key] for key in KEYS[name]] for row in found]
    assert keys == [[row[key] for key in KEYS[name]] for row in wanted], f"{name}: rows or order"
    for row, want, key in zip(found, wanted, keys, strict=True):
        for column in want.keys() - {"_scale"}:
            problem = difference(row[column], want[column], slack(name, column, want, rel))
            assert not problem, f"{name} {key} {column}: {problem}"
    for column in table.column_names:
        kinds = {type(want[column]) for want in wanted if column in want}
        assert_type(f"{name}.{column}", table.schema.field(column).type, column, kinds)


def slack(name, column, want, rel):
    """Return the relative tolerance, the absolute one, and the size the relative one applies to."""
    if column in RATIOS:
        return 4e-16, 0.0, 0.0
    if (name, column) in STORED_FLOAT32:
        rel = FLOAT32
    return rel, rel / 20, want.get("_scale", {}).get(column, 0.0)


def difference(found, wanted, tolerances):
    """Return what is wrong with a value, or nothing."""
    if type(found) is type(wanted) and found == wanted:
        return ""
    if isinstance(found, float) and isinstance(wanted, float) and isfinite(wanted):
        rel, absolute, scale = tolerances
        off = abs(found - wanted)
        allowed = absolute + rel * max(abs(wanted), scale)
        if off <= allowed:
            return ""
        return f"{found!r}, not {wanted!r}; off by {off:.3g} of {allowed:.3g}"
    return f"{found!r}, not {wanted!r}"


def assert_type(place, found, column, kinds):
    integer = [pa.int32() if column in CLASS_INDEX else pa.int64()]
    text = [pa.string()]
    if column == "sample_id":
        integer, text = [pa.int64(), pa.uint64()], [pa.string(), pa.large_string()]
    types = {int: integer, float: [pa.float64()], bool: [pa.bool_()], str: text}
    types[bytes] = [pa.large_binary()]
    assert all(found in types[kind] for kind in kinds - {type(None)}), f"{place} is {found}"


def assert_laws(run):
    """Check what must hold between the columns of any run, whatever its numbers are."""
    epochs = {(row["split"], row["epoch"]): row for row in run.epochs.to_pylist()}
    classes = {key: [] for key in epochs}
    for row in run.classes.to_pylist():
        classes[row["split"], row["epoch"]].append(row)
    for key, row in epochs.items():
        rows = classes[key]
        valid = row["n"] - row["n_invalid"]
        assert sum(c["support"] for c in rows) == sum(c["predicted"] for c in rows) == valid, key
        assert ratio(sum(c["true_positive"] for c in rows), valid) == row["accuracy"], key
    for row in run.transitions.to_pylist():
        a, b = (epochs[row["split"], row[key]] for key in ("epoch_from", "epoch_to"))
        assert sum(row[cell] for cell in CELLS) == row["n"], row
        matched = row["n"] + row["n_invalid"] + row["n_relabelled"]
        assert matched + row["n_only_from"] == a["n"], row
        assert matched + row["n_only_to"] == b["n"], row
        if row["delta_loss"] is None:
            continue
        parts = [row[part] for part in PARTS]
        ulps = 4 * ulp(max(map(abs, parts)))
        assert abs(fsum([*parts, -row["delta_loss"]])) <= ulps, row
        terms = [row["delta_loss"], row["delta_loss_membership"]]
        terms += [a["loss_finite"], -b["loss_finite"]]
        assert abs(fsum(terms)) <= 4 * ulp(max(map(abs, terms))), row
        if a["n"] == b["n"] == row["n"] - row["n_infinite"]:
            assert row["delta_loss_membership"] == 0.0, row
