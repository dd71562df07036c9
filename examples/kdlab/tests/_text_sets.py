"""Small copies of public sets of texts, with the features that TFDS gives them."""

import types

import numpy as np
import tensorflow_datasets as tfds

Text, ClassLabel = tfds.features.Text, tfds.features.ClassLabel
TWO, THREE = ("a", "b"), ("entailment", "neutral", "contradiction")
NER = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")
SECRET = {"train": 12, "validation": 4, "test": -3}  # negative: without labels
PAIR = {"sentence1": Text(), "sentence2": Text()}


def glue(fields, classes=TWO):
    label = np.float32 if classes is None else ClassLabel(names=classes)
    return {**fields, "label": label, "idx": np.int32}


def answers():
    return tfds.features.Sequence({"text": Text(), "answer_start": np.int32})


SQUAD = {"id": np.str_, "title": Text(), "context": Text(), "question": Text()}
MNLI = {"premise": Text(), "hypothesis": Text()}

# Features and splits as in the builders of tensorflow-datasets 4.9.10.
SHAPES = {
    "glue/cola": (glue({"sentence": Text()}), SECRET),
    "glue/sst2": (glue({"sentence": Text()}), SECRET),
    "glue/mrpc": (glue(PAIR), {"train": 12, "validation": 4, "test": 4}),
    "glue/qqp": (glue({"question1": Text(), "question2": Text()}), SECRET),
    "glue/stsb": (glue(PAIR, None), SECRET),
    "glue/mnli": (
        glue(MNLI, THREE),
        {
            "train": 12,
            "validation_matched": 4,
            "validation_mismatched": 5,
            "test_matched": -3,
            "test_mismatched": -3,
        },
    ),
    "glue/qnli": (glue({"question": Text(), "sentence": Text()}), SECRET),
    "glue/rte": (glue(PAIR), SECRET),
    "glue/wnli": (glue(PAIR), SECRET),
    "snli": (
        {**MNLI, "label": ClassLabel(names=THREE)},
        {"train": 12, "validation": 4, "test": 5},
    ),
    "bool_q": (
        {"question": Text(), "passage": Text(), "title": Text(), "answer": np.bool_},
        {"train": 12, "validation": 4},
    ),
    "ag_news_subset": (
        {"title": Text(), "description": Text(), "label": ClassLabel(num_classes=4)},
        {"train": 12, "test": 5},
    ),
    "imdb_reviews": (
        {"text": Text(), "label": ClassLabel(names=["neg", "pos"])},
        {"train": 12, "test": 5, "unsupervised": -3},
    ),
    "trec": (
        {
            "text": Text(),
            "label-coarse": ClassLabel(num_classes=6),
            "label-fine": ClassLabel(num_classes=47),
        },
        {"train": 12, "test": 5},
    ),
    "clinc_oos": (
        {
            "text": Text(),
            "intent": np.int32,
            "domain": np.int32,
            "intent_name": Text(),
            "domain_name": Text(),
        },
        {"train": 12, "validation": 4, "test": 5, "train_oos": 3, "test_oos": 3},
    ),
    "conll2003": (
        {
            "tokens": tfds.features.Sequence(Text()),
            "pos": tfds.features.Sequence(ClassLabel(num_classes=47)),
            "chunks": tfds.features.Sequence(ClassLabel(num_classes=23)),
            "ner": tfds.features.Sequence(ClassLabel(names=NER)),
        },
        {"train": 12, "dev": 4, "test": 5},
    ),
    "squad/v1.1": ({**SQUAD, "answers": answers()}, {"train": 12, "validation": 4}),
    "squad/v2.0": (
        {
            **SQUAD,
            "plausible_answers": answers(),
            "is_impossible": np.bool_,
            "answers": answers(),
        },
        {"train": 12, "validation": 4},
    ),
}


def example(name, features, i, labelled):
    """The i-th example; every fifth of snli and v2.0 has no gold label or answer."""
    out = {}
    for field, feature in features.items():
        if isinstance(feature, Text):
            out[field] = f"{field} {i}"
        elif isinstance(feature, ClassLabel):
            missing = name == "snli" and i % 5 == 4
            out[field] = i % feature.num_classes if labelled and not missing else -1
        elif field in ("id", "idx"):
            out[field] = i if field == "idx" else str(i)
        elif field in ("answer", "is_impossible"):
            out[field] = i % 2 == 1
        elif field == "label":
            out[field] = i % 6 if labelled else -1.0
        elif field in ("intent", "domain"):
            out[field] = 10 * (i % 3)
        elif "answers" in field:
            known = name != "squad/v2.0" or i % 5 != 4
            out[field] = {"text": ["context"] * known, "answer_start": [0] * known}
        else:
            words = {"tokens": "New York wins", "pos": [1, 1, 2], "ner": [5, 6, 0]}
            value = words.get(field, [0, 0, 0])
            out[field] = value.split() if isinstance(value, str) else value
    return out


def write(name, root):
    """Writes a set as TFDS would."""
    features, splits = SHAPES[name]
    builder_name, _, config = name.partition("/")

    def info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def split(self, downloads):
        return {
            key: self._generate_examples(abs(count), count > 0)
            for key, count in splits.items()
        }

    def generate(self, count, labelled):
        for i in range(count):
            yield i, example(name, features, i, labelled)

    parts = {
        "name": builder_name,
        "VERSION": tfds.core.Version("1.0.0"),
        "_info": info,
        "_split_generators": split,
        "_generate_examples": generate,
        "__module__": __name__,
    }
    if config:
        parts["BUILDER_CONFIGS"] = [tfds.core.BuilderConfig(name=config)]
    bases = (tfds.core.GeneratorBasedBuilder,)
    kind = types.new_class(
        "Small", bases, {"skip_registration": True}, lambda space: space.update(parts)
    )
    options = {"config": config} if config else {}
    builder = kind(data_dir=root, file_format="array_record", **options)
    builder.download_and_prepare()
