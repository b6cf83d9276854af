"""The state and the place in the text: copies are independent, bad numbers are found."""

from __future__ import annotations

import numpy as np
import pytest
import stand_in

from allmem_runtime.engine.buffers import DeviceTensors
from allmem_runtime.engine.devices import Device
from allmem_runtime.spec import past_name
from allmem_runtime.state import RECENT_TOKENS, Place, not_finite, zero

SPEC = stand_in.manifest({}).state
CPU = Device("cpu", 0, "")


def tensors() -> DeviceTensors:
    return DeviceTensors(SPEC, CPU)


def test_copy_is_independent() -> None:
    first, second = tensors(), tensors()
    first.write("past.1.weights", np.full((1, 1, 3, 8, 4), 7, np.float32))

    second.copy_from(first)
    zero(SPEC, first)

    assert (second.read("past.1.weights") == 7).all()
    assert not first.read("past.1.weights").any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [past_name(layer, t.name) for layer, t in SPEC])
def test_value_that_is_not_finite_is_found_in_every_tensor(name: str, bad: float) -> None:
    values = tensors()
    array = values.read(name).copy()
    array.flat[-1] = bad
    values.write(name, array)

    assert not_finite(SPEC, values) == name


def test_sum_that_overflows_is_no_false_alarm() -> None:
    values = tensors()
    values.write("past.0.weights", np.full((1, 1, 3, 8, 4), 3e38, np.float32))
    values.write("past.0.key", np.full((1, 1, 66, 4), 65504, np.float16))

    assert not_finite(SPEC, values) is None


def test_wrong_type_is_never_written() -> None:
    with pytest.raises(TypeError):
        tensors().write("past.0.key", np.zeros((1, 1, 66, 4), np.float32))


def test_place_forgets_old_tokens_and_keeps_the_newest() -> None:
    place = Place(pending=list(range(RECENT_TOKENS + 10)))

    place.advance(RECENT_TOKENS + 5)

    assert place.recent == list(range(5, RECENT_TOKENS + 5))
    assert place.pending == list(range(RECENT_TOKENS + 5, RECENT_TOKENS + 10))
    assert place.position == RECENT_TOKENS + 5


def test_copied_place_shares_nothing() -> None:
    place = Place(pending=[1], recent=[2])
    copy = place.copy()
    place.advance(1)
    place.source.offset = 9

    assert (copy.pending, copy.recent, copy.position, copy.source.offset) == ([1], [2], 0, 0)
