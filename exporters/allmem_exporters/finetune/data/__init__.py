"""Training data: documents become tokenized sequences in a folder of memory-mapped shards."""

from allmem_exporters.finetune.data.sequence import Sequence
from allmem_exporters.finetune.data.shard_writer import ShardWriter
from allmem_exporters.finetune.data.shards import Shards

__all__ = ["Sequence", "ShardWriter", "Shards"]
