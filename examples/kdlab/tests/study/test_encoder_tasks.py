"""Text tasks with encoders: of every kind, of several sizes, from given weights."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

import _text_archives
from _text_sets import write
from kdlab.data.text import downloaded
from kdlab.data.text.metrics import answer_f1
from kdlab.data.text.tokenizer import VOCABULARIES
from kdlab.models import encoders
from kdlab.models.encoders import _pretrained
from kdlab.study import encoder_tasks, tasks
from kdlab.study.lab import Lab
from kdlab.study.networks import Networks, parse_size
from kdlab.study.objective import Knobs, compute_losses
from kdlab.study.results.pairs import Pair, choose_one, tabulate_pairs
from kdlab.study.results.report import Results
from kdlab.study.scores import Answers, find_answers
from kdlab.study.training import Trainer
from kdlab.study.trials.search import Found
from kdlab.study.trials.space import RECOMMENDED, SPACE, canonicalize, key

pytestmark = pytest.mark.usefixtures("standard")
TINY = Networks(student="1x8", teacher="1x8")


def fill(make, scale=0.1):
    """Structure and small parameters of a network, without compiling its start."""
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    rng = np.random.default_rng(0)
    return graphdef, jax.tree.map(
        lambda x: jnp.asarray(scale * rng.normal(size=x.shape), x.dtype), shapes
    )


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    for name in ("glue/stsb", "conll2003", "squad/v2.0"):
        write(name, folder)
    return folder


@pytest.fixture
def archives(tmp_path, monkeypatch):
    _text_archives.write_all(tmp_path)
    monkeypatch.setattr(downloaded, "_INSTALLED", tmp_path / "absent")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "shape"),
    [("glue/stsb", (2,)), ("conll2003", (128, 9)), ("squad/v2.0", (2, 384))],
)
def test_every_kind_of_task_has_losses_gradients_and_scores(name, shape, sets):
    task = tasks.load(name, data_dir=sets, networks=TINY)
    graphdef, params = fill(task.student)
    knobs = Knobs.of(RECOMMENDED | {"tau_teacher": 2.0})
    part = task.train._replace(
        inputs=task.train.inputs[:4], labels=task.train.labels[:4]
    )

    @jax.jit
    def measure(params):
        def total(params):
            logits = nnx.merge(graphdef, params)(jnp.asarray(part.inputs)).logits
            teacher = jnp.where(jnp.isfinite(logits), 0.5 * logits, logits)
            batch = {"labels": jnp.asarray(part.labels), "teacher": teacher}
            values = compute_losses(logits, batch, knobs)
            return values[0] + values[1], (values, logits)

        return jax.value_and_grad(total, has_aux=True)(params)

    (_, (values, logits)), grads = measure(params)
    assert logits.shape == (4, *shape)
    assert all(np.isfinite(value) for value in values)
    flat = jax.tree.leaves(grads)
    assert all(np.isfinite(grad).all() for grad in flat)
    assert sum(float(jnp.sum(grad**2)) for grad in flat) > 0


def test_perfect_logits_score_1_in_every_metric(sets):
    for name in ("glue/stsb", "conll2003", "squad/v2.0"):
        task = tasks.load(name, data_dir=sets, networks=TINY)
        part = task.train if name == "glue/stsb" else task.test
        labels = part.labels
        if name == "glue/stsb":
            logits = np.log(np.maximum(labels, 1e-3))
        else:
            count = 384 if name == "squad/v2.0" else 9
            logits = 9.0 * np.eye(count)[np.maximum(labels, 0)]
        for metric, score in task.metrics.items():
            assert score(logits, part) > 0.99, (name, metric)


def test_answers_are_spans_of_the_text_in_order():
    offsets = np.array([[0, 0], [0, 3], [4, 9], [10, 15]])
    facts = Answers(["the river Seine"] * 3, [["river"]] * 3, np.stack([offsets] * 3))
    start, end = np.array([0.0, 0, 5, 0]), np.array([0.0, 9, 5, 0])
    logits = np.stack(
        [np.stack([start, end]), np.stack([end, start]), 0 * np.eye(4)[:2]]
    )
    # The likeliest end lies before the likeliest start; an empty answer comes first.
    found = find_answers(logits, facts)
    assert found == ["river", "the river", ""]
    assert answer_f1(["river"], found[1]) == 1  # the article does not count


def test_an_answer_finder_sees_the_text_and_the_first_token_alone(sets):
    task = tasks.load("squad/v2.0", data_dir=sets, networks=TINY)
    ids = task.test.inputs[:1]
    graphdef, params = fill(task.student)
    run = jax.jit(lambda params, x: nnx.merge(graphdef, params)(x).logits)
    logits = np.asarray(run(params, ids))[0, 0]
    first, second = np.flatnonzero(ids[0] == 3)
    np.testing.assert_array_equal(
        np.flatnonzero(np.isfinite(logits)), [0, *range(first + 1, second)]
    )
    assert np.isfinite(logits[task.test.labels[0]]).all()


def test_students_of_an_offline_task_see_a_part_of_the_teachers_examples(
    archives, monkeypatch
):
    monkeypatch.setattr(encoder_tasks, "LESSON", 1)
    task = tasks.load("turkish", data_dir=archives, networks=TINY)
    rows, _ = task.lesson(0)
    assert len(rows) == 1
    assert task.train.inputs.shape[1] == 24 and task.num_classes == 4


def test_people_can_take_the_place_of_a_teacher(archives, tmp_path, monkeypatch):
    task = tasks.load("movies", data_dir=archives, networks=TINY)
    assert list(task.metrics) == ["accuracy", "human_spearman"]
    monkeypatch.setattr(
        "kdlab.study.lab.teacher_logits", lambda *arguments: {"t_ll": None}
    )
    lab = Lab(task, tmp_path / "lab", 1, lambda *progress: None)
    np.testing.assert_allclose(
        jax.nn.softmax(lab._teacher["human"]), task.train.human, rtol=1e-5
    )
    alone = dataclasses.replace(task, train=task.train._replace(human=None))
    nobody = Lab(alone, tmp_path / "lab", 1, lambda *progress: None)
    with pytest.raises(ValueError, match="opinions of people, such as movies"):
        nobody.train(canonicalize(RECOMMENDED | {"teacher": "human"}))


def checkpoint(folder):
    """A small pretrained BERT, without a head."""
    config = encoders.bert(1, 8, heads=2, vocabulary=4000, positions=40)
    still = config.without_dropout()
    model = nnx.merge(
        *fill(lambda rngs: encoders.SequenceClassifier(still, 2, rngs=rngs))
    )
    flat = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
    tensors = {}
    for path, name in _pretrained._names(model, flat):
        value = np.asarray(flat[path][...])
        tensors[name] = np.ascontiguousarray(value.T if path[-1] == "kernel" else value)
    tensors = {k: v for k, v in tensors.items() if not k.startswith("classifier")}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    record = {
        "model_type": "bert",
        "vocab_size": 4000,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 40,
    }
    (folder / "config.json").write_text(json.dumps(record))
    shutil.copy(VOCABULARIES / "english.json", folder / "tokenizer.json")
    return tensors


def test_a_teacher_starts_from_given_weights_with_their_tokenizer(
    archives, tmp_path, monkeypatch
):
    tensors = checkpoint(tmp_path)
    networks = Networks(student="1x4", teacher_weights=tmp_path)
    task = tasks.load("movies", data_dir=archives, networks=networks)
    assert task.teacher_training == encoder_tasks.TUNED_TEACHER
    training = dataclasses.replace(task.teacher_training, epochs=1, batch_size=1)
    trainer = Trainer(
        task, task.teacher, training, task.lesson, start=task.teacher_start
    )
    # The parameters before the first step, without compiling a training.
    _, drawn = fill(task.teacher)
    stacked = jax.tree.map(lambda x: x[None], drawn)
    monkeypatch.setattr(trainer, "_init", lambda seeds: stacked)
    monkeypatch.setattr(trainer, "_start", lambda params, knobs: None)
    monkeypatch.setattr(trainer, "_epoch", lambda carry, *rest: carry)
    (params,) = trainer.epochs({"alpha": 0.0, "balancer": "fixed"}, None, [0])
    np.testing.assert_array_equal(
        params["classifier"]["kernel"][...], stacked["classifier"]["kernel"][...]
    )
    words = params["encoder"]["words"]["embedding"][...][0]
    expected = tensors["bert.embeddings.word_embeddings.weight"]
    np.testing.assert_array_equal(words, expected)
    (tmp_path / "config.json").write_text(
        (tmp_path / "config.json").read_text().replace("4000", "3000")
    )
    with pytest.raises(ValueError, match="belong to different checkpoints"):
        tasks.load("movies", data_dir=archives, networks=networks)


@pytest.mark.parametrize("size", ["64", "2x", "0x64", "2x65", "2x64x2"])
def test_a_wrong_size_is_explained(size):
    assert parse_size("2x64") == (2, 64)
    with pytest.raises(ValueError, match="expected DEPTHxWIDTH"):
        parse_size(size)


def test_one_setting_for_all_pairs_is_chosen_on_validation_among_those_all_tried():
    def pair(task, scores, chosen):
        settings = {0.0: [0.6], 0.5: [0.8], 0.9: [0.7]} | scores
        known = {
            key(RECOMMENDED | {"alpha": alpha}): row for alpha, row in settings.items()
        }
        found = {"greedy": Found(RECOMMENDED | {"alpha": chosen}, 0, known, True)}

        def test(setting):  # two points lower than on validation
            return [score - 0.02 for score in known[key(setting)]]

        return Pair(task, "1x8", Results({"fixed": SPACE}, known, found, test, 0.5))

    pairs = [
        pair("a", {0.75: [0.9]}, 0.75),  # not tried by the other pair
        pair("b", {0.5: [0.75], 0.9: [0.78]}, 0.9),
    ]
    assert choose_one(pairs)["alpha"] == 0.5
    sheet = tabulate_pairs(pairs)
    first, second = sheet.rows
    assert [cell.split(" ")[0] for cell in first[2:7]] == [
        *("58.0", "58.0", "68.0", "78.0", "88.0")
    ]
    assert second[6] == "76.0 ± 0.0"
    assert "Tuned minus worst: 24.0 points on average, 30.0 at most" in sheet.note
    assert "tuned minus one for all: 6.5 points on average, 10.0 at most" in sheet.note
