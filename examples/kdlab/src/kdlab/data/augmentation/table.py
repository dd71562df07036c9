"""The table of augmentations of single images."""

from collections.abc import Callable

from jaxtyping import PRNGKeyArray

from kdlab.data.augmentation.crops import (
    Images,
    random_crop_flip,
    random_resized_crop_flip,
    random_rotation_flip,
    random_shift,
)
from kdlab.data.augmentation.policies import rand_augment, three_augment

Augmentation = Callable[[PRNGKeyArray, Images], Images]


def _keep(_: PRNGKeyArray, images: Images) -> Images:
    return images


AFTER_CROP: dict[str, Augmentation] = {
    "resized_crop_flip": _keep,
    "rand_augment": rand_augment,
    "three_augment": three_augment,
}
"""Augmentations that begin with a random resized crop and a flip, and what follows
them: large images are cropped while they are decoded."""


def _after_crop(name: str) -> Augmentation:
    def augment(key: PRNGKeyArray, images: Images) -> Images:
        # The crop and the policy split the key differently.
        return AFTER_CROP[name](key, random_resized_crop_flip(key, images))

    return augment


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": _keep,
    "shift": random_shift,
    "crop_flip": random_crop_flip,
    "rotation_flip": random_rotation_flip,
    "resized_crop_flip": random_resized_crop_flip,
    "rand_augment": _after_crop("rand_augment"),
    "three_augment": _after_crop("three_augment"),
}
"""Augmentations by name: each maps a key and ``uint8`` images to ``uint8`` images."""
