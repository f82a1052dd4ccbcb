"""Checkpoints published for NeuroSTORM: ``.ckpt`` files of its research code, old and new.

Such a file is ``{state_dict, hyper_parameters, …}``. Its weights are those of an encoder with a
head, or of a masked autoencoder. Window sizes and whether the last stage sees its whole grid leave
no trace in the weights: they stand in ``hyper_parameters``, or must be given by hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from neurostorm_bids.errors import DataError, UsageError
from neurostorm_bids.model.config import HeadConfig, ModelConfig, TargetKind, TargetSpec
from neurostorm_bids.model.digest import digest_file
from neurostorm_bids.model.masking import check_scheme
from neurostorm_bids.model.shapes import Prefixes, check_shapes, expect_shapes
from neurostorm_bids.model.torchfile import TorchFile, are_sizes
from neurostorm_bids.model.unpickling import StoredTensor, is_bounded
from neurostorm_bids.model.weights import Checkpoint, Provenance, check_finite

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from neurostorm_bids.model.shapes import Shape

_CONFIG_KEYS = {
    "img_size": "img_size",
    "in_chans": "in_chans",
    "embed_dim": "embed_dim",
    "depths": "depths",
    "window_size": "window_size",
    "first_window_size": "first_window_size",
    "patch_size": "patch_size",
    "c_multiplier": "c_multiplier",
    "last_layer_full_msa": "last_layer_full_MSA",
}
_CONFIG_ADVICE = (
    "Give the sizes it was trained with: neurostorm-model convert FILE FOLDER --config SIZES.json, "
    "or load_model(FILE, config=ModelConfig(...))."
)
_DECODER_PARTS = {
    "mask_token",
    "window_mask_token",
    "atlas_mask_token",
    "first_patch_expanding",
    "layers_up",
    "norm_up",
    "decoder_pred",
}
# Files older than the setting downstream_task_type tell it by the name of their task.
_OLD_TASKS: dict[str, TargetKind] = {
    "sex": "classification",
    "age": "regression",
    "int_total": "regression",
    "int_fluid": "regression",
}
# The research code gives every transformer head 8 attention heads and stores this nowhere.
_V3_ATTENTION_HEADS = 8


class _Parts(NamedTuple):
    """The tensors of a file by what they belong to, without the prefixes of their keys."""

    backbone: dict[str, StoredTensor]
    decoder: dict[str, StoredTensor]
    head: dict[str, StoredTensor]
    head_prefix: str
    unknown: dict[str, StoredTensor]
    notes: tuple[str, ...]

    @property
    def prefixes(self) -> Prefixes:
        """What stands before the keys of each part in the file."""
        return Prefixes(backbone="model.", head=self.head_prefix, decoder="model.")

    def name_shapes(self) -> dict[str, Shape]:
        """Return the shapes of all tensors by their keys in the file."""
        prefixed = zip(
            (*self.prefixes, ""),
            (self.backbone, self.head, self.decoder, self.unknown),
            strict=True,
        )
        return {prefix + key: shape for prefix, part in prefixed for key, shape in _shapes(part)}


class _Description(NamedTuple):
    """What the weights are, and what had to be assumed."""

    config: ModelConfig
    head: HeadConfig | None
    target: TargetSpec | None
    notes: tuple[str, ...]


def read_published(
    path: Path,
    *,
    config: ModelConfig | None = None,
    target: TargetSpec | None = None,
    source: str | None = None,
) -> Checkpoint:
    """Read a published checkpoint; nothing in it is executed.

    Parameters
    ----------
    config : sizes of the backbone, in place of what ``hyper_parameters`` say.
    target : what the head predicts, in place of what the file says.
    source : where the file comes from, for the provenance; its name by default.

    Raises
    ------
    DataError
        If the file is damaged, is no NeuroSTORM checkpoint, lacks its configuration, or its weights
        are not exactly those that the configuration asks for.
    UsageError
        If a target is given for a file without a head.
    """
    with TorchFile(path) as file:
        state, hyper = _read_contents(file.contents, path)
        parts = _sort(state, is_pretraining=hyper.get("pretraining") is True)
        try:
            about = _describe(parts, hyper, config=config, target=target)
        except DataError as err:
            raise DataError(f"{path}: {err}") from err
        expected = expect_shapes(
            about.config, about.head, decoder=dict(_shapes(parts.decoder)), prefixes=parts.prefixes
        )
        check_shapes(parts.name_shapes(), expected, path=path)
        weights, decoder, head = (
            {key: file.read_tensor(tensor) for key, tensor in part.items()}
            for part in (parts.backbone, parts.decoder, parts.head)
        )
    for part in (weights, decoder, head):
        check_finite(part, path=path)
    return Checkpoint(
        config=about.config,
        head=about.head,
        target=about.target,
        weights=weights,
        head_weights=head,
        decoder_weights=decoder,
        mask_scheme=_read_mask(hyper) if decoder else None,
        provenance=Provenance(
            name=path.stem,
            source=source or path.name,
            sha256=digest_file(path),
            format="published",
            notes=parts.notes + about.notes,
        ),
    )


def _shapes(part: Mapping[str, StoredTensor]) -> Iterator[tuple[str, Shape]]:
    return ((key, tuple(tensor.shape)) for key, tensor in part.items())


def _read_contents(contents: Any, path: Path) -> tuple[dict[str, StoredTensor], dict[str, Any]]:  # noqa: ANN401
    """Return the tensors and the hyper-parameters of a file, checked to be such."""
    used = contents
    if isinstance(contents, dict):
        used = (list(contents), contents.get("state_dict"), contents.get("hyper_parameters"))
    if not is_bounded(used):
        raise DataError(
            f"{path} is not a checkpoint: its pickle refers to itself, or to numbers beyond any "
            "size. Compare its SHA-256 with the publisher's, and fetch it again."
        )
    state = contents.get("state_dict") if isinstance(contents, dict) else None
    if not isinstance(state, dict):
        found = sorted(map(str, contents)) if isinstance(contents, dict) else type(contents)
        raise DataError(
            f"{path} is not a checkpoint: expected a dict with state_dict and hyper_parameters, "
            f"found {found!s:.200}."
        )
    for key, value in state.items():
        sized = isinstance(value, StoredTensor) and are_sizes(value.shape)
        if not isinstance(key, str) or not sized:
            raise DataError(
                f"{path}: state_dict holds something else than tensors: {key!r:.80} is "
                f"{value!r:.80}. Nothing but tensors is read from a checkpoint."
            )
    hyper = contents.get("hyper_parameters")
    return state, hyper if isinstance(hyper, dict) else {}


def _sort(state: Mapping[str, StoredTensor], *, is_pretraining: bool) -> _Parts:
    """Sort the tensors by the prefixes of their keys.

    The head lies below ``output_head.head.``, in older files right below ``output_head.``.
    """
    new_head = any(key.startswith("output_head.head.head.") for key in state)
    parts = _Parts({}, {}, {}, "output_head.head." if new_head else "output_head.", {}, ())
    notes = []
    for key, tensor in state.items():
        bare = key.removeprefix("model.")
        if key == "model.atlas_map":
            notes.append("The file's atlas for masking was left out: it was made without affines.")
        elif key.startswith("output_head.") and is_pretraining:
            notes.append(f"{key}, of pretraining, was left out.")
        elif key.startswith(parts.head_prefix):
            parts.head[key.removeprefix(parts.head_prefix)] = tensor
        elif bare != key and bare.split(".")[0] in _DECODER_PARTS:
            parts.decoder[bare] = tensor
        elif bare != key:
            parts.backbone[bare] = tensor
        else:
            parts.unknown[key] = tensor
    return parts._replace(notes=tuple(notes))


def _describe(
    parts: _Parts,
    hyper: Mapping[str, Any],
    *,
    config: ModelConfig | None,
    target: TargetSpec | None,
) -> _Description:
    """Say what the tensors are, from the hyper-parameters and from what was given by hand."""
    notes: list[str] = []
    if config is None:
        config = _read_config(hyper)
    else:
        notes.append("The sizes of the backbone were given by hand.")
    if not parts.head:
        if target is not None:
            raise UsageError(f"The file has no head, so it cannot predict {target.name!r}.")
        return _Description(config, None, None, tuple(notes))
    head = _infer_head(dict(_shapes(parts.head)))
    if head.version == "v3":
        notes.append(f"Taken to have {_V3_ATTENTION_HEADS} attention heads: the file does not say.")
    if target is None:
        target, said = _read_target(hyper, head)
        notes += said
    if target.kind == "regression":
        head = HeadConfig(version="regression", n_outputs=head.n_outputs)
    return _Description(config, head, target, tuple(notes))


def _read_config(hyper: Mapping[str, Any]) -> ModelConfig:
    """Read the sizes of the backbone from the hyper-parameters."""
    if missing := [key for key in _CONFIG_KEYS.values() if key not in hyper]:
        raise DataError(
            f"hyper_parameters do not say {', '.join(missing)}, and the weights do not tell. "
            f"{_CONFIG_ADVICE}"
        )
    values = {name: hyper[key] for name, key in _CONFIG_KEYS.items()}
    # prompt_len is stored also where there are no prompts.
    if hyper.get("use_prompt_tuning") is True:
        values["prompt_len"] = hyper.get("prompt_len")
    try:
        return ModelConfig.from_dict(values)
    except DataError as err:
        raise DataError(f"hyper_parameters are unusable. {err} {_CONFIG_ADVICE}") from err


def _read_mask(hyper: Mapping[str, Any]) -> str | None:
    """Read how tokens were masked in pretraining; None where the hyper-parameters do not say."""
    scheme = f"{hyper.get('spatial_mask')}/{hyper.get('time_mask')}"
    try:
        check_scheme(scheme)
    except DataError:
        return None
    return scheme


def _infer_head(shapes: Mapping[str, Shape]) -> HeadConfig:
    """Tell a head's version from its keys, and its sizes from some of its shapes."""
    n_outputs = (*shapes.get("head.weight", ()), 1)[0]
    if "cls_token" in shapes:
        layers = {key.split(".")[2] for key in shapes if key.startswith("transformer_encoder.")}
        return HeadConfig(
            version="v3",
            n_outputs=n_outputs,
            n_tokens=(*shapes.get("pos_embed", ()), 0, 0)[1] - 1,
            n_layers=len(layers),
            n_heads=_V3_ATTENTION_HEADS,
        )
    return HeadConfig(version="v2" if "hidden.weight" in shapes else "v1", n_outputs=n_outputs)


