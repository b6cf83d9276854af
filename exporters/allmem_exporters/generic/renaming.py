"""Names of weights in files, which may be older than those that transformers gives them today."""

from __future__ import annotations

from collections.abc import Iterable

from transformers import PretrainedConfig
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from allmem_exporters.generic.interface import Unsupported
from allmem_exporters.pretrained_model import empty_model


def names_today(config: PretrainedConfig, names: Iterable[str]) -> dict[str, str]:
    """Of each weight in files its name today.

    Args:
        config: of transformers.
        names: in the files.

    Raises:
        Unsupported: transformers makes a weight of several others.
    """
    model = empty_model(config)
    transforms = get_model_conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    known = model.state_dict(keep_vars=True)
    found = {}
    for name in names:
        found[name], made = rename_source_key(
            name, renamings, converters, model.base_model_prefix, known
        )
        if made is not None:
            raise Unsupported(f"the weight {name} in a form that is not read here")
    return found
