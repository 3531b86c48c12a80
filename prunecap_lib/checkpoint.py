"""What is a trained captioner on disk? A folder: ``model.safetensors``, ``config.json``, and a card.

config.json holds the configuration, the vocabulary (a list of words, or the JSON text of byte pairs), the
preprocessing, versions and the run's signature. The safetensors header repeats the vocabulary's fingerprint, so a
mixed-up pair is noticed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .bytepairs import read_tokenizer
from .encoders import build_encoder
from .encoders.weights import packaged_state_dict
from .errors import CheckpointError, InputError
from .files import Kind, data_folder, recover_folder, shipped_checkpoints
from .preprocessing import Preprocessing
from .provenance import versions
from .reading import open_file, read_bytes, read_json
from .text import StoredWord, Tokenizer

FORMAT = 1
_AGAIN = "copy the folder again as a whole"
# .tmp…: what safetensors writes, before it has its name; a kill leaves it
CHECKPOINT = Kind("checkpoint of prunecap",
                  names=r"(model|state)\.safetensors|(config|state)\.json|metrics\.jsonl|\.tmp\w{6}",
                  ours=lambda folder: {"format", "config", "preprocessing", "vocabulary"} <= json.loads(
                      read_bytes(folder / "config.json")).keys())


def _folders() -> list[Path]:
    """Where a checkpoint's name is looked for: the user's own first."""
    return [data_folder() / "checkpoints", shipped_checkpoints()]


def shipped() -> list[str]:
    """Names of checkpoints that need no path."""
    return sorted({path.parent.name for folder in _folders() for path in folder.glob("*/config.json")})


def find(name_or_path: str | Path) -> Path:
    """The folder of a checkpoint, by name or path. Raises CheckpointError naming the choices."""
    for folder in (Path(name_or_path), *(folder / name_or_path for folder in _folders())):
        with suppress(OSError, ValueError):  # where one may only read, it is as it is
            recover_folder(folder, CHECKPOINT)
        if os.path.isfile(folder / "config.json"):
            return folder
    raise CheckpointError(f"checkpoint {str(name_or_path)!r}: no folder with a config.json there; "
                          f"shipped are {', '.join(shipped()) or 'none'}, or give the path of a run's checkpoint")


def origin(name_or_path: str | Path) -> dict:
    """How a checkpoint was trained: the settings that its signature names; {} where it names none."""
    try:
        settings = json.loads(json.loads(read_bytes(find(name_or_path) / "config.json"))["signature"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}


Config = TypeVar("Config")


@dataclass(frozen=True)
class _Head(Generic[Config]):
    """config.json."""

    format: int
    config: Config
    preprocessing: Preprocessing
    vocabulary: list[StoredWord] | str
    signature: str = ""
    versions: dict[str, str] = field(default_factory=dict)


class Parts(NamedTuple):
    """A checkpoint as read: nothing built yet."""

    folder: Path
    config: Any  # a ``CaptionerConfig``, which stands below this file
    vocabulary: Tokenizer
    preprocessing: Preprocessing
    state_dict: dict[str, Tensor]


def write(folder: Path, captioner, *, half: bool = False, signature: str = "",
          weights: dict[str, Tensor] | None = None) -> None:
    """Write the two files into an existing folder. ``weights``: the captioner's, where it holds only parts of them."""
    config = replace(captioner.config, schedule=captioner.encoder.schedule)  # it may have been set later
    weights = captioner.state_dict() if weights is None else weights
    state = {key: value.detach().cpu() for key, value in weights.items() if not packaged(key, config)}
    if config.tie_weights:
        del state["decoder.output.weight"]
    if half:
        state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    head = {"format": FORMAT, "signature": signature, "versions": versions(), "config": asdict(config),
            "preprocessing": asdict(captioner.preprocessing), "vocabulary": captioner.vocabulary.to_json()}
    safetensors.torch.save_file({key: value.contiguous() for key, value in state.items()}, folder / "model.safetensors",
                                metadata={"vocabulary": captioner.vocabulary.fingerprint()})
    (folder / "config.json").write_text(json.dumps(head, indent=1), encoding="utf-8")


