"""What holds for the memory whatever its weights: streaming, boundaries, schedules, bounds."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_documents import (
    CHUNK,
    DIM,
    HEADS,
    WIDTH,
    blank_state,
    document,
    options,
    read,
    relative_rms,
    step,
)

from allmem_ops.reference.memory import normalized

# Any order of float64 sums over a chunk and a few commits.
SAME = 1e-12
TIME = 3 * CHUNK + 4


def assert_same_state(actual, expected, tolerance=SAME):
    for name, array in expected.items():
        assert relative_rms(actual[name], array) <= tolerance, name


@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(1, TIME - 1)), inner_loss=st.sampled_from(["neg_dot", "l2"]))
def test_any_split_gives_what_the_whole_document_gives(cuts, inner_loss):
    attributes = options(inner_loss=inner_loss)
    inputs = document(TIME, batch=2, seed=10)
    whole, end = read(inputs, attributes)
    parts, end_of_parts = read(inputs, attributes, cuts=cuts)
    assert relative_rms(parts, whole) <= SAME
    assert_same_state(end_of_parts, end)


@pytest.mark.parametrize("stop", [1, CHUNK - 1, CHUNK, CHUNK + 2, 3 * CHUNK])
def test_saved_and_restored_state_goes_on_as_if_never_stopped(stop):
    inputs = document(TIME, seed=11)
    whole, end = read(inputs, options(), cuts=[stop])
    _, state = read({**inputs, "qkv": inputs["qkv"][:, :stop]}, options())
    file = io.BytesIO()
    np.savez(file, **state)
    file.seek(0)
    restored = dict(np.load(file))
    rest, end_of_rest = read(inputs, options(), state=restored, begin=stop)
    assert np.array_equal(rest, whole[:, stop:])
    assert_same_state(end_of_rest, end, 0.0)


def test_restarting_the_chunks_at_a_call_is_another_memory():
    inputs = document(TIME, seed=12)
    whole, _ = read(inputs, options())
    _, state = read({**inputs, "qkv": inputs["qkv"][:, :4]}, options())
    # As if token 4 stood at a boundary: its position is shifted to the next multiple.
    restarted, _ = read(inputs, options(), state=state, begin=4, at=CHUNK - 4)
    assert relative_rms(restarted, whole[:, 4:]) > 1e-2


def test_state_of_zeros_at_position_0_holds_the_initial_weights():
    inputs = document(TIME, seed=13)
    blank = blank_state(inputs)
    told = {**blank, "weights": inputs["initial_weights"][None].copy()}
    garbage = {**blank, "weights": np.full_like(blank["weights"], 1e9)}
    whole, end = read(inputs, options(), state=blank)
    for state in (told, garbage):
        output, after = read(inputs, options(), state=state)
        assert np.array_equal(output, whole)
        assert_same_state(after, end, 0.0)


def test_past_weights_count_everywhere_but_at_position_0():
    inputs = document(2, seed=14)
    state = blank_state(inputs)
    state["weights"] += inputs["initial_weights"][None]
    doubled = {**state, "weights": 2.0 * state["weights"]}
    for at, equal in ((0, True), (1, False), (CHUNK, False)):
        first, _ = step(inputs, state, 0, 1, options(), at)
        second, _ = step(inputs, doubled, 0, 1, options(), at)
        assert np.array_equal(first, second) is equal


@pytest.mark.parametrize("position", [1, CHUNK, CHUNK + 2, 3 * CHUNK])
def test_piece_of_no_tokens_changes_nothing_even_at_a_boundary(position):
    inputs = document(TIME, seed=15)
    _, state = read({**inputs, "qkv": inputs["qkv"][:, :position]}, options())
    assert state["weights"].any()
    output, after = step(inputs, state, position, position, options())
    assert output.shape == (1, 0, WIDTH)
    assert_same_state(after, state, 0.0)


def test_piece_of_no_tokens_at_position_0_leaves_a_blank_memory():
    inputs = document(TIME, seed=16)
    whole, _ = read(inputs, options())
    _, after = step(inputs, blank_state(inputs), 0, 0, options())
    assert np.array_equal(after["weights"][0], inputs["initial_weights"])
    assert not any(after[name].any() for name in after if name != "weights")
    assert np.array_equal(read(inputs, options(), state=after)[0], whole)


@pytest.mark.parametrize(("position", "time"), [(0, CHUNK + 1), (4, 3), (13, 30)])
def test_crossing_a_chunk_boundary_is_refused_with_the_numbers(position, time):
    inputs = document(time, seed=17)
    with pytest.raises(ValueError, match="boundary") as caught:
        step(inputs, blank_state(inputs), 0, time, options(), at=position)
    for number in (time, position, CHUNK):
        assert f" {number} " in str(caught.value).replace(";", " ")


def test_whole_chunks_of_tokens_move_a_memory_past_2_to_the_53_alike():
    inputs = document(2 * CHUNK + 3, seed=18)
    state = blank_state(inputs)
    state["weights"] += inputs["initial_weights"][None]
    near, end_near = read(inputs, options(), state=state, at=CHUNK)
    for multiple in (2**31 // CHUNK + 1, 2**53 // CHUNK + 1, (2**63 - 1) // CHUNK - 5):
        far, end_far = read(inputs, options(), state=state, at=CHUNK * multiple)
        assert np.array_equal(far, near)
        assert_same_state(end_far, end_near, 0.0)


def test_edited_token_reaches_its_chunk_only_through_the_convolution():
    kernel, edited = 3, CHUNK + 1
    inputs = document(TIME, kernel=kernel, seed=19)
    changed = {**inputs, "qkv": inputs["qkv"].copy()}
    changed["qkv"][:, edited] += 1.0
    before, _ = read(inputs, options())
    after, _ = read(changed, options())
    differs = [t for t in range(TIME) if not np.array_equal(before[0, t], after[0, t])]
    in_reach = list(range(edited, edited + kernel))
    assert differs == in_reach + list(range(2 * CHUNK, TIME))


def test_edited_learning_rate_and_momentum_change_nothing_before_the_next_chunk():
    inputs = document(TIME, seed=20)
    before, _ = read(inputs, options())
    for column in range(4 * HEADS):
        changed = {**inputs, "control": inputs["control"].copy()}
        changed["control"][:, CHUNK + 1, column] += 1.0
        after, _ = read(changed, options())
        differs = np.flatnonzero((before != after).any(axis=(0, 2)))
        # The momentum of chunk 1 multiplies the update of chunk 0, which is not zero.
        assert differs[0] == 2 * CHUNK, column
        touched = np.flatnonzero((before != after).any(axis=(0, 1))) // DIM
        assert set(touched) == {column % HEADS}, "a control column belongs to one head"


def test_first_chunk_reads_the_static_network():
    inputs = document(CHUNK, seed=21)
    before, _ = read(inputs, options())
    faster = {**inputs, "control": inputs["control"].copy()}
    faster["control"][:, :, : 4 * HEADS] += 3.0
    assert np.array_equal(read(faster, options())[0], before)


def test_post_schedule_shares_weights_and_momentum_with_read_norm_write():
    inputs = document(TIME, seed=22)
    read_first, state_first = read(inputs, options())
    post, state_post = read(inputs, options(norm_schedule="post"))
    assert_same_state(state_post, state_first, 0.0)
    assert relative_rms(post[:, :CHUNK], read_first[:, :CHUNK]) < SAME
    assert relative_rms(post[:, CHUNK:], read_first[:, CHUNK:]) > 1e-3


def test_stored_weights_are_the_normalized_ones_plus_the_momentum():
    inputs = document(3 * CHUNK, seed=23)
    _, before = read({**inputs, "qkv": inputs["qkv"][:, : 2 * CHUNK]}, options())
    _, after = read(inputs, options())
    for head in range(HEADS):
        onto = normalized(before["weights"][0, head], inputs["initial_norms"][head], 1e-6)
        expected = onto + after["momentum"][0, head]
        assert relative_rms(after["weights"][0, head], expected) < SAME


@pytest.mark.parametrize("clip", [0.01, 0.1, 1e6])
def test_clip_bounds_each_matrix_of_a_chunk_and_keeps_its_direction(clip):
    inputs = document(CHUNK, seed=24)
    free = -read(inputs, options(clip=0.0))[1]["momentum"][0]
    bound = -read(inputs, options(clip=clip))[1]["momentum"][0]
    limits = clip * np.linalg.norm(inputs["initial_weights"], axis=(2, 3))
    lengths = np.linalg.norm(free, axis=(2, 3))
    expected = free * np.minimum(1.0, limits / lengths)[:, :, None, None]
    assert relative_rms(bound, expected) < SAME
    if clip < 1:
        assert (lengths > limits).any(), "the document must be one that meets the clip"


def test_momentum_is_kept_by_the_mean_over_its_chunk():
    inputs = document(2 * CHUNK, seed=25)
    # Learning rates of exactly zero in the second chunk leave only the momentum's own decay.
    inputs["control"][:, CHUNK:, : 3 * HEADS] = -1e4
    _, first = read({**inputs, "qkv": inputs["qkv"][:, :CHUNK]}, options())
    _, second = read(inputs, options())
    logits = inputs["control"][0, CHUNK:, 3 * HEADS : 4 * HEADS]
    keep = (1.0 / (1.0 + np.exp(-logits))).mean(axis=0)
    expected = keep[:, None, None, None] * first["momentum"][0]
    assert relative_rms(second["momentum"][0], expected) < SAME


def test_mean_over_a_chunk_is_the_sum_over_its_length():
    inputs = document(CHUNK, seed=26)
    _, summed = read(inputs, options(clip=0.0))
    _, averaged = read(inputs, options(clip=0.0, lr_reduce="mean"))
    assert relative_rms(averaged["momentum"] * CHUNK, summed["momentum"]) < SAME


@pytest.mark.parametrize("inner_loss", ["neg_dot", "l2"])
def test_a_written_value_is_closer_when_its_key_is_read(inner_loss):
    inputs = document(2 * CHUNK, kernel=1, seed=27)
    inputs["norm_gain"][:] = 1.0
    queries, keys, values = inputs["qkv"].reshape(2 * CHUNK, 3, WIDTH).transpose(1, 0, 2)
    queries[CHUNK:] = keys[:CHUNK]  # the second chunk asks for what the first one wrote
    # Small steps, so that the loss must fall.
    inputs["control"][:, :, : 3 * HEADS] = -4.0
    attributes = options(
        inner_loss=inner_loss, out_norm=0, out_gate="none", conv_activation="none", clip=0.0
    )
    inputs["conv_weight"][:] = 1.0
    after, _ = read(inputs, attributes)
    unlearned = {**inputs, "control": np.full_like(inputs["control"], -1e4)}
    before, _ = read(unlearned, attributes)
    target = values[:CHUNK]
    if inner_loss == "neg_dot":
        assert (after[0, CHUNK:] * target).sum() > (before[0, CHUNK:] * target).sum()
    else:
        assert ((after[0, CHUNK:] - target) ** 2).sum() < ((before[0, CHUNK:] - target) ** 2).sum()


def test_rows_of_a_batch_do_not_touch_each_other():
    inputs = document(TIME, batch=3, seed=28)
    together, end = read(inputs, options())
    for row in range(3):
        alone = {**inputs, **{k: inputs[k][row : row + 1] for k in ("qkv", "control")}}
        output, state = read(alone, options())
        assert relative_rms(together[row], output[0]) < SAME
        assert_same_state({name: array[row : row + 1] for name, array in end.items()}, state)


@pytest.mark.parametrize("conv_activation", ["silu", "silu_qk", "none"])
@pytest.mark.parametrize("value_norm", ["none", "rms", "l2"])
def test_tokens_of_zeros_give_finite_numbers(value_norm, conv_activation):
    inputs = document(TIME, seed=29)
    inputs["qkv"][:] = 0.0
    output, state = read(inputs, options(value_norm=value_norm, conv_activation=conv_activation))
    assert np.isfinite(output).all()
    assert all(np.isfinite(array).all() for array in state.values())


@pytest.mark.parametrize("activation", [np.float16, np.float32, np.float64])
def test_output_has_the_type_of_the_tokens_and_state_keeps_its_own(activation):
    inputs = document(CHUNK, seed=30)
    inputs["qkv"], inputs["control"] = (inputs[n].astype(activation) for n in ("qkv", "control"))
    state = blank_state(inputs, element=np.float32)
    copies = {name: array.copy() for name, array in state.items()}
    output, after = read(inputs, options(), state=state)
    assert output.dtype == activation
    assert {array.dtype for array in after.values()} == {np.dtype(np.float32)}
    assert_same_state(state, copies, 0.0)
