"""Evaluate PE models with the ``clip-benchmark`` package: ``python -m pe_dense.language.clip_benchmark eval ...``.

Arguments are those of ``clip_benchmark``; the model type ``pe_dense`` is added and made the default. ``--model`` is a
name, path or ``hf://`` name as of :func:`~pe_dense.language.load_clip`; ``--pretrained`` only names the result.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pe_dense.language.clip import load_clip
from pe_dense.language.preprocessing import get_image_transform, get_text_tokenizer

MODEL_TYPE = "pe_dense"


def load_model(model_name: str, pretrained: str = "", cache_dir: str | None = None, device="cpu"):
    """Load a model with the interface of ``clip_benchmark.models``.

    Args:
        model_name: as of :func:`~pe_dense.language.load_clip`.
        pretrained, cache_dir: not used.
        device: where the model goes.

    Returns:
        the model, its image transform and its tokenizer.
    """
    model = load_clip(model_name, device=device)
    return model, get_image_transform(model.image_size), get_text_tokenizer(model.context_length)


def register() -> None:
    """Add the model type ``pe_dense`` to the package.

    Raises:
        ImportError: if the package is not installed.
    """
    from clip_benchmark import models

    models.TYPE2FUNC[MODEL_TYPE] = load_model
    if MODEL_TYPE not in models.MODEL_TYPES:
        models.MODEL_TYPES.append(MODEL_TYPE)  # the command line keeps a reference to this list


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the package's command line with this model type.

    Args:
        arguments: those of the process by default.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        register()
    except ModuleNotFoundError as error:
        raise SystemExit(f"error: {error.name} is not installed: run `pip install 'pe_dense[clip]'`") from None
    from clip_benchmark import cli

    if arguments[:1] == ["eval"] and not any(argument.startswith("--model_type") for argument in arguments):
        arguments += ["--model_type", MODEL_TYPE]
    sys.argv = ["clip_benchmark", *arguments]
    cli.main()


if __name__ == "__main__":
    main()
