"""Distil a ResNet-50 into a ResNet-18 on ImageNet, on all devices of this machine.

    python -m examples.imagenet                     # synthetic images, small networks
    python -m examples.imagenet --data imagenet2012 --train-teacher --out runs/resnet50
    python -m examples.imagenet --data imagenet2012 --teacher runs/resnet50

``--data`` is the name of a TFDS data set, prepared in ``array_record`` format, or a
folder with ``train/CLASS/*`` and ``val/CLASS/*``. With ``--out`` every epoch is saved,
and the same command continues a run that was interrupted.

Measured without other flags, on the synthetic images, which are easy: ResNet-50 100%,
then ResNet-18 100%, each in 40 seconds of one CPU core. ImageNet was not at hand.
"""

import argparse
import collections
import concurrent.futures
import pathlib
import warnings
from typing import Any, NamedTuple

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

SMALL = {"size": 32, "width": 8, "max_blocks": 1, "batch_size": 64, "epochs": 3}
IN_FLIGHT = 4  # steps that may wait on the devices; unbounded, a CPU mesh can deadlock


class Source(NamedTuple):
    """Images by their number: ``read(i)`` returns a PIL image and its class."""

    count: int
    classes: int
    read: Any


def open_source(data, *, train):
    """Opens the training or the validation images."""
    if data == "synthetic":
        patterns = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3))

        def draw(i):
            noise = np.random.default_rng([i, train]).normal(0, 60, (32, 32, 3))
            pixels = patterns[i % 10].repeat(8, axis=0).repeat(8, axis=1) + noise
            return Image.fromarray(np.uint8(np.clip(pixels, 0, 255))), i % 10

        return Source(2048 if train else 500, 10, draw)
    folder = pathlib.Path(data) / ("train" if train else "val")
    if folder.is_dir():
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
        paths = [p for name in names for p in sorted((folder / name).glob("[!.]*"))]

        def open_file(i):
            return Image.open(paths[i]), names.index(paths[i].parent.name)

        return Source(len(paths), len(names), open_file)
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

    return Source(len(examples), builder.info.features["label"].num_classes, look_up)


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


def shuffle(count, args, first_epoch):
    """Yields the rows and the seed of each training batch."""
    for epoch in range(first_epoch, args.epochs):
        order = np.random.default_rng([args.seed, epoch]).permutation(count)
        for i in range(count // args.batch_size):
            yield order[i * args.batch_size :][: args.batch_size], (args.seed, epoch)


def batches(source, plan, size, sharding):
    """Yields batches on the devices; threads read them ahead of their use.

    The plan is pairs: the rows of a batch, and the seed of its crops or None. Row -1
    fills a batch up, with an empty image of class -1.
    """

    def load(row, seed):
        if row < 0:
            return np.zeros((size, size, 3), np.uint8), -1
        image, label = source.read(row)
        rng = None if seed is None else np.random.default_rng([*seed, row])
        return crop(image, size, rng), label

    def collect(futures):
        images, labels = zip(*(future.result() for future in futures), strict=True)
        return jax.device_put((np.stack(images), np.array(labels, np.int32)), sharding)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        ahead = collections.deque()
        for rows, seed in plan:
            ahead.append([pool.submit(load, row, seed) for row in rows.tolist()])
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
    """Three convolutions (a bottleneck) or two, beside a shortcut."""

    def __init__(self, inputs, width, stride, bottleneck, rngs):
        outputs = 4 * width if bottleneck else width
        shapes = [(inputs, width, 3, stride), (width, outputs, 3, 1)]
        if bottleneck:
            shapes = [
                (inputs, width, 1, 1),
                (width, width, 3, stride),
                (width, outputs, 1, 1),
            ]
        self.units = nnx.List(conv_norm(*shape, rngs) for shape in shapes)
        changes = stride > 1 or inputs != outputs
        self.shortcut = conv_norm(inputs, outputs, 1, stride, rngs) if changes else None

    def __call__(self, x):
        """Returns the features after the block."""
        y = x
        for unit in self.units[:-1]:
            y = nnx.relu(unit(y))
        return nnx.relu(self.units[-1](y) + (self.shortcut(x) if self.shortcut else x))


class ResNet(nnx.Module):
    """A ResNet for images of any size; parameters are float32."""

    def __init__(self, blocks, width, classes, bottleneck, rngs):
        self.stem = conv_norm(3, width, 7, 2, rngs)
        self.blocks, inputs = nnx.List(), width
        for stage, count in enumerate(blocks):
            for i in range(count):
                stride = 2 if i == 0 and stage > 0 else 1
                outputs = width * 2**stage
                self.blocks.append(Block(inputs, outputs, stride, bottleneck, rngs))
                inputs = 4 * outputs if bottleneck else outputs
        self.head = nnx.Linear(inputs, classes, rngs=rngs)

    def __call__(self, images):
        """Returns logits in float32."""
        x = nnx.relu(self.stem((images.astype(jnp.float32) - 118) / 58))
        x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(axis=(1, 2)))


def make_resnet(blocks, classes, args, *, bottleneck):
    """Returns a ResNet with these many blocks in its stages, or fewer by the flags."""
    blocks = [min(count, args.max_blocks) for count in blocks]
    return ResNet(blocks, args.width, classes, bottleneck, nnx.Rngs(args.seed))


