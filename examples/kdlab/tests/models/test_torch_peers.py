"""The networks rewritten in PyTorch: the same weights give the same logits."""

import argparse

import jax
import numpy as np
import pytest
from flax import nnx

from _models import filled
from kdlab.models import weights

torch = pytest.importorskip("torch")
functional = torch.nn.functional
pytestmark = pytest.mark.peers


def conv(inputs, outputs, size, stride=1, *, groups=1, bias=False, padding=None):
    padding = size // 2 if padding is None else padding
    return torch.nn.Conv2d(
        inputs, outputs, size, stride, padding, groups=groups, bias=bias
    )


def norm(channels):
    return torch.nn.BatchNorm2d(channels)


def sequence(modules):
    return torch.nn.Sequential(*modules)


class Convs(torch.nn.Module):
    """conv1, bn1, conv2, bn2, ...; ``unit(i, x)`` runs the i-th pair."""

    def __init__(self, *convs):
        super().__init__()
        for i, layer in enumerate(convs, start=1):
            setattr(self, f"conv{i}", layer)
            setattr(self, f"bn{i}", norm(layer.out_channels))

    def unit(self, i, x):
        return getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x))


class Residual(Convs):
    def __init__(self, inputs, width, stride, bottleneck, shortcut):
        outputs = 4 * width if bottleneck else width
        self.count = 3 if bottleneck else 2
        if bottleneck:
            convs = (
                conv(inputs, width, 1),
                conv(width, width, 3, stride),
                conv(width, outputs, 1),
            )
        else:
            convs = conv(inputs, width, 3, stride), conv(width, width, 3)
        super().__init__(*convs)
        self.shortcut_name = shortcut
        branch = []
        if stride != 1 or inputs != outputs:
            branch = [conv(inputs, outputs, 1, stride), norm(outputs)]
        setattr(self, shortcut, sequence(branch))

    def forward(self, x):
        y = x
        for i in range(1, self.count):
            y = functional.relu(self.unit(i, y))
        residual = getattr(self, self.shortcut_name)(x)
        return functional.relu(self.unit(self.count, y) + residual)


class ResNet(Convs):
    def __init__(
        self, blocks, widths, *, stem, shortcut, fc, bottleneck=False, large=False
    ):
        super().__init__(conv(3, stem, 7, 2) if large else conv(3, stem, 3))
        self.large, self.fc_name, inputs = large, fc, stem
        self.count = len(blocks)
        for i, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            stage = []
            for j in range(count):
                stride = 2 if i and not j else 1
                stage.append(Residual(inputs, width, stride, bottleneck, shortcut))
                inputs = 4 * width if bottleneck else width
            setattr(self, f"layer{i + 1}", sequence(stage))
        setattr(self, fc, torch.nn.Linear(inputs, 7))

    def forward(self, x):
        x = functional.relu(self.unit(1, x))
        if self.large:
            x = functional.max_pool2d(x, 3, 2, 1)
        for i in range(self.count):
            x = getattr(self, f"layer{i + 1}")(x)
        return getattr(self, self.fc_name)(x.mean((2, 3)))


class Preact(torch.nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1, self.conv1 = norm(inputs), conv(inputs, outputs, 3, stride)
        self.bn2, self.conv2 = norm(outputs), conv(outputs, outputs, 3)
        self.convShortcut = None
        if inputs != outputs:
            self.convShortcut = conv(inputs, outputs, 1, stride)

    def forward(self, x):
        active = functional.relu(self.bn1(x))
        y = self.conv2(functional.relu(self.bn2(self.conv1(active))))
        return y + (x if self.convShortcut is None else self.convShortcut(active))


class WRN(torch.nn.Module):
    def __init__(self, count, widen):
        super().__init__()
        self.conv1, inputs = conv(3, 16, 3), 16
        for i, stride in enumerate((1, 2, 2)):
            outputs = 16 * widen * 2**i
            stage = torch.nn.Module()
            stage.layer = sequence(
                Preact(outputs if j else inputs, outputs, 1 if j else stride)
                for j in range(count)
            )
            setattr(self, f"block{i + 1}", stage)
            inputs = outputs
        self.bn1, self.fc = norm(inputs), torch.nn.Linear(inputs, 7)

    def forward(self, x):
        x = self.conv1(x)
        for stage in (self.block1, self.block2, self.block3):
            x = stage.layer(x)
        return self.fc(functional.relu(self.bn1(x)).mean((2, 3)))


class VGG(torch.nn.Module):
    def __init__(self, blocks):
        super().__init__()
        inputs = 3
        for i, (count, width) in enumerate(
            zip(blocks, (64, 128, 256, 512, 512), strict=True)
        ):
            layers = []
            for _ in range(count):
                layers += [conv(inputs, width, 3, bias=True), norm(width)]
                layers.append(torch.nn.ReLU())
                inputs = width
            setattr(self, f"block{i}", sequence(layers))
        self.classifier = torch.nn.Linear(512, 7)

    def forward(self, x):
        halvings = 4 if x.shape[2] == 64 else 3
        for i in range(5):
            x = getattr(self, f"block{i}")(x)
            if i < halvings:
                x = functional.max_pool2d(x, 2)
        return self.classifier(x.mean((2, 3)))


def unit(inputs, outputs, size, stride=1, activation=torch.nn.ReLU, **options):
    return [conv(inputs, outputs, size, stride, **options), norm(outputs), activation()]


class MobileNetV1(torch.nn.Module):
    def __init__(self):
        super().__init__()
        widths = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
        strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]
        self.model = sequence(
            [sequence(unit(3, 32, 3, 2))]
            + [
                sequence(unit(a, a, 3, stride, groups=a) + unit(a, b, 1))
                for a, b, stride in zip(widths[:-1], widths[1:], strides, strict=True)
            ]
        )
        self.fc = torch.nn.Linear(1024, 7)

    def forward(self, x):
        return self.fc(self.model(x).mean((2, 3)))


