"""Head tables from forward passes alone, to hold beside `allmem heads`: no gradient is taken.

    python -m benchmarks.forward_scores CHECKPOINT DATA OUT.json --score output

One pass with full attention over each sequence tells what every key/value head does at the answers:
`mass` is the attention that falls on each band of distance, averaged over answers and the largest
of the group's query heads, much as KVzip (arXiv 2505.23416) scores heads; `output` is how much
nearer each further window brings what the head adds to the stream to what it adds with full
attention, as a share of the stream's own length. `python -m benchmarks.windows` measures what such
tables give.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor

from allmem_exporters.finetune.data.sequence import Sequence
from allmem_exporters.finetune.data.shards import Shards
from allmem_exporters.finetune.passes import LayerView, Passes
from allmem_exporters.heads.attribution import Attribution, answer_positions
from allmem_exporters.heads.run import HeadSettings, band_windows, chosen_sequences, table_of
from allmem_exporters.model.adapter import base_digest
from allmem_exporters.model.checkpoint import open_checkpoint
from allmem_exporters.model.decoder import DecoderLayer
from benchmarks.arguments import existing, parser_of


def main() -> None:
    parser = parser_of("forward_scores", __doc__)
    parser.add_argument("checkpoint", type=existing)
    parser.add_argument("data", type=existing)
    parser.add_argument("out", type=Path)
    parser.add_argument("--score", choices=("mass", "output"), default="output")
    parser.add_argument("--shortest", type=int, default=256)
    parser.add_argument("--sinks", type=int, default=32)
    parser.add_argument("--sequences", type=int, default=1, help="of each kind")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = HeadSettings(options.shortest, options.sinks, None, options.sequences)
    chosen = list(chosen_sequences(Shards(options.data, split="train"), settings))
    windows = band_windows(options.shortest, max(len(sequence.ids) for sequence in chosen))
    model = open_checkpoint(options.checkpoint, torch.float32)
    digest = base_digest(model)
    passes = Passes(model.to(getattr(torch, options.precision)))
    found = []
    for sequence in chosen:
        began = time.monotonic()
        positions = answer_positions(sequence, windows[0] + options.sinks)
        if len(positions):
            worth = scores(passes, sequence, positions, windows, options.sinks, options.score)
            # Shares of a whole, as gradients are of the divergence.
            found.append(Attribution(sequence.kind, worth.sum().item(), worth.tolist()))
        print(f"{sequence.kind}: {time.monotonic() - began:.1f} s", flush=True)
    table_of(digest, windows, options.sinks, found).save(options.out)


@torch.no_grad()
def scores(
    passes: Passes,
    sequence: Sequence,
    positions: Tensor,
    windows: list[int],
    sinks: int,
    score: str,
) -> Tensor:
    """[layers, kv_heads, len(windows) - 1]."""
    ids = torch.as_tensor(sequence.ids, device=passes.device)[None]
    layers = []
    for layer, view in passes.teacher_layers(ids):
        weights = _weights(passes, layer, view, positions)
        apart = positions[:, None] - torch.arange(ids.shape[1], device=passes.device)
        at_sinks = torch.arange(ids.shape[1], device=passes.device) < sinks
        seen = [(apart < window) | at_sinks for window in windows]
        if score == "mass":
            masses = torch.stack([(weights * one).sum(-1) for one in seen])
            layers.append(masses.diff(dim=0).amax(2).mean(-1).T)
        else:
            layers.append(_nearer(layer, view, weights, seen))
    return torch.stack(layers)


def _weights(passes: Passes, layer: DecoderLayer, view: LayerView, positions: Tensor) -> Tensor:
    """Full attention's weights at the answers: [kv_heads, group, answers, keys]."""
    attention, heads = layer.self_attn, view.heads
    query = passes.rotary(heads.query[:, :, positions], positions)[0]
    key = heads.key[0]
    grouped = query.unflatten(0, (key.shape[0], -1)).flatten(1, 2)
    found = (grouped @ key.mT).float() * float(attention.attributes["scale"])
    found = found.unflatten(1, (-1, len(positions)))
    later = torch.arange(key.shape[1], device=key.device) > positions[:, None]
    return found.masked_fill(later, float("-inf")).softmax(-1)


def _nearer(layer: DecoderLayer, view: LayerView, weights: Tensor, seen: list[Tensor]) -> Tensor:
    """[kv_heads, bands]: what each further window takes away from the distance to all keys."""
    value = view.heads.value[0].float()
    kv_heads, group, answers, _ = weights.shape
    back = layer.self_attn.o_proj.weight.float().unflatten(1, (kv_heads, group, -1))
    length = view.after[0].norm(dim=-1).mean()

    def added(within: Tensor) -> Tensor:
        """What the heads add to the stream: [kv_heads, answers, hidden_size]."""
        own = weights * within
        own = own / own.sum(-1, keepdim=True)
        mixed = (own.flatten(1, 2) @ value).unflatten(1, (group, answers))
        return torch.einsum("kgad,hkgd->kah", mixed, back)

    whole = added(torch.ones_like(seen[0]))
    missing = torch.stack([(whole - added(one)).norm(dim=-1).mean(-1) for one in seen])
    return -missing.diff(dim=0).T / length


if __name__ == "__main__":
    main()
