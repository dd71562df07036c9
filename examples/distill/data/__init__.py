"""Data sets for distillation: arrays in, batches out, augmentation inside the step."""

from examples.distill.data.augment import AUGMENTATIONS, normalize
from examples.distill.data.catalogue import DATASETS, load
from examples.distill.data.dataset import Dataset, corrupt_labels, subset
from examples.distill.data.sampling import IndexBatch, batches, num_batches

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "Dataset",
    "IndexBatch",
    "batches",
    "corrupt_labels",
    "load",
    "normalize",
    "num_batches",
    "subset",
]
