"""Tiles of LANES rows with few classes, one vector a column, as LLVM IR; see `score_few`.

The first pass finds each row's maximum and the first class that attains it, the second sums what
stands beside that class: with ties the other maxima are in the sums. NaN comes out of the sums as
NaN, so that one test at the end of a tile tells whether a row in it may be invalid, and only then
the reasons are looked for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.cpu.control import SIZE
from fastdiv_kernels.cpu.finish import PROBS
from fastdiv_kernels.cpu.jit import intrinsic, types
from fastdiv_kernels.cpu.lanes import WIDE
from fastdiv_kernels.cpu.tile_scores import Made, Tile, TileScores
from fastdiv_kernels.cpu.vectors import (
    BYTES,
    FLOATS,
    GROUP,
    HELD,
    INTS,
    LANES,
    REAL,
    WORD,
    Vectors,
)  # fmt: skip

# Sixteen streams of rows defeat the processor's own prefetching. As measured: two tiles ahead, but
# no fewer bytes than these.
AHEAD = 8192
AHEAD_OF_TWO, AHEAD_OF_LABELS = 4096, 2048  # one stream each, yet prefetching pays here too
STORED_BYTES = {"float32": 4, "uint16": 2, "int16": 2}
COLUMN_BYTES = 4 * LANES
PARTS = 4  # of a sum: columns take turns, and rounding errors add up less
OUTPUTS = 8
NARROW = (1, 7)  # outputs in bytes: correct and status


@dataclass
class Sums:
    """How the second pass is run: by kind."""

    exps: Callable[[], tuple[Any, ...]]
    probs: Callable[[], tuple[Any, ...]]


class Emitter:
    """Emits one function that scores tiles, for a number of classes and a form of predictions."""

    def __init__(self, function: Any, classes: int | None, stored: str) -> None:
        (self.predictions, self.labels, kind, tolerance, room, classes_given, self.tiles,
         *self.outputs) = function.args  # fmt: skip
        self.v = Vectors(ir.IRBuilder(function.append_basic_block("entry")), room)
        self.scratch = self.v.at(room, HELD, COLUMN_BYTES)
        self.literal = classes
        self.stored = stored
        self.size = STORED_BYTES[stored]
        self.classes = ir.Constant(SIZE, classes) if classes else classes_given
        self.numbers = self.v.at(self.scratch, self.classes, COLUMN_BYTES)
        two_tiles = self.v.builder.mul(self.classes, ir.Constant(SIZE, 2 * LANES * self.size))
        least = ir.Constant(SIZE, AHEAD)
        far = self.v.builder.icmp_unsigned(">", two_tiles, least)
        self.ahead = self.v.builder.select(far, two_tiles, least)
        self.zero = self.v.real(0)
        self.scores = TileScores(self.v, kind, tolerance)

    def emit(self) -> None:
        """Emit the loop over tiles."""
        self.v.loop(self.tiles, 1, [], self.tile)
        self.v.builder.ret_void()

    def tile(self, index: Any) -> Sequence[Any]:
        """Score one tile."""
        v, b, scores = self.v, self.v.builder, self.scores
        row_bytes = b.mul(self.classes, ir.Constant(SIZE, self.size))
        rows = v.at(self.predictions, b.mul(index, row_bytes), LANES)
        label = v.load(v.at(self.labels, index, 4 * LANES), INTS)
        v.prefetch(v.at(v.at(self.labels, index, 4 * LANES), 1, AHEAD_OF_LABELS))
        classes = v.everywhere(b.trunc(self.classes, WORD))
        labelled = b.icmp_unsigned("<", label, classes)
        label = v.choose(labelled, label, v.whole(0))
        if self.literal == 2:
            columns = self.columns_of_two(rows)
            tile, sums = self.two(columns, label, labelled)
        elif self.literal == 3:
            columns = self.columns_of_three(rows)
            tile, sums = self.three(columns, label, labelled)
        else:
            columns = []
            tile = self.few(rows, row_bytes, label, labelled)
            sums = Sums(lambda: self.sum_exps(tile, rows), lambda: self.sum_probs(tile, rows))

        def made_of(make: Callable[..., Made], add_up: Callable[[], tuple[Any, ...]]) -> Made:
            added = add_up()  # which finds second and rank, in a block of its own
            return [*make(tile, *added), tile.second, tile.rank]

        made = v.branch(
            scores.is_kind(PROBS),
            lambda: made_of(scores.of_probs, sums.probs),
            lambda: made_of(scores.of_exps, sums.exps),
        )
        *made, second, rank = made
        checked = scores.checked(tile, second, rank, made, lambda: self.reasons(tile, columns))
        self.store(index, checked)
        return []

    def reasons(self, tile: Tile, columns: list[Any]) -> Any:
        """Look once more for the lowest value and for NaN, and return each row's Reason."""
        v, b = self.v, self.v.builder

        def look(x: Any, lowest: Any, nan: Any) -> Sequence[Any]:
            return v.smaller(x, lowest), b.or_(nan, b.sext(v.either_nan(x, x), INTS))

        found: Sequence[Any] = [v.real(np.inf), v.whole(0)]
        for x in columns:
            found = look(x, *found)
        if not columns:
            found = v.loop(self.classes, 1, found, lambda j, *found: look(self.column(j), *found))
        return self.scores.reasons(tile, *found)

    def store(self, index: Any, scores: list[Any]) -> None:
        """Store a tile's Scores."""
        v, b = self.v, self.v.builder
        for k, (score, array) in enumerate(zip(scores, self.outputs, strict=True)):
            score = b.trunc(score, BYTES) if k in NARROW else score
            v.store(score, v.at(array, index, LANES if k in NARROW else 4 * LANES))

    # -- columns ------------------------------------------------------------------------------

    def columns_of_two(self, rows: Any) -> list[Any]:
        """Load and part the columns of two classes."""
        v = self.v
        a, b = (self.contiguous(rows, k) for k in range(2))
        return [v.shuffle(a, b, range(k, 2 * LANES, 2)) for k in range(2)]

    def columns_of_three(self, rows: Any) -> list[Any]:
        """Load and part the columns of three classes."""
        v = self.v
        a, b, c = (self.contiguous(rows, k) for k in range(3))
        columns = []
        for k in range(3):
            places = range(k, 3 * LANES, 3)
            early = [place for place in places if place < 2 * LANES]
            padded = early + [0] * (LANES - len(early))
            late = [i if i < len(early) else place - LANES for i, place in enumerate(places)]
            columns.append(v.shuffle(v.shuffle(a, b, padded), c, late))
        return columns

    def contiguous(self, rows: Any, k: int) -> Any:
        """Load the k-th LANES numbers of a tile."""
        place = self.v.at(rows, k, LANES * self.size)
        self.v.prefetch(self.v.at(place, 1, AHEAD_OF_TWO))
        return self.v.load_numbers(place, self.stored, LANES)

    # -- two and three classes ----------------------------------------------------------------

    def two(self, columns: list[Any], label: Any, labelled: Any) -> tuple[Tile, Sums]:
        """Compare two columns; one exponential is enough."""
        v, b = self.v, self.v.builder
        x, y = columns
        first = b.zext(v.above(y, x), INTS)
        highest, second = v.larger(y, x), v.smaller(y, x)
        of_label = v.choose(b.icmp_signed("==", label, v.whole(1)), y, x)
        tile = Tile(label, labelled, highest, first, of_label, second)
        tile.right = b.icmp_signed("==", first, label)
        tile.rank = b.zext(b.icmp_signed("!=", first, label), INTS)
        nan = v.either_nan(x, y)

        def exps() -> tuple[Any, ...]:
            s = v.exp(v.sub(second, highest))
            return s, v.mul(s, s), s, nan

        return tile, Sums(exps, lambda: (second, v.mul(second, second), second, nan))

    def three(self, columns: list[Any], label: Any, labelled: Any) -> tuple[Tile, Sums]:
        """Sort three columns; two exponentials are enough."""
        v, b = self.v, self.v.builder
        x, y, z = columns
        later, last = v.above(y, x), v.larger(y, x)
        least = v.smaller(y, x)
        at_end = v.above(z, last)
        first = v.choose(at_end, v.whole(2), b.zext(later, INTS))
        highest = v.larger(z, last)
        second = v.larger(least, v.smaller(z, last))
        lowest = v.smaller(z, least)
        is_one = b.icmp_signed("==", label, v.whole(1))
        is_two = b.icmp_signed("==", label, v.whole(2))
        of_label = v.choose(is_two, z, v.choose(is_one, y, x))
        tile = Tile(label, labelled, highest, first, of_label, second)
        tile.right = b.icmp_signed("==", first, label)
        self.set_limits(tile)
        rank = v.none()
        for j, column in enumerate(columns):
            rank = self.ranked(tile, column, v.real(j), rank)
        tile.rank = v.counted(rank)
        nan = v.either(v.either_nan(x, y), v.either_nan(z, z))

        def exps() -> tuple[Any, ...]:
            u, w = (v.exp(v.sub(value, highest)) for value in (second, lowest))
            of_label_u = v.choose(v.equal(of_label, second), u, w)
            return v.add(u, w), v.fma(u, u, v.mul(w, w)), of_label_u, nan

        def probs() -> tuple[Any, ...]:
            squares = v.fma(second, second, v.mul(lowest, lowest))
            return v.add(second, lowest), squares, lowest, nan

        return tile, Sums(exps, probs)

    def set_limits(self, tile: Tile) -> None:
        """Find what `ranked` compares with."""
        tile.label_number = self.v.builder.sitofp(tile.label, FLOATS)
        tile.under_label = self.v.just_below(tile.of_label)

    def ranked(self, tile: Tile, x: Any, number: Any, rank: Any) -> Any:
        """Count a column where it stands ahead of the label: before it, ties do."""
        v = self.v
        limit = v.choose(v.above(tile.label_number, number), tile.under_label, tile.of_label)
        return v.count(v.above_or_nan(x, limit), rank)

    # -- few classes --------------------------------------------------------------------------

    def few(self, rows: Any, row_bytes: Any, label: Any, labelled: Any) -> Tile:
        """Turn rows into columns of the scratch, and find maxima on the way."""
        v, b = self.v, self.v.builder
        last_group = b.sub(self.classes, ir.Constant(SIZE, GROUP))

        def group(index: Any, highest: Any, first: Any) -> Sequence[Any]:
            # The last group overlaps the one before: what is seen again changes nothing.
            start = b.select(b.icmp_unsigned("<", index, last_group), index, last_group)
            place = v.at(rows, start, self.size)
            loaded = []
            for _ in range(LANES):
                loaded.append(v.load_numbers(place, self.stored, GROUP))
                place = b.add(place, row_bytes)
            column = v.at(self.scratch, start, COLUMN_BYTES)
            number = v.everywhere(b.uitofp(b.trunc(start, WORD), REAL))
            for k, x in enumerate(v.transpose(loaded)):
                v.store(x, v.at(column, k, COLUMN_BYTES), align=COLUMN_BYTES)
                higher = v.above(x, highest)
                first = v.choose(higher, v.add(number, v.real(k)), first)
                highest = v.choose(higher, x, highest)
            return highest, first

        start = [v.real(-np.inf), self.zero]
        highest, number = v.loop(self.classes, GROUP, start, group)
        place = b.add(b.mul(label, v.whole(LANES)), v.lane_numbers())
        of_label = v.gather(self.scratch, place)
        first = b.fptosi(number, INTS)
        tile = Tile(label, labelled, highest, first, of_label)
        tile.right = b.icmp_signed("==", first, label)
        tile.first_number = number
        self.set_limits(tile)
        return tile

    def column(self, index: Any) -> Any:
        """Load a column from the scratch."""
        return self.v.load(self.v.at(self.scratch, index, COLUMN_BYTES), align=COLUMN_BYTES)

    def second_pass(
        self, tile: Tile, rows: Any, carried: Sequence[Any], add: Callable[..., Any]
    ) -> Any:
        """Run over columns; `add(x, beside, *carried)` sums them. Ranks and seconds are found here.

        `beside` masks out the one maximum that is left out of sums.
        """
        v, b = self.v, self.v.builder

        def one(index: Any, second: Any, rank: Any, *carried: Any) -> Sequence[Any]:
            v.barrier()
            v.prefetch(b.add(v.at(rows, index, LANES * self.size), self.ahead))
            x = self.column(index)
            number = v.everywhere(v.load(v.at(self.numbers, index, 4), REAL, align=4))
            beside = v.differs_or_nan(number, tile.first_number)
            second = v.larger_where(beside, x, second)
            rank = self.ranked(tile, x, number, rank)
            sums = add(x, beside, *carried)
            return second, rank, *sums

        def several(index: Any, *carried: Any) -> Sequence[Any]:
            found: Sequence[Any] = carried
            for k in range(GROUP):
                found = one(b.add(index, ir.Constant(SIZE, k)), *found)
            return found

        found, begin = [v.real(-np.inf), v.none(), *carried], None
        if not WIDE:  # elsewhere LLVM unrolls by itself
            begin = b.and_(self.classes, ir.Constant(SIZE, -GROUP))
            found = v.loop(begin, GROUP, found, several)
        tile.second, rank, *sums = v.loop(self.classes, 1, found, one, begin)
        tile.rank = v.counted(rank)
        return sums

    def sum_exps(self, tile: Tile, rows: Any) -> tuple[Any, ...]:
        """Return s, q, the label's own weight, and where a NaN or an infinity is."""
        v = self.v

        def add(x: Any, beside: Any, q: Any, s: Any, *sums: Any) -> tuple[Any, ...]:
            u = v.exp(v.sub(x, tile.highest), beside)
            return v.fma(u, u, q), *sums, v.add(s, u)

        q, *sums = self.second_pass(tile, rows, [self.zero] * (1 + PARTS), add)
        s = self.total(sums)
        return s, q, v.exp(v.sub(tile.of_label, tile.highest)), v.either_nan(s, s)

    def sum_probs(self, tile: Tile, rows: Any) -> tuple[Any, ...]:
        """Return s, q, the lowest probability, and where a NaN is."""
        v = self.v

        def add(x: Any, beside: Any, lowest: Any, q: Any, s: Any, *sums: Any) -> tuple[Any, ...]:
            u = v.choose(beside, x, self.zero)
            return v.smaller(x, lowest), v.fma(u, u, q), *sums, v.add(s, u)

        start = [v.real(np.inf), *[self.zero] * (1 + PARTS)]
        lowest, q, *sums = self.second_pass(tile, rows, start, add)
        s = self.total(sums)
        return s, q, lowest, v.either_nan(s, s)

    def total(self, sums: Sequence[Any]) -> Any:
        """Add up the parts of a sum, in pairs."""
        while len(sums) > 1:
            sums = [self.v.add(*pair) for pair in zip(sums[::2], sums[1::2], strict=True)]
        return sums[0]