class Inverted(torch.nn.Module):
    def __init__(self, name, inputs, outputs, stride, factor, activation, bias):
        super().__init__()
        wide = factor * inputs
        layers = unit(inputs, wide, 1, 1, activation, bias=bias)
        layers += unit(wide, wide, 3, stride, activation, groups=wide, bias=bias)
        layers += unit(wide, outputs, 1, bias=bias)[:2]
        self.name, self.shortcut = name, stride == 1 and inputs == outputs
        setattr(self, name, sequence(layers))

    def forward(self, x):
        y = getattr(self, self.name)(x)
        return x + y if self.shortcut else y


def inverted_stages(name, inputs, widths, strides, activation, bias):
    for i, (count, width) in enumerate(zip((1, 2, 3, 4, 3, 3, 1), widths, strict=True)):
        stage = []
        for j in range(count):
            stride, factor = 1 if j else strides[i], 6 if i else 1
            stage.append(
                Inverted(name, inputs, width, stride, factor, activation, bias)
            )
            inputs = width
        yield stage


class MobileNetV2(torch.nn.Module):
    def __init__(self):
        super().__init__()
        widths, strides = (8, 12, 16, 32, 48, 80, 160), (1, 1, 2, 2, 1, 2, 1)
        self.conv1 = sequence(unit(3, 16, 3, 2))
        self.blocks = sequence(
            sequence(stage)
            for stage in inverted_stages(
                "conv", 16, widths, strides, torch.nn.ReLU, False
            )
        )
        self.conv2 = sequence(unit(160, 1280, 1))
        self.classifier = sequence([torch.nn.Linear(1280, 7)])

    def forward(self, x):
        x = self.conv2(self.blocks(self.conv1(x)))
        return self.classifier(x.mean((2, 3)))


class TinyMobileNetV2(torch.nn.Module):
    def __init__(self):
        super().__init__()
        widths, strides = (16, 24, 32, 64, 96, 160, 320), (1, 2, 2, 2, 1, 1, 1)
        activation = torch.nn.ReLU6
        self.pre = sequence(unit(3, 32, 1, 1, activation, bias=True, padding=1))
        stages = inverted_stages("residual", 32, widths, strides, activation, True)
        for i, stage in enumerate(stages):
            single = len(stage) == 1
            setattr(self, f"stage{i + 1}", stage[0] if single else sequence(stage))
        self.conv1 = sequence(unit(320, 1280, 1, 1, activation, bias=True))
        self.conv2 = conv(1280, 7, 1, bias=True)

    def forward(self, x):
        x = self.pre(x)
        for i in range(7):
            x = getattr(self, f"stage{i + 1}")(x)
        return self.conv2(self.conv1(x).mean((2, 3), keepdim=True))[:, :, 0, 0]


def shuffle(x, groups):
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


class ShuffleUnit(Convs):
    def __init__(self, inputs, outputs, stride):
        branch = outputs - inputs if stride == 2 else outputs
        self.groups, self.stride = 1 if inputs == 24 else 3, stride
        mid = branch // 4
        super().__init__(
            conv(inputs, mid, 1, groups=self.groups),
            conv(mid, mid, 3, stride, groups=mid),
            conv(mid, branch, 1, groups=3),
        )

    def forward(self, x):
        y = shuffle(functional.relu(self.unit(1, x)), self.groups)
        y = self.unit(3, functional.relu(self.unit(2, y)))
        if self.stride == 1:
            return functional.relu(x + y)
        pooled = functional.avg_pool2d(x, 3, 2, 1)
        return functional.relu(torch.cat([y, pooled], 1))


