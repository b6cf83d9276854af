"""The memory branch, written a second time from the paper with its own parameter names."""

from __future__ import annotations

import pytest
import torch
from decoders import relative_rms
from test_modeling_streaming import model
from torch import Tensor
from torch.nn import functional

from allmem_exporters import AllMemState
from allmem_exporters.model.memory_layer import Memory
from allmem_exporters.model.modeling import pieces


def as_the_paper_says(memory: Memory, x: Tensor, chunk: int, theta: float) -> Tensor:
    """alpha (.) AllMem(x) of x [time, hidden_size], chunk after chunk, gradients by autograd.

    Matrices act on columns as printed: V^ = W_down A + Q with A = SiLU(W_gate Q) (.) (W_up Q).
    """
    time, heads, dim = x.shape[0], memory.heads, memory.dim

    def stream(name: str) -> Tensor:
        raw = getattr(memory, f"{name}_proj")(x)
        taps = getattr(memory, f"{name}_conv").weight
        rows = []
        for t in range(time):
            row = torch.zeros_like(raw[0])
            for back in range(taps.shape[1]):
                if t - back >= 0:
                    row = row + taps[:, -1 - back] * raw[t - back]
            rows.append(functional.silu(row))
        return torch.stack(rows).reshape(time, heads, dim)

    def unit(y: Tensor, gain: Tensor) -> Tensor:
        y = y / y.square().mean(-1, keepdim=True).sqrt() * gain
        return y / y.norm(dim=-1, keepdim=True)

    query, key = unit(stream("q"), memory.q_norm.weight), unit(stream("k"), memory.k_norm.weight)
    value = stream("v")
    rate = functional.softplus(memory.lr_proj(x)).reshape(time, 3, heads)
    keep = torch.sigmoid(memory.mom_proj(x))
    gate = torch.sigmoid(memory.gate_proj(x))
    read = torch.zeros(time, heads, dim, dtype=x.dtype)
    for head in range(heads):
        initial = [m[head].detach() for m in (memory.fw_gate, memory.fw_up, memory.fw_down)]
        norms = [m.norm(dim=1, keepdim=True) for m in initial]
        weights, momentum = list(initial), [torch.zeros_like(m) for m in initial]
        for first in range(0, time, chunk):
            here = range(first, min(first + chunk, time))

            def network(w: list[Tensor], column: Tensor) -> Tensor:
                return w[2] @ (functional.silu(w[0] @ column) * (w[1] @ column)) + column

            for t in here:
                y = network(weights, query[t, head])
                y = y / (y.square().mean() + 1e-6).sqrt() * memory.out_norm.weight[head]
                read[t, head] = gate[t, head] * y
            if len(here) < chunk:
                break
            normal = [
                w * n / w.norm(dim=1, keepdim=True) for w, n in zip(weights, norms, strict=True)
            ]
            total = [torch.zeros_like(m) for m in initial]
            for t in here:
                at = [w.clone().requires_grad_() for w in normal]
                with torch.enable_grad():
                    loss = -(network(at, key[t, head].detach()) @ value[t, head].detach())
                for index, gradient in enumerate(torch.autograd.grad(loss, at)):
                    total[index] += rate[t, index, head] * gradient
            mu = keep[first : first + chunk, head].mean()
            for index in range(3):
                bound = theta * initial[index].norm()
                length = total[index].norm()
                if length > bound:
                    total[index] = total[index] * bound / length
                momentum[index] = mu * momentum[index] - total[index]
                weights[index] = normal[index] + momentum[index]
    return memory.alpha * memory.o_proj(read.reshape(time, heads * dim))


@pytest.mark.parametrize("theta", [1e3, 0.1], ids=["no clip reached", "clipped"])
@torch.no_grad()
def test_memory_branch_does_what_the_paper_says(theta: float) -> None:
    reader = model(theta_rel=theta)
    memory = reader.model.layers[0].allmem
    for parameter in memory.parameters():  # nothing may be 0 or 1 by its initial value
        parameter.add_(0.1 * torch.randn_like(parameter))
    x = torch.randn(1, 45, 32, dtype=torch.float64)
    state = AllMemState.blank(reader.config, 1, torch.float64).layers[0].memory
    found, _ = memory(x, torch.tensor([0]), state, pieces(0, 45, 8))
    wanted = as_the_paper_says(memory, x[0], 8, theta)
    # float64; the norms' guards (1e-6) stand in slightly different places
    assert relative_rms(found[0], wanted) < 1e-9
    memory.lr_proj.bias.fill_(-50.0)
    unlearned = as_the_paper_says(memory, x[0], 8, theta)
    assert relative_rms(unlearned[8:], wanted[8:]) > 1e-2  # learning is a part of what was compared
