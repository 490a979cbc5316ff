"""Ways to write a run down, and which of them can hold which run."""

from dataclasses import dataclass
from typing import Any

from truth import SAMPLES, SHAPES


@dataclass(frozen=True)
class Writing:
    """A way to write a run down."""

    container: str = "table"
    layout: str = "list"
    label: str = "int64"
    id: str = "int64"
    epoch_in: str = "column"
    split_in: str = "nowhere"
    epoch_type: str = "int64"  # in a column
    order: str = "as it is"  # or shuffled within an epoch, or mixed over all that a part holds
    seed: int = 0  # of orders, and of which usual name a column has
    asked: bool = False  # columns have names that must be given, decoys those that are usual
    kind_asked: bool = True
    described: bool = False  # the schema's metadata says what else would be an option
    within: bool = False  # label and id are fields of a struct
    pieces: int = 1  # files an epoch, or files in all where a column tells the epochs
    cuts: tuple[int, ...] = ()  # where tables are cut into chunks
    around: tuple[int, int] = (0, 0)  # rows before and after what a slice shows
    no_class: int = 0  # which way to write a label that is no class comes first
    extras: tuple[str, ...] = ()  # columns of no concern
    form: str = "folder"  # or path, glob, list: how files are named to `analyze`
    compression: str = "none"
    row_group: int = 1024
    parquet: tuple[tuple[str, Any], ...] = ()  # other options of `write_table`


# fmt: off
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
STRINGS = ("string", "large_string", "string_view", "dictionary<string>")
ENCODED = (*INTEGERS, "float16", "float32", "float64", *STRINGS, "dictionary<int>", "decimal",
           "bool", "run_end", "one-hot", "one-hot bytes", "single")
OF_ARRAYS = ("array", "array of names", "array (n, 1)", "one-hot array")
LABELS = (*ENCODED, *OF_ARRAYS, "arrow array")
NAMING = {*STRINGS, "array of names"}
MOST_CLASSES = {"int8": 127, "dictionary<int>": 127, "uint8": 255, "bool": 2, "float16": 2048}
IDS_AS = {
    "count": (*INTEGERS[:7], "dictionary<int>", "array"),
    "signed": ("int64", "dictionary<int>", "array"),
    "unsigned": ("uint64", "array"),
    "words": (*STRINGS, "array"),
    "odd words": (*STRINGS, "array"),
    "bytes": ("binary", "large_binary"),
    "sixteen bytes": ("fixed_size_binary", "binary"),
    "uuids": ("uuid", *STRINGS, "array"),
    "position": ("absent", "refused"),
}

LISTS = ("list", "large_list", "fixed_size_list", "list_view", "nested")
WORDS = ("words", "fixed_size_words")  # of bfloat16
PACKED = ("binary", "large_binary", "fixed_size_binary")
WIDE = ("wide0", "wide1", "by class")
STORED_ARRAYS = ("array", "fortran", "swapped")
ARRAYS = (*STORED_ARRAYS, "strided", "dlpack", "interface", "arrow lists")
LAYOUTS = (*LISTS, "tensor", *WORDS, *PACKED, *WIDE, "score", *ARRAYS)
UNEVEN = frozenset({"short", "long"})
CANNOT_SAY = {
    **dict.fromkeys(("fixed_size_list", "tensor", "fixed_size_words"), UNEVEN),
    **dict.fromkeys(PACKED, frozenset({"null item"})),
    "fixed_size_binary": UNEVEN | {"null item"},
    **dict.fromkeys(WIDE, UNEVEN | {"null row"}),
    **dict.fromkeys(ARRAYS, frozenset(SHAPES)),
    "arrow lists": frozenset(),
}
VIEWS = {"list_view", "string_view", "run_end"}  # no Parquet of these

TABLES = ("table", "batch", "reader", "exporter")
ARROW = (*TABLES, "parquet", "ipc", "stream")
TEXT = ("csv", "jsonl", "json")
NUMPY = ("npz", "npy")
FILES = ("parquet", "ipc", "stream", *TEXT, *NUMPY)
CONTAINERS = (*ARROW, *TEXT, *NUMPY, "arrays")
SUFFIX = {"parquet": ".parquet", "ipc": ".arrow", "stream": ".arrows", "csv": ".csv",
          "jsonl": ".jsonl", "json": ".json", "npz": ".npz", "npy": ".npy"}
PATHS = set(FILES) - {"json", "npy"}  # that a directory is searched for
PLAIN = {"int64", "float64", "string", "bool"}
HOLDS = {  # layouts, labels and ids that a container has a form for
    **dict.fromkeys(ARROW, (set(LAYOUTS) - set(ARRAYS), set(ENCODED),
                            {*INTEGERS, *STRINGS, *PACKED, "uuid", "dictionary<int>"})),
    "csv": ({*WIDE, "score"}, PLAIN, {"int64", "string"}),
    **dict.fromkeys(("jsonl", "json"), ({"list", *WIDE, "nested", "score"},
                                        {*PLAIN, "one-hot", "single"}, {"int64", "string"})),
    **dict.fromkeys(NUMPY, (set(STORED_ARRAYS), set(OF_ARRAYS), {"array"})),
    "arrays": (set(ARRAYS), {*OF_ARRAYS, "arrow array"}, {"array"}),
}
EXTRAS = ("note", "size", "ok", "when", "tags", "meta", "void", "blob")
DECOYS = ("logits", "label", "sample_id", "epoch", "split", "probs_0", "probs_1")
USUAL = {
    "id": ("sample_id", "id", "Image-ID"),
    "label": ("label", "target", "y_true"),
    "epoch": ("epoch", "global_step"),
    "split": ("split", "subset"),
    "logits": ("logits", "outputs"),
    "probs": ("probs", "softmax"),
    "logprobs": ("log_probs", "logprobs"),
}
STRANGE = {"id": "key 2", "label": "said", "epoch": "round", "split": "fold", "predictions": "out"}
# fmt: on