class Split(Convs):
    def __init__(self, channels):
        half = channels // 2
        super().__init__(
            conv(half, half, 1), conv(half, half, 3, groups=half), conv(half, half, 1)
        )

    def forward(self, x):
        kept, y = x.chunk(2, 1)
        y = self.unit(2, functional.relu(self.unit(1, y)))
        return shuffle(torch.cat([kept, functional.relu(self.unit(3, y))], 1), 2)


class Down(Convs):
    def __init__(self, inputs, outputs):
        half = outputs // 2
        super().__init__(
            conv(inputs, inputs, 3, 2, groups=inputs),
            conv(inputs, half, 1),
            conv(inputs, half, 1),
            conv(half, half, 3, 2, groups=half),
            conv(half, half, 1),
        )

    def forward(self, x):
        left = functional.relu(self.unit(2, self.unit(1, x)))
        right = self.unit(4, functional.relu(self.unit(3, x)))
        return shuffle(torch.cat([left, functional.relu(self.unit(5, right))], 1), 2)


class ShuffleNet(Convs):
    def __init__(self, stages, head=None):
        width = stages[-1][1]
        heads = [] if head is None else [conv(width, head, 1)]
        super().__init__(conv(3, 24, 1), *heads)
        self.layer1, self.layer2, self.layer3 = (
            sequence(layers) for layers, _ in stages
        )
        self.head, self.linear = head, torch.nn.Linear(head or width, 7)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(functional.relu(self.unit(1, x)))))
        if self.head:
            x = functional.relu(self.unit(2, x))
        return self.linear(x.mean((2, 3)))


def shufflenet_v1():
    sizes = [(4, 24, 240), (8, 240, 480), (4, 480, 960)]
    return ShuffleNet(
        [
            ([ShuffleUnit(a, b, 2)] + [ShuffleUnit(b, b, 1) for _ in range(n - 1)], b)
            for n, a, b in sizes
        ]
    )


def shufflenet_v2():
    sizes = [(3, 24, 116), (7, 116, 232), (3, 232, 464)]
    return ShuffleNet(
        [([Down(a, b)] + [Split(b) for _ in range(n)], b) for n, a, b in sizes], 1024
    )


def small_resnet(blocks, stem, width):
    widths = (width, 2 * width, 4 * width)
    return ResNet((blocks,) * 3, widths, stem=stem, shortcut="downsample", fc="fc")


WIDTHS = (64, 128, 256, 512)
LINEAR = {"stem": 64, "shortcut": "shortcut", "fc": "linear"}
TORCHVISION = {"stem": 64, "shortcut": "downsample", "fc": "fc", "large": True}
PEERS = [
    ("resnet20", 32, lambda: small_resnet(3, 16, 16)),
    ("resnet8x4", 32, lambda: small_resnet(1, 32, 64)),
    ("resnet18", 64, lambda: ResNet((2, 2, 2, 2), WIDTHS, **LINEAR)),
    ("resnet50", 32, lambda: ResNet((3, 4, 6, 3), WIDTHS, bottleneck=True, **LINEAR)),
    ("resnet34_imagenet", 65, lambda: ResNet((3, 4, 6, 3), WIDTHS, **TORCHVISION)),
    (
        "resnet50_imagenet",
        64,
        lambda: ResNet((3, 4, 6, 3), WIDTHS, bottleneck=True, **TORCHVISION),
    ),
    ("wrn_16_1", 32, lambda: WRN(2, 1)),
    ("wrn_40_2", 32, lambda: WRN(6, 2)),
    ("vgg8", 32, lambda: VGG((1, 1, 1, 1, 1))),
    ("vgg13", 64, lambda: VGG((2, 2, 2, 2, 2))),
    ("mobilenet_v1", 64, MobileNetV1),
    ("mobilenet_v2", 32, MobileNetV2),
    ("mobilenet_v2_tiny", 64, TinyMobileNetV2),
    ("shufflenet_v1", 32, shufflenet_v1),
    ("shufflenet_v2", 64, shufflenet_v2),
]


def pair(name, height, make):
    """Makes the network in both, and images for both."""
    model = filled(name, num_classes=7, image_shape=(height, height, 3))
    tensors = weights.to_torch(name, model)
    peer = make()
    peer.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in tensors.items()})
    images = np.random.default_rng(0).normal(size=(2, height, height, 3))
    images = images.astype(np.float32)
    return model, peer, images, torch.from_numpy(images).permute(0, 3, 1, 2)


