"""Every folder of other people's predictions, as it is, through the command line.

The data lies beside the repository and is not part of it; without it the module is skipped.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from oracle import Epoch, assert_tables, expect

import fastdiv

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real predictions in {DATA}")
FLOAT64 = 1e-12  # what a float64 loss may be off by


def analyzed(cli, tmp_path, *arguments):
    """Run `analyze` as people do; return what it printed, and the run."""
    ended = cli("analyze", *arguments, "-o", tmp_path / "run")
    assert ended.code == 0, ended.err
    return ended.out, fastdiv.load(tmp_path / "run")


def named(epochs, run):
    """Put the names of epochs that a run has into what is expected of it."""
    tables = expect(epochs)
    names = run.summary["epoch_names"]
    for row in tables["epochs"]:
        row["epoch_name"] = names.get(str(row["epoch"]))
    return tables


def test_two_checkpoints_by_their_names(cli, tmp_path):
    folder = DATA / "calibration_framework"
    epochs = {}
    for e, name in enumerate(["lenet-5-cifar-10", "wideresnet-16-4-cifar-10"]):
        arrays = np.load(folder / f"{name}.npz")
        epochs[None, e] = Epoch(arrays["predictions"], arrays["ground_truth"], "probs")
    out, run = analyzed(cli, tmp_path, folder, "--epoch-per-path")
    assert "lenet-5-cifar-10" in out
    assert_tables(run, named(epochs, run))
    assert run.epochs["epoch_name"].to_pylist() == ["lenet-5-cifar-10", "wideresnet-16-4-cifar-10"]
    compared = cli("compare", tmp_path / "run", "lenet-5-cifar-10", "wideresnet-16-4-cifar-10")
    assert "from epoch lenet-5-cifar-10 to wideresnet-16-4-cifar-10 the loss fell" in compared.out
    again = cli("analyze", f"b={folder}/wide*.npz", f"a={folder / 'lenet-5-cifar-10.npz'}",
                "--epoch-per-path", "--json")  # fmt: skip
    assert json.loads(again.out)["epoch_names"] == {"0": "b", "1": "a"}


def test_labels_in_a_column_of_their_own(cli, tmp_path):
    arrays = np.load(DATA / "verified_calibration" / "cifar_probs.npz")
    assert arrays["labels"].shape == (10_000, 1)
    _, run = analyzed(cli, tmp_path, DATA / "verified_calibration")
    assert_tables(
        run, expect({(None, 0): Epoch(arrays["probs"], arrays["labels"].ravel(), "probs")})
    )


@pytest.mark.parametrize(
    ("name", "infinite"), [("20news", 61), ("imdb", 0), ("mnist", 0), ("cifar10", 0)]
)
def test_labels_in_a_file_beside(cli, tmp_path, name, infinite):
    p, y = (
        DATA / "label_errors" / f"{name}_test_set_{part}.npy" for part in ("pyx", "original_labels")
    )
    out, run = analyzed(cli, tmp_path, p, "--label", y)
    of_row = Epoch(np.load(p), np.load(y), "probs")
    assert_tables(run, expect({(None, 0): of_row}), FLOAT64)
    assert run.epochs["n_infinite"].to_pylist() == [infinite]
    if infinite:
        first = int(np.flatnonzero(np.isinf(of_row.loss))[0])
        assert f"61 rows with an infinite loss (the label got probability 0): {p}, row {first}" in (
            out
        )
        assert run.summary["infinite"]["n"] == 61
        assert len(run.summary["infinite"]["first"]) == 5


def test_half_precision_and_one_file_of_labels(cli, tmp_path):
    folder = DATA / "confidentlearning"
    files = [folder / f"noise_0_{k}__pyx.npy" for k in (0, 2)]
    y = np.load(folder / "labels.npz")["true"]
    _, run = analyzed(
        cli, tmp_path, *files, "--epoch-per-path", "--label", f"{folder / 'labels.npz'}:true"
    )
    epochs = {(None, e): Epoch(np.load(f), y, "probs") for e, f in enumerate(files)}
    assert_tables(run, named(epochs, run))
    assert run.summary["dtype"] == "float16"
    unnamed = cli("analyze", *files, "--epoch-per-path", "--label", folder / "labels.npz")
    assert "labels.npz holds noisy_fz0.0_na0.0, noisy_fz0.0_na0.2, true: name one" in unnamed.err


def test_seven_classifiers_in_csv_files_with_lines_before_the_table(cli, tmp_path):
    folder = DATA / "tsml_eval" / "ItalyPowerDemand"
    refused = cli("analyze", folder)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--skip-lines" in refused.err
    out, run = analyzed(
        cli, tmp_path, folder, "--epoch-per-path", "--skip-lines", 3, "--label", "column_0",
        "--predictions", "column_3,column_4",
    )  # fmt: skip
    names = sorted(path.stem for path in folder.glob("*.csv"))
    assert run.epochs["epoch_name"].to_pylist() == names
    epochs = {}
    for e, name in enumerate(names):
        t = np.genfromtxt(folder / f"{name}.csv", delimiter=",", skip_header=3)
        epochs[None, e] = Epoch(t[:, 3:], t[:, 0], "probs")
    assert_tables(run, named(epochs, run), FLOAT64)
    assert "ROCKET" in out


def test_training_dynamics_whose_files_hold_different_ids(cli, tmp_path):
    out, run = analyzed(cli, tmp_path, DATA / "cartography")
    epochs = {}
    for e in range(5):
        lines = (DATA / "cartography" / f"dynamics_epoch_{e}.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        x = np.array([r[f"logits_epoch_{e}"] for r in rows])
        epochs[None, e] = Epoch(
            x, np.array([r["gold"] for r in rows]), "logits", np.array([r["guid"] for r in rows])
        )
    assert_tables(run, expect(epochs), FLOAT64)
    assert "no sample of an epoch is in the next" in out
    assert run.transitions["n"].to_pylist() == [0] * 4


def test_a_dump_without_labels_says_where_it_looked(cli):
    for command in ("analyze", "inspect"):
        ended = cli(command, DATA / "ludwig")
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.count("\n") == 1
        for column in ("Survived_probabilities", "Survived_predictions (bool)", "--label"):
            assert column in ended.err


def test_a_label_that_is_there_under_another_name(cli, tmp_path):
    """Of the same dump, the predicted class taken for the label: it is then always right."""
    _, run = analyzed(
        cli, tmp_path, DATA / "ludwig", "--label", "Survived_predictions", "--predictions",
        "Survived_probabilities",
    )  # fmt: skip
    assert run.epochs["accuracy"].to_pylist() == [1.0]
    score = cli(
        "analyze", DATA / "ludwig", "--label", "Survived_predictions", "--predictions",
        "Survived_probabilities_True", "--positive", "1", "--json",
    )  # fmt: skip
    assert json.loads(score.out)["classes"] == 2


@pytest.mark.parametrize("name", ["hpc_cv", "two_class_example"])
def test_columns_named_by_class(cli, tmp_path, name):
    out, run = analyzed(cli, tmp_path, DATA / "modeldata" / f"{name}.parquet")
    assert "named by class" in out
    assert run.summary["class_names"] is not None


@pytest.mark.parametrize("name", ["fashion_mnist_test", "mnist_test.parquet"])
def test_a_hundred_epochs(cli, tmp_path, name):
    _, run = analyzed(cli, tmp_path, DATA / "distill" / name)
    assert run.summary["splits"][0]["n_epochs"] == 100


def test_folders_of_files_that_do_not_belong_together_are_refused(cli):
    for folder in ("modeldata", "label_errors", "parquet_testing"):
        ended = cli("analyze", DATA / folder, "--quiet")
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended.err