def restore_teacher(teacher, folder):
    """Loads the weights that a run with ``--train-teacher`` has saved."""
    if folder is None:
        warnings.warn(
            "No --teacher is given: random weights teach nothing.", stacklevel=2
        )
        return
    path = pathlib.Path(folder).absolute() / "model"
    if not path.is_dir():
        raise SystemExit(
            f"--teacher {folder}: there is no {path}; see --train-teacher."
        )
    with ocp.StandardCheckpointer() as checkpointer:
        nnx.update(teacher, checkpointer.restore(path, nnx.state(teacher)))


@nnx.jit
def predict(model, images):
    """Returns the most likely classes."""
    return jnp.argmax(model(images), axis=-1)


def evaluate(model, source, args, sharding):
    """Returns the accuracy in percent on all images of a source."""
    model.eval()
    rows = np.full(-(-source.count // args.batch_size) * args.batch_size, -1)
    rows[: source.count] = np.arange(source.count)
    plan = ((batch, None) for batch in rows.reshape(-1, args.batch_size))
    correct = 0
    for images, labels in batches(source, plan, args.size, sharding):
        correct += int(jnp.sum(predict(model, images) == labels))
    return 100 * correct / source.count


def parse(argv):
    """Reads the command line; synthetic images have defaults of their own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", default="synthetic", help="data set of TFDS or folder"
    )
    parser.add_argument("--teacher", help="--out of a run with --train-teacher")
    parser.add_argument("--train-teacher", action="store_true")
    parser.add_argument("--out", help="folder for checkpoints, to continue from")
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--size", type=int, default=224, help="side of the images")
    parser.add_argument("--width", type=int, default=64, help="of both networks")
    parser.add_argument("--max-blocks", type=int, default=6, help="blocks in a stage")
    parser.add_argument("--seed", type=int, default=0)
    if parser.parse_args(argv).data == "synthetic":
        parser.set_defaults(**SMALL)
    return parser.parse_args(argv)


def make_step(balancer):
    """Returns the jitted step; without a teacher the labels give the only loss."""

    @nnx.jit
    def step(model, optimizer, balancer_state, teacher, images, labels):
        target = teacher(images) if teacher else jnp.zeros(())

        def losses_fn(_, logits):
            task = kdopt.losses.cross_entropy(logits, labels)
            return (task, kdopt.losses.kd(logits, target)) if teacher else (task,)

        # Balanced at the logits: one backward pass through the network.
        grad_fn = kdopt.nnx.value_and_shared_grad(
            lambda model: model(images), losses_fn, balancer
        )
        values, grads, balancer_state = grad_fn(model, state=balancer_state)
        optimizer.update(model, grads)
        return balancer_state, values

    return step


def main(argv=None):
    """Trains a network and returns its accuracy in percent."""
    args = parse(argv)
    mesh = jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    divided = NamedSharding(mesh, PartitionSpec("batch"))
    if args.batch_size % mesh.size:
        raise SystemExit(f"--batch-size must be a multiple of the {mesh.size} devices.")
    train, val = open_source(args.data, train=True), open_source(args.data, train=False)

    resnet50 = make_resnet((3, 4, 6, 3), train.classes, args, bottleneck=True)
    if args.train_teacher:
        model, teacher, balancer = resnet50, None, kdopt.linear([1.0])
    else:
        model = make_resnet((2, 2, 2, 2), train.classes, args, bottleneck=False)
        teacher, balancer = resnet50, kdopt.dto_kd(rescale="convex")
        restore_teacher(teacher, args.teacher)
        teacher.eval()
        nnx.update(teacher, jax.device_put(nnx.state(teacher), everywhere))

    steps_per_epoch = train.count // args.batch_size
    steps = args.epochs * steps_per_epoch
    rate = optax.warmup_cosine_decay_schedule(
        0.0, args.learning_rate, warmup_steps=steps // 18, decay_steps=steps
    )
    decay, sgd = optax.add_decayed_weights(1e-4), optax.sgd(rate, 0.9, nesterov=True)
    optimizer = nnx.Optimizer(model, optax.chain(decay, sgd), wrt=nnx.Param)
    balancer_state = balancer.init(nnx.state(model, nnx.Param))
    state = nnx.state((model, optimizer)), balancer_state
    state, start, manager = jax.device_put(state, everywhere), 0, None
    out = pathlib.Path(args.out or "").absolute()
    if args.out:
        options = ocp.CheckpointManagerOptions(steps_per_epoch, max_to_keep=2)
        manager = ocp.CheckpointManager(out / "steps", options=options)
        start = manager.latest_step() or 0
        if start:
            state = manager.restore(start, args=ocp.args.StandardRestore(state))
            print(f"Continues after step {start}.")
    nnx.update((model, optimizer), state[0])
    balancer_state = state[1]

    model.train()
    step, waiting = make_step(balancer), collections.deque()
    plan = shuffle(train.count, args, first_epoch=start // steps_per_epoch)
    for i, batch in enumerate(batches(train, plan, args.size, divided), start + 1):
        balancer_state, values = step(model, optimizer, balancer_state, teacher, *batch)
        waiting.append(values)
        if len(waiting) > IN_FLIGHT:
            jax.block_until_ready(waiting.popleft())
        if i % 10 == 0 or i == steps:
            weights = kdopt.loss_weights(balancer_state)
            print(f"step {i}/{steps}  losses {values}  weights {weights}", flush=True)
        if manager:
            state = nnx.state((model, optimizer)), balancer_state
            manager.save(i, args=ocp.args.StandardSave(state))
    accuracy = evaluate(model, val, args, divided)
    print(f"accuracy on {val.count} images: {accuracy:.1f}%")
    if manager:
        manager.close()
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(out / "model", nnx.state(model), force=True)
    return accuracy


if __name__ == "__main__":
    main()