def assert_close(ours, theirs):
    """Equal to 1e-4 of the largest logit, to whose size long sums round."""
    scale = max(1.0, float(np.abs(theirs).max()))
    np.testing.assert_allclose(np.asarray(ours) / scale, theirs / scale, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "height", "make"), PEERS, ids=[row[0] for row in PEERS]
)
def test_same_logits(name, height, make):
    model, peer, images, torch_images = pair(name, height, make)
    model.eval()
    peer.eval()
    graphdef, state = nnx.split(model)
    run = jax.jit(lambda state, images: nnx.merge(graphdef, state)(images).logits)
    with torch.no_grad():
        theirs = peer(torch_images).numpy()
    assert np.std(theirs) > 0.01  # the comparison is not trivial
    assert_close(run(state, images), theirs)


def test_same_training_step():
    """Batch statistics, gradients, and running statistics up to n / (n - 1)."""
    model, peer, images, torch_images = pair(*PEERS[0])
    graphdef, params, stats = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def step(params, stats):
        def loss(params, stats):
            model = nnx.merge(graphdef, params, stats, copy=True)
            logits = model(images).logits
            return (logits**2).mean(), nnx.state(model, nnx.BatchStat)

        return jax.value_and_grad(loss, has_aux=True)(params, stats)

    (loss, stats), grads = step(params, stats)
    peer.train()
    theirs = (peer(torch_images) ** 2).mean()
    theirs.backward()
    assert float(loss) == pytest.approx(theirs.item(), rel=1e-4)
    grad = np.asarray(grads["stages"][0][0]["units"][0]["conv"]["kernel"][...])
    expected = peer.layer1[0].conv1.weight.grad.permute(2, 3, 1, 0).numpy()
    np.testing.assert_allclose(grad, expected, atol=1e-3 * np.abs(expected).max())
    before = weights.to_torch("resnet20", model)
    var = (
        np.asarray(stats["stem"]["norm"]["var"][...]) - 0.9 * before["bn1.running_var"]
    )
    peer_var = peer.bn1.running_var.numpy() - 0.9 * before["bn1.running_var"]
    count = 2 * 32 * 32
    np.testing.assert_allclose(var * count / (count - 1), peer_var, rtol=1e-3)


@pytest.mark.parametrize("nest", [None, "model", "state_dict"])
def test_files_of_torch(tmp_path, nest):
    model = filled("resnet8", num_classes=7)
    tensors = weights.to_torch("resnet8", model)
    content = {key: torch.from_numpy(value) for key, value in tensors.items()}
    if nest:
        content = {nest: content, "opt": argparse.Namespace(lr=0.05), "epoch": 240}
    torch.save(content, tmp_path / "ckpt_epoch_240.pth")
    read = weights.read_torch(tmp_path / "ckpt_epoch_240.pth")
    assert read.keys() == tensors.keys()
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(read[key], tensor)


@pytest.mark.parametrize("nest", ["student", "ema", "model_state_dict"])
def test_files_of_torch_are_unwrapped(tmp_path, nest):
    """Also parameters of a compiled network on several devices."""
    tensors = weights.to_torch("resnet8", filled("resnet8", num_classes=7))
    content = {
        f"module._orig_mod.{key}": torch.nn.Parameter(torch.from_numpy(value))
        for key, value in tensors.items()
    }
    path = tmp_path / "best.pth"
    torch.save({"epoch": 3, nest: content, "teacher": {"x": torch.ones(2)}}, path)
    read = weights.read_torch(path)
    assert read.keys() == tensors.keys()
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(read[key], tensor)


def test_half_precision_is_read(tmp_path):
    content = {"a": torch.ones(2, dtype=torch.bfloat16), "b": torch.ones(2).half()}
    torch.save(content, tmp_path / "half.pth")
    assert {
        k: v.sum() for k, v in weights.read_torch(tmp_path / "half.pth").items()
    } == {
        "a": 2,
        "b": 2,
    }


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[: len(content) // 2], "cannot be read: "),
        (lambda content: b"\0" + content[1:], "cannot be read: "),
        (lambda content: b"", "it is empty"),
        (lambda content: b"<html>", "is a web page"),
        (lambda content: b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    ],
)
def test_damaged_files_of_torch_are_named(damage, words, tmp_path):
    path = tmp_path / "damaged.pth"
    torch.save({"fc.weight": torch.ones(3, 3)}, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"{path}.*{words}") as error:
        weights.read_torch(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.nn.Linear(2, 2), "holds Python objects other than tensors"),
        ([torch.ones(2)], "holds a list, expected a dictionary of tensors"),
        ({"epoch": 3}, "holds no named tensors"),
    ],
)
def test_what_is_no_state_dict_is_refused(content, words, tmp_path):
    torch.save(content, tmp_path / "whole.pth")
    with pytest.raises(ValueError, match=words):
        weights.read_torch(tmp_path / "whole.pth")
