"""Layer sweep: train probes on many layers with one forward pass of the backbone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import Tensor, nn

from pe_dense.probing.probe import FrozenBackboneMixin, probe_name, sized
from pe_dense.probing.sliding_window import windows_of
from pe_dense.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from pe_dense.utils.errors import ConfigError, InputError
from pe_dense.utils.rng import fork_rng_at_initial_seed


def early_backward(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """Compute the gradients of a loss immediately and free its graph.

    The result has the value of the loss, and its backward pass returns the stored gradients. The losses of many heads
    can therefore be summed for one ordinary backward pass (with any wrapper of model and optimizer), while only the
    activations of one head are in memory at a time.

    Args:
        loss: scalar loss.
        parameters: parameters to compute gradients for; gradients of other tensors are not computed.

    Returns:
        a scalar tensor with the value of ``loss``.
    """
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return _Settled.apply(loss.detach(), gradients, *parameters)


class _Settled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss: Tensor, gradients: Sequence[Tensor | None], *_parameters: nn.Parameter) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx, upstream: Tensor):
        gradients = [None if gradient is None else upstream * gradient for gradient in ctx.gradients]
        return None, None, *gradients


class LayerSweep(FrozenBackboneMixin):
    """Mixin for mmseg models with a separate head and loss on every feature map of the backbone.

    Heads run as soon as their feature map is computed, and their gradients are computed immediately, so that only the
    activations of one head are in memory at a time. Each probe is trained as if it were the only one: with the same
    initial weights, loss and optimizer steps.

    Args:
        learning_rates, weight_decays: a probe is trained for every layer and every combination of these values; by
            default one per layer, with the values of the optimizer.

    Raises:
        ValueError: if either is not a non-empty list, or a layer occurs twice.
    """

    def __init__(
        self,
        *args,
        learning_rates: Sequence[float] | None = None,
        weight_decays: Sequence[float] | None = None,
        **options,
    ):
        given = dict(lr=learning_rates, weight_decay=weight_decays)
        grid = {name: values for name, values in given.items() if values is not None}
        for name, values in grid.items():
            if not isinstance(values, Sequence) or not values:
                raise InputError(f"a sweep over {name} requires a non-empty list, got {values!r}")
        self.settings = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
        super().__init__(*args, **options)

    def _init_decode_head(self, decode_head: dict) -> None:
        layers = self.backbone.out_indices
        if len(set(layers)) < len(layers):
            raise InputError(f"out_indices of a sweep must be different layers, got {', '.join(map(str, layers))}")
        self.probes = nn.ModuleDict()
        for layer in layers:
            for number in range(len(self.settings)):
                with fork_rng_at_initial_seed():
                    head = MODELS.build(sized(decode_head, self.backbone, num_taps=1))
                self.probes[probe_name(layer, number)] = head
        self.align_corners = self.decode_head.align_corners
        self.num_classes = self.decode_head.num_classes
        self.out_channels = self.decode_head.out_channels

    @property
    def decode_head(self) -> nn.Module:
        """First head, for settings that are the same for all heads."""
        return next(iter(self.probes.values()))

    def probes_of(self, layer: int) -> Iterator[tuple[str, nn.Module]]:
        """Yield names and heads of the probes of a layer."""
        for number in range(len(self.settings)):
            name = probe_name(layer, number)
            yield name, self.probes[name]

    def loss(self, inputs: Tensor, data_samples: Sequence) -> dict[str, Tensor]:
        """Compute the losses of all probes.

        Args:
            inputs: (B, 3, H, W).
            data_samples: data samples with ground truth.

        Returns:
            one loss per probe; the gradients of its head are already computed.
        """
        losses = {}
        for layer, feature_map in self.backbone.iter_intermediates(inputs):
            for name, head in self.probes_of(layer):
                loss, _ = self.parse_losses(head.loss((feature_map,), data_samples, self.train_cfg))
                losses[f"layer_{name}.loss"] = early_backward(loss, list(head.parameters()))
        return losses

    def encode_decode_all(self, inputs: Tensor, flip: bool = False) -> Iterator[tuple[str, Tensor]]:
        """Yield the outputs of all probes for a batch, one probe at a time.

        Outputs of the heads are kept at low resolution until the forward pass of the backbone is complete.

        Args:
            inputs: (B, 3, H, W).
            flip: flip each window horizontally, and flip the output back.

        Yields:
            name of the probe and its output (B, K, H, W).
        """
        windows = windows_of(inputs, self.test_cfg)
        outputs: dict[str, list[Tensor]] = {name: [] for name in self.probes}
        shapes = []
        for window in windows.cut(inputs):
            shapes.append(dict(img_shape=window.shape[-2:]))
            window = window.flip(-1) if flip else window
            for layer, feature_map in self.backbone.iter_intermediates(window):
                for name, head in self.probes_of(layer):
                    outputs[name].append(head((feature_map,)))
        for name, head in self.probes.items():
            pairs = zip(outputs.pop(name), shapes, strict=True)
            maps = (head.predict_by_feat(output, [shape]) for output, shape in pairs)
            yield name, windows.merge(values.flip(-1) if flip else values for values in maps)

    def predict(self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence | None = None) -> list:
        """Predict with all probes.

        Returns:
            data samples, each with ``by_probe``: {probe: data sample with its prediction}.
        """
        if not isinstance(inputs, Tensor):
            return super().predict(inputs, data_samples)
        for sample in data_samples:
            sample.set_field({}, "by_probe", field_type="data")
        for name, output in self.encode_decode_all(inputs):
            predicted = self.postprocess_result(output, [self.without_probes(sample) for sample in data_samples])
            for sample, found in zip(data_samples, predicted, strict=True):
                sample.by_probe[name] = self.compact(found)
        return list(data_samples)

    @staticmethod
    def without_probes(sample):
        """Return a shallow copy of a data sample without the predictions of other probes."""
        copied = sample.clone()
        del copied.by_probe
        return copied

    @staticmethod
    def compact(sample):
        """Reduce a prediction to the fields that are needed; to be overridden."""
        return sample


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(name=["SweepOptimWrapperConstructor", "SweepConstructor"])
class SweepOptimWrapperConstructor:
    """Create a parameter group per probe of a :class:`~pe_dense.probing.LayerSweep`, with its own settings.

    Args:
        optim_wrapper_cfg: ``dict(optimizer=..., type=...)`` as for MMEngine's default constructor. The optimizer must
            update each parameter independently, as Adam and SGD do.
        paramwise_cfg: must be None; use ``learning_rates`` and ``weight_decays`` of the sweep instead.

    Raises:
        ConfigError: for a ``paramwise_cfg``, or for gradient clipping by norm, which would couple all probes.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        if paramwise_cfg:
            raise ConfigError(
                f"sweeps do not support paramwise_cfg={paramwise_cfg}: use model.learning_rates and model.weight_decays"
            )
        clip = optim_wrapper_cfg.get("clip_grad")
        if clip and clip.get("type", "norm") == "norm":
            raise ConfigError(
                f"clip_grad={dict(clip)} would clip all probes of a sweep by their common norm: remove it, or clip by "
                "value (type='value')"
            )
        self.optim_wrapper_cfg = dict(optim_wrapper_cfg)

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer wrapper of a sweep."""
        model = model.module if is_model_wrapper(model) else model
        groups = [
            dict(params=list(head.parameters()), layer=layer, **setting)
            for layer in model.backbone.out_indices
            for setting, (_, head) in zip(model.settings, model.probes_of(layer), strict=True)
        ]
        wrapper = dict(self.optim_wrapper_cfg)
        wrapper.setdefault("type", "OptimWrapper")
        optimizer = OPTIMIZERS.build(dict(wrapper.pop("optimizer")), default_args=dict(params=groups))
        return OPTIM_WRAPPERS.build(wrapper, default_args=dict(optimizer=optimizer))