def read_head(folder: Path, config: type[Config]) -> tuple[_Head[Config], Tokenizer]:
    """config.json, and the vocabulary in it. Raises CheckpointError."""
    head = read_json(folder / "config.json", _Head[config], "checkpoint file", _AGAIN, format=FORMAT,
                     error=CheckpointError)
    try:
        return head, read_tokenizer(head.vocabulary)
    except InputError as error:
        raise CheckpointError(f"checkpoint {folder}: config.json cannot be used ({error}); {_AGAIN}") from error


def read(name_or_path, config: type[Config]) -> Parts:
    """Read a checkpoint's folder. Raises CheckpointError naming what is wrong with which file."""
    folder = find(name_or_path)
    head, vocabulary = read_head(folder, config)
    weights = folder / "model.safetensors"
    open_file(weights, "checkpoint file", error=CheckpointError).close()
    try:
        with safe_open(weights, framework="pt") as file:
            fingerprint = (file.metadata() or {}).get("vocabulary")
            state = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"checkpoint {folder}: model.safetensors is damaged ({error}); {_AGAIN}") from error
    if fingerprint != vocabulary.fingerprint():
        raise CheckpointError(f"checkpoint {folder}: config.json's vocabulary ({len(vocabulary)} entries) is not the "
                              "one these weights were trained with; restore both files from one save")
    state = {key: value.float() if value.dtype == torch.float16 else value for key, value in state.items()}
    if head.config.tie_weights and "decoder.embedding.words.weight" in state:
        state["decoder.output.weight"] = state["decoder.embedding.words.weight"]
    config = head.config
    if config.schedule == "auto":  # earlier versions left it to the clock
        config = replace(config, schedule=None)
    return Parts(folder, config, vocabulary, head.preprocessing, state)


def packaged(key: str, config) -> bool:
    """Is this weight left out, because a Python package brings it?"""
    return config.encoder_package is not None and key.startswith("encoder.") and not key.startswith("encoder.added.")


@contextmanager
def described(parts: Parts) -> Iterator[None]:
    """Inside, what config.json asks for is built. Raises CheckpointError where that cannot be."""
    try:
        yield
    except (InputError, CheckpointError) as error:
        raise CheckpointError(f"checkpoint {parts.folder}: config.json describes no captioner ({error}); "
                              f"{_AGAIN}") from error


def check_shapes(parts: Parts, expected: nn.Module, prefix: str) -> None:
    """Raises CheckpointError where the weights under ``prefix`` are not those of ``expected``, which may be on the meta
    device: what config.json asks for should fit before memory is taken for it."""
    for key, tensor in expected.state_dict(prefix=prefix).items():
        there = parts.state_dict.get(key)
        if there is None or there.shape != tensor.shape:
            found = "is missing" if there is None else f"has shape {tuple(there.shape)}, not {tuple(tensor.shape)}"
            raise CheckpointError(f"checkpoint {parts.folder}: the weights do not fit config.json ({key} {found}); "
                                  "both must come from one save")


def check_predictors(parts: Parts, captioner) -> None:
    """Raises CheckpointError where the weights hold predictors of another schedule than config.json's."""
    named = re.compile(r"encoder\.added\.predictor_(\d{1,9})\.")
    there, needed = (sorted({int(found[1]) for key in state if (found := named.match(key))})
                     for state in (parts.state_dict, captioner.state_dict()))
    if there != needed:
        raise CheckpointError(f"checkpoint {parts.folder}: the weights hold predictors after blocks {there}, and "
                              f"config.json's schedule {captioner.encoder.schedule} needs them after blocks {needed}; "
                              "both must come from one save")


def packaged_encoder(config):
    """The encoder whose weights a Python package brings, or None where the checkpoint holds them."""
    if config.encoder_package is None:
        return None
    return build_encoder(config.encoder, image_size=config.image_size,
                         state_dict=packaged_state_dict(config.encoder_package))