def layouts_for(truth, container):
    """Return the layouts that can hold a truth's predictions in a container."""
    sixteen = {*WORDS, *PACKED, *ARRAYS} - {"arrow lists"}
    score_says = {*SAMPLES, "again", "contradicted", "null row"}
    widened = read_dtype(truth, container) != truth.dtype  # then the other number is another one
    return [
        layout
        for layout in LAYOUTS
        if layout in HOLDS[container][0]
        and not CANNOT_SAY.get(layout, frozenset()) & truth.odd
        and not (layout in VIEWS and container == "parquet")
        and not (truth.dtype == "bfloat16" and layout not in sixteen and container not in TEXT)
        and not (layout in WORDS and truth.dtype != "bfloat16")
        and not (layout == "by class" and not truth.named)
        and not (layout == "score" and (truth.score_of is None or not truth.odd <= score_says))
        and not (layout == "score" and truth.kind == "logprobs" and widened)
    ]


def containers_for(truth, dtype=None):
    """Return the containers that can hold a truth, so that its numbers are read as a dtype."""
    return [
        container
        for container in CONTAINERS
        if layouts_for(truth, container)
        and ids_for(truth, container)
        and dtype in (None, read_dtype(truth, container))
        and epoch_places_for(truth, container)
        and (container != "npy" or fits_npy(truth))
    ]


def fits_npy(truth):
    """Whether labels and ids can be told beside predictions, as two files for all epochs."""
    return len(truth.epochs) == 1 and truth.splits == (None,)


def read_dtype(truth, container):
    """Return the dtype that predictions are read as."""
    return "float64" if container in TEXT else truth.dtype


def labels_for(truth, container, layout):
    """Return the types that can hold a truth's labels."""
    return [
        label
        for label in LABELS
        if label in HOLDS[container][1]
        and not (label not in NAMING and layout == "by class")
        and not (label in NAMING and not truth.named)
        and truth.classes <= MOST_CLASSES.get(label, truth.classes)
        and not (label in {*VIEWS, "float16"} and container == "parquet")
    ]


def ids_for(truth, container):
    """Return the types that can hold a truth's ids."""
    held = {*HOLDS[container][2], "absent", *(["refused"] if container != "arrays" else [])}
    return [
        kind
        for kind in IDS_AS[truth.ids]
        if kind in held
        and not (kind in VIEWS and container == "parquet")
        and not (container == "csv" and truth.ids == "odd words")
    ]


def epoch_places_for(truth, container):
    """Return where a container's epochs can be told."""
    if truth.checkpoints:  # by names: a reader numbers those in a column as they come
        places = ["column"] if container in (*ARROW, *TEXT) and container not in STREAMS else []
        return [*places, "paths"] if container in PATHS else places
    if container == "npy":
        return ["mapping"]
    places = ["column", "mapping"] if container in (*ARROW, *TEXT) else ["mapping"]
    if container in FILES:
        places += ["hive"] if min(truth.epochs) < 0 else ["hive", "names"]
    return places


STREAMS = ("reader", "exporter")


def split_places_for(truth, container, epoch_in):
    """Return where a container's splits can be told; without splits that is nowhere."""
    if truth.splits == (None,):
        return ["nowhere"]
    places = ["mapping"] if epoch_in != "paths" else []  # whose keys are epochs
    places += ["column"] if container in (*ARROW, *TEXT) else []
    return [*places, "hive"] if container in FILES else places


def epoch_types_for(truth, container):
    """Return the types that can hold a truth's epochs in a column."""
    if truth.checkpoints:
        kinds = STRINGS if container not in TEXT else STRINGS[:1]
        return [kind for kind in kinds if container != "parquet" or kind not in VIEWS]
    if container in TEXT:
        return ["int64"]
    ranges = {"int64": 2**63, "int32": 2**31, "int16": 2**15, "float64": 2**53}
    found = [t for t, top in ranges.items() if max(map(abs, truth.epochs)) < top]
    found += ["uint8"] if min(truth.epochs) >= 0 and max(truth.epochs) < 256 else []
    return [*found, "dictionary<int>"]


def orders_for(truth):
    """Return the orders that rows may come in; where position is the id there is one."""
    orders = ["as it is", "shuffled", "mixed"]
    return orders[:1] if truth.ids == "position" else orders


def extras_for(truth, writing):
    """Return the names that columns of no concern may have."""
    if writing.container in ("arrays", *NUMPY):
        return []
    if not writing.asked:
        return list(EXTRAS)
    unsafe = {"sample_id"} if writing.id == "absent" else set()
    unsafe |= {"epoch"} if writing.epoch_in == "names" else set()
    unsafe |= {"split"} if truth.splits == (None,) else set()
    return [*EXTRAS, *(name for name in DECOYS if name not in unsafe)]


def can(truth, writing):
    """Whether a writing can hold a truth."""
    w = writing
    return (
        w.container in containers_for(truth)
        and w.layout in layouts_for(truth, w.container)
        and w.label in labels_for(truth, w.container, w.layout)
        and w.id in ids_for(truth, w.container)
        and w.epoch_in in epoch_places_for(truth, w.container)
        and w.split_in in split_places_for(truth, w.container, w.epoch_in)
        and w.epoch_type in epoch_types_for(truth, w.container)
        and w.order in orders_for(truth)
        and set(w.extras) <= set(extras_for(truth, w))
    )
