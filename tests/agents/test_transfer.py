"""Arrays on their way to a device and back: what arrives is what was sent."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lepton_rl.agents.sb3.transfer import ALIGNMENT, Arrays, Packing, Sender, Transfer

CPU = torch.device("cpu")
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU here")

shapes = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    st.tuples(
        st.lists(st.integers(1, 5), max_size=3).map(tuple),
        st.sampled_from([np.float32, np.float16, np.uint8, np.int8, np.int64, np.bool_]),
    ),
    min_size=1,
    max_size=6,
)


def some_arrays(seed: int = 0, rows: int = 6) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        "queue": rng.random((rows, 4, 3), np.float32),
        "half": rng.random((rows, 5)).astype(np.float16),
        "levels": rng.integers(0, 256, (rows, 7), np.uint8),
        "mask": rng.integers(0, 2, (rows, 9), np.int8),
        "rows": rng.integers(0, 2**40, rows),
    }


@given(shapes, st.integers(1, 2))
def test_arrays_in_a_block_neither_overlap_nor_leave_it(
    layout: dict[str, tuple[tuple[int, ...], type]], steps: int
) -> None:
    packing = Packing(layout)
    block = torch.zeros((steps, packing.size), dtype=torch.uint8)
    arrays = packing.arrays(block)
    rng = np.random.default_rng(0)
    expected: Arrays = {}
    for name, array in arrays.items():
        shape, dtype = layout[name]
        assert array.shape == (steps, *shape)
        assert array.dtype == dtype
        assert packing.entries[name].offset % ALIGNMENT == 0
        expected[name] = rng.integers(0, 2, array.shape).astype(dtype)
        array[...] = expected[name]
    for name, tensor in packing.tensors(block).items():
        np.testing.assert_array_equal(tensor.numpy(), expected[name])
    assert packing.used == sum(entry.size for entry in packing.entries.values()) <= packing.size
    assert packing.size == sum(-(-entry.size // ALIGNMENT) * ALIGNMENT for entry in packing.entries.values())


def test_on_a_cpu_nothing_is_copied() -> None:
    transfer, arrays = Transfer(CPU), some_arrays()
    sent = transfer.send(arrays)
    back = transfer.fetch(sent)
    for name, array in arrays.items():
        assert sent[name].data_ptr() == array.ctypes.data
        assert np.shares_memory(back[name], array)
    assert transfer.sent_bytes == transfer.fetched_bytes == 0


def test_a_block_is_sent_to_its_place() -> None:
    arrays = some_arrays()
    packing = Packing({name: (array.shape, array.dtype) for name, array in arrays.items()})
    blocks = torch.zeros((3, packing.size), dtype=torch.uint8)
    sent = Sender(packing, CPU).send(arrays, blocks[1])
    for name, view in packing.tensors(blocks).items():
        np.testing.assert_array_equal(view[1].numpy(), arrays[name])
        assert sent[name].data_ptr() == view[1].data_ptr()
        assert not view[0].any()
        assert not view[2].any()


def test_arrays_of_another_dtype_are_not_sent_as_if_they_were_of_this() -> None:
    packing = Packing({"x": ((2,), np.uint8)})
    with pytest.raises(TypeError):
        Sender(packing, CPU).send({"x": np.ones(2, np.float32)}, torch.zeros(packing.size, dtype=torch.uint8))


def take_from(arrays: Arrays, order: NDArray[np.int64], room: Arrays) -> None:
    for name, target in room.items():
        target[...] = arrays[name][order]


def batches_arrive_in_order(device: torch.device) -> None:
    arrays = some_arrays(rows=40)
    rng = np.random.default_rng(1)
    orders = [rng.permutation(40)[:8] for _ in range(7)]
    packing = Packing({name: ((8, *array.shape[1:]), array.dtype) for name, array in arrays.items()})
    sender = Sender(packing, device)
    for _ in range(2):  # the second time both blocks are there
        seen = 0
        for order, batch in zip(
            orders, sender.batches(orders, lambda order, room: take_from(arrays, order, room)), strict=True
        ):
            for name, tensor in batch.items():
                plain = torch.from_numpy(arrays[name][order]).to(device)
                assert torch.equal(tensor, plain)
            seen += 1
        assert seen == 7
    # one that is left early does no harm to the next
    next(sender.batches(orders, lambda order, room: take_from(arrays, order, room)))
    last = next(sender.batches(orders[3:], lambda order, room: take_from(arrays, order, room)))
    assert torch.equal(last["rows"].cpu(), torch.from_numpy(arrays["rows"][orders[3]]))


def test_batches_arrive_in_order() -> None:
    batches_arrive_in_order(CPU)


def test_batches_of_nothing_are_none() -> None:
    assert not list(Sender(Packing({"x": ((2,), np.uint8)}), CPU).batches([], lambda order, room: None))


@cuda
def test_batches_arrive_in_order_on_a_gpu() -> None:
    batches_arrive_in_order(torch.device("cuda"))


@cuda
def test_a_gpu_gets_and_gives_back_the_same_bytes() -> None:
    transfer = Transfer("cuda")
    earlier = None
    for seed in range(5):
        arrays = some_arrays(seed)
        sent = transfer.send(arrays)
        for name, array in arrays.items():
            assert torch.equal(sent[name], torch.from_numpy(array).to("cuda"))
        if earlier is not None:  # two blocks: the one before is whole yet
            for name, array in some_arrays(seed - 1).items():
                np.testing.assert_array_equal(earlier[name].cpu().numpy(), array)
        back = transfer.fetch(sent)
        for name, array in arrays.items():
            np.testing.assert_array_equal(back[name], array)
        earlier = sent
    packing = Packing({name: (array.shape, array.dtype) for name, array in arrays.items()})
    assert transfer.sent_bytes == transfer.fetched_bytes == 5 * packing.size


@cuda
def test_a_block_is_not_overwritten_while_the_gpu_computes_on_it() -> None:
    rng = np.random.default_rng(0)
    matrices = rng.random((12, 700, 700), np.float32)
    sender = Sender(Packing({"x": ((700, 700), np.float32)}), torch.device("cuda"))
    results = []
    for batch in sender.batches(list(range(12)), lambda index, room: np.copyto(room["x"], matrices[index])):
        product = batch["x"]
        for _ in range(20):  # longer than the copy that comes behind it
            product = torch.tanh(batch["x"] @ product)
        results.append(product)
    for index, result in enumerate(results):
        x = torch.from_numpy(matrices[index]).to("cuda")
        expected = x
        for _ in range(20):
            expected = torch.tanh(x @ expected)
        assert torch.equal(result, expected)
