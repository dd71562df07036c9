"""Text encoders against values of the library transformers, and their checkpoints."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from kdlab.models import encoders
from kdlab.models.encoders import (
    ENCODERS,
    SequenceClassifier,
    SpanClassifier,
    TokenClassifier,
)
from kdopt import losses

pytestmark = pytest.mark.usefixtures("standard")

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden" / "text_encoders.json").read_text()
)
IDS = jnp.array(GOLDEN["bert"]["input_ids"])
TYPES = jnp.array(GOLDEN["bert"]["segments"])
LABELS = jnp.array(GOLDEN["bert"]["labels"])
SMALL = {"vocabulary": 97, "heads": 4, "hidden": 64, "positions": 16}
CONFIGS = {
    "bert": encoders.bert(2, 32, **SMALL),
    "roberta": encoders.roberta(2, 32, **SMALL),
    "distilbert": encoders.distilbert(2, 32, **SMALL),
}


def formula(count, k):
    i = np.arange(count, dtype=np.int64)
    return (((31 * i * i + (17 + 2 * k) * i + 101 * k) % 1009) / 1009 - 0.5).astype(
        np.float32
    )


def made_up(shapes):
    """The weights of the golden values: a formula over the sorted names."""
    tensors = {}
    for k, name in enumerate(sorted(shapes)):
        value = formula(int(np.prod(shapes[name])), k).reshape(shapes[name])
        shift = name.endswith(("LayerNorm.weight", "layer_norm.weight"))
        tensors[name] = value + np.float32(shift)
    return tensors


def shapes_of(part):
    """Shapes by name: those listed, and the heads of taggers and span finders."""
    if "shapes" in GOLDEN[part]:
        return GOLDEN[part]["shapes"]
    body = {k: v for k, v in GOLDEN["bert"]["shapes"].items() if "encoder" in k}
    body |= {k: v for k, v in GOLDEN["bert"]["shapes"].items() if "embeddings" in k}
    head, count = ("classifier", 5) if part == "token" else ("qa_outputs", 2)
    shapes = body | {f"{head}.weight": [count, 32], f"{head}.bias": [count]}
    assert sorted(shapes) == sorted(GOLDEN[part]["keys"])
    return shapes


def make(part, config=CONFIGS["bert"]):
    """A model with the weights of the golden values; nothing is drawn."""
    config = config.without_dropout()
    kinds = {
        "token": lambda: TokenClassifier(config, 5, rngs=nnx.Rngs(0)),
        "qa": lambda: SpanClassifier(config, rngs=nnx.Rngs(0)),
    }
    whole = lambda: SequenceClassifier(config, 3, rngs=nnx.Rngs(0))  # noqa: E731
    model = nnx.eval_shape(kinds.get(part, whole))
    state = encoders.from_torch(model, made_up(shapes_of(part)))
    return nnx.merge(nnx.graphdef(model), state)


@pytest.fixture(scope="module")
def bert():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return make("bert")


def run(model, *arguments):
    graphdef, state = nnx.split(model)
    return jax.jit(lambda state, *a: nnx.merge(graphdef, state)(*a))(state, *arguments)


def hidden_states(model, *arguments):
    graphdef, state = nnx.split(model.encoder)
    return jax.jit(lambda state, *a: nnx.merge(graphdef, state)(*a))(state, *arguments)


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=atol)


def test_bert_has_the_hidden_states_and_logits_of_transformers(bert):
    golden = GOLDEN["bert"]
    states = hidden_states(bert, IDS, TYPES)
    valid = np.array(golden["mask"], bool)
    close([np.linalg.norm(s[valid]) for s in states], golden["hidden_norms"], 1e-4)
    close(np.sum(states[-1][valid]), golden["hidden_valid"]["sum"], 1e-4)
    close(np.sum(np.abs(states[-1])), golden["hidden_all"]["abs_sum"], 1e-3)
    close(states[-1], golden["last_hidden"])
    outputs = run(bert, IDS, TYPES)
    close(outputs.pooled, golden["pooled"])
    close(outputs.logits, golden["logits"])
    close(run(bert, IDS, jnp.zeros_like(TYPES)).logits, golden["logits_segments_zero"])
    assert [f.shape for f in outputs.features] == [(3, 1, 8, 32)] * 2


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"activation": "gelu_tanh"}, "logits_gelu_tanh"),
        ({"epsilon": 1e-6}, "logits_eps_1e-6"),
    ],
)
def test_details_that_other_libraries_choose_are_options(change, name):
    config = dataclasses.replace(CONFIGS["bert"], **change)
    logits = run(make("bert", config), IDS, TYPES).logits
    close(logits, GOLDEN["bert"][name])
    if change.get("activation"):
        assert np.abs(logits - np.array(GOLDEN["bert"]["logits"])).max() > 5e-4


def test_bert_has_the_gradients_of_transformers(bert):
    golden = GOLDEN["bert"]
    graphdef, params = nnx.split(bert)

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        logits = nnx.merge(graphdef, params)(IDS, TYPES).logits
        return losses.cross_entropy(logits, LABELS)

    value, grads = loss(params)
    close(value, golden["loss"])
    flat = dict(nnx.to_flat_state(grads))
    norms = {
        key: float(jnp.linalg.norm(flat[path][...]))
        for path, key in encoders._pretrained._names(bert, flat)
    }
    assert norms.keys() == golden["grad_norms"].keys()
    for key, norm in norms.items():
        assert norm == pytest.approx(golden["grad_norms"][key], rel=1e-4, abs=1e-6), key
    total = np.sqrt(sum(norm**2 for norm in norms.values()))
    assert total == pytest.approx(golden["grad_norm"], rel=1e-5)


def test_a_tagger_has_the_loss_of_transformers():
    golden = GOLDEN["token"]
    logits = run(make("token"), IDS, TYPES).logits
    close(logits, golden["logits"])
    close(losses.cross_entropy(logits, jnp.array(golden["labels"])), golden["loss"])


def test_a_span_finder_has_the_loss_of_transformers():
    golden = GOLDEN["qa"]
    logits = run(make("qa"), IDS, TYPES).logits
    close(logits[..., 0], golden["start_logits"])
    close(logits[..., 1], golden["end_logits"])
    spans = jnp.stack([jnp.array(golden["start"]), jnp.array(golden["end"])], axis=-1)
    close(losses.span_cross_entropy(logits, spans), golden["loss"])


@pytest.mark.parametrize("family", ["roberta", "distilbert"])
def test_other_families_have_the_values_of_transformers(family):
    golden = GOLDEN[family]
    ids = jnp.array(golden.get("input_ids", GOLDEN["bert"]["input_ids"]))
    model = make(family, CONFIGS[family])
    outputs = run(model, ids)
    close(outputs.logits, golden["logits"])
    close(losses.cross_entropy(outputs.logits, LABELS), golden["loss"])
    valid = np.array(GOLDEN["bert"]["mask"], bool)
    last = np.asarray(outputs.features[-1][:, 0])[valid]
    close(np.sum(np.abs(last)), golden["hidden_valid"]["abs_sum"], 1e-3)


COUNTS = {  # with the pooler or its counterpart, 30,522 words (RoBERTa: 50,265)
    "bert_tiny": 4_385_920,
    "bert_mini": 11_170_560,
    "bert_small": 28_763_648,
    "bert_medium": 41_373_184,
    "bert_base": 109_482_240,
    "tinybert_4": 14_350_248,
    "minilm_6": 22_713_216,
    "minilm_12": 33_360_000,
    "roberta_base": 124_645_632,
}


@pytest.mark.parametrize("name", [*COUNTS, "distilbert_base"])
def test_the_published_sizes_have_the_published_numbers_of_parameters(name):
    def count(module):
        return sum(x.size for x in jax.tree.leaves(nnx.state(module, nnx.Param)))

    model = nnx.eval_shape(
        lambda: SequenceClassifier(ENCODERS[name], 2, rngs=nnx.Rngs(0))
    )
    if name == "distilbert_base":
        assert count(model.encoder) == 66_362_880
    else:
        assert count(model.encoder) + count(model.dense) == COUNTS[name]


def test_separators_tell_the_segments_of_a_pair_apart():
    config = dataclasses.replace(CONFIGS["bert"], separator_id=3)
    encoder = nnx.eval_shape(lambda: encoders.Encoder(config, rngs=nnx.Rngs(0)))
    ids = jnp.array([[2, 9, 3, 8, 7, 3, 0, 0], [2, 9, 3, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(
        encoder.find_segments(ids), [[0, 0, 0, 1, 1, 1, 0, 0], [0] * 8]
    )


def test_padding_changes_nothing_and_alone_it_is_finite(bert):
    longer = jnp.pad(IDS, ((0, 0), (0, 4)))
    types = jnp.pad(TYPES, ((0, 0), (0, 4)))
    close(run(bert, longer, types).logits, GOLDEN["bert"]["logits"])
    roberta = make("roberta", CONFIGS["roberta"])
    ids = jnp.pad(
        jnp.array(GOLDEN["roberta"]["input_ids"]), ((0, 0), (0, 4)), constant_values=1
    )
    close(run(roberta, ids).logits, GOLDEN["roberta"]["logits"])
    nothing = run(bert, jnp.zeros((1, 8), jnp.int32), jnp.zeros((1, 8), jnp.int32))
    assert np.isfinite(nothing.logits).all()


def test_a_norm_around_a_large_mean_is_accurate():
    norm = encoders._encoder._layer_norm(CONFIGS["bert"], rngs=nnx.Rngs(0))
    row = np.random.default_rng(0).normal(size=(1, 32))
    far = (row + 100).astype(np.float32)
    expected = (row - row.mean()) / row.std()
    np.testing.assert_allclose(norm(jnp.asarray(far)), expected, atol=1e-4)


def test_dropout_draws_one_mask_per_element_and_rate_0_keeps_no_random_state():
    config = dataclasses.replace(CONFIGS["bert"], attention_dropout=0.5, depth=1)
    model = SequenceClassifier(config, 2, rngs=nnx.Rngs(0))
    mask = model.encoder.layers[0].attention.dropout(jnp.ones((2, 3, 4, 4)))
    kept = np.asarray(mask) > 0
    assert not (kept == kept[:1]).all() and not (kept == kept[:, :1]).all()
    model.train()
    run = nnx.jit(lambda model: model(IDS, TYPES).logits)
    first, second = run(model), run(model)
    assert not np.allclose(first, second)
    model.eval()
    np.testing.assert_array_equal(run(model), run(model))
    still = SequenceClassifier(config.without_dropout(), 2, rngs=nnx.Rngs(0))
    assert not jax.tree.leaves(nnx.state(still, nnx.RngState))


def test_texts_longer_than_the_table_of_positions_are_refused():
    for family, longest in (("bert", 16), ("roberta", 14)):
        config = CONFIGS[family].without_dropout()

        def run_on(ids, config=config):
            return encoders.Encoder(config, rngs=nnx.Rngs(0))(ids)

        with pytest.raises(ValueError, match=f"longer than the {longest}"):
            nnx.eval_shape(run_on, jnp.full((1, longest + 1), 5))
    with pytest.raises(ValueError, match="cannot be shared by 5 heads"):
        encoders.bert(1, 32, heads=5)


# Checkpoints


def abstract(config=CONFIGS["bert"], classes=3):
    return nnx.eval_shape(lambda: SequenceClassifier(config, classes, rngs=nnx.Rngs(0)))


def old_names(tensors):
    renamed = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): v
        for k, v in tensors.items()
    }
    return renamed | {
        "cls.predictions.bias": np.zeros(97),
        "bert.embeddings.position_ids": np.arange(16)[None],
    }


def test_old_names_are_read_and_heads_of_pretraining_are_ignored():
    tensors = made_up(shapes_of("bert"))
    state = encoders.from_torch(abstract(), old_names(tensors))
    expected = encoders.from_torch(abstract(), tensors)
    jax.tree.map(np.testing.assert_array_equal, state, expected)


def test_a_base_model_without_prefix_fills_the_encoder_and_leaves_the_head(tmp_path):
    tensors = made_up(shapes_of("bert"))
    bare = {
        key.removeprefix("bert."): value
        for key, value in old_names(tensors).items()
        if not key.startswith(("classifier", "cls"))
    }
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(bare, path)
    model = SequenceClassifier(CONFIGS["bert"], 7, rngs=nnx.Rngs(0))
    before = np.asarray(model.classifier.kernel[...])
    encoders.load(tmp_path, model, fresh_head=True)
    np.testing.assert_array_equal(model.classifier.kernel[...], before)
    pooler = tensors["bert.pooler.dense.weight"].T
    np.testing.assert_array_equal(model.dense.kernel[...], pooler)
    words = tensors["bert.embeddings.word_embeddings.weight"]
    np.testing.assert_array_equal(model.encoder.words.embedding[...], words)
    # A fine-tuned file, with a head of another task.
    tuned = encoders.from_torch(abstract(classes=7), tensors, fresh_head=True)
    assert "classifier" not in tuned and "dense" in tuned
    # The file of a distilled masked language model has no pooler.
    short = made_up(shapes_of("distilbert")) | {"vocab_projector.bias": np.zeros(97)}
    tuned = encoders.from_torch(abstract(CONFIGS["distilbert"]), short, fresh_head=True)
    assert list(tuned) == ["encoder"]


def test_a_wrong_or_partial_file_lists_what_differs_and_loads_nothing(tmp_path):
    tensors = made_up(shapes_of("bert"))
    del tensors["bert.pooler.dense.bias"]
    tensors["bert.encoder.layer.2.output.dense.bias"] = np.zeros(32, np.float32)
    tensors["classifier.weight"] = np.zeros((4, 32), np.float32)
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(tensors, path)
    model = make("bert")
    before = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    with pytest.raises(ValueError, match="nothing was loaded") as error:
        encoders.load(path, model)
    text = str(error.value)
    assert "missing: bert.pooler.dense.bias;" in text
    assert "not expected: bert.encoder.layer.2.output.dense.bias;" in text
    assert "classifier.weight [4, 32] instead of [3, 32]" in text
    after = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    jax.tree.map(np.testing.assert_array_equal, after, before)
    with pytest.raises(ValueError, match=r"missing: distilbert\.embeddings"):
        encoders.from_torch(abstract(CONFIGS["distilbert"]), tensors)
    with pytest.raises(ValueError, match=r"and \d+ more"):
        encoders.from_torch(abstract(), {})
    path.write_bytes(b"half")
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read"):
        encoders.load(path, model)


@pytest.mark.parametrize(
    ("family", "written"),
    [
        ("bert", {"hidden_act": "gelu", "pad_token_id": 0}),
        ("roberta", {"layer_norm_eps": 1e-5, "pad_token_id": 1}),
        ("distilbert", {"activation": "gelu", "seq_classif_dropout": 0.2}),
    ],
)
def test_the_configuration_of_a_checkpoint_is_read(family, written, tmp_path):
    record = GOLDEN[family]["config"] | written | {"model_type": family}
    (tmp_path / "config.json").write_text(json.dumps(record))
    assert encoders.read_config(tmp_path) == CONFIGS[family]
    record["model_type"] = "t5"
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"type 't5'; expected bert, roberta or"):
        encoders.read_config(tmp_path)
