"""What is found of a block of a row, in two passes: its order, then its sums; see `score_rows`.

A block is told by where all rows begin, the place `at` of its first value among theirs, and how
many values it has. Values are taken in groups of GROUP, then in vectors; the last vector begins
before its time, so that it ends with the block, and its first lanes, which had their turn, are
left out. No value outside the row is read, which needs rows of GROUP values at least.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from fastdiv_kernels.cpu.jit import cgutils, intrinsic, types
from fastdiv_kernels.cpu.row_lanes import INT64, LINE, MASKS, Lanes

GROUP = 64  # values: as many as a mask has bits
PARTS = 4 if MASKS else 2  # of a sum, so that additions need not wait for each other
LINES_IN_ORDER = 2  # of a group, that the first pass asks for; the second asks for the others


@intrinsic
def values_of(typing_context: Any, array: Any) -> Any:
    """Return where an array's values are, in C order.

    Functions that take it, and no array, count no references. Measured: functions with a branch
    that take arrays do, once each time they are called, which takes 40 cycles an array.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_array(signature.args[0])(context, builder, args[0]).data

    if not (isinstance(array, types.Array) and array.layout == "C"):
        raise TypeError(f"rows must follow one another, which {array} does not promise")
    return types.CPointer(array.dtype)(array), generate


@intrinsic
def part_of(typing_context: Any, values: Any, at: Any) -> Any:
    """Return where the value `at` of some is."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return values(values, types.int64), generate


@intrinsic
def block_order(
    typing_context: Any, data: Any, at: Any, count: Any, of_label: Any, label: Any, ahead: Any,
    room: Any,
) -> Any:  # fmt: skip
    """Return the two largest values, where to look for the first, and how many are ahead.

    The block is copied to `room`, as real numbers.

    The second is the largest of all but one in the same lane of one vector of the group that
    begins at the third, a place. Ahead of the label, which stands at `label`, are
    values of `of_label` or more in groups that end before it, and values above `of_label` in all
    others: what ties with the label in its own group is not counted.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block = Block(builder, signature.args[0], args)
        lanes, b = block.lanes, builder
        below = lanes.constant(float("-inf"))
        first, second = block.vectors(below), block.vectors(below)
        where = block.vectors(lanes.whole(0))
        better = [block.vectors(lanes.none()) for _ in range(PARTS)]
        above, y = (b.bitcast(x, lanes.integer) for x in (lanes.next_above(args[3]), args[3]))
        change = b.xor(above, y)

        def visit(xs: list[Any], start: Any) -> None:
            """Take vectors that begin `start` values into the block."""
            b = block.builder
            end = b.add(args[1], b.add(start, INT64(GROUP)))
            # All bits where the group ends before the label; a choice would be a branch.
            before = b.ashr(b.sub(b.sub(end, INT64(1)), args[4]), INT64(63))
            before = before if lanes.integer == INT64 else b.trunc(before, lanes.integer)
            bits = b.xor(above, b.and_(change, before))
            threshold = lanes.spread(b.bitcast(bits, lanes.real))
            for k, x in enumerate(xs):
                n = better[k % PARTS]
                b.store(lanes.counted(b.load(n), b.fcmp_ordered(">=", x, threshold)), n)
            while len(xs) > 1:
                xs = [lanes.larger(x, y) for x, y in zip(xs[::2], xs[1::2], strict=True)]
            m = b.load(first)
            lesser = b.select(b.fcmp_ordered(">", m, xs[0]), xs[0], m)
            b.store(lanes.larger(lesser, b.load(second)), second)
            number = lanes.spread(b.trunc(start, lanes.integer))
            b.store(b.select(b.fcmp_ordered(">", xs[0], m), number, b.load(where)), where)
            b.store(lanes.larger(xs[0], m), first)

        block.run(visit, below, args[5], args[6])
        m, at_lane = b.load(first), b.load(where)
        highest = lanes.fold(m, lanes.larger)
        top = b.fcmp_ordered("==", m, lanes.spread(highest))
        far = lanes.whole(0x7FFFFFFF)
        group = lanes.fold(b.select(top, at_lane, far), lanes.least)
        there = b.and_(top, b.icmp_signed("==", at_lane, lanes.spread(group)))
        rest = lanes.fold(b.select(there, b.load(second), m), lanes.larger)
        add = b.fadd if better[0].type.pointee == lanes.vector else b.add
        count = lanes.sum_of_counts(block.sum(better, add))
        results = (highest, rest, block.place(group), count)
        return context.make_tuple(builder, signature.return_type, results)

    result = types.Tuple((of_label, of_label, types.int64, types.int64))
    given = (data, types.int64, types.int64, of_label, types.int64, types.int64, room)
    return result(*given), generate


