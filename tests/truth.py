"""What a run holds: a few numbers from which all its rows are made, odd ones among them."""

import math
import struct
import uuid
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

# Numbers --------------------------------------------------------------------------------------

DTYPES = ("float32", "float16", "float64", "bfloat16")
WIDTH = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
HUGE = {"float16": 6e4, "bfloat16": 1e38, "float32": 1e38, "float64": 1e38}
SUBNORMAL = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float32": 2.0**-149, "float64": 5e-324}


def rounded(x, dtype):
    """Return float64 numbers that `dtype` holds exactly."""
    if dtype == "bfloat16":
        return from_words(to_words(x))
    return np.asarray(x).astype(dtype).astype(np.float64)


def to_words(x):
    """Return the bfloat16 nearest to numbers, ties to even, as uint16."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(x), 0x7FC0, nearest).astype(np.uint16)


def from_words(words):
    """Return the numbers that bfloat16 words stand for."""
    return (np.asarray(words, np.uint32) << 16).view(np.float32).astype(np.float64)


def just_below(x, dtype):
    """Return the largest number of `dtype` below another."""
    if dtype != "bfloat16" or math.isnan(x) or x == -math.inf:
        type_ = np.float32 if dtype == "bfloat16" else np.dtype(dtype).type
        return float(np.nextafter(type_(x), type_(-np.inf)))
    word = int(to_words(x))
    if word in (0, 0x8000):
        return -SUBNORMAL[dtype]
    return float(from_words(word - 1 if word < 0x8000 else word + 1))


def to_bytes(values, dtype):
    return (to_words(values) if dtype == "bfloat16" else np.asarray(values).astype(dtype)).tobytes()


def from_bytes(data, dtype):
    if dtype == "bfloat16":
        return from_words(np.frombuffer(data, "<u2")).tolist()
    return np.frombuffer(data, f"<f{WIDTH[dtype]}").astype(np.float64).tolist()


# Odd rows -------------------------------------------------------------------------------------


def nothing(kind):
    return 0.0 if kind == "probs" else -math.inf


def put(v, k, x):
    return [*v[:k], x, *v[k + 1 :]]


def other(v, y, k):
    """Return a class that is not the label."""
    return k if k != y else (k + 1) % len(v)


def even(v, kind):
    return [{"logits": 0.0, "probs": 1 / len(v), "logprobs": -math.log(len(v))}[kind]] * len(v)


def certain(v, k, kind):
    one = {"logits": 2.0, "probs": 1.0, "logprobs": 0.0}[kind]
    return put([nothing(kind)] * len(v), k, one)


def signed_zeros(v, kind):
    if kind == "logprobs":
        return [-0.0 if x == max(v) else x for x in v]
    return [(-0.0, 0.0)[i % 2] if kind == "logits" or x != max(v) else 1.0 for i, x in enumerate(v)]


def far(v, y, k, kind):
    """Make the label's loss about 200 nats, or that of all others."""
    if kind == "probs":
        return put(v, other(v, y, k), 1e-7)
    return put(v, y, v[y] + 200 if k % 2 and kind == "logits" else v[y] - 200)


def huge(v, k, kind, dtype):
    if kind == "probs":
        return put(v, k, 1.0)
    return put(v, k, HUGE[dtype] if k % 2 and kind == "logits" else -HUGE[dtype])


def tiny(v, y, kind, dtype):
    return put(v, y, SUBNORMAL[dtype] * (1 if kind == "probs" or v[y] < 0 else -1))


def off(v, kind):
    return [x * 0.75 if kind == "probs" else x - 0.25 for x in v]


def slightly_out(v, k, kind):
    """Make a value that its kind just allows."""
    return put(v, k, {"logits": v[k], "probs": -1e-7, "logprobs": 0.005}[kind])


def contradicting(v, k, kind):
    return put(v, k, {"logits": v[k], "probs": (1.5, -0.25)[k % 2], "logprobs": 1.0}[kind])


