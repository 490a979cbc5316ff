"""`analyze` on other people's predictions, every table against the oracle.

The data lies beside the repository and is not part of it; without it the module is skipped.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from oracle import Epoch, assert_table, assert_tables, expect

import fastdiv

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real predictions in {DATA}")

FLOAT64 = 1e-12  # what a float64 loss may be off by


def flat(column):
    """Return a list column of equal lengths as (n, c)."""
    column = column.combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def as_list(values, kind="list"):
    """Return (n, c) as a list column of its own dtype."""
    n, c = values.shape
    items = pa.array(np.ascontiguousarray(values).ravel())
    if kind == "fixed_size_list":
        return pa.FixedSizeListArray.from_arrays(items, c)
    if kind == "large_list":
        return pa.LargeListArray.from_arrays(pa.array(np.arange(0, n * c + 1, c)), items)
    return pa.ListArray.from_arrays(pa.array(np.arange(0, n * c + 1, c, dtype=np.int32)), items)


def sample_ids(n):
    return pa.array([f"img-{i:05}" for i in range(n)])


# Distill: one network over a hundred epochs -------------------------------------------------


def fashion(name):
    """Return {epoch: Epoch} of a hive directory."""
    epochs = {}
    for folder in (DATA / "distill" / name).glob("epoch=*"):
        t = pq.ParquetFile(folder / "part-0.parquet").read()
        ids, labels = t["sample_id"].to_numpy(), t["label"].to_numpy()
        epochs[int(folder.name.removeprefix("epoch="))] = Epoch(
            flat(t["probs"]), labels, "probs", ids
        )
    return epochs


@pytest.fixture(scope="module")
def fashion_epochs():
    splits = {"train": "fashion_mnist_train", "val": "fashion_mnist_test"}
    return {
        (split, epoch): e for split, name in splits.items() for epoch, e in fashion(name).items()
    }


@pytest.fixture(scope="module")
def fashion_run():
    folder = DATA / "distill"
    source = {"train": folder / "fashion_mnist_train", "val": folder / "fashion_mnist_test"}
    return fastdiv.analyze(source)


def test_fashion_mnist(fashion_run, fashion_epochs):
    assert_tables(fashion_run, expect(fashion_epochs))


def test_fashion_mnist_is_what_is_known_of_it(fashion_run):
    rows = [row for row in fashion_run.epochs.to_pylist() if row["split"] == "val"]
    assert len(rows) == 100
    lowest, highest = min(rows, key=lambda r: r["loss"]), max(rows, key=lambda r: r["accuracy"])
    assert (lowest["epoch"], round(lowest["loss"], 4)) == (99, 0.4535)
    assert (highest["epoch"], highest["accuracy"]) == (92, 0.852)


@pytest.mark.parametrize(("a", "b"), [(92, 99), (99, 92), (0, 99)])
def test_fashion_mnist_compared(fashion_run, fashion_epochs, a, b):
    order = {a: 0, b: 1}  # the oracle pairs epochs in ascending order
    two = {(split, order[e]): x for (split, e), x in fashion_epochs.items() if e in order}
    wanted = expect(two)["transitions"]
    for row in wanted:
        row |= {"epoch_from": a, "epoch_to": b}
    assert_table("transitions", fashion_run.compare(a, b), wanted)


def test_fashion_mnist_selected(fashion_epochs):
    epochs = [3, 12, 99]
    run = fastdiv.analyze(DATA / "distill" / "fashion_mnist_test", epochs=epochs)
    assert_tables(run, expect({(None, e): fashion_epochs["val", e] for e in epochs}))


@pytest.mark.parametrize("name", ["mnist_test", "mnist_train"])
def test_mnist(name):
    path = DATA / "distill" / f"{name}.parquet"
    t = pq.read_table(path)
    p, labels, ids = flat(t["probs"]), t["label"].to_numpy(), t["sample_id"].to_numpy()
    number = t["epoch"].to_numpy()
    at = {e: number == e for e in np.unique(number).tolist()}
    epochs = {(None, e): Epoch(p[i], labels[i], "probs", ids[i]) for e, i in at.items()}
    assert len(epochs) == 100
    assert_tables(fastdiv.analyze(path), expect(epochs))


# modeldata: string labels, a column a class, neither ids nor epochs -------------------------


@pytest.mark.parametrize(
    ("name", "label", "classes"),
    [
        ("hpc_cv", "obs", ["VF", "F", "M", "L"]),
        ("two_class_example", "truth", ["Class1", "Class2"]),
    ],
)
def test_modeldata(name, label, classes):
    path = DATA / "modeldata" / f"{name}.parquet"
    t = pq.read_table(path)
    p = np.stack([t[c].to_numpy() for c in classes], axis=1)
    labels = np.array([classes.index(x) for x in t[label].to_pylist()])
    run = fastdiv.analyze(path)
    (epoch,) = run.epochs["epoch"].to_pylist()
    wanted = expect({(None, epoch): Epoch(p, labels, "probs")}, classes)
    assert_tables(run, wanted, FLOAT64)


# calibration_framework: two networks on one test set, in several layouts --------------------


@pytest.fixture(scope="module")
def two_networks():
    folder, found = DATA / "calibration_framework", {}
    for epoch, name in enumerate(["lenet-5", "wideresnet-16-4"]):
        arrays = np.load(folder / f"{name}-cifar-10.npz")
        found[epoch] = arrays["predictions"], arrays["ground_truth"]
    return found


def columns(p, labels, epoch, layout):
    """Return the columns of one epoch as ``layout`` would hold them."""
    n = len(p)
    if layout == "wide":
        wide = {f"prob_{k}": p[:, k] for k in (3, 1, 0, 2, *range(4, 10))}
        return {"id": sample_ids(n), **wide, "label": labels.astype(np.int8)}
    kind = {"names": "large_list", "hive": "fixed_size_list"}.get(layout, "list")
    table = {"id": np.arange(n), "label": labels, "probs": as_list(p, kind)}
    return {"epoch": np.full(n, epoch), **table} if layout in ("column", "shuffled") else table


def write(folder, two_networks, layout):
    """Write both epochs, two files each, and return what `analyze` is given."""
    tables = {e: pa.table(columns(*x, e, layout)) for e, x in two_networks.items()}
    whole = pa.concat_tables(tables.values()) if layout in ("column", "shuffled") else None
    if layout == "shuffled":
        whole = whole.take(np.random.default_rng(3).permutation(len(whole)))
    if whole is not None:
        pq.write_table(whole, folder / "preds.parquet", row_group_size=3333)
        return folder / "preds.parquet"
    for e, table in tables.items():
        name = f"epoch={e}" if layout == "hive" else f"preds_epoch_{e:03}"
        if layout == "names":
            pq.write_table(table, folder / f"{name}.parquet", row_group_size=4096)
            continue
        (folder / name).mkdir()
        half = len(table) // 2
        pq.write_table(table.slice(half), folder / name / "part-1.parquet", row_group_size=999)
        pq.write_table(table.slice(0, half), folder / name / "part-0.parquet")
    return folder / "*.parquet" if layout == "names" else folder


@pytest.mark.parametrize("layout", ["column", "shuffled", "names", "hive"])
def test_two_networks(tmp_path, two_networks, layout):
    wanted = expect({(None, e): Epoch(p, y, "probs") for e, (p, y) in two_networks.items()})
    assert_tables(fastdiv.analyze(write(tmp_path, two_networks, layout)), wanted)


def test_two_networks_in_wide_columns(tmp_path, two_networks):
    epochs = {}
    for e, (p, y) in two_networks.items():
        pq.write_table(pa.table(columns(p, y, e, "wide")), tmp_path / f"preds_epoch_{e}.parquet")
        epochs[None, e] = Epoch(p, y, "probs", sample_ids(len(p)).to_pylist())
    assert_tables(fastdiv.analyze(tmp_path), expect(epochs))


@pytest.mark.parametrize("kind", ["logprobs", "logits"])
def test_two_networks_as_logs(two_networks, kind):
    shift = 5.0 if kind == "logits" else 0.0
    logs = {e: (np.log(p) + np.float32(shift), y) for e, (p, y) in two_networks.items()}
    wanted = expect({(None, e): Epoch(v, y, kind) for e, (v, y) in logs.items()})
    assert_tables(fastdiv.analyze(logs, kind=kind), wanted)


@pytest.mark.parametrize("kind", ["probs", "logprobs", "logits"])
def test_two_networks_damaged(two_networks, kind):
    """Bad rows beside good ones, other labels, samples that come and go, in another order."""
    rng = np.random.default_rng(11)
    epochs = {}
    for e, (p, y) in two_networks.items():
        v, y = p.copy() if kind == "probs" else np.log(p), y.copy()
        mine = np.arange(512 + e, 8960, 2)  # a row that is bad in one epoch is good in the other
        v[mine[::64]] = np.inf
        v[mine[5::61], 3] = np.nan
        v[mine[7::67]] = 0.0 if kind == "probs" else -np.inf
        v[mine[9::71], 0] = 0.0 if kind == "probs" else -np.inf
        y[mine[11::73]] = rng.choice([-1, 10, 99], len(mine[11::73]))
        if e == 1:
            y[:300] = (y[:300] + 1) % 10
        keep = np.arange(9_000) if e == 0 else rng.permutation(np.arange(500, 10_000))
        epochs[None, e] = Epoch(v[keep], y[keep], kind, keep)
    source = {e: (x.predictions, x.labels, x.ids) for (_, e), x in epochs.items()}
    assert_tables(fastdiv.analyze(source, kind=kind), expect(epochs))


# confidentlearning: float16 ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "which"),
    [("fixed_size_list", "true"), ("list", "noisy"), ("list", "relabelled")],
)
def test_confidentlearning(tmp_path, layout, which):
    folder = DATA / "confidentlearning"
    labels = np.load(folder / "labels.npz")
    noisy, true = labels["noisy_fz0.0_na0.2"], labels["true"]
    sets = {"true": (true, true), "noisy": (noisy, noisy), "relabelled": (true, noisy)}
    epochs = {}
    for e, model in enumerate(["noise_0_0", "noise_0_2"]):
        p, y = np.load(folder / f"{model}__pyx.npy"), sets[which][e]
        table = pa.table({"id": np.arange(len(p)), "label": y, "probs": as_list(p, layout)})
        pq.write_table(table, tmp_path / f"epoch_{e}.parquet")
        epochs[None, e] = Epoch(p, y, "probs")
    run = fastdiv.analyze(tmp_path)
    assert_tables(run, expect(epochs))
    changed = int((sets[which][0] != sets[which][1]).sum())
    assert run.transitions["n_relabelled"].to_pylist() == [changed]
    # No sum is off by more than the 1e-2 that 16 bits are allowed.
    assert run.epochs["n_unnormalized"].to_pylist() == [0, 0]


def test_confidentlearning_as_float32():
    folder = DATA / "confidentlearning"
    y = np.load(folder / "labels.npz")["true"]
    p = {e: np.load(folder / f"noise_0_{2 * e}__pyx.npy").astype(np.float32) for e in (0, 1)}
    run = fastdiv.analyze({e: (p[e], y) for e in p})
    assert_tables(run, expect({(None, e): Epoch(p[e], y, "probs") for e in p}))
    assert run.epochs["n_unnormalized"].to_pylist() == [24, 1942]


# label_errors, verified_calibration: one epoch of float64, one of float32 --------------------


@pytest.mark.parametrize(
    ("name", "n_infinite"), [("20news", 61), ("imdb", 0), ("mnist", 0), ("cifar10", 0)]
)
def test_label_errors(tmp_path, name, n_infinite):
    p = np.load(DATA / "label_errors" / f"{name}_test_set_pyx.npy")
    y = np.load(DATA / "label_errors" / f"{name}_test_set_original_labels.npy")
    pq.write_table(pa.table({"label": y, "probs": as_list(p)}), tmp_path / "epoch_4.parquet")
    run = fastdiv.analyze(tmp_path / "epoch_4.parquet")
    assert_tables(run, expect({(None, 4): Epoch(p, y, "probs")}), FLOAT64)
    assert run.epochs["n_infinite"].to_pylist() == [n_infinite]


def test_verified_calibration():
    arrays = np.load(DATA / "verified_calibration" / "cifar_probs.npz")
    p, y = arrays["probs"], arrays["labels"].ravel()
    run = fastdiv.analyze({7: {"predictions": p, "labels": y}})
    assert_tables(run, expect({(None, 7): Epoch(p, y, "probs")}))
