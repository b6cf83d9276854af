"""A graph of which some layers are copies is the one that tracing all its layers gives."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from lively import FAMILIES, lively_model
from tiny import tiny_config, tiny_model
from torch import nn

from allmem_exporters import AllMemConfig, AllMemForCausalLM
from allmem_exporters.model.weights import WeightsInMemory, load_last_norm, load_layer
from allmem_exporters.onnx import trace as tracing
from allmem_exporters.onnx.repeat import TRACED
from allmem_exporters.onnx.step_module import StepGraph

LAYERS = TRACED + 2
WINDOWS = [[16, 24], [24, 16], [16, 16], [24, 24], [20, 32], [32, 20]]


def traced_whole(
    model: AllMemForCausalLM, activations: str, monkeypatch: pytest.MonkeyPatch
) -> ir.Model:
    """The graph with all layers traced, with the model's own values in the parameters."""
    weights = WeightsInMemory(model)

    def put_values(graph: nn.Module) -> None:
        layers = (load_layer(weights, index) for index in range(LAYERS))
        real = StepGraph(model.config, layers, load_last_norm(weights), activations)
        for name, parameter in real.named_parameters(remove_duplicate=False):
            if parameter.device.type == "meta":  # a table
                parameter = nn.Parameter(parameter.new_ones(parameter.shape, device="cpu"))
            owner, _, leaf = name.rpartition(".")
            setattr(graph.get_submodule(owner), leaf, parameter)

    with monkeypatch.context() as patch:
        patch.setattr(tracing, "TRACED", LAYERS)
        patch.setattr(tracing, "_number", put_values)
        return tracing.trace(weights, activations)


@pytest.mark.parametrize(
    ("config", "make", "activations"),
    [
        (FAMILIES["llama"], tiny_model, "float32"),
        (FAMILIES["llama"], lively_model, "float16"),
        (FAMILIES["qwen3, untied, other head size"], lively_model, "float32"),
        (FAMILIES["llama, relu, every other choice"], tiny_model, "float32"),
        (FAMILIES["llama, gelu_pytorch_tanh"], tiny_model, "float16"),
        (tiny_config(windows=WINDOWS, window=32, num_hidden_layers=LAYERS, cache_dtype="int8"),
         lively_model, "float32"),
        (FAMILIES["granite, multipliers"], lively_model, "float32"),
        (tiny_config(backbone="smollm3", num_hidden_layers=LAYERS, unrotated_layers=[1, 4]),
         lively_model, "float32"),
        (tiny_config(**{**FAMILIES["gemma2, caps, local layers"].to_diff_dict(),
                        "num_hidden_layers": LAYERS, "local_layers": [0, 2, 3, 5]}),
         lively_model, "float32"),
        (FAMILIES["olmo3, norms behind, two ropes"], lively_model, "float16"),
        (FAMILIES["cohere2, side by side"], lively_model, "float32"),
    ],
    ids=["llama", "float16", "untied", "zero biases", "gelu", "windows by head", "multipliers",
         "layers without rope", "local layers", "norms behind", "side by side"],
)  # fmt: skip
def test_copied_layers_are_the_traced_ones_to_the_byte(
    config: AllMemConfig, make: object, activations: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tiny_config(**{**config.to_diff_dict(), "num_hidden_layers": LAYERS})
    model = make(deep)
    whole = ir.to_proto(traced_whole(model, activations, monkeypatch))
    copied = ir.to_proto(tracing.trace(WeightsInMemory(model), activations))
    assert len(copied.graph.node) == len(whole.graph.node)
    for one, other in zip(copied.graph.node, whole.graph.node, strict=True):
        assert one == other
    assert copied.SerializeToString(deterministic=True) == whole.SerializeToString(
        deterministic=True
    )
