"""Distil a ResNet-34 into a ResNet-18 on ImageNet, on all devices of this machine.

    python -m examples.imagenet                     # synthetic images, small networks
    python -m examples.imagenet --data imagenet2012 --out runs/imagenet

``--data`` is the name of a TFDS data set, prepared in ``array_record`` format, or a
folder with ``train/CLASS/*`` and ``val/CLASS/*``. With ``--out`` every epoch is saved,
and the same command continues a run that was interrupted.

The first takes 60 s of one CPU core: teacher 100%, student 100%. Its images are easy;
ImageNet was not at hand.
"""

import argparse
import collections
import concurrent.futures
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from PIL import Image

import kdopt
import kdopt.nnx

RESNETS = [((3, 4, 6, 3), 64), ((2, 2, 2, 2), 64)]  # blocks and width: 34 and 18
SYNTHETIC = [((1, 1, 1, 1), 16), ((1, 1, 1, 1), 8)]  # the same for synthetic images
SMALL = {"size": 32, "batch_size": 64, "epochs": 3}  # and other defaults for them


def open_images(data, *, train):
    """Returns the number of images, that of classes, and a function that reads one."""
    if data == "synthetic":
        patterns = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3))

        def draw(i):
            noise = np.random.default_rng([i, train]).normal(0, 60, (32, 32, 3))
            pixels = patterns[i % 10].repeat(8, axis=0).repeat(8, axis=1) + noise
            return Image.fromarray(np.uint8(np.clip(pixels, 0, 255))), i % 10

        return 2048 if train else 500, 10, draw
    folder = pathlib.Path(data) / ("train" if train else "val")
    if folder.is_dir():
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
        paths = [p for name in names for p in sorted((folder / name).glob("[!.]*"))]

        def open_file(i):
            return Image.open(paths[i]), names.index(paths[i].parent.name)

        return len(paths), len(names), open_file
    try:
        import tensorflow_datasets as tfds

        builder = tfds.builder(data)
        held_out = "validation" if "validation" in builder.info.splits else "test"
        examples: Any = builder.as_data_source(split="train" if train else held_out)
    except Exception as error:  # TFDS raises a dozen kinds
        raise SystemExit(
            f"--data {data}: there is no folder {folder}, and TFDS cannot open it: "
            f"{str(error).splitlines()[0]} Give a folder with train/CLASS/* and "
            "val/CLASS/*, a TFDS data set prepared in array_record format (pip install "
            "tensorflow-datasets array-record), or synthetic."
        ) from error

    def look_up(i):
        return Image.fromarray(examples[i]["image"]), examples[i]["label"]

    return len(examples), builder.info.features["label"].num_classes, look_up


def crop(image, size, rng):
    """Cuts a random part out of an image and may mirror it; without rng, the middle."""
    width, height = image.size
    if rng is None:
        w = h = 0.875 * min(width, height)
        left, top = (width - w) / 2, (height - h) / 2
    else:
        area, ratio = rng.uniform(0.08, 1) * width * height, 2 ** rng.uniform(-0.4, 0.4)
        w, h = min(width, (area * ratio) ** 0.5), min(height, (area / ratio) ** 0.5)
        left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    box = (left, top, left + w, top + h)
    pixels = np.asarray(image.convert("RGB").resize((size, size), box=box))
    return pixels[:, ::-1] if rng is not None and rng.random() < 0.5 else pixels


