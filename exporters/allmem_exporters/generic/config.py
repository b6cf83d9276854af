"""GenericConfig: an AllMem model around a decoder that transformers' own code computes."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any, ClassVar

from transformers import CONFIG_MAPPING, PretrainedConfig

from allmem_exporters.errors import ConfigError, first_line
from allmem_exporters.generic.interface import Unsupported
from allmem_exporters.generic.probe import Probed, probe
from allmem_exporters.model.checkpoint import GENERIC_TYPE
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.config_bounds import check_sizes
from allmem_exporters.model.families import Family

_FOLLOWS: Any = None
_NOT_OF_THE_DECODER = frozenset(
    {
        "architectures", "dtype", "id2label", "label2id", "num_labels", "problem_type",
        "transformers_version", "return_dict", "output_hidden_states", "output_attentions",
        "chunk_size_feed_forward", "is_encoder_decoder", "name_or_path", "_name_or_path",
    }
)  # fmt: skip


def decoder_fields(config: PretrainedConfig) -> dict[str, Any]:
    """What a configuration of transformers says of its decoder, as plain values."""
    declared = {field.name for field in dataclasses.fields(config)} - _NOT_OF_THE_DECODER
    values = json.loads(json.dumps({k: v for k, v in config.to_dict().items() if k in declared}))
    return {"model_type": config.model_type, **values}


def check_decoder_sizes(values: Mapping[str, Any], kind: type[PretrainedConfig]) -> None:
    """Check the sizes among the settings of a decoder, whatever its family calls them.

    Args:
        values: the settings.
        kind: their class.

    Raises:
        ConfigError: names the key, the value and what is allowed.
    """
    usual = {name: values[own] for name, own in kind.attribute_map.items() if own in values}
    check_sizes({**values, **usual})


def read_decoder(values: Mapping[str, Any]) -> PretrainedConfig:
    """The reverse of ``decoder_fields``.

    Raises:
        ConfigError: a setting is unknown, or its value is not allowed.
    """
    settings = dict(values)
    name = settings.pop("model_type", None)
    if not isinstance(name, str) or name not in CONFIG_MAPPING:
        raise ConfigError(f"decoder.model_type is {str(name)[:80]!r}, which transformers lacks.")
    kind = CONFIG_MAPPING[name]
    if kind.sub_configs:
        raise ConfigError(f"decoder.model_type is {name!r}, of which a decoder is only a part.")
    declared = {field.name for field in dataclasses.fields(kind)} - _NOT_OF_THE_DECODER
    if unknown := sorted(settings.keys() - declared):
        raise ConfigError(f"decoder.{unknown[0]} is no setting of a {name} decoder.")
    check_decoder_sizes(settings, kind)
    try:
        config: PretrainedConfig = kind(**settings)
    except Exception as error:  # noqa: BLE001 (each class checks in its own way)
        raise ConfigError(
            f"decoder cannot be read ({first_line(error)}).", "Convert its source again."
        ) from None
    return config


class GenericConfig(AllMemConfig):
    """Configuration of any decoder of transformers with a window, sinks and a neural memory.

    ``decoder`` is transformers' own configuration, and ``backbone`` its ``model_type``. Of the
    other fields of ``AllMemConfig`` the sizes are the decoder's, and what describes a decoder's
    mathematics has no effect.

    Raises:
        ConfigError: a value is outside its range, or a key is unknown; names key, value, range.
    """

    model_type = GENERIC_TYPE
    any_backbone: ClassVar[bool] = True

    decoder: dict[str, Any] = _FOLLOWS

    def check(self) -> None:
        """See ``AllMemConfig``."""
        super().check()
        if not isinstance(self.decoder, dict) or self.decoder.get("model_type") != self.backbone:
            raise ConfigError("decoder must be the configuration of the backbone's own class.")
        read_decoder(self.decoder)

    @property
    def family(self) -> Family:
        """Nothing is known of it."""
        return Family(self.backbone, self.backbone)

    @property
    def sink_logits(self) -> bool:
        """See ``AllMemConfig``."""
        return any(site.sink_logits for site in self.probed.sites)

    @property
    def pretrained(self) -> PretrainedConfig:
        """The decoder's configuration."""
        return read_decoder(self.decoder)

    @property
    def probed(self) -> Probed:
        """The decoder's attentions.

        Raises:
            ConfigError: transformers has changed, or the configuration was.
        """
        try:
            return _probed(json.dumps(self.decoder, sort_keys=True))
        except Unsupported as error:
            raise ConfigError(
                f"The {self.backbone} decoder cannot be used: it has {error}.",
                "Convert its source again.",
            ) from None
        except Exception as error:  # noqa: BLE001 (transformers' own code, on any settings)
            raise ConfigError(
                f"transformers' own code cannot run the {self.backbone} decoder "
                f"({first_line(error)}).",
                "Convert its source again.",
            ) from None


@functools.lru_cache(maxsize=8)
def _probed(text: str) -> Probed:
    return probe(read_decoder(json.loads(text)))
