"""The backbone (theta), the head (phi), and how each is learned."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, model_validator

from memmeta.algorithms import ALGORITHMS
from memmeta.networks import BACKBONES, HEADS, TIMM, is_own
from memmeta.registry import import_path_of
from memmeta.settings.limits import MOST, MOST_TASKS
from memmeta.settings.records import Before, Config, Renamed
from memmeta.settings.weights import DOWNLOADED, pinned, without_path

Scaling = Literal["none", "sqrt_dim", "standardize"]
"""How features are scaled for the head, see `memmeta.networks.heads.head_inputs`."""


def _from_json(value: object) -> object:
    """A value, or the one whose JSON text a table of trials holds."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _named(value: object) -> object:
    """The import path of a function or class; other values as they are."""
    return import_path_of(value) if callable(value) else value


def _pinned(weights: str | None) -> str | None:
    return None if weights is None else pinned(weights)


_Arguments = Annotated[dict[str, JsonValue], BeforeValidator(_from_json)]


class LearnerConfig(Config):
    """The backbone (theta), the head (phi), and how each is learned.

    Examples:
        >>> LearnerConfig(algorithm="anil", filters=32, inner_steps=5).learns_initial_head
        True
    """

    algorithm: Annotated[str, AfterValidator(ALGORITHMS.check)] = "memory_reduced"
    """How the hypergradient is computed: a name in `memmeta.algorithms.ALGORITHMS`."""
    feature_reuse: Annotated[bool, Renamed("kind", {"cached": True, "naive": False})] = True
    """Compute support features once per task, instead of again in every inner step. False is for
    itd_bio and anil: it keeps a graph of the backbone for each step."""
    first_order: bool = False
    """Drop second derivatives, for itd_bio, anil and maml (for memory_reduced: cg_steps = 0)."""
    backbone: Annotated[str, BeforeValidator(_named), AfterValidator(BACKBONES.check)] = "conv4"
    """The network below the head: a name in `memmeta.networks.BACKBONES`, or an own network:
    `timm/NAME` for a model of timm, `package.module:factory` for a function that makes an
    `nn.Module`. Python accepts the function itself, and records its import path."""
    backbone_args: Annotated[_Arguments | None, Before(None)] = None
    """Further arguments of the function that makes an own network."""
    weights: Annotated[str | None, AfterValidator(_pinned), Before(None)] = None
    """Initial weights of an own network: a local file, safetensors or a state dict of PyTorch. It
    is recorded as FILE@sha256:DIGEST, and a file with another content is refused. `timm` downloads
    the weights that timm has for the model."""
    train_last: Annotated[int | None, Before(None)] = Field(None, ge=0, le=MOST)
    """Blocks of an own network that learn, counted from the output. The others stay as they are.
    None: all learn."""
    input_size: Annotated[int | None, Before(None)] = Field(None, ge=1, le=MOST)
    """Height and width to which images are resized for an own network. None: the size that timm
    states for its models, otherwise that of the data."""
    filters: int = Field(64, ge=1, le=MOST)
    """Channels of Conv4's blocks (the paper: 64 at 32x32, 32 at 84x84) or of ResNet-12's first."""
    norm: Literal["batch", "frozen", "group"] = "batch"
    """BatchNorm with batch statistics (the paper), BatchNorm with constant ones, or GroupNorm."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the shared backbone's convolutions. The rest stays in float32."""
    head: Annotated[str, AfterValidator(HEADS.check)] = "linear"
    """The adapted parameters (phi): a name in `memmeta.networks.HEADS`."""
    head_width: int = Field(64, ge=1, le=MOST)
    """Hidden units of the mlp head."""
    feature_scaling: Scaling = "standardize"
    """How features are scaled for the head (the paper: none)."""
    ridge: float = Field(0.01, ge=0, allow_inf_nan=False)
    """L2 term of the support loss: (ridge / 2) * ||phi||^2 over all adapted parameters."""
    inner_steps: int = Field(20, ge=0, le=MOST)
    """K: gradient steps of the head on the support set."""
    inner_lr: float = Field(1.0, gt=0, allow_inf_nan=False)
    """lambda_phi: step size of the head."""
    cg_steps: int = Field(20, ge=0, le=MOST)
    """N: conjugate-gradient iterations of memory_reduced. 0 gives its first-order hypergradient."""
    curvature: Annotated[Literal["hessian", "gauss_newton"] | None, Before("hessian")] = None
    """The matrix of memory_reduced's linear solve. For head linear both are equal. The Hessian of
    other heads is indefinite, and conjugate gradient stops there; None: gauss_newton for them."""
    outer_lr: float = Field(1e-3, gt=0, le=1e6, allow_inf_nan=False)
    """lambda_theta: Adam's step size for the backbone. Far above 1e6 Adam itself overflows."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Schedule of outer_lr: constant (the paper), or half a cosine that ends at 0."""
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Decoupled weight decay (AdamW) of all learned parameters; the paper has none."""
    augment: bool = False
    """Train on random crops and mirror images, for photographs only; the paper has none."""
    task_batch: int = Field(8, ge=1, le=MOST)
    """|B|: tasks per outer step."""
    chunk: int | None = Field(None, ge=1)
    """Images in the backbone at a time, which bounds its memory; None: all. Whole tasks cost
    little on a CPU. memory_reduced also takes less than a task (with norm batch whole sets), at
    the price of about a second forward pass. Also applies to evaluation, with norm batch as far as
    whole sets allow."""
    task_pool: int | None = Field(None, ge=1, le=MOST_TASKS)
    """Train on this many tasks in turn instead of on new ones."""
    warm_start: bool = False
    """With a task_pool, start where the task's last visit ended; for memory_reduced and itd_bio."""

    @property
    def learns_initial_head(self) -> bool:
        """Whether phi^0 is learned instead of a fixed starting point."""
        return ALGORITHMS[self.algorithm].learns_initial_head

    @property
    def takes_any_ways(self) -> bool:
        """Whether the head can start at 0 for any number of classes.

        A head that is learned, or that does not start at 0, is for a fixed number.
        """
        return HEADS[self.head].linear and not self.learns_initial_head

    @property
    def unrolls(self) -> bool:
        """Whether the algorithm differentiates through the inner steps."""
        return ALGORITHMS[self.algorithm].unrolls

    @property
    def adapts_backbone(self) -> bool:
        """Whether the inner loop adapts the whole network, one task at a time."""
        return ALGORITHMS[self.algorithm].adapts_backbone

    @property
    def backbone_is_frozen(self) -> bool:
        """Whether no block of the backbone learns."""
        return self.train_last == 0

    @property
    def learns_nothing(self) -> bool:
        """Whether there is nothing for the outer loop to learn, so that a run is an evaluation."""
        return self.backbone_is_frozen and not self.learns_initial_head

    @property
    def solved_curvature(self) -> Literal["hessian", "gauss_newton"]:
        """`curvature`; if it is None, the matrix that suits the algorithm and the head."""
        if self.curvature is not None:
            return self.curvature
        return "gauss_newton" if not self.unrolls and not HEADS[self.head].linear else "hessian"

    def without_weights(self) -> Self:
        """The learner with random initial weights, for use where a saved state replaces them."""
        return self.model_copy(update={"weights": None})

    def explicit(self) -> dict[str, Any]:
        """As `Config.explicit`."""
        return super().explicit() | {"curvature": self.solved_curvature}

    def recorded(self) -> dict[str, Any]:
        """As `Config.recorded`, with the digest of the weights instead of their place."""
        values = super().recorded()
        if self.weights is not None:
            values["weights"] = without_path(self.weights)
        return values

    def __hash__(self) -> int:
        # The arguments of the backbone are a dict, which has no hash.
        return hash(self.model_dump_json())

    @model_validator(mode="after")
    def _combination(self) -> Self:
        algorithm, pool = ALGORITHMS[self.algorithm], self.task_pool
        backbone, head = BACKBONES[self.backbone], HEADS[self.head]
        own = is_own(self.backbone)
        own_only = ("backbone_args", "weights", "train_last", "input_size")
        given = [name for name in own_only if getattr(self, name) is not None]
        recomputing = ALGORITHMS.names(lambda other: other.can_recompute_features)
        refusals = {
            f"feature_reuse false is for {' and '.join(recomputing)}": (
                not self.feature_reuse and not algorithm.can_recompute_features
            ),
            f"first_order is not for {self.algorithm}: set cg_steps to 0": self.first_order
            and not self.unrolls,
            f"{self.algorithm} adapts every block: its head is linear or mlp": head.takes_last_block
            and self.adapts_backbone,
            f"{' and '.join(given)}: not for backbone {self.backbone}, but for timm/NAME and "
            "package.module:factory": bool(given) and not own,
            "weights timm are for backbones timm/NAME": self.weights == DOWNLOADED
            and not self.backbone.startswith(TIMM),
            f"{self.algorithm} adapts all layers: its backbone is {' or '.join(BACKBONES)}": own
            and self.adapts_backbone,
            f"backbone {self.backbone} has no blocks: its head is linear or mlp": (
                head.takes_last_block and not backbone.blocks
            ),
            f"backbone {self.backbone} has no norm: leave norm at batch": not backbone.blocks
            and self.norm != "batch",
            f"precision bfloat16 is for a shared convolutional backbone: {self.algorithm} shares "
            "none": self.precision == "bfloat16" and self.adapts_backbone,
            "precision bfloat16 is for the convolutional backbones of memmeta, not for "
            f"{self.backbone}": self.precision == "bfloat16" and not backbone.blocks,
            f"chunk is not for {self.algorithm}, which takes one task at a time": (
                self.adapts_backbone and self.chunk is not None
            ),
            "warm_start needs a task_pool": self.warm_start and pool is None,
            f"warm_start is not for {self.algorithm}, which learns where to start": self.warm_start
            and self.learns_initial_head,
            "task_pool must hold a task_batch": pool is not None and pool < self.task_batch,
        }
        for message, refused in refusals.items():
            if refused:
                raise ValueError(message)
        return self