def batches(images, args, sharding, epoch=None):
    """Yields batches on the devices; threads read them ahead of their use.

    An epoch is shuffled and cropped at random. Without one all images come in order,
    and empty ones of class -1 fill the last batch up.
    """
    count, _, read = images
    rows = np.arange(-(-count // args.batch_size) * args.batch_size)
    if epoch is not None:
        rows = np.random.default_rng(epoch).permutation(count)
        rows = rows[: count // args.batch_size * args.batch_size]

    def load(row):
        if row >= count:
            return np.zeros((args.size, args.size, 3), np.uint8), -1
        image, label = read(row)
        rng = None if epoch is None else np.random.default_rng([epoch, row])
        return crop(image, args.size, rng), label

    def collect(examples):
        pixels, labels = map(np.stack, zip(*examples, strict=True))
        return jax.device_put((pixels, labels.astype(np.int32)), sharding)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        ahead = collections.deque()
        for part in rows.reshape(-1, args.batch_size).tolist():
            ahead.append(pool.map(load, part))
            if len(ahead) > 2:
                yield collect(ahead.popleft())
        while ahead:
            yield collect(ahead.popleft())


def conv_norm(inputs, outputs, size, stride, rngs):
    """Returns a convolution in bfloat16 and BatchNorm in float32."""
    options = {"use_bias": False, "dtype": jnp.bfloat16, "rngs": rngs}
    conv = nnx.Conv(inputs, outputs, (size, size), stride, **options)
    return nnx.Sequential(conv, nnx.BatchNorm(outputs, momentum=0.9, rngs=rngs))


class Block(nnx.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs, outputs, stride, rngs):
        self.first = conv_norm(inputs, outputs, 3, stride, rngs)
        self.second = conv_norm(outputs, outputs, 3, 1, rngs)
        changes = stride > 1 or inputs != outputs
        self.shortcut = conv_norm(inputs, outputs, 1, stride, rngs) if changes else None

    def __call__(self, x):
        """Returns the features after the block."""
        y = self.second(nnx.relu(self.first(x)))
        return nnx.relu(y + (self.shortcut(x) if self.shortcut else x))


def make_resnet(blocks, width, classes, rngs):
    """Returns a ResNet for images of any size, with so many blocks in its stages."""
    layers, inputs = [conv_norm(3, width, 7, 2, rngs), nnx.relu], width
    layers.append(lambda x: nnx.max_pool(x, (3, 3), strides=(2, 2), padding="SAME"))
    for stage, count in enumerate(blocks):
        for i in range(count):
            stride, outputs = 2 if i == 0 and stage > 0 else 1, width * 2**stage
            layers.append(Block(inputs, outputs, stride, rngs))
            inputs = outputs
    layers.append(lambda x: jnp.mean(x, axis=(1, 2)))
    head = nnx.Linear(inputs, classes, rngs=rngs)
    return nnx.Sequential(lambda x: (x.astype(jnp.float32) - 118) / 58, *layers, head)


@nnx.jit(static_argnames="balancer")
def train_step(model, optimizer, state, teacher, images, labels, balancer):
    """Takes a step, and returns the state of the balancer and the losses."""
    target = teacher(images) if teacher else jnp.zeros(())

    def losses_fn(_, logits):
        task = kdopt.losses.cross_entropy(logits, labels)
        return (task, kdopt.losses.kd(logits, target)) if teacher else (task,)

    # Balanced at the logits: one backward pass through the network.
    grad_fn = kdopt.nnx.value_and_shared_grad(
        lambda model: model(images), losses_fn, balancer
    )
    values, grads, state = grad_fn(model, state=state)
    optimizer.update(model, grads)
    return state, values


@nnx.jit
def count_correct(model, images, labels):
    """Returns how many images the model gives to their class."""
    return jnp.sum(jnp.argmax(model(images), axis=-1) == labels)


def fit(name, model, teacher, train, val, args, mesh):
    """Trains a model from its last checkpoint on, and returns its accuracy."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    divided = NamedSharding(mesh, PartitionSpec("batch"))
    steps = args.epochs * (train[0] // args.batch_size)
    rate = optax.warmup_cosine_decay_schedule(0.0, 0.1, steps // 18, steps)
    decay, sgd = optax.add_decayed_weights(1e-4), optax.sgd(rate, 0.9, nesterov=True)
    optimizer = nnx.Optimizer(model, optax.chain(decay, sgd), wrt=nnx.Param)
    balancer = kdopt.dto_kd(rescale="convex") if teacher else kdopt.linear([1.0])
    balancer_state = balancer.init(nnx.state(model, nnx.Param))
    state = nnx.state((model, optimizer)), balancer_state
    state, start, manager = jax.device_put(state, everywhere), 0, None
    if args.out:
        options = ocp.CheckpointManagerOptions(max_to_keep=2)
        folder = pathlib.Path(args.out).absolute() / name
        manager = ocp.CheckpointManager(folder, options=options)
        start = manager.latest_step() or 0
        if start:
            state = manager.restore(start, args=ocp.args.StandardRestore(state))
            print(f"The {name} continues after epoch {start}.")
    nnx.update((model, optimizer), state[0])
    balancer_state, previous = state[1], None

    model.train()
    for epoch in range(start, args.epochs):
        for i, batch in enumerate(batches(train, args, divided, epoch)):
            balancer_state, values = train_step(
                model, optimizer, balancer_state, teacher, *batch, balancer=balancer
            )
            # Two steps at most are under way; without bound, a CPU mesh can deadlock.
            jax.block_until_ready(previous)
            previous = values
            if i % 20 == 0:
                weights = kdopt.loss_weights(balancer_state)
                print(f"{name}  epoch {epoch + 1}  losses {values}  weights {weights}")
        if manager:
            state = nnx.state((model, optimizer)), balancer_state
            manager.save(epoch + 1, args=ocp.args.StandardSave(state))
    if manager:
        manager.close()
    model.eval()
    parts = batches(val, args, divided)
    accuracy = 100 * sum(int(count_correct(model, *part)) for part in parts) / val[0]
    print(f"{name}: {accuracy:.1f}% of {val[0]} images")
    return accuracy


def main(argv=None):
    """Trains the teacher, then the student, and returns their accuracies in percent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="synthetic", help="set of TFDS or folder")
    parser.add_argument("--out", help="folder for checkpoints, to continue from")
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--size", type=int, default=224, help="side of the images")
    synthetic = parser.parse_args(argv).data == "synthetic"
    parser.set_defaults(**SMALL if synthetic else {})
    args = parser.parse_args(argv)
    mesh = jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(AxisType.Auto,))
    if args.batch_size % mesh.size:
        raise SystemExit(f"--batch-size must be a multiple of the {mesh.size} devices.")
    train, val = open_images(args.data, train=True), open_images(args.data, train=False)

    sizes = SYNTHETIC if synthetic else RESNETS
    teacher, student = (make_resnet(*size, train[1], nnx.Rngs(0)) for size in sizes)
    common = train, val, args, mesh
    first = fit("teacher", teacher, None, *common)
    return first, fit("student", student, teacher, *common)


if __name__ == "__main__":
    main()