ARGUMENTS = [SIZE, SIZE, SIZE, REAL, *[SIZE] * (3 + OUTPUTS)]


def tile_scorer(classes: int | None) -> Callable[..., None]:
    """Return an intrinsic that scores whole tiles; of so many classes, or of as many as given."""

    @intrinsic
    def score_tiles(
        typing_context: Any, stored: Any, predictions: Any, labels: Any, kind: Any,
        tolerance: Any, scratch: Any, c: Any, tiles: Any, outputs: Any,
    ) -> Any:  # fmt: skip
        """Score `tiles` times LANES rows; arrays by their addresses, int64, outputs in a tuple."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            name = f"score_tiles_{classes or 'few'}_{stored}"
            function = builder.module.globals.get(name)
            if function is None:  # one function, however often it is called
                form = ir.FunctionType(ir.VoidType(), ARGUMENTS)
                function = ir.Function(builder.module, form, name)
                function.linkage = "internal"
                function.attributes.add("noinline")
                function.attributes.add("nounwind")
                Emitter(function, classes, str(stored)).emit()
            places = [builder.extract_value(args[-1], k) for k in range(OUTPUTS)]
            builder.call(function, [*args[1:-1], *places])
            return context.get_dummy_value()

        numbers = [types.int64] * 3
        outputs = types.UniTuple(types.int64, OUTPUTS)
        return types.void(stored, *numbers, types.float32, *numbers, outputs), generate

    scorer: Callable[..., None] = score_tiles
    return scorer


score_tiles_two, score_tiles_three, score_tiles_few = map(tile_scorer, (2, 3, None))
