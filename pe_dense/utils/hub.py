"""Save models to folders and repositories of the Hugging Face hub, and load them from there.

A folder has ``config.json`` (the class and the arguments that build it), ``model.safetensors`` and a model card. It may
come from anywhere: arguments are only numbers, text and lists, and the classes that they name are those of this
package, mmdet and mmseg.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from huggingface_hub import ModelHubMixin, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from torch import Tensor

from pe_dense import __version__
from pe_dense.utils.atomic_write import write_json, write_text
from pe_dense.utils.checkpoint import CheckpointError, read_checkpoint, write_safetensors
from pe_dense.utils.errors import InputError, UserError, first_line
from pe_dense.utils.lora_state import merge_lora
from pe_dense.utils.state_dict import match_state_dict

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
_TYPE = re.compile(r"((pe_dense|mmdet|mmseg)\.)?\w+")
_MAX_CONFIG = 1 << 20  # bytes
_LICENSE = re.compile(r"[\w.+-]+")
_HTTP_ERROR = HfHubHTTPError.__mro__[1]  # also the base of errors of the connection


class HubMixin(ModelHubMixin, library_name="pe_dense"):
    """Adds ``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` to a model.

    The arguments of the constructor are recorded when an object is created. ``init_cfg``, which names files of weights,
    and ``lora`` are left out of what is saved.

    Attributes:
        default_scope: MMEngine's scope of names in the arguments.
        model_card: what the model card states: ``data``, ``metrics`` (name to value), ``license``, ``base_model``. What
            is missing is stated to be missing.
        class_names: class names; None without classes.
    """

    default_scope: str | None = None
    model_card: Mapping = MappingProxyType({})
    class_names: tuple[str, ...] | None = None

    def save_pretrained(self, save_directory: str | Path, *, overwrite: bool = False, **options) -> str | None:
        """Write ``config.json``, ``model.safetensors`` and the model card to a folder.

        Args:
            save_directory: the folder, created if missing.
            overwrite: replace the files of a model that is already there.
            options: see huggingface_hub.

        Raises:
            FileExistsError: if the folder has a model and ``overwrite`` is not set.
            WriteError: if a file cannot be written.
        """
        check_folder(save_directory, overwrite=overwrite)
        return super().save_pretrained(save_directory, **options)

    def push_to_hub(self, repo_id: str, **options) -> str:
        """Upload the files of :meth:`save_pretrained` to a repository, which is created if it is missing.

        Args:
            repo_id: ``<owner>/<repo>``.
            options: see huggingface_hub: ``private``, ``token``, ``branch``, ``commit_message``, ...

        Returns:
            the URL of the commit.

        Raises:
            InputError: if that is not the name of a repository.
            UserError: if the hub does not take the upload: no token, no right to write, no connection.
        """
        check_repo(repo_id)
        try:
            return super().push_to_hub(repo_id, **options)
        except UserError:
            raise
        except (_HTTP_ERROR, OSError) as error:
            reason = first_line(error).rstrip(".")
            raise UserError(
                f"the hub did not take {repo_id}: {reason}. Check the name, the connection, and the token "
                "(`hf auth login` or HF_TOKEN), which must have the right to write"
            ) from error

    @classmethod
    def _encode_arg(cls, arg):
        return plain(arg)

    def hub_state(self) -> dict[str, Tensor]:
        """Return all tensors to save, by name; LoRA adapters are merged."""
        return merge_lora(self.state_dict(), type(self).__name__)

    def load_hub_state(self, state: Mapping[str, Tensor], source: str) -> None:
        """Load the result of :meth:`hub_state`, which must match exactly."""
        match_state_dict(self.state_dict(), state, source, type(self).__name__)
        self.load_state_dict(state)

    def hub_arguments(self) -> dict:
        """Return the arguments that build this model, as JSON types."""
        return _without_training(plain(self._hub_mixin_config or {}))

    def _save_pretrained(self, save_directory: Path) -> None:
        config = dict(
            pe_dense_version=__version__,
            type=f"pe_dense.{type(self).__name__}",
            arguments=self.hub_arguments(),
        )
        if self.class_names is not None:
            config["classes"] = list(self.class_names)
        state = {key: value.detach().cpu().contiguous() for key, value in self.hub_state().items()}
        write_safetensors(save_directory / WEIGHTS_FILE, state)
        write_json(save_directory / CONFIG_FILE, config, indent=2)
        write_text(save_directory / CARD_FILE, card_text(config, self.model_card))

    def generate_model_card(self, *args, **kwargs):
        """Return the card as huggingface_hub's object."""
        from huggingface_hub import ModelCard

        config = dict(type=f"pe_dense.{type(self).__name__}", arguments=self.hub_arguments())
        return ModelCard(card_text(config, self.model_card))

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        force_download: bool = False,
        **arguments,
    ):
        """Build a model from a folder or a repository and load its weights.

        Args:
            pretrained_model_name_or_path: folder, or ``<owner>/<repo>`` of the hub.
            revision, cache_dir, local_files_only, token, force_download: see huggingface_hub.
            arguments: replace recorded arguments of the constructor.

        Returns:
            the model in evaluation mode.

        Raises:
            CheckpointError: if the repository is of another class or its content is invalid.
            FileNotFoundError: if a file is missing, or the hub cannot be reached.
        """
        source = str(pretrained_model_name_or_path)
        options = dict(
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
            force_download=force_download,
        )
        config = read_config(_file(source, CONFIG_FILE, options), source)
        expected = f"pe_dense.{cls.__name__}"
        if config["type"] != expected:
            raise CheckpointError(f"{source} contains a {config['type']}: load it by that class, not by {expected}")
        state = read_checkpoint(_file(source, WEIGHTS_FILE, options))
        if cls.default_scope is not None:
            init_default_scope(cls.default_scope)
        try:
            model = cls(**ConfigDict(config["arguments"]) | arguments)
        except (UserError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
            reason = first_line(error)
            raise CheckpointError(f"{source}: {CONFIG_FILE} does not describe a {expected}: {reason}") from error
        model.load_hub_state(state, source)
        if config.get("classes"):
            model.class_names = tuple(config["classes"])
        model._is_init = True
        return model.eval()


def plain(value):
    """Copy a value as JSON types; a value that has none becomes text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _without_training(value):
    """Remove files of initial weights and LoRA adapters, which are merged, at any depth."""
    if isinstance(value, dict):
        return {key: _without_training(item) for key, item in value.items() if key not in ("init_cfg", "lora")}
    return [_without_training(item) for item in value] if isinstance(value, list) else value


def read_config(path: Path, source: str) -> dict:
    """Read and check ``config.json``.

    Raises:
        CheckpointError: if it is not JSON, too large, or names classes of other packages.
    """
    if path.stat().st_size > _MAX_CONFIG:
        raise CheckpointError(f"{source}: {CONFIG_FILE} is larger than {_MAX_CONFIG:,} bytes")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise CheckpointError(f"{source}: {CONFIG_FILE} is not valid JSON: {reason}") from error
    if (
        not isinstance(config, dict)
        or not isinstance(config.get("type"), str)
        or not isinstance(config.get("arguments"), dict)
    ):
        raise CheckpointError(f"{source}: {CONFIG_FILE} was not written by pe_dense (no type and arguments)")
    classes = config.get("classes") or []
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise CheckpointError(f"{source}: classes of {CONFIG_FILE} are not a list of names")
    try:
        _check_types(config["arguments"], source)
    except RecursionError as error:
        raise CheckpointError(f"{source}: {CONFIG_FILE} is nested too deeply") from error
    return config


def check_folder(folder: str | Path, *, overwrite: bool = False) -> None:
    """Check that a model may be saved to a folder, which need not exist.

    Raises:
        InputError: if it is a file.
        FileExistsError: if it has a model or a README and ``overwrite`` is not set.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder")
    taken = [name for name in (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE) if (folder / name).exists()]
    if taken and not overwrite:
        raise FileExistsError(f"{folder} has a {taken[0]}: name another folder or pass overwrite=True")


def check_repo(name: str) -> None:
    """Check the name of a repository of the hub.

    Raises:
        InputError: if it is not of the form ``<owner>/<repo>``.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(f"{name} is not the name <owner>/<repo> of a repository: {first_line(error)}") from error
    if "/" not in name:
        raise InputError(f"{name} is not the name <owner>/<repo> of a repository: it has no owner")


def check_license(name: str) -> None:
    """Check that a license is one word, as in the header of a model card.

    Raises:
        InputError: if it is not.
    """
    if not _LICENSE.fullmatch(name):
        raise InputError(f"license {name!r} is not an identifier such as apache-2.0, mit or other")


def _check_types(value, source: str) -> None:
    if isinstance(value, dict):
        kind = value.get("type")
        if kind is not None and not (isinstance(kind, str) and _TYPE.fullmatch(kind)):
            raise CheckpointError(
                f"{source}: {CONFIG_FILE} names the class {str(kind)[:80]!r}; only those of pe_dense, mmdet and mmseg "
                "are built"
            )
        if value.get("init_cfg"):
            raise CheckpointError(f"{source}: {CONFIG_FILE} names other files by init_cfg, which are not opened")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_types(item, source)


def _file(source: str, name: str, options: dict) -> Path:
    """Return the path of a file of a folder or a repository."""
    if Path(source).is_dir():
        path = Path(source) / name
        if not path.is_file():
            raise FileNotFoundError(f"{source} has no {name}: save it by save_pretrained")
        return path
    try:
        return Path(hf_hub_download(source, name, **options))
    except HFValidationError as error:
        raise InputError(f"{source} is neither a folder nor the name <owner>/<repo> of a repository") from error
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"there is no folder {source}, and as a repository of the hub its {name} is not in the local cache and the "
            "hub cannot be reached"
        ) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(f"the hub's repository {source} has no {name}") from error
    except HfHubHTTPError as error:
        raise FileNotFoundError(f"the hub did not give {name} of {source}: {first_line(error)}") from error


_SNIPPETS = dict(
    PETower="from pe_dense.backbones import PETower",
    TimmTower="from pe_dense.backbones import TimmTower",
    CLIP="from pe_dense.language import CLIP",
    MaskRCNN="from pe_dense.detection import MaskRCNN",
    DETA="from pe_dense.detection.deta import DETA",
    SegmentationProbe="from pe_dense.segmentation import SegmentationProbe",
    DepthProbe="from pe_dense.depth import DepthProbe",
)


def card_text(config: dict, card: Mapping, repo: str = "OWNER/REPO") -> str:
    """Write the text of a model card.

    Args:
        config: content of ``config.json``.
        card: ``data``, ``metrics``, ``license`` and ``base_model``; what is missing is stated to be missing.
        repo: name of the repository in the usage snippet.
    """
    name = config["type"].rpartition(".")[2]
    metrics = card.get("metrics") or {}
    head = ["---", "library_name: pe_dense", "tags:", "- pe_dense", "- perception-encoder"]
    if card.get("license"):
        head.append(f"license: {card['license']}")
    if card.get("base_model"):
        head.append(f"base_model: {card['base_model']}")
    table = ["| metric | value |", "|---|---|", *(f"| {key} | {value} |" for key, value in metrics.items())]
    body = [
        f"# {name}",
        "",
        "A model of pe_dense: dense prediction with the [Perception Encoder](https://arxiv.org/abs/2504.13181).",
        "",
        "## Use",
        "",
        "```python",
        _SNIPPETS.get(name, f"from pe_dense import {name}"),
        "",
        f'model = {name}.from_pretrained("{repo}")',
        "```",
        "",
        "## Training data",
        "",
        card.get("data") or "Not stated.",
        "",
        "## Metrics",
        "",
        *(table if metrics else ["Not evaluated, or not stated by whoever saved this model."]),
        "",
        "## License",
        "",
        card.get("license") or "Not stated.",
        "",
    ]
    return "\n".join([*head, "---", "", *body])