NUMBERS = {  # values, the label, a class, the kind, the dtype -> values
    "tie": lambda v, y, k, kind, dtype: put(v, k, max(v)),
    "near tie": lambda v, y, k, kind, dtype: put(v, k, just_below(max(v), dtype)),
    "even": lambda v, y, k, kind, dtype: even(v, kind),
    "signed zeros": lambda v, y, k, kind, dtype: signed_zeros(v, kind),
    "masked": lambda v, y, k, kind, dtype: put(v, other(v, y, k), nothing(kind)),
    "label masked": lambda v, y, k, kind, dtype: put(v, y, nothing(kind)),
    "certain": lambda v, y, k, kind, dtype: certain(v, k, kind),
    "certainly right": lambda v, y, k, kind, dtype: certain(v, y, kind),
    "far": lambda v, y, k, kind, dtype: far(v, y, k, kind),
    "huge": lambda v, y, k, kind, dtype: huge(v, k, kind, dtype),
    "tiny": lambda v, y, k, kind, dtype: tiny(v, y, kind, dtype),
    "off": lambda v, y, k, kind, dtype: off(v, kind),
    "slightly out": lambda v, y, k, kind, dtype: slightly_out(v, k, kind),
    "nan": lambda v, y, k, kind, dtype: put(v, k, math.nan),
    "inf": lambda v, y, k, kind, dtype: put(v, k, math.inf),
    "no mass": lambda v, y, k, kind, dtype: [nothing(kind)] * len(v),
    "contradicting": lambda v, y, k, kind, dtype: contradicting(v, k, kind),
}
SHAPES = {  # values, a class -> values that lack something
    "null item": lambda v, k: put(v, k, None),
    "null row": lambda v, k: None,
    "short": lambda v, k: v[:k],
    "long": lambda v, k: [*v, 0.0],
}
SAMPLES = ("no class", "relabelled", "absent")
TWICE = ("again", "contradicted")  # come last, so that both rows have the same other oddities

# The truth ------------------------------------------------------------------------------------


class Row(NamedTuple):
    """What one row means. `values` may be missing or lack items; label None is no class."""

    split: str | None
    epoch: int
    id: Any
    label: int | None
    values: list[float | None] | None


