"""Times the input pipelines; images per second are `IMAGES` over the time of a call.

Run with ``pytest benchmarks/bench_data.py -p no:xdist --benchmark-only``.
"""

import io
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from kdlab.data import AUGMENTATIONS, batches, load, normalize
from kdlab.data.images import EncodedImage
from kdlab.data.sources.prepare import prepare
from kdlab.data.stream import eval_stream, train_stream

IMAGES = 256  # per timed call

ONE_PROCESS = {"process_index": 0, "process_count": 1}


def _jpeg(height, width, seed):
    """Encodes smooth content with some noise, about as large as a photograph."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    pixels = np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


class _Photographs:
    """Images in memory of 500 x 375 pixels, the usual size in ImageNet."""

    mode = "RGB"
    num_classes = 1000

    def __init__(self):
        self._files = [_jpeg(375, 500, seed) for seed in range(16)]

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        return EncodedImage(self._files[int(index) % 16], int(index))

    def where(self, index):
        return f"image {index}"


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augment_and_normalize(benchmark, name, side):
    shape = (IMAGES, side, side, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    @jax.jit
    def step(key, images):
        return normalize(AUGMENTATIONS[name](key, images), (0.5,) * 3, (0.25,) * 3)

    key, images = jax.random.key(0), jnp.asarray(images)
    benchmark.pedantic(
        lambda: step(key, images).block_until_ready(), rounds=30, warmup_rounds=3
    )


def test_take_batches_from_memory(benchmark):
    images = np.full((50_000, 32, 32, 3), 7, np.uint8)  # zeros take no memory
    epoch = list(batches(len(images), IMAGES, seed=0, drop_last=True))
    turn = iter(epoch)
    benchmark.pedantic(lambda: images[next(turn).indices], rounds=100, warmup_rounds=3)


def test_decode_tiny_imagenet(benchmark, tmp_path):
    root = "tiny-imagenet-200"
    with zipfile.ZipFile(tmp_path / f"{root}.zip", "w") as files:
        wnids = [f"n{i:08d}" for i in range(200)]
        files.writestr(f"{root}/wnids.txt", "\n".join(wnids))
        for i in range(IMAGES - 1):
            path = f"{root}/train/{wnids[i % 200]}/images/{i}.JPEG"
            files.writestr(path, _jpeg(64, 64, i))
        files.writestr(f"{root}/val/val_annotations.txt", f"0.JPEG\t{wnids[0]}\n")
        files.writestr(f"{root}/val/images/0.JPEG", _jpeg(64, 64, 0))
    prepare("tiny_imagenet", tmp_path)
    benchmark.pedantic(
        lambda: load("tiny_imagenet", data_dir=tmp_path), rounds=5, warmup_rounds=1
    )


@pytest.mark.parametrize("stream", [train_stream, eval_stream])
def test_stream_imagenet(benchmark, stream):
    options = {"seed": 0} if stream is train_stream else {}
    source = _Photographs()

    def read():
        iterator = stream(source, batch_size=64, **ONE_PROCESS, **options)
        for _ in range(IMAGES // 64):
            next(iterator)

    benchmark.pedantic(read, rounds=3, warmup_rounds=1)