@intrinsic
def leave_out(typing_context: Any, room: Any, count: Any, but: Any, x: Any) -> Any:
    """Put x, which adds nothing to sums, into a copy of `count` values: for `but`, and at the end.

    Long before the copy is read: a vector that is read waits for what is stored into a part of it.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = Lanes(builder, signature.args[0].dtype)
        room, count, but, x = args
        lanes.store(lanes.spread(x), builder.gep(room, [count]))
        builder.store(x, builder.gep(room, [but]))
        return context.get_dummy_value()

    return types.void(room, types.int64, types.int64, room.dtype), generate


@intrinsic
def block_exps(
    typing_context: Any, room: Any, count: Any, m: Any, data: Any, at: Any, ahead: Any
) -> Any:
    """Sum u = exp(x - m), and u**2, of a copy that ends in -inf; NaN where a value is.

    No value may be above m, and none matters where m is -inf. What stands `ahead` bytes after
    the block, which is at `at` in `data`, is asked for on the way.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        copy = Copy(builder, signature, args)
        lanes, b = copy.lanes, builder
        infinity = ir.Constant(lanes.real, float("-inf"))
        s, q = ([copy.vectors(lanes.constant(0.0)) for _ in range(PARTS)] for _ in range(2))
        masked = b.fcmp_ordered("==", args[2], infinity)
        m = lanes.spread(b.select(masked, ir.Constant(lanes.real, 0.0), args[2]))

        def visit(xs: list[Any]) -> None:
            for k, x in enumerate(xs):
                copy.add(s[k % PARTS], q[k % PARTS], lanes.exp(b.fsub(x, m)))

        copy.run(visit)
        results = [lanes.fold(copy.sum(parts, b.fadd), b.fadd) for parts in (s, q)]
        return context.make_tuple(builder, signature.return_type, results)

    return types.Tuple((m, m))(room, types.int64, m, data, types.int64, types.int64), generate


@intrinsic
def block_probs(
    typing_context: Any, room: Any, count: Any, m: Any, data: Any, at: Any, ahead: Any
) -> Any:
    """Sum x, and x**2, of a copy that ends in 0, and find the smallest, or 0; see `block_exps`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        copy = Copy(builder, signature, args)
        lanes, b = copy.lanes, builder
        zero = lanes.constant(0.0)
        s, q = ([copy.vectors(zero) for _ in range(PARTS)] for _ in range(2))
        lowest = copy.vectors(zero)

        def visit(xs: list[Any]) -> None:
            for k, x in enumerate(xs):
                copy.add(s[k % PARTS], q[k % PARTS], x)
                b.store(lanes.smaller(x, b.load(lowest)), lowest)

        copy.run(visit)
        results = [lanes.fold(copy.sum(parts, b.fadd), b.fadd) for parts in (s, q)]
        results.append(lanes.fold(b.load(lowest), lanes.smaller))
        return context.make_tuple(builder, signature.return_type, results)

    return types.Tuple((m, m, m))(room, types.int64, m, data, types.int64, types.int64), generate


@intrinsic
def group_equal(typing_context: Any, data: Any, at: Any, x: Any) -> Any:
    """Return which of the GROUP values from `at` on equal x, the first in the lowest bit."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes, xs = _group(builder, signature, args)
        wanted = lanes.spread(args[2])
        return _mask(builder, [builder.fcmp_ordered("==", x, wanted) for x in xs], lanes.width)

    return types.uint64(data, types.int64, x), generate


@intrinsic
def group_highest_but(typing_context: Any, data: Any, at: Any, but: Any, x: Any) -> Any:
    """Return the largest of the GROUP values from `at` on, without number `but`, and of x."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes, xs = _group(builder, signature, args)
        b = builder
        left_out = b.trunc(args[2], lanes.integer) if lanes.integer != INT64 else args[2]
        highest = lanes.spread(args[3])
        for k, x in enumerate(xs):
            number = b.add(lanes.indices(), lanes.whole(k * lanes.width))
            keeps = b.icmp_signed("!=", number, lanes.spread(left_out))
            highest = lanes.larger(b.select(keeps, x, lanes.constant(float("-inf"))), highest)
        return lanes.fold(highest, lanes.larger)

    return x(data, types.int64, types.int64, x), generate


@intrinsic
def lowest_bit(typing_context: Any, mask: Any) -> Any:
    """Return the number of the lowest bit of a uint64 that is set; 64 where none is."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic
def bits_set(typing_context: Any, mask: Any) -> Any:
    """Return how many bits of a uint64 are set."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.uint64), generate


class Loops:
    """Writes loops and what they carry on."""

    def __init__(self, builder: Any, stored: Any) -> None:
        self.builder = builder
        self.lanes = Lanes(builder, stored)

    def vectors(self, start: Any) -> Any:
        """Return room for a vector that is carried from one turn to the next."""
        room = cgutils.alloca_once(self.builder, start.type)
        self.builder.store(start, room)
        return room

    def sum(self, parts: list[Any], add: Callable[[Any, Any], Any]) -> Any:
        """Return the sum of a power of two of vectors."""
        xs = [self.builder.load(part) for part in parts]
        while len(xs) > 1:
            xs = [add(x, y) for x, y in zip(xs[::2], xs[1::2], strict=True)]
        return xs[0]

    @contextmanager
    def steps(self, start: Any, stop: Any, step: int) -> Iterator[Any]:
        """Write a loop over start, start + step, ..., below stop."""
        b = self.builder
        i = cgutils.alloca_once(b, INT64)
        b.store(start, i)
        head, body, after = (b.append_basic_block() for _ in range(3))
        b.branch(head)
        b.position_at_end(head)
        b.cbranch(b.icmp_signed("<", b.load(i), stop), body, after)
        b.position_at_end(body)
        at = b.load(i)
        yield at
        b.store(b.add(at, INT64(step)), i)
        b.branch(head)
        b.position_at_end(after)


class Block(Loops):
    """Writes the loops over a block where it is given."""

    def __init__(self, builder: Any, data: Any, args: Any) -> None:
        """Write of the type of a pointer and the arguments (data, at, count, ...)."""
        super().__init__(builder, data.dtype)
        self.data = self.lanes.address(args[0], args[1])
        self.at, self.count = args[1], args[2]

    def place(self, number: Any) -> Any:
        """Return where a number of the block lies."""
        return self.builder.add(
            self.at, number if number.type == INT64 else self.builder.sext(number, INT64)
        )

    def run(
        self, visit: Callable[[list[Any], Any], None], left_out: Any, ahead: Any, room: Any
    ) -> None:
        """Copy and visit all values; lanes of the last vector that had their turn are `left_out`.

        Of what stands `ahead` bytes after each group LINES_IN_ORDER lines of cache are asked for.
        """
        b, lanes = self.builder, self.lanes
        width = INT64(lanes.width)
        whole = b.and_(self.count, INT64(-GROUP))
        with self.steps(INT64(0), whole, GROUP) as start:
            place = lanes.address(self.data, start)
            for line in range(LINES_IN_ORDER):
                lanes.prefetch(place, b.add(ahead, INT64(line * LINE)))
            xs = [lanes.load(place, k) for k in range(GROUP // lanes.width)]
            for k, x in enumerate(xs):
                lanes.store(x, b.gep(room, [start]), k)
            visit(xs, start)
        vectors = b.and_(self.count, INT64(-lanes.width))
        with self.steps(whole, vectors, lanes.width) as start:
            x = lanes.load(lanes.address(self.data, start))
            lanes.store(x, b.gep(room, [start]))
            visit([x], start)
        rest = b.sub(self.count, vectors)
        with b.if_then(b.icmp_signed(">", rest, INT64(0))):
            start = b.sub(self.count, width)
            had = b.sub(width, rest)
            had = had if lanes.integer == INT64 else b.trunc(had, lanes.integer)
            mine = b.icmp_signed(">=", lanes.indices(), lanes.spread(had))
            x = lanes.load(lanes.address(self.data, start))
            lanes.store(x, b.gep(room, [start]))
            visit([b.select(mine, x, left_out)], start)


class Copy(Loops):
    """Writes the loops over the copy of a block that `block_order` made."""

    def __init__(self, builder: Any, signature: Any, args: Any) -> None:
        """Write of the arguments (room, count, m, data, at, ahead)."""
        super().__init__(builder, signature.args[0].dtype)
        self.room, self.count, _, data, at, self.ahead = args
        stored = Lanes(builder, signature.args[3].dtype)
        self.bytes = stored.bytes
        self.data = stored.address(data, at)

    def add(self, s: Any, q: Any, u: Any) -> None:
        """Add u and its square to two vectors."""
        b = self.builder
        b.store(b.fadd(b.load(s), u), s)
        b.store(self.lanes.fused(u, u, b.load(q)), q)

    def run(self, visit: Callable[[list[Any]], None]) -> None:
        """Visit all vectors, and ask for the lines of cache that `Block.run` does not ask for."""
        b, lanes = self.builder, self.lanes
        lines = range(LINES_IN_ORDER, GROUP * self.bytes // LINE)
        whole = b.and_(self.count, INT64(-GROUP))
        with self.steps(INT64(0), whole, GROUP) as start:
            place = b.gep(self.data, [b.mul(start, INT64(self.bytes))])
            for line in lines:
                lanes.prefetch(place, b.add(self.ahead, INT64(line * LINE)))
            place = lanes.address(self.room, start)
            visit([lanes.load(place, k) for k in range(GROUP // lanes.width)])
        with self.steps(whole, self.count, lanes.width) as start:
            if lines:
                place = b.gep(self.data, [b.mul(start, INT64(self.bytes))])
                lanes.prefetch(place, self.ahead)
            visit([lanes.load(lanes.address(self.room, start))])


def _group(builder: Any, signature: Any, args: Any) -> tuple[Lanes, list[Any]]:
    """Load the GROUP values from args[1] on."""
    lanes = Lanes(builder, signature.args[0].dtype)
    place = lanes.address(args[0], args[1])
    return lanes, [lanes.load(place, k) for k in range(GROUP // lanes.width)]


def _mask(builder: Any, parts: list[Any], width: int) -> Any:
    """Make one mask of the comparisons of vectors, the first in the lowest bits."""
    mask = INT64(0)
    for k, part in enumerate(parts):
        bits = builder.zext(builder.bitcast(part, ir.IntType(width)), INT64)
        mask = builder.or_(mask, builder.shl(bits, INT64(k * width)))
    return mask
