"""Loops and branches around what an LLVM builder emits, with the values that they carry."""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

SIZE = ir.IntType(64)


class Control:
    """Emits loops and branches at the end of a builder's block."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def loop(
        self, stop: Any, step: int, carried: Sequence[Any], body: Callable[..., Sequence[Any]],
        begin: Any = None,
    ) -> list[Any]:  # fmt: skip
        """Run `body(index, *carried)` for index (i64) begin, begin + step, ... below stop.

        The body returns the next values of what is carried; the last ones are returned. Without
        `begin` it is run from 0 and at least once.
        """
        builder = self.builder
        before, inside = builder.block, builder.append_basic_block("loop")
        after = builder.append_basic_block("after")
        may_skip = begin is not None
        if begin is None:
            begin = ir.Constant(SIZE, 0)
            builder.branch(inside)
        else:
            builder.cbranch(builder.icmp_unsigned("<", begin, stop), inside, after)
        builder.position_at_end(inside)
        values = [begin, *carried]
        phis = [builder.phi(value.type) for value in values]
        for phi, value in zip(phis, values, strict=True):
            phi.add_incoming(value, before)
        results = list(body(*phis))
        following = builder.add(phis[0], ir.Constant(SIZE, step))
        for phi, value in zip(phis, [following, *results], strict=True):
            phi.add_incoming(value, builder.block)
        more = builder.icmp_unsigned("<", following, stop)
        builder.cbranch(more, inside, after)
        end = builder.block
        builder.position_at_end(after)
        if not may_skip:
            return results
        joined = []
        for value, result in zip(carried, results, strict=True):
            phi = builder.phi(value.type)
            phi.add_incoming(value, before)
            phi.add_incoming(result, end)
            joined.append(phi)
        return joined

    def branch(
        self, condition: Any, then: Callable[[], Sequence[Any]],
        otherwise: Callable[[], Sequence[Any]],
    ) -> list[Any]:  # fmt: skip
        """Run one of two by a bit, and return the values that it returned."""
        sides = [self.builder.append_basic_block(name) for name in ("then", "otherwise")]
        after = self.builder.append_basic_block("joined")
        self.builder.cbranch(condition, *sides)
        results, ends = [], []
        for side, emit in zip(sides, (then, otherwise), strict=True):
            self.builder.position_at_end(side)
            results.append(list(emit()))
            ends.append(self.builder.block)
            self.builder.branch(after)
        self.builder.position_at_end(after)
        joined = []
        for values in zip(*results, strict=True):
            phi = self.builder.phi(values[0].type)
            for value, end in zip(values, ends, strict=True):
                phi.add_incoming(value, end)
            joined.append(phi)
        return joined
