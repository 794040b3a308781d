"""Reading weights from local files. No code in them runs, and they cannot claim more memory."""

import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from memmeta.errors import InputError, cannot_read, shortened
from memmeta.settings.weights import file_and_digest

_CLASSIFIERS = ("fc", "head", "classifier")
"""Usual names of the last layer, which few-shot learning replaces."""

_NESTED = ("state_dict", "model")
"""Keys under which training programs store the weights beside other things."""


def load(network: nn.Module, weights: str, classifiers: Iterable[str] = _CLASSIFIERS) -> None:
    """Load weights into a network.

    Args:
        network: gets the weights.
        weights: a file as `memmeta.settings.weights.pinned` records it.
        classifiers: names of layers that the file may have and the network may lack.

    Raises:
        InputError: the file cannot be read, has another content than recorded, or does not fit the
            network. The message names the first parameter that does not.
    """
    path, digest = file_and_digest(weights)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from None
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise InputError(
            f"weights: {path} has the SHA-256 {found[:12]}, and {digest[:12]} is recorded: the "
            "file was changed"
        )
    state = _read(path, content)
    _check_fit(network, state, tuple(f"{name}." for name in classifiers), path)
    own = network.state_dict()
    with torch.no_grad():
        for name, tensor in own.items():
            if name in state:
                tensor.copy_(state[name])


def _read(path: Path, content: bytes) -> dict[str, Tensor]:
    """The tensors of a file by name."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load as parsed

            return parsed(content)
        return _state_dict(path)
    except ModuleNotFoundError:
        raise InputError(
            f"weights: {path}: safetensors is needed: pip install 'memmeta[timm]'"
        ) from None
    except InputError:
        raise
    except Exception:  # the type depends on what is damaged
        raise InputError(
            f"weights: {path}: cannot be read; safetensors and state dicts of torch.save are "
            "accepted"
        ) from None


def _state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of torch.save."""
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"weights: {path}: neither safetensors nor a file of torch.save since PyTorch 1.6; "
            "load it and save its state dict again"
        )
    with zipfile.ZipFile(path) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise ValueError("PyTorch does not compress")
    values = torch.load(path, map_location="cpu", weights_only=True)
    for key in _NESTED:
        if isinstance(values, Mapping) and isinstance(values.get(key), Mapping):
            values = values[key]
    if not isinstance(values, Mapping):
        raise ValueError("no state dict")
    state = {name: tensor for name, tensor in values.items() if isinstance(tensor, Tensor)}
    if not state:
        raise ValueError("no tensors")
    return state


def _check_fit(
    network: nn.Module, state: Mapping[str, Tensor], classifiers: tuple[str, ...], path: Path
) -> None:
    """Compare names and shapes with those of a network.

    Raises:
        InputError: a parameter is missing, unknown or of another shape.
    """
    own = network.state_dict()
    missing = [
        name for name in own if name not in state and not name.endswith("num_batches_tracked")
    ]
    unknown = [name for name in state if name not in own and not name.startswith(classifiers)]
    if missing or unknown:
        lacks = f"lacks {_listed(missing)}" if missing else ""
        has = f"has {_listed(unknown)}, which the network lacks" if unknown else ""
        raise InputError(f"weights: {path}: {' and '.join(filter(None, (lacks, has)))}")
    for name, tensor in own.items():
        if name in state and state[name].shape != tensor.shape:
            raise InputError(
                f"weights: {path}: {shortened(name)} has the shape {list(state[name].shape)}, and "
                f"that of the network {list(tensor.shape)}"
            )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{shortened(names[0])}{more}"
