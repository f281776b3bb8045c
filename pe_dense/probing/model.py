"""What single probes and sweeps have in common: a mixin for mmseg's models."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pe_dense.probing.frozen import FrozenTower
from pe_dense.probing.windows import complete_windows


class OnFrozenTower:
    """Mixin for mmseg's models on a :class:`FrozenTower`: sizes follow from the tower, and are checked.

    Images to test are filled up to whole patches; those of a batch may differ in size.

    Raises:
        ValueError: for a window or training size that is no multiple of the patch, windows with gaps, or another
            backbone.
    """

    test_modes: tuple[str, ...] = ("whole", "slide")

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        if not isinstance(self.backbone, FrozenTower):
            raise ValueError(f"{type(self).__name__} needs a FrozenTower, got a {type(self.backbone).__name__}")
        self.test_cfg = complete_windows(self.test_cfg, self.test_modes)
        patch = self.backbone.patch_size
        for name, size in (
            ("test_cfg.crop_size", self.test_cfg.get("crop_size")),
            ("data_preprocessor.size", getattr(self.data_preprocessor, "size", None)),
        ):
            if any(side % patch for side in size or ()):
                raise ValueError(f"{name} {tuple(size)} is no multiple of the tower's patches of {patch} px")
        self.data_preprocessor.test_cfg = dict(size_divisor=patch)

    def init_weights(self) -> None:
        """Load the tower; heads start from what they were made with (MMEngine would draw parts of them anew)."""
        self.backbone.init_weights()

    def predict(self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence | None = None) -> list:
        """As mmseg's; images of different sizes come in a list and are each predicted by themselves."""
        if isinstance(inputs, Tensor):
            return super().predict(inputs, data_samples)
        pairs = zip(inputs, data_samples, strict=True)
        return [found for image, sample in pairs for found in self.predict(image, [sample])]


def sized(head: dict, tower: FrozenTower, num_taps: int) -> dict:
    """A head's config with what follows from the tower: ``width``, channels of a map, and ``num_taps``."""
    return dict(head, width=tower.out_channels, num_taps=num_taps)
