"""The attention's reference, a ring, against dense masked attention over the whole document."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allmem_ops.reference import ring_slot, sliding_window_attention

# Two float64 evaluations of one softmax; angles below a hundred radians.
SAME = 1e-12


@dataclass(frozen=True)
class Model:
    """Sizes and attributes of an attention layer, and the document that it reads."""

    window: int = 5
    sinks: int = 2
    sink_rope: str = "clamped"
    time: int = 23
    query_heads: int = 2
    kv_heads: int = 2
    head_dim: int = 6
    rotary_half: int = 3
    rope_amplitude: float = 1.0
    norm_epsilon: float = 0.0
    batch: int = 2
    cache: type = np.float64
    sink_logits: tuple[float, ...] | None = None

    def attributes(self):
        return {
            "window": self.window,
            "sinks": self.sinks,
            "scale": 0.7,
            "sink_rope": self.sink_rope,
            "rope_amplitude": self.rope_amplitude,
            "norm_epsilon": self.norm_epsilon,
        }

    def document(self, seed=0):
        random = np.random.default_rng(seed)
        packed = (self.query_heads + 2 * self.kv_heads) * self.head_dim
        qkv = random.normal(size=(self.batch, self.time, packed))
        gains = random.uniform(0.5, 1.5, size=(2, self.head_dim))
        return qkv, 2.0 ** -np.arange(self.rotary_half, dtype=np.float64), *gains

    def empty_ring(self):
        shape = (self.batch, self.kv_heads, self.sinks + self.window, self.head_dim)
        return np.zeros(shape, self.cache), np.zeros(shape, self.cache)

    def read(self, document, *, cuts=(), ring=None, begin=0, at=0):
        """Output and ring after the document from token ``begin``; its token 0 stands at ``at``."""
        qkv, *constants = document
        ring = self.empty_ring() if ring is None else ring
        outputs = [qkv[:, :0, : self.query_heads * self.head_dim]]
        for end in sorted({*cuts, qkv.shape[1]}):
            if end > begin:
                output, *ring = sliding_window_attention(
                    qkv[:, begin:end],
                    at + begin,
                    *constants,
                    *ring,
                    sink_logits=None if self.sink_logits is None else np.array(self.sink_logits),
                    **self.attributes(),
                )
                outputs.append(output)
                begin = end
        return np.concatenate(outputs, axis=1), ring


def turned(x, positions, frequencies, amplitude):
    """Rotary embedding as multiplication by complex numbers of length ``amplitude``."""
    half = len(frequencies)
    pairs = x[..., :half] + 1j * x[..., half : 2 * half]
    pairs = pairs * amplitude * np.exp(1j * np.outer(positions, frequencies))
    return np.concatenate([pairs.real, pairs.imag, x[..., 2 * half :]], axis=-1)


def dense_attention(model, document):
    """Every logit of the document, an explicit mask [time, time], one softmax."""
    qkv, frequencies, query_gain, key_gain = document
    n, m, d = model.query_heads, model.kv_heads, model.head_dim
    heads = qkv.reshape(model.batch, model.time, n + 2 * m, d).transpose(0, 2, 1, 3)
    query, key, value = np.split(heads, [n, n + m], axis=1)
    if model.norm_epsilon > 0:
        mean = (query**2).sum(axis=-1) / d
        query = query / np.sqrt(mean + model.norm_epsilon)[..., None] * query_gain
        mean = (key**2).sum(axis=-1) / d
        key = key / np.sqrt(mean + model.norm_epsilon)[..., None] * key_gain
    t = np.arange(model.time)
    last = model.sinks + model.window - 1
    amplitude = model.rope_amplitude
    key = turned(key, t, frequencies, amplitude)
    key, value = (x.astype(model.cache).astype(float) for x in (key, value))
    key, value = (np.repeat(x, n // m, axis=1) for x in (key, value))
    near = turned(query, t, frequencies, amplitude) @ key.swapaxes(-1, -2)
    clamped = turned(query, np.minimum(t, last), frequencies, amplitude) @ key.swapaxes(-1, -2)
    is_sink = t[None, :] < model.sinks
    far = clamped if model.sink_rope == "clamped" else near
    logits = 0.7 * np.where(is_sink, far, near)
    distance = t[:, None] - t[None, :]
    allowed = (distance >= 0) & ((distance < model.window) | is_sink)
    weights = np.where(allowed, np.exp(logits), 0.0)
    total = weights.sum(axis=-1, keepdims=True)
    if model.sink_logits is not None:
        total = total + np.exp(model.sink_logits)[:, None, None]
    weights = weights / total
    joined = (weights @ value).transpose(0, 2, 1, 3)
    return joined.reshape(model.batch, model.time, n * d)


def relative_rms(actual, expected):
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


MODELS = {
    "no-sinks": Model(sinks=0),
    "no-sinks-true": Model(sinks=0, sink_rope="true"),
    "clamped": Model(),
    "true": Model(sink_rope="true"),
    "shorter-than-window": Model(window=40, sinks=3),
    "shorter-than-sinks": Model(window=4, sinks=30),
    "as-long-as-window": Model(window=23, sinks=0),
    "window-of-one": Model(window=1, sinks=2),
    "window-of-one-alone": Model(window=1, sinks=0),
    "window-much-shorter": Model(window=3, sinks=1, time=60),
    "grouped-heads": Model(query_heads=6, kv_heads=2),
    "one-kv-head": Model(query_heads=4, kv_heads=1),
    "head-norm": Model(norm_epsilon=1e-2),
    "partial-rotary": Model(rotary_half=2),
    "no-rotary": Model(rotary_half=0),
    "odd-head": Model(head_dim=7),
    "amplitude": Model(rope_amplitude=1.3),
    "all-at-once": Model(
        query_heads=6, kv_heads=3, rotary_half=2, rope_amplitude=0.8, norm_epsilon=1e-5, time=40
    ),
    "sink-logits": Model(
        query_heads=4, kv_heads=2, sink_logits=(-9.0, 0.5, 2.0, 12.0), norm_epsilon=1e-2
    ),
    "half-precision-cache": Model(cache=np.float16, norm_epsilon=1e-6),
}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())


@every_model
def test_ring_equals_dense_attention_under_a_mask(model):
    document = model.document()
    expected = dense_attention(model, document)
    whole, _ = model.read(document)
    token_by_token, _ = model.read(document, cuts=range(model.time))
    assert relative_rms(whole, expected) < SAME
    assert relative_rms(token_by_token, expected) < SAME


@every_model
def test_ring_holds_the_rotated_keys_and_the_values_of_the_tokens_it_can_see(model):
    document = model.document(1)
    _, (ring_key, ring_value) = model.read(document, cuts=(1, 9))
    qkv, frequencies, _, gain = document
    heads = qkv.reshape(model.batch, model.time, -1, model.head_dim)
    first_key = model.query_heads
    for t in {*range(min(model.sinks, model.time)), *range(model.time)[-model.window :]}:
        key, value = np.split(heads[:, t, first_key:], 2, axis=1)
        if model.norm_epsilon > 0:
            key = key / np.sqrt((key**2).mean(-1, keepdims=True) + model.norm_epsilon) * gain
        key = turned(key, np.array([t]), frequencies, model.rope_amplitude)
        slot = t if t < model.sinks else model.sinks + (t - model.sinks) % model.window
        # Half a unit in the last place of a float16 where the cache is one.
        tolerance = 1e-3 if model.cache == np.float16 else SAME
        assert relative_rms(ring_key[:, :, slot], key) < tolerance
        assert relative_rms(ring_value[:, :, slot], value) < tolerance


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.sets(st.integers(1, 22)),
    name=st.sampled_from(["clamped", "true", "no-sinks", "half-precision-cache"]),
)
def test_any_split_gives_what_the_whole_document_gives(cuts, name):
    model = MODELS[name]
    document = model.document(2)
    whole, end = model.read(document)
    parts, end_of_parts = model.read(document, cuts=cuts)
    assert relative_rms(parts, whole) <= SAME
    for actual, expected in zip(end_of_parts, end, strict=True):
        assert relative_rms(actual.astype(float), expected.astype(float)) <= SAME


@pytest.mark.parametrize("stop", [1, 2, 6, 7, 8, 20])
def test_saved_and_restored_ring_goes_on_as_if_never_stopped(stop):
    model = Model()
    document = model.document(3)
    whole, end = model.read(document, cuts=[stop])
    _, ring = model.read((document[0][:, :stop], *document[1:]))
    restored = [np.frombuffer(x.tobytes()).reshape(x.shape) for x in ring]
    rest, end_of_rest = model.read(document, ring=restored, begin=stop)
    assert np.array_equal(rest, whole[:, stop:])
    assert all(np.array_equal(a, b) for a, b in zip(end_of_rest, end, strict=True))


def test_true_and_clamped_sinks_agree_until_the_window_leaves_the_sinks():
    model = Model(sinks=3, window=5)
    document = model.document(4)
    clamped, _ = model.read(document)
    true, _ = replace(model, sink_rope="true").read(document)
    reach = model.sinks + model.window
    assert np.array_equal(clamped[:, :reach], true[:, :reach])
    assert all(relative_rms(clamped[:, t], true[:, t]) > 1e-6 for t in range(reach, model.time))


def test_tokens_before_sinks_plus_window_see_everything():
    model = Model(sinks=3, window=5)
    document = model.document(5)
    limited, _ = model.read(document)
    full, _ = replace(model, window=100, sinks=0).read(document)
    reach = model.sinks + model.window
    assert relative_rms(limited[:, :reach], full[:, :reach]) < SAME
    assert all(relative_rms(limited[:, t], full[:, t]) > 1e-6 for t in range(reach, model.time))


def test_edited_token_is_seen_by_its_window_only_and_a_sink_by_all():
    model = Model(sinks=2, window=5)
    document = model.document(6)
    before, _ = model.read(document)
    for edited, seen in ((1, range(1, 23)), (2, range(2, 7)), (10, range(10, 15))):
        qkv = document[0].copy()
        qkv[:, edited] += 1.0
        after, _ = model.read((qkv, *document[1:]))
        differs = np.flatnonzero((before != after).any(axis=(0, 2)))
        assert list(differs) == list(seen)


@pytest.mark.parametrize("position", [0, 5, 7, 12])
def test_piece_of_no_tokens_changes_nothing(position):
    model = Model()
    document = model.document(7)
    ring = [np.random.default_rng(8).normal(size=x.shape) for x in model.empty_ring()]
    output, *after = sliding_window_attention(
        document[0][:, :0], position, *document[1:], *ring, **model.attributes()
    )
    assert output.shape == (model.batch, 0, model.query_heads * model.head_dim)
    assert all(np.array_equal(a, b) for a, b in zip(after, ring, strict=True))


def test_slots_of_tokens_not_yet_read_are_never_seen():
    model = Model()
    document = model.document(9)
    garbage = [np.full_like(x, np.nan) for x in model.empty_ring()]
    assert np.array_equal(model.read(document, ring=garbage)[0], model.read(document)[0])


@pytest.mark.parametrize("start", [0, 2**31 - 3, 2**53 - 3, 2**63 - 100], ids="from {:#x}".format)
@pytest.mark.parametrize(("window", "sinks"), [(5, 0), (5, 2), (4096, 128), (1, 1)])
def test_ring_slots_are_exact_at_any_position(start, window, sinks):
    begin = max(start, sinks)
    slots = [ring_slot(t, window, sinks) for t in range(begin, begin + 20)]
    assert set(slots) <= set(range(sinks, sinks + window))
    for t, slot in enumerate(slots, begin):
        assert (slot - sinks - (t - sinks)) % window == 0
        assert ring_slot(t + window, window, sinks) == slot
    nearest = slots[-window:]
    assert len(set(nearest)) == len(nearest), "tokens of one window share no slot"


def far_positions(model, starts, document):
    """Outputs of the tokens after a ring has been filled afresh at each of ``starts``."""
    fill = model.sinks + model.window
    _, ring = model.read((document[0][:, :fill], *document[1:]))
    return [model.read(document, ring=ring, begin=fill, at=start)[0] for start in starts]


@pytest.mark.parametrize("multiple", [2**31, 2**53 + 1, 2**60], ids="{:#x} windows".format)
def test_without_rotation_a_shift_by_whole_windows_changes_nothing(multiple):
    model = Model(rotary_half=0)
    near, far = far_positions(model, (0, multiple * model.window), model.document(10))
    assert np.array_equal(near, far)


@pytest.mark.parametrize("sinks", [0, 2])
@pytest.mark.parametrize("multiple", [2**20, 2**31, 2**45], ids="{:#x} windows".format)
def test_rotated_documents_depend_on_distances_alone(multiple, sinks):
    # Frequencies are powers of two, so that position times frequency is exact in float64; once
    # the window holds shifted tokens only, distances within it, and clamped ones, are the same.
    model = Model(sinks=sinks, time=30)
    near, far = far_positions(model, (0, multiple * model.window), model.document(11))
    settled = model.window - 1
    assert relative_rms(far[:, settled:], near[:, settled:]) < SAME
    assert relative_rms(far[:, :settled], near[:, :settled]) > 1e-3


def test_true_sinks_see_how_far_the_document_has_gone():
    model = Model(sink_rope="true", time=30)
    near, far = far_positions(model, (0, 2**20 * model.window), model.document(12))
    assert relative_rms(far[:, model.window :], near[:, model.window :]) > 1e-3


def test_scores_of_a_thousand_do_not_overflow():
    model = Model()
    qkv, *constants = model.document(13)
    output, _ = model.read((qkv * 40.0, *constants))
    assert np.isfinite(output).all()


def test_output_has_the_type_of_the_tokens_and_the_ring_keeps_its_own():
    model = Model(cache=np.float16)
    qkv, *constants = model.document(14)
    ring = model.empty_ring()
    output, after = model.read((qkv.astype(np.float32), *constants), ring=ring)
    assert output.dtype == np.float32
    assert {x.dtype for x in after} == {np.dtype(np.float16)}
    assert not ring[0].any(), "the reference writes into new arrays"


def test_ring_of_another_size_is_refused():
    model = Model()
    ring = [x[:, :, 1:] for x in model.empty_ring()]
    with pytest.raises(ValueError, match=r"SlidingWindowAttention: the ring has 6 slots"):
        model.read(model.document(15), ring=ring)


@pytest.mark.parametrize("query_heads", [0, 1, 3])
def test_query_heads_that_are_no_multiple_of_the_key_heads_are_refused(query_heads):
    model = Model(query_heads=query_heads, kv_heads=2)
    with pytest.raises(ValueError, match=f"qkv has {(query_heads + 4) * 6} columns.*heads of 6"):
        model.read(model.document(16))


def test_more_rotary_frequencies_than_half_a_head_are_refused():
    model = Model(rotary_half=4)
    with pytest.raises(ValueError, match="4 rotary frequencies are more than half a head of 6"):
        model.read(model.document(17))