@dataclass(frozen=True)
class Truth:
    """A run in few numbers."""

    kind: str = "logits"
    dtype: str = "float32"
    classes: int = 2
    epochs: tuple[int, ...] = (0,)
    splits: tuple[str | None, ...] = (None,)
    samples: int = 1
    seed: int = 0
    scale: float = 1.0  # of logits
    missing: float = 0.0  # share of samples that an epoch lacks
    ids: str = "count"  # see IDS
    named: bool = False  # whether classes have names
    checkpoints: bool = False  # whether epochs have names
    score_of: int | None = None  # the class, of two, whose number tells the other's
    oddities: tuple[tuple[str, int, int], ...] = ()  # what, in which row, at which class

    @property
    def names(self):
        """Names of the classes, in order."""
        return tuple(f"c-{k:03}" if k % 5 else f"Ça {k:03}" for k in range(self.classes))

    @property
    def odd(self):
        """All that is odd about some row."""
        return frozenset(what for what, _, _ in self.oddities)

    def rows(self):
        """Return {(split, epoch): rows}, duplicates last."""
        rng = np.random.default_rng(self.seed)
        s, e, n, c = len(self.splits), len(self.epochs), self.samples, self.classes
        labels = rng.integers(0, c, (s, n))
        x = rng.normal(0, 2, (s, e, n, c))
        x[np.arange(s)[:, None, None], np.arange(e)[:, None], np.arange(n), labels[:, None]] += 1
        x = as_kind(x * self.scale, self.kind)
        if self.score_of is not None:
            x = told_by_one(x, self.kind, self.score_of, self.dtype)
        x = rounded(x, self.dtype).reshape(s * e, n, c)
        absent = rng.random((s * e, n)) < self.missing
        ids = ids_of(self.ids, n, rng)
        runs = {(split, epoch): [] for split in self.splits for epoch in self.epochs}
        for (split, epoch), gone, values in zip(runs, absent, x, strict=True):
            y = labels[self.splits.index(split)].tolist()
            runs[split, epoch] = [
                Row(split, epoch, ids[i], y[i], values[i].tolist()) for i in range(n) if not gone[i]
            ]
        for what, where, k in sorted(self.oddities, key=lambda odd: odd[0] in TWICE):
            rows = runs[list(runs)[where % len(runs)]]
            if rows:
                self._make_odd(rows, what, where // len(runs) % len(rows), k % c)
        if self.ids == "position":
            for rows in runs.values():
                rows[:] = [row._replace(id=i) for i, row in enumerate(rows)]
        return runs

    def _make_odd(self, rows, what, i, k):
        row, c = rows[i], self.classes
        if what in NUMBERS or what in SHAPES:
            if row.values is None or len(row.values) != c or None in row.values:
                return  # odd enough
            if what in SHAPES:
                values = SHAPES[what](row.values, k)
            else:
                y = k if row.label is None else row.label
                values = NUMBERS[what](row.values, y, k, self.kind, self.dtype)
                values = rounded(values, self.dtype).tolist()
            rows[i] = row._replace(values=values)
        elif what == "no class":
            rows[i] = row._replace(label=None)
        elif what == "relabelled":
            rows[i] = row._replace(label=k)
        elif what == "absent":
            del rows[i]
        elif what == "again":
            rows.append(row)
        elif reason_of(row, self) is None:  # contradicted
            rows.append(row._replace(label=(row.label + 1 + k % (c - 1)) % c))


def checkpoint(epoch):
    """Return the name of an epoch, where epochs have names."""
    return f"checkpoint-{epoch}"


def as_kind(x, kind):
    """Return logits as logits, probs or logprobs."""
    if kind == "logits":
        return x
    x = x - x.max(axis=-1, keepdims=True)
    logs = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return np.exp(logs) if kind == "probs" else logs


def told_by_one(x, kind, k, dtype):
    """Return predictions of two classes of which that of class k tells the other."""
    x = x.copy()
    if kind == "probs":
        x[..., k] = np.round(x[..., k] * 256) / 256  # then 1 - p is exact
    x[..., 1 - k] = of_other_class(rounded(x[..., k], dtype), kind)
    return x


def of_other_class(x, kind):
    """Return the numbers of the other of two classes."""
    with np.errstate(divide="ignore"):
        logs = np.log(-np.expm1(np.minimum(x, 0))) if kind == "logprobs" else x
    return {"logits": 0 * x, "probs": 1 - x, "logprobs": logs}[kind]


ODD_WORDS = ("", " ", "a\nb", "\u00e9", "e\u0301", "ß\0x", "x" * 300, "-1", "none", "nan", '"', ",",
             "日本", "'")  # fmt: skip
IDS = ("count", "signed", "unsigned", "words", "odd words", "bytes", "sixteen bytes", "uuids",
       "position")  # fmt: skip


def ids_of(style, n, rng):
    """Return n different ids, in any order."""
    order = rng.permutation(n).tolist()
    far_apart = 0x9E3779B97F4A7
    signed = [-(2**63), 2**63 - 1, -1, 0, 2**32, -(2**31), 2**53 + 1]
    unsigned = [2**64 - 1, 2**63, 0, 2**63 - 1]
    uuids = (uuid.UUID(int=i * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128) for i in order)
    made = {
        "signed": lambda: [(*signed, *range(n))[i] + i * far_apart * (i >= 7) for i in order],
        "unsigned": lambda: [(*unsigned, *range(n))[i] + i * far_apart * (i >= 4) for i in order],
        "words": lambda: [f"img_{i:03}.png" for i in order],
        "odd words": lambda: [(*ODD_WORDS, *(f"w{k}" for k in range(n)))[i] for i in order],
        "bytes": lambda: [b"\0" * i if i < 3 else struct.pack("<q", i)[: i % 5] + b"|%d" % i
                          for i in order],
        "sixteen bytes": lambda: [x.bytes for x in uuids],
        "uuids": lambda: [str(x) for x in uuids],
    }  # fmt: skip
    return made.get(style, lambda: order)()


def reason_of(row, truth):
    """Return why a row is invalid, as a summary words it; None where it is valid."""
    v, kind = row.values, truth.kind
    if v is None:
        return "null"
    if len(v) != truth.classes:
        return "length"
    if None in v:
        return "null"
    if any(math.isnan(x) for x in v):
        return "nan"
    if max(v) == math.inf:
        return "positive_infinity"
    if kind == "probs" and (min(v) < -1e-6 or max(v) > 1.01):
        return "contradicts_kind"
    if max(v) <= (0.0 if kind == "probs" else -math.inf):
        return "no_mass"
    if kind == "logprobs" and max(v) > math.log(1.01):
        return "contradicts_kind"
    return "label" if row.label is None else None
