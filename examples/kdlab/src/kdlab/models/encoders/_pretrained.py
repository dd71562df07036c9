"""Reads checkpoints of BERT, RoBERTa and DistilBERT.

A folder holds ``config.json`` and ``model.safetensors``; the names of the tensors are
those of the library transformers.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from kdlab.basics.reading import UserError, read_json
from kdlab.models._outputs import Model
from kdlab.models.encoders._config import EncoderConfig
from kdlab.models.encoders._heads import SequenceClassifier, SpanClassifier
from kdlab.models.state_dicts import read_torch

_BERT = {
    "encoder.words": "embeddings.word_embeddings",
    "encoder.positions": "embeddings.position_embeddings",
    "encoder.types": "embeddings.token_type_embeddings",
    "encoder.norm": "embeddings.LayerNorm",
    **{
        f"encoder.layers.{{i}}.attention.{name}": (
            f"encoder.layer.{{i}}.attention.self.{name}"
        )
        for name in ("query", "key", "value")
    },
    "encoder.layers.{i}.attention.out": "encoder.layer.{i}.attention.output.dense",
    "encoder.layers.{i}.attention_norm": (
        "encoder.layer.{i}.attention.output.LayerNorm"
    ),
    "encoder.layers.{i}.hidden": "encoder.layer.{i}.intermediate.dense",
    "encoder.layers.{i}.project": "encoder.layer.{i}.output.dense",
    "encoder.layers.{i}.norm": "encoder.layer.{i}.output.LayerNorm",
}
_DISTILBERT = {
    **{line: _BERT[line] for line in list(_BERT)[:4]},
    **{
        f"encoder.layers.{{i}}.attention.{name}": (
            f"transformer.layer.{{i}}.attention.{short}_lin"
        )
        for name, short in {
            "query": "q",
            "key": "k",
            "value": "v",
            "out": "out",
        }.items()
    },
    "encoder.layers.{i}.attention_norm": "transformer.layer.{i}.sa_layer_norm",
    "encoder.layers.{i}.hidden": "transformer.layer.{i}.ffn.lin1",
    "encoder.layers.{i}.project": "transformer.layer.{i}.ffn.lin2",
    "encoder.layers.{i}.norm": "transformer.layer.{i}.output_layer_norm",
}
_ENCODERS = {"bert": _BERT, "roberta": _BERT, "distilbert": _DISTILBERT}
_DENSE = {
    "bert": "bert.pooler.dense",
    "roberta": "classifier.dense",
    "distilbert": "pre_classifier",
}
_LEAVES = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}
# Heads of pretraining, and buffers that hold no weights.
_UNUSED = re.compile(
    r"cls\.|lm_head\.|vocab_(transform|layer_norm|projector)\.|(.*\.)?position_ids$"
)
_HEADS = re.compile(r"(\w+\.pooler|classifier|pre_classifier|qa_outputs)\.")
_LISTED = 20  # names of each kind in a message


def read_config(folder: str | Path) -> EncoderConfig:
    """Reads the configuration of a checkpoint.

    Args:
        folder: A folder with ``config.json``.

    Returns:
        The configuration, with the separator of the family's own vocabulary.

    Raises:
        ValueError: If it is not that of an encoder of the three families.
    """
    path = Path(folder) / "config.json"
    found = read_json(path)
    family = found.get("model_type")
    if family not in _ENCODERS:
        raise UserError(
            f"{path} describes a model of type {family!r}; expected bert, roberta or "
            "distilbert."
        )
    if found.get("position_embedding_type", "absolute") != "absolute":
        raise UserError(f"{path} asks for relative positions; only absolute ones work.")
    short = family == "distilbert"
    names = {
        "vocabulary": "vocab_size",
        "width": "dim" if short else "hidden_size",
        "depth": "n_layers" if short else "num_hidden_layers",
        "heads": "n_heads" if short else "num_attention_heads",
        "hidden": "hidden_dim" if short else "intermediate_size",
        "positions": "max_position_embeddings",
    }
    missing = [name for name in names.values() if name not in found]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}.")
    activation = found.get("activation" if short else "hidden_act", "gelu")
    activations = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
    activation = activations.get(activation, activation)
    if activation not in ("gelu", "gelu_tanh", "relu"):
        raise UserError(f"{path} asks for the activation {activation!r}.")
    rate = found.get("dropout" if short else "hidden_dropout_prob", 0.1)
    head = "seq_classif_dropout" if short else "classifier_dropout"
    attention = "attention_dropout" if short else "attention_probs_dropout_prob"
    return EncoderConfig(
        family=family,
        **{ours: found[theirs] for ours, theirs in names.items()},
        types=0 if short else found.get("type_vocab_size", 2),
        padding_id=found.get("pad_token_id", 1 if family == "roberta" else 0),
        separator_id=2 if family == "roberta" else 102,
        epsilon=1e-12 if short else found.get("layer_norm_eps", 1e-12),
        activation=activation,
        dropout=rate,
        attention_dropout=found.get(attention, 0.1),
        head_dropout=found.get(head) or (0.2 if short else rate),
    )


def load(path: str | Path, model: Model, *, fresh_head: bool = False) -> None:
    """Reads the weights of a checkpoint into a model.

    Args:
        path: A ``.safetensors`` file, or a folder with ``model.safetensors``.
        model: The model; unchanged if there is an error.
        fresh_head: Whether the head keeps its initial values, for fine-tuning. BERT's
            pooler is then read if the file has it.

    Raises:
        ValueError: If the file is damaged or does not hold exactly the weights of this
            model; the message lists what is missing and what was not expected.
    """
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    state = from_torch(model, read_torch(file), fresh_head=fresh_head, name=str(file))
    nnx.update(model, state)


def from_torch(
    model: Model,
    tensors: Mapping[str, np.ndarray],
    *,
    fresh_head: bool = False,
    name: str = "the state dict",
) -> nnx.State:
    """Converts a PyTorch state dict to the state of a model.

    Old names (``LayerNorm.gamma`` and ``beta``) and names without the prefix of the
    family (``bert.``) are understood. Heads of pretraining and ``position_ids`` are
    ignored.

    Args:
        model: The model that determines names, shapes and dtypes; may be abstract.
        tensors: The tensors as arrays.
        fresh_head: Whether to leave the head out; see :func:`load`.
        name: What to call the state dict in a message.

    Returns:
        The parameters that were found, for ``nnx.update``.

    Raises:
        ValueError: If tensors are missing, not expected or of other shapes.
    """
    variables = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
    wanted = {key: path for path, key in _names(model, variables)}
    family = _config(model).family
    there = {key: np.asarray(value) for key, value in _modern(tensors, family).items()}
    if fresh_head:
        heads = {key for key in wanted if _HEADS.match(key)}
        pooler = f"{family}.pooler."
        kept = {k for k in heads if k.startswith(pooler) and k in there}
        wanted = {k: path for k, path in wanted.items() if k not in heads - kept}
        there = {k: x for k, x in there.items() if k in wanted or not _HEADS.match(k)}
    elif not isinstance(model, SequenceClassifier):
        # Taggers and span finders do not use the pooler that some files have.
        there = {
            k: x for k, x in there.items() if not k.startswith(f"{family}.pooler.")
        }
    shapes = {key: _torch_shape(path, variables[path]) for key, path in wanted.items()}
    _check(shapes, {key: x.shape for key, x in there.items()}, name)
    flat = []
    for key, path in wanted.items():
        value = there[key].T if path[-1] == "kernel" else there[key]
        variable = variables[path]
        flat.append((path, variable.replace(jnp.asarray(value, variable.dtype))))
    return nnx.from_flat_state(flat)


def _config(model: Any) -> EncoderConfig:
    return model.encoder.config


def _names(model: Model, variables: Mapping[tuple, Any]) -> Iterator[tuple[tuple, str]]:
    """Yields the path of each parameter and its name in PyTorch."""
    family = _config(model).family
    lines = {line: f"{family}.{target}" for line, target in _ENCODERS[family].items()}
    sequence = isinstance(model, SequenceClassifier)
    linear = "classifier.out_proj" if sequence and family == "roberta" else "classifier"
    lines["dense"] = _DENSE[family]
    lines["classifier"] = "qa_outputs" if isinstance(model, SpanClassifier) else linear
    for path in variables:
        *layer, leaf = map(str, path)
        number = next((part for part in layer if part.isdigit()), "")
        line = ".".join("{i}" if part.isdigit() else part for part in layer)
        yield path, f"{lines[line].replace('{i}', number)}.{_LEAVES[leaf]}"


def _modern(tensors: Mapping[str, np.ndarray], family: str) -> dict[str, np.ndarray]:
    """Drops what is no weight, and adds the prefix and today's names."""
    used = {key: x for key, x in tensors.items() if not _UNUSED.match(key)}
    prefix = f"{family}."
    bare = not any(key.startswith(prefix) for key in used)
    out = {}
    for key, value in used.items():
        key = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", key)
        key = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", key)
        # A base model has no prefix; heads never have one.
        inner = key.startswith(("embeddings.", "encoder.", "transformer.", "pooler."))
        out[prefix + key if bare and inner else key] = value
    return out


def _torch_shape(path: tuple, variable: nnx.Variable) -> tuple[int, ...]:
    return tuple(variable.shape[::-1] if path[-1] == "kernel" else variable.shape)


def _check(
    wanted: Mapping[str, tuple[int, ...]],
    there: Mapping[str, tuple[int, ...]],
    name: str,
) -> None:
    """Refuses tensors that do not match exactly, and lists how they differ."""
    wrong = [
        f"{key} {list(there[key])} instead of {list(wanted[key])}"
        for key in wanted
        if key in there and tuple(there[key]) != wanted[key]
    ]
    faults = {
        "missing": [key for key in wanted if key not in there],
        "not expected": [key for key in there if key not in wanted],
        "of another shape": wrong,
    }
    parts = [f"{what}: {_list(names)}" for what, names in faults.items() if names]
    if parts:
        raise UserError(
            f"{name} does not fit this model, and nothing was loaded. "
            f"{'; '.join(parts)}. Check the sizes, the family and the head; "
            "fresh_head=True reads an encoder without its head."
        )


def _list(names: list[str]) -> str:
    more = len(names) - _LISTED
    shown = ", ".join(sorted(names)[:_LISTED])
    return f"{shown} and {more} more" if more > 0 else shown
