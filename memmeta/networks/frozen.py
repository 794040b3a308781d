"""A frozen backbone as a maker of features, which `memmeta.data.features` keeps."""

import hashlib
import json

import torch
from torch import Tensor

from memmeta.config import LearnerConfig
from memmeta.networks.models import MetaModel
from memmeta.networks.own import OwnBackbone

_TRIED = 4
"""Images whose features are part of the identity of a backbone."""


class FrozenBackbone:
    """The backbone of a model, no parameter of which learns.

    Attributes:
        at_once: images that pass through the backbone together.
    """

    def __init__(self, model: MetaModel, config: LearnerConfig, at_once: int) -> None:
        self.at_once = at_once
        self._model = model
        self._config = config

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Features of stored images [n, ...]: float32 [n, d], on the CPU."""
        return self._model.features(images[None].to(self._device))[0].cpu()

    @property
    def _device(self) -> torch.device:
        return next(self._model.parameters()).device

    @torch.no_grad()
    def identity(self) -> str:
        """A hash of the network: its arguments, its weights and what it computes.

        The features of a few random inputs tell apart versions of its code. They are rounded,
        because the last digits depend on the processor.
        """
        config, backbone = self._config, self._model.backbone
        assert isinstance(backbone, OwnBackbone)
        digest = hashlib.sha256()
        for part in (config.backbone, json.dumps(config.backbone_args, sort_keys=True)):
            digest.update(f"{part}\0".encode())
        for name, tensor in backbone.state_dict().items():
            digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            digest.update(tensor.cpu().numpy().tobytes())
        digest.update(repr(backbone.preprocessing).encode())
        shape = (_TRIED, *backbone.input_shape)
        inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        features = backbone(inputs.to(self._device)).cpu()
        rounded = (1000 * features / features.abs().max()).round().nan_to_num()
        digest.update(rounded.to(torch.int32).numpy().tobytes())
        return digest.hexdigest()