def _read_target(hyper: Mapping[str, Any], head: HeadConfig) -> tuple[TargetSpec, list[str]]:
    """Read what the head predicts, and say what the file does not tell."""
    name = hyper.get("task_name") or hyper.get("downstream_task")
    kind = hyper.get("downstream_task_type")
    if kind not in get_args(TargetKind):
        kind = _OLD_TASKS.get(name) if isinstance(name, str) else None
    if not isinstance(name, str) or kind is None:
        raise DataError(
            "The file has a head, but hyper_parameters do not say what it predicts: found "
            f"task_name {name!r:.80}, downstream_task_type "
            f"{hyper.get('downstream_task_type')!r:.80}. Give it: neurostorm-model convert FILE "
            "FOLDER --target-name NAME --target-kind classification (or regression), or "
            "load_model(FILE, target=TargetSpec(...))."
        )
    if kind == "classification":
        classes = tuple(str(i) for i in range(max(2, head.n_outputs)))
        note = f"The published file does not name the classes of {name}."
        return TargetSpec(name=name, kind="classification", classes=classes), [note]
    note = f"The published file holds neither mean nor deviation of {name}."
    if hyper.get("label_scaling_method") == "minmax":
        note = (
            f"In training {name} was scaled to run from 0 to 1, not to z-scores: give its minimum "
            "as mean and its range as deviation. The published file holds neither."
        )
    return TargetSpec(name=name, kind="regression"), [note]
