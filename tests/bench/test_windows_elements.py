"""Rows of four bits: what they round away, what waits as int8, and every byte they take."""

import pytest
import torch

from benchmarks.windows.elements import Float16, Int4, Int8, Rows, eight_bits, four_bits


def turned(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """A rotary embedding of two channels that turns by one radian a token."""
    angle = positions[:, None].float()
    first, second = x[..., :1], x[..., 1:]
    return torch.cat(
        [first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1
    )


def rows(time: int, channels: int = 2) -> Rows:
    generator = torch.Generator().manual_seed(0)
    return Rows(*torch.randn(2, 1, 1, time, channels, generator=generator))


def test_sixteen_evenly_spaced_numbers_survive_four_bits_exactly() -> None:
    exact = torch.arange(16.0) * 0.5 - 3
    assert torch.equal(four_bits(exact, 16), exact)


def test_each_group_has_a_scale_and_a_minimum_of_its_own() -> None:
    x = torch.tensor([0.0, 15.0, 7.4, 1000.0, 1015.0, 1007.6])
    assert four_bits(x, 3).tolist() == [0.0, 15.0, 7.0, 1000.0, 1015.0, 1008.0]
    # In one group a step is 1015 / 15.
    assert four_bits(x, 6)[2].item() == pytest.approx(0.0)


def test_what_is_rounded_away_is_half_a_step_at_most() -> None:
    x = torch.randn(40, 64, generator=torch.Generator().manual_seed(1))
    grouped = x.unflatten(-1, (-1, 16))
    steps = (grouped.amax(-1, keepdim=True) - grouped.amin(-1, keepdim=True)) / 15
    # Float16 has 11 bits of scale and minimum: at 15 steps less than 1/50 of a step more.
    assert ((four_bits(x, 16).unflatten(-1, (-1, 16)) - grouped).abs() <= steps * 0.52).all()


def test_a_group_that_is_not_whole_is_rounded_by_what_it_holds() -> None:
    x = torch.tensor([5.0, 6.0, 7.0, 8.0, 100.0, 101.5])
    assert four_bits(x, 4)[4:].tolist() == pytest.approx([100.0, 101.5], rel=1e-4)


def test_rows_of_one_number_have_no_scale_and_stay() -> None:
    assert four_bits(torch.full((8,), 2.5), 4).tolist() == [2.5] * 8
    assert four_bits(torch.zeros(0), 4).shape == (0,)


def test_keys_are_rounded_by_channel_over_tokens_and_values_by_token() -> None:
    given = rows(12, 4)
    outlying = given.key.clone()
    outlying[..., 3] *= 1000
    found = Int4(key_group=4, value_group=4, recent=4).found(
        Rows(outlying, given.value), 0, lambda x, positions: x
    )
    # A channel that lies far out spoils no other channel of the keys.
    assert (found.old.key - outlying)[..., :3].abs().max() < 0.3
    assert torch.equal(found.old.value, four_bits(given.value, 4))
    by_hand = outlying[0, 0, 4:8, 1]
    step = (by_hand.max() - by_hand.min()) / 15
    assert (found.old.key[0, 0, 4:8, 1] - by_hand).abs().max() <= step * 0.52


def test_groups_of_keys_begin_behind_the_sinks_and_sinks_are_int8() -> None:
    given = rows(11)
    found = Int4(4, 2, 4).found(given, 3, turned)
    alone = four_bits(given.key[:, :, 3:7].mT, 4).mT
    assert torch.equal(found.old.key[:, :, 3:7], alone)
    assert torch.equal(found.young.key, eight_bits(given.key))


def test_keys_before_turning_are_those_that_a_channel_holds_still() -> None:
    still = Rows(torch.ones(1, 1, 12, 2) * torch.tensor([3.0, 1.0]), torch.zeros(1, 1, 12, 2))
    turning = Rows(turned(still.key, torch.arange(12)), still.value)
    before = Int4(4, 2, 4, before_turning=True).found(turning, 0, turned).old.key
    after = Int4(4, 2, 4).found(turning, 0, turned).old.key
    # Float16 minima of equal keys, nothing else.
    assert (before - turning.key).abs().max() < 2e-3
    assert (after - turning.key).abs().max() > 0.05


@pytest.mark.parametrize(("recent", "young"), [(4, [3, 3, 7, 7]), (8, [3, 3, 3, 3])])
def test_a_group_becomes_old_when_the_latest_rows_have_no_more_room(
    recent: int, young: list[int]
) -> None:
    found = Int4(4, 2, recent).found(rows(20), 3, turned)
    assert found.first_young(torch.tensor([0, 6, 7, 10])).tolist() == young
    assert found.first_young(torch.tensor([11])).tolist() == [11 - recent + 4]


def test_nothing_of_float16_and_int8_becomes_old() -> None:
    now = torch.tensor([0, 5, 19])
    for element in (Float16(), Int8()):
        found = element.found(rows(20), 3, turned)
        assert found.first_young(now).tolist() == [0, 0, 0]


def test_every_byte_of_a_ring_counts() -> None:
    assert Float16().bytes(100, 10, 64) == 110 * 256
    assert Int8().bytes(100, 10, 64) == 110 * (128 + 8)
    # 10 sinks and 32 waiting rows as int8; 4 groups of 32 keys, each with 64 scales and minima;
    # 128 values of 32 bytes, each with a scale and a minimum.
    assert Int4(32, 64, 32).bytes(128, 10, 64) == 42 * 136 + 4 * (1024 + 256) + 128 * (32 + 4)
    assert Int4(32, 32, 32).bytes(128, 10, 64) == Int4(32, 64, 32).bytes(128, 10, 64) + 128 * 4
    # A group that the window needs in part lies there whole.
    assert Int4(32, 64, 32).bytes(100, 10, 64) == Int4(32, 64, 32).bytes(128, 10, 64)
    # Of two waiting groups one is always there, and its rows need not lie as int4.
    assert Int4(32, 64, 64).bytes(160, 10, 64) == 74 * 136 + 4 * (1024 + 256) + 128 * 36


def test_a_long_ring_of_int4_holds_more_than_three_times_the_rows() -> None:
    assert Float16().bytes(4096, 32, 64) / Int4().bytes(4096, 32, 64) > 3.2
