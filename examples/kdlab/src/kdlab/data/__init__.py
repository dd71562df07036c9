"""Data sets for distillation: loading, batching, and augmentation on the device."""

from kdlab.data.augmentation.crops import normalize
from kdlab.data.augmentation.table import AUGMENTATIONS
from kdlab.data.catalogue import (
    DATASETS,
    is_streamed,
    load,
    open_dataset,
    open_streamed,
)
from kdlab.data.dataset import Dataset, corrupt_labels, subset
from kdlab.data.sampling import IndexBatch, batches, num_batches
from kdlab.data.streamed import Streamed

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "Dataset",
    "IndexBatch",
    "Streamed",
    "batches",
    "corrupt_labels",
    "is_streamed",
    "load",
    "normalize",
    "num_batches",
    "open_dataset",
    "open_streamed",
    "subset",
]
