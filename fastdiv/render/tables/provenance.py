"""Where a run comes from: what was read, how, and what was left out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fastdiv.plan import human_bytes

if TYPE_CHECKING:
    from fastdiv.run import Run

PLACES_SHOWN = 5
FILES_SHOWN = 3
NAMES_SHOWN = 12
LONGEST = 200  # characters of a name
ROLES = {
    "files": "Files",
    "id": "Sample ids",
    "label": "Labels",
    "predictions": "Predictions",
    "kind": "Kind of predictions",
    "epoch": "Epochs from",
    "split": "Splits from",
}
SCORES = {
    "all": "of every epoch, with what the best temperature is found from",
    "slim": "of every epoch, without what the best temperature is found from (slim)",
    "rolling": "of the last two epochs alone (rolling)",
}


def provenance(run: Run) -> list[tuple[str, str]]:
    """Return what should be known of where a run comes from, as (what, value) in words."""
    summary = run.summary
    backend, seconds = summary["backend"], summary.get("elapsed_s")
    rows = [
        ("Made by", f"fastdiv {summary.get('fastdiv', '')}".strip()),
        (
            "Computed on",
            f"{backend['name']}: {backend['on']}; {_threads(summary)}",
        ),
        ("Read", _read(summary)),
        *_files(summary),
        ("Classes", _classes(summary)),
        *((ROLES[role], said) for role, said in _in_order(summary.get("columns", {}))),
        *_splits(run),
        *_left_out(summary),
        *_options(summary),
    ]
    if seconds is not None:
        read = summary.get("read_s")
        of_which = "" if read is None else f", of which reading {read:,.2f} s"
        rows.append(("Took", f"{seconds:,.2f} s{of_which}"))
    return rows


def _count(of: dict[str, Any], name: str) -> str:
    return f"{of[name]:,}" if isinstance(of.get(name), int) else "unknown"


def _threads(summary: dict[str, Any]) -> str:
    return "1 thread" if summary.get("threads") == 1 else f"{_count(summary, 'threads')} threads"


def _in_order(columns: dict[str, str]) -> Iterable[tuple[str, str]]:
    return ((role, columns[role]) for role in ROLES if role in columns)


def _read(summary: dict[str, Any]) -> str:
    nbytes = summary.get("bytes")
    size = "" if nbytes is None else f", {human_bytes(nbytes)} of predictions, labels and ids"
    parts = summary.get("parts")
    told = "" if parts is None else f" in {parts:,} {'part' if parts == 1 else 'parts'}"
    return (
        f"{_count(summary, 'rows')} rows{told}{size}; {summary.get('kind')} as "
        f"{summary.get('dtype')}"
    )


def _files(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Name the files of the dump, where they were recorded."""
    dump = summary.get("dump") or {}
    paths = [part["path"] for part in dump.get("parts", ()) if part["path"] is not None]
    if not paths:
        return []
    many = f" ({len(paths):,} files)" if len(paths) > FILES_SHOWN else ""
    return [("Dump", _listed(paths, FILES_SHOWN) + many)]


def _listed(names: list[str], most: int) -> str:
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 1])} … {names[-1]}"


def _classes(summary: dict[str, Any]) -> str:
    names = summary["class_names"]
    return f"{summary['classes']:,}" + ("" if names is None else f": {_listed(names, NAMES_SHOWN)}")


def _splits(run: Run) -> list[tuple[str, str]]:
    """Say of each split what there is and what is stored."""
    rows = []
    names = run.summary.get("epoch_names", {})
    for entry, samples in zip(run.summary["splits"], run._samples, strict=True):
        split = entry["split"]
        said = f"{entry['n_samples']:,} samples, {entry['n_epochs']:,} "
        said += "epoch" if entry["n_epochs"] == 1 else "epochs"
        said += ", matched by " + ("position" if entry["ids"] == "position" else "id")
        kept = len(samples.store.files)
        said += f"; scores of {kept:,} stored" if kept != entry["n_epochs"] else "; all stored"
        if entry.get("n_duplicates"):
            said += f"; {entry['n_duplicates']:,} duplicate rows counted once"
        rows.append(("Data" if split is None else f"Split {split}", said))
    if names:
        rows.append(("Epochs with names", _listed(list(names.values()), NAMES_SHOWN)))
    missing = run.summary.get("epochs_missing")
    if missing:
        rows.append(("Epochs asked for, not there", ", ".join(map(str, missing))))
    return rows


def _left_out(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Say which rows were invalid and which losses infinite, with their first places."""
    invalid = summary.get("invalid", {"n": 0, "reasons": []})
    rows = [("Invalid rows", f"{invalid['n']:,}" if invalid["n"] else "none")]
    rows += [
        (entry["in_words"], _places(entry["n"], entry["first"])) for entry in invalid["reasons"]
    ]
    infinite = summary.get("infinite", {"n": 0, "first": []})
    said = _places(infinite["n"], infinite["first"]) if infinite["n"] else "none"
    return [*rows, ("Infinite losses", said)]


def _places(n: int, first: list[str]) -> str:
    shown = first[:PLACES_SHOWN]
    return f"{n:,}: {'; '.join(shown)}{' …' if n > len(shown) else ''}" if shown else f"{n:,}"


def _options(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Say what was asked for."""
    options = summary.get("options", {})
    rows = []
    if "scores" in options:
        rows.append(("Stored scores", SCORES.get(options["scores"], str(options["scores"]))))
    if options.get("clip") is not None:
        rows.append(("Clipping", f"losses clipped at probability {options['clip']:g}"))
    if "duplicates" in options:
        words = {"error": "two that differ are an error", "first": "the first counts"}
        rows.append(("Duplicate rows", words.get(options["duplicates"], options["duplicates"])))
    if options.get("strict"):
        rows.append(("Strict", "an invalid row is an error"))
    return rows
