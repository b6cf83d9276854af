"""Head tables from forward passes alone, to hold beside `allmem heads`: no gradient is taken.

    python -m benchmarks.forward_scores CHECKPOINT DATA FOLDER

One pass with full attention over each sequence tells what every key/value head does at the answers.
Two tables go to FOLDER: `mass.json` is the attention that falls on each band of distance, averaged
over answers and of the query head of the group that has most, much as KVzip (arXiv 2505.23416)
scores heads; `output.json` is how much nearer each further window brings what the head adds to the
stream to what it adds with full attention, as a share of the stream's own length. `python -m
benchmarks.windows` measures what such tables give.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from allmem_exporters.finetune.attention import Rotary
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
    parser.add_argument("folder", type=existing)
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
    found: dict[str, list[Attribution]] = {}
    for sequence in chosen:
        began = time.monotonic()
        positions = answer_positions(sequence, windows[0] + options.sinks)
        if len(positions):
            tables = scores(passes, sequence, positions, windows, options.sinks)
            for name, worth in tables.items():
                # Shares of a whole, as gradients are of the divergence.
                one = Attribution(sequence.kind, worth.sum().item(), worth.tolist())
                found.setdefault(name, []).append(one)
        print(f"{sequence.kind}: {time.monotonic() - began:.1f} s", flush=True)
    for name, ones in found.items():
        table_of(digest, windows, options.sinks, ones).save(options.folder / f"{name}.json")


@torch.no_grad()
def scores(
    passes: Passes, sequence: Sequence, positions: Tensor, windows: list[int], sinks: int
) -> dict[str, Tensor]:
    """By name of the score: [layers, kv_heads, len(windows) - 1]."""
    ids = torch.as_tensor(sequence.ids, device=passes.device)[None]
    layers: dict[str, list[Tensor]] = {"mass": [], "output": []}
    for layer, view in passes.teacher_layers(ids):
        weights = _weights(layer, view, positions)
        apart = positions[:, None] - torch.arange(ids.shape[1], device=passes.device)
        at_sinks = torch.arange(ids.shape[1], device=passes.device) < sinks
        seen = [(apart < window) | at_sinks for window in windows]
        masses = torch.stack([(weights * one).sum(-1) for one in seen])
        layers["mass"].append(masses.diff(dim=0).amax(2).mean(-1).T)
        layers["output"].append(_nearer(layer, view, weights, seen))
    return {name: torch.stack(rows) for name, rows in layers.items()}


def _weights(layer: DecoderLayer, view: LayerView, positions: Tensor) -> Tensor:
    """Full attention's weights at the answers: [kv_heads, group, answers, keys]."""
    attention, heads = layer.self_attn, view.heads
    query = Rotary(attention, heads.query.device)(heads.query[:, :, positions], positions)[0]
    key = heads.key[0]
    grouped = query.unflatten(0, (key.shape[0], -1)).flatten(1, 2)
    found = (grouped @ key.mT).float() * float(attention.attributes["scale"])
    found = found.unflatten(1, (-1, len(positions)))
    later = torch.arange(key.shape[1], device=key.device) > positions[:, None]
    weights: Tensor = found.masked_fill(later, float("-inf")).softmax(-1)
    return weights


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
    taken: Tensor = -missing.diff(dim=0).T / length
    return taken


if __name__ == "__main__":
    main()
