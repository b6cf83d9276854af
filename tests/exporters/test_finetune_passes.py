"""Teacher and student of the trainer are the model itself, whole sequences at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from decoders import relative_rms
from test_modeling_streaming import IDS, model

from allmem_exporters.finetune import attention
from allmem_exporters.finetune.data import Sequence
from allmem_exporters.finetune.losses import layer_losses
from allmem_exporters.finetune.objective import compare, distillation
from allmem_exporters.finetune.parameters import prepare
from allmem_exporters.finetune.passes import Passes, Shape
from allmem_exporters.finetune.recall import observe
from allmem_exporters.model.memory_layer import memory_parameters

ROUNDING = 2e-5
"""Float32 sums in another order, through two layers and a memory that learns fast."""


@pytest.mark.parametrize("block", [7, 32, 512])
@pytest.mark.parametrize(
    "shape",
    [Shape(20, 3, 8), Shape(20, 0, 20), Shape(5, 30, 4), Shape(90, 2, 33), Shape(1, 0, 1)],
    ids=str,
)
def test_student_is_the_streaming_model(
    shape: Shape, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "QUERY_BLOCK", block)
    options = {"window": shape.window, "sinks": shape.sinks, "chunk": shape.chunk}
    reader = model(torch.float32, **options)
    with torch.no_grad():
        wanted = reader(IDS).logits
        got = reader.lm_head(Passes(reader).student(IDS, shape))
    assert relative_rms(got, wanted) < ROUNDING


def test_teacher_is_the_model_with_a_window_over_everything_and_no_memory() -> None:
    reader = model(torch.float32, window=128, sinks=0)
    for layer in reader.model.layers:
        torch.nn.init.zeros_(layer.allmem.alpha)
    with torch.no_grad():
        wanted = reader(IDS).logits
        got = reader.lm_head(Passes(reader).teacher(IDS))
    assert relative_rms(got, wanted) < ROUNDING


@pytest.mark.parametrize("inner", [{}, {"inner_loss": "l2", "lr_groups": "shared"}], ids=str)
def test_gradients_are_those_of_the_streaming_model(inner: dict[str, object]) -> None:
    weights = torch.randn(IDS.shape[1], generator=torch.Generator().manual_seed(3))[:, None]
    grads = []
    for through_passes in (False, True):
        reader = model(torch.float32, **inner)
        prepare(reader, torch.float32, writes=True)
        if through_passes:
            hidden = Passes(reader).student(IDS, Shape(20, 3, 8))
        else:
            reader.lm_head = torch.nn.Identity()
            hidden = reader(IDS).logits
        (hidden * weights).sum().backward()
        grads.append({n: p.grad for n, p in memory_parameters(reader).items()})
        frozen = [n for n, p in reader.named_parameters() if p.grad is not None]
        assert sorted(frozen) == sorted(grads[0])
    for name, wanted in grads[0].items():
        # Differences of float32 sums are relative to the largest gradient of the tensor.
        assert relative_rms(grads[1][name], wanted) < 2e-3, name


@pytest.mark.parametrize("extra", [0.0, 0.5], ids=["kl", "kl and cross entropy"])
def test_distillation_is_the_plain_formula(extra: float) -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(600, 16, generator=generator).requires_grad_()
    teacher = torch.randn(600, 16, generator=generator)
    head = torch.randn(50, 16, generator=generator)
    weights = torch.rand(600, generator=generator)
    targets = torch.randint(0, 50, (600,), generator=generator)
    loss = distillation(student, teacher, targets, weights, head, extra)
    (3 * loss).backward()
    got = student.grad
    student.grad = None
    ours, theirs = (student @ head.T).log_softmax(-1), (teacher @ head.T).log_softmax(-1)
    kl = (theirs.exp() * (theirs - ours)).sum(-1)
    nll = -ours.gather(-1, targets[:, None])[:, 0]
    wanted = (weights * (kl + extra * nll)).sum()
    (3 * wanted).backward()
    assert torch.allclose(loss, wanted, rtol=1e-5)
    rows = compare([student.detach(), teacher], teacher, targets, head)
    missed = -theirs.gather(-1, targets[:, None])[:, 0]
    same = [kl, nll, torch.zeros_like(kl), missed, missed]
    assert torch.allclose(rows, torch.stack(same), rtol=1e-4, atol=1e-5)
    assert relative_rms(got, student.grad) < 1e-5


@pytest.mark.parametrize(("length", "counted"), [(20, 0), (25, 0), (80, 80)])
def test_layers_learn_nothing_from_what_hardly_passes_the_window(length: int, counted: int) -> None:
    reader = model(torch.float32)
    prepare(reader, torch.float32, writes=True)
    sequence = Sequence(IDS[0, :length].numpy(), np.ones(length, bool), "text")
    loss = layer_losses(Passes(reader), sequence, Shape(20, 3, 8), 1.0)
    learned = [p.grad for p in memory_parameters(reader).values() if p.grad is not None]
    assert loss.tokens == counted and loss.value < 1e4 and bool(learned) == bool(counted)


def test_head_norms_are_exact_in_16_bits() -> None:
    reader = model(torch.float32)
    layer = reader.model.layers[0].self_attn
    prepare(reader, torch.bfloat16, writes=True)
    x = torch.randn(1, 300, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.no_grad():
        got = attention.project(layer, x).query
        raw = layer.q_proj(x).reshape(1, 300, -1, layer.head_dim).transpose(1, 2)
        epsilon = layer.attributes["norm_epsilon"]
        wanted = attention.head_norm(raw.double(), layer.q_norm.weight, epsilon)
    # One rounding to 8 bits, not one of each of its parts.
    assert relative_rms(got.double(), wanted) < 2e-3


def test_windowed_attention_never_waits_for_the_device() -> None:
    # Meta tensors have no values: what asks for one fails here and stalls a GPU.
    reader = model(torch.float32).to("meta")
    attended = reader.model.layers[0].self_attn
    with torch.device("meta"):
        heads = attention.project(attended, torch.zeros(1, 300, 32))
        assert attention.windowed_attention(attended, heads, 20, 3).shape == (1, 300, 32)


def test_twin_without_writes_keeps_its_first_weights() -> None:
    writer, twin = model(torch.float32), model(torch.float32)
    prepare(twin, torch.float32, writes=False)
    x = torch.randn(1, 80, 32, generator=torch.Generator().manual_seed(1))
    wrote = observe(writer.model.layers[0].allmem, x, 8)
    still = observe(twin.model.layers[0].allmem, x, 8)
    assert wrote.strength > 0.01 and wrote.growth > 1.001 and 0 < wrote.clipped <= 1
    assert still.strength < 1e-30 and still.growth < 1.00001 and still.clipped == 0
    assert "lr_proj.weight" not in str(
        [n for n, p in memory_parameters(twin).items() if p.requires_grad]
    )
