"""What compiled functions ask of the machine's memory: moving a stretch of rows, reading ahead, eight bytes at once."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped_cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

cgutils: Any = untyped_cgutils
_BYTE_POINTER = ir.IntType(8).as_pointer()
_INT = ir.IntType(32)
_TO_WRITE, _ALL_CACHES, _DATA = (ir.Constant(_INT, value) for value in (1, 3, 1))


def _address(context: Any, builder: Any, array: Any, kind: Any, indices: Any) -> Any:
    """Address of array[indices], each index a pair of value and type."""
    table = context.make_array(kind)(context, builder, array)
    address = builder.bitcast(table.data, _BYTE_POINTER)
    for axis, (index, given) in enumerate(indices):
        stride = builder.extract_value(table.strides, axis)
        address = builder.gep(address, [builder.mul(context.cast(builder, index, given, types.int64), stride)])
    return address


@intrinsic
def _move(context: Any, array: Any, to: Any, start: Any, count: Any) -> Any:
    """Move `count` rows of a C-contiguous array from row `start` to row `to`; the two stretches may overlap."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        target = _address(context, builder, arguments[0], kinds[0], [(arguments[1], kinds[1])])
        source = _address(context, builder, arguments[0], kinds[0], [(arguments[2], kinds[2])])
        rows = context.cast(builder, arguments[3], kinds[3], types.int64)
        table = context.make_array(kinds[0])(context, builder, arguments[0])
        cgutils.raw_memmove(builder, target, source, rows, builder.extract_value(table.strides, 0))
        return context.get_dummy_value()

    return types.void(array, to, start, count), generate


@intrinsic
def _fetch(context: Any, array: Any, row: Any, column: Any) -> Any:
    """Begin to load the cache line of array[row, column], which will be wanted soon. A hint: it cannot fail."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        indices = list(zip(arguments[1:], kinds[1:], strict=True))
        address = _address(context, builder, arguments[0], kinds[0], indices)
        form = ir.FunctionType(ir.VoidType(), [_BYTE_POINTER, _INT, _INT, _INT])
        prefetch = cgutils.get_or_insert_function(builder.module, form, "llvm.prefetch.p0i8")
        builder.call(prefetch, [address, _TO_WRITE, _ALL_CACHES, _DATA])
        return context.get_dummy_value()

    return types.void(array, row, column), generate


@intrinsic
def _read_eight(context: Any, array: Any, row: Any, column: Any) -> Any:
    """Return the eight bytes from array[row, column] on as one uint64, the first in its lowest bits."""
    if array.layout != "C":
        raise TypingError("read_eight reads rows of bytes that lie side by side")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        indices = list(zip(arguments[1:], kinds[1:], strict=True))
        address = _address(context, builder, arguments[0], kinds[0], indices)
        word = builder.load(builder.bitcast(address, ir.IntType(64).as_pointer()))
        word.align = 1
        return word

    return types.uint64(array, row, column), generate


# Intrinsics are called without their first argument, the typing context.
move: Any = _move
fetch: Any = _fetch
read_eight: Any = _read_eight
