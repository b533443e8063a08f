"""Exercises 3 to 12: the networks are those of the lesson, and the same in all four frameworks.

Each framework builds and trains them all in one process of its own (collect_networks.py); `pytest -s` shows how far
they are apart. That is mostly single precision; how losses coincide in double, test_double_precision.py tests.
"""

import itertools
from pathlib import Path
from types import SimpleNamespace

import convert_weights
import numpy as np
import pytest
from conftest import EXERCISES, FRAMEWORKS, pytorch, run_python

PAIRS = list(itertools.combinations(FRAMEWORKS, 2))
TESTED = [name for name, exercise in EXERCISES.items() if exercise.predicts and exercise.subject == "semaseg"]

# Networks that an option makes, as in "concat poolings 3".
VARIANTS = [
    f"{name} {option} {value}"
    for name in TESTED
    for option, values in EXERCISES[name].network_options.items()
    for value in values[1:]
]
# In float32 (segnet in float64), a few times what was measured: how far logits may be apart as a part of the largest,
# and gradients as a part of their length. Where two maxima are nearly the same, rounding decides which a pooling takes:
# then a gradient goes elsewhere.
LOGITS = dict.fromkeys([*TESTED, *VARIANTS], 5e-6) | {"segnet": 1e-11}
GRADIENTS = dict.fromkeys(TESTED, 2e-4) | {"unet": 4e-2, "unetlike": 4e-2, "segnet": 1e-8}

# Worked out by hand from the lesson's table: a convolution of kernel k from i to o channels has i x k x k x o + o
# numbers, batch norm 2 for each channel.
SIX_BLOCKS = (3 * 9 * 32 + 32) + 5 * (32 * 9 * 32 + 32) + 6 * 2 * 32 + (32 * 3 + 3)
UPSAMPLED = SIX_BLOCKS + (32 * 4 * 32 + 32) + 2 * 32
PARAMETERS = {
    "bin_test": SIX_BLOCKS - (32 * 2 + 2),  # one logit, not three
    "semaseg_test": SIX_BLOCKS,  # 47,619
    "nearest": SIX_BLOCKS,
    "transposeconv": UPSAMPLED,  # 51,811
    "concat": UPSAMPLED + (64 * 32 + 32) + 2 * 32,  # 53,955
    "unet": 31_045_571,
    "unetlike": 1_944_563,
    "segnet": 29_480_259,  # VGG16's 13 convolutions are 14,714,688 of them
}
# The number of convolutions (the classifier among them), transposed convolutions and batch norms.
COUNTS = {
    "bin_test": (7, 0, 6),
    "semaseg_test": (7, 0, 6),
    "nearest": (7, 0, 6),
    "transposeconv": (7, 1, 7),
    "concat": (8, 1, 8),
    "unet": (19, 4, 22),
    "unetlike": (19, 4, 22),
    "segnet": (27, 0, 26),
}
VGG16 = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
U = [3, 64, 128, 256, 512, 1024]
CONVOLUTIONS = {  # (out, in, kernel) of each, in order
    "bin_test": [(32, 3, 3), *[(32, 32, 3)] * 5, (1, 32, 1)],
    "semaseg_test": [(32, 3, 3), *[(32, 32, 3)] * 5, (3, 32, 1)],
    "concat": [(32, 3, 3), *[(32, 32, 3)] * 3, (32, 64, 1), *[(32, 32, 3)] * 2, (3, 32, 1)],
    "unet": [
        *[pair for i, o in itertools.pairwise(U) for pair in ((o, i, 3), (o, o, 3))],
        *[pair for o in (512, 256, 128, 64) for pair in ((o, 2 * o, 3), (o, o, 3))],
        (3, 64, 1),
    ],
    "segnet": [
        *[(o, i, 3) for i, o in itertools.pairwise(VGG16)],
        *[(o, i, 3) for i, o in itertools.pairwise([512] * 6 + [256] * 3 + [128] * 2 + [64] * 3)],
        (3, 64, 1),
    ],
}
CONVOLUTIONS["nearest"] = CONVOLUTIONS["transposeconv"] = CONVOLUTIONS["semaseg_test"]
QUARTER = {3: 3} | {n: n // 4 for n in (64, 128, 256, 512, 1024, 2048)}
CONVOLUTIONS["unetlike"] = [(QUARTER[o], QUARTER[i], k) for o, i, k in CONVOLUTIONS["unet"]]
TRANSPOSED = {"transposeconv": [(32, 32)], "concat": [(32, 32)], "unet": [(o, 2 * o) for o in (512, 256, 128, 64)]}
TRANSPOSED["unetlike"] = [(o, 2 * o) for o in (128, 64, 32, 16)]


@pytest.fixture(scope="session")
def numbers(tmp_path_factory):
    """{framework: {name: array}} of collect_networks.py, and "folder", where it has trained."""
    folder = tmp_path_factory.mktemp("networks")
    found = {"folder": folder}
    for framework in FRAMEWORKS:
        collect = Path(__file__).with_name("collect_networks.py")
        result = run_python(collect, framework, folder, cwd=folder, timeout=1200)
        assert result.returncode == 0, result.stderr
        found[framework] = dict(np.load(folder / f"numbers_{framework}.npz"))
    return found


def compare(numbers, what, difference, names):
    """Print and return, for each pair of frameworks, the largest difference(one, other) of arrays of these names."""
    table = {}
    for one, other in PAIRS:
        if not {one, other} <= numbers.keys():
            continue
        arrays = [(numbers[one][name], numbers[other][name]) for name in names]
        assert arrays and all(a.shape == b.shape and np.isfinite(a).all() and np.isfinite(b).all() for a, b in arrays)
        table[one, other] = max(difference(a.astype(float), b.astype(float)) for a, b in arrays)
    print(f"\n{what}: " + ", ".join(f"{one} - {other} {value:.1e}" for (one, other), value in table.items()))
    return max(table.values())


def most_apart(a, b):
    """Return the largest difference of two numbers at the same place of two arrays, relative where they are large."""
    return (np.abs(a - b) / np.maximum(1, np.abs(a))).max()


@pytest.mark.parametrize("exercise", TESTED)
def test_layers_are_those_of_the_table(numbers, exercise):
    """The common layout names each layer; that all four frameworks have the same layers, collect_networks.py needs."""
    weights = dict(np.load(numbers["folder"] / f"weights_{exercise}.npz"))
    kernels = {kind: [] for kind in ("conv", "transposed")}
    for name, array in weights.items():
        if name.endswith("kernel"):
            kernels[name.split()[0]].append(array.shape)
    assert [(o, i, height) for o, i, height, width in kernels["conv"]] == CONVOLUTIONS[exercise]
    assert [shape[2:] for shape in kernels["conv"]] == [(k, k) for _, _, k in CONVOLUTIONS[exercise]]
    assert kernels["transposed"] == [(o, i, 2, 2) for o, i in TRANSPOSED.get(exercise, [])]
    norms = sum(name.endswith("gamma") for name in weights)
    assert (len(kernels["conv"]), len(kernels["transposed"]), norms) == COUNTS[exercise]
    trained = sum(array.size for name, array in weights.items() if not name.endswith(("mean", "variance")))
    assert trained == PARAMETERS[exercise] == EXERCISES[exercise].parameters


# The height of what each convolution and transposed convolution gives, in order, worked out by hand.
HEIGHTS = {
    ("bin_test", 64): [64] * 7,
    ("semaseg_test", 64): [64] * 7,
    ("nearest", 64): [64, 64, 32, 32, 64, 64, 64],
    ("transposeconv", 64): [64, 64, 32, 32, 64, 64, 64, 64],
    ("concat", 64): [64, 64, 32, 32, 64, 64, 64, 64, 64],
    ("unet", 572): [
        *(570, 568, 282, 280, 138, 136, 66, 64, 30, 28),
        *(56, 54, 52, 104, 102, 100, 200, 198, 196, 392, 390, 388, 388),
    ],
    ("unetlike", 64): [64, 64, 32, 32, 16, 16, 8, 8, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64, 64],
    ("segnet", 64): [
        *[64] * 2,
        *[32] * 2,
        *[16] * 3,
        *[8] * 3,
        *[4] * 3,
        *[4] * 3,
        *[8] * 3,
        *[16] * 3,
        *[32] * 2,
        *[64] * 3,
    ],
}


@pytest.mark.parametrize("exercise, size", HEIGHTS)
def test_each_convolution_has_its_size_and_what_the_lesson_puts_behind_it(exercise, size):
    answer, called = pytorch(exercise), []
    options = SimpleNamespace(device="cpu", upsampling="nearest", poolings=1)
    network = answer.build_network(np.random.default_rng(0), options).to("meta")  # finds shapes without computing
    for layer in network.modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda layer, _, out: called.append((type(layer).__name__, out.shape)))
    network(answer.torch.empty(1, 3, size, size, device="meta"))
    called = [(kind, shape) for kind, shape in called if kind in ("Conv2d", "ConvTranspose2d", "BatchNorm2d", "ReLU")]
    kinds, shapes = zip(*called, strict=True)
    assert kinds[-1] == "Conv2d" and len(kinds) % 3 == 1  # the classifier, behind triples
    behind = ("BatchNorm2d", "ReLU") if exercise in ("unet", "unetlike", "segnet") else ("ReLU", "BatchNorm2d")
    assert set(zip(kinds[1::3], kinds[2::3], strict=True)) == {behind}
    assert [shape[2] for shape in shapes[::3]] == HEIGHTS[exercise, size]
    assert all(shape[2] == shape[3] for shape in shapes)


@pytest.mark.parametrize("exercise, size", [("unet", 188), ("unetlike", 32)])
def test_a_skip_is_cropped_by_centre_and_comes_before_what_was_upsampled(exercise, size):
    answer, skips, inputs, upsampled = pytorch(exercise), [], [], []
    network = answer.Network().eval()
    for layer in network.encoder:
        layer.register_forward_hook(lambda layer, _, out: skips.append(out))
    for upsample, block in zip(network.decoder[::2], network.decoder[1::2], strict=True):
        upsample.register_forward_hook(lambda layer, _, out: upsampled.append(out))
        block.register_forward_pre_hook(lambda layer, given: inputs.append(given[0]))
    with answer.torch.inference_mode():
        network(answer.torch.rand(1, 3, size, size))
    for skip, above, given in zip(skips[-2::-1], upsampled, inputs, strict=True):
        margin = (skip.shape[2] - above.shape[2]) // 2
        middle = slice(margin, margin + above.shape[2])
        assert answer.torch.equal(given, answer.torch.cat([skip[:, :, middle, middle], above], dim=1))


def output_shape(exercise, size):
    """Return the shape of the logits for one image of that size, found by PyTorch without computing them."""
    answer = pytorch(exercise)
    options = SimpleNamespace(device="cpu", poolings=1)
    network = answer.build_network(np.random.default_rng(0), options).to("meta")
    return tuple(network(answer.torch.empty(1, 3, size, size, device="meta")).shape)


@pytest.mark.parametrize("size, inner", [(572, 388), (236, 52), (188, 4)])
def test_unet_takes_92_from_each_side(size, inner):
    assert output_shape("unet", size) == (1, 3, inner, inner)
    assert size in pytorch("unet").NUMBERS["size"][1] and size - 2 * pytorch("unet").MARGIN == inner


def test_unet_takes_every_size_that_its_arithmetic_allows():
    """Before each pooling an even number must be left, and something at the end."""
    allowed = []
    for size in range(1, 2049):
        side, fits = size, True
        for _ in range(4):
            side -= 4
            fits &= side > 0 and side % 2 == 0
            side //= 2
        side -= 4
        for _ in range(4):
            side = 2 * side - 4
        if fits and side > 0:
            allowed.append(size)
    assert list(pytorch("unet").NUMBERS["size"][1]) == allowed


@pytest.mark.parametrize("exercise", ["unetlike", "segnet", "concat"])
def test_the_others_keep_the_size(exercise):
    assert output_shape(exercise, 96) == (1, 3, 96, 96)


@pytest.mark.parametrize("exercise", TESTED)
def test_first_weights_are_equal_bit_for_bit(numbers, exercise):
    names = [name for name in numbers["pytorch"] if name.startswith(f"{exercise} drawn ")]
    kernels, transposed, norms = COUNTS[exercise]
    assert len(names) == 2 * (kernels + transposed) + 4 * norms  # a hash of each tensor
    assert compare(numbers, f"{exercise} drawn", lambda a, b: np.abs(a - b).max(), names) == 0


@pytest.mark.parametrize("what", [*TESTED, *VARIANTS])
def test_same_weights_give_the_same_logits(numbers, what):
    name = f"{what} logits"
    assert numbers["pytorch"][name].std() > 1e-3
    assert compare(numbers, name, lambda a, b: np.abs(a - b).max() / np.abs(a).max(), [name]) < LOGITS[what]


@pytest.mark.parametrize("exercise", TESTED)
def test_gradients_agree(numbers, exercise):
    """Of every kernel, and of every scale and shift of batch norm."""
    names = [name for name in numbers["pytorch"] if name.startswith(f"{exercise} gradient ")]
    kernels, transposed, norms = COUNTS[exercise]
    assert len(names) == kernels + transposed + 2 * norms
    assert min(np.linalg.norm(numbers["pytorch"][name]) for name in names) > 1e-4
    relative = compare(numbers, names[0][:-8], lambda a, b: np.linalg.norm(a - b) / np.linalg.norm(a), names)
    assert relative < GRADIENTS[exercise]


@pytest.mark.parametrize("exercise", TESTED)
def test_every_tensor_is_the_same_after_three_steps_in_double_precision(numbers, exercise):
    """At the full learning rate. Keras has other running variances: test_parity.py tests which."""
    losses = numbers["pytorch"][f"{exercise} losses"]
    assert len(losses) == 3 and np.ptp(losses) > 0.01
    names = [name for name in numbers["pytorch"] if name.startswith(f"{exercise} trained ")]
    assert len(names) == len([name for name in numbers["pytorch"] if name.startswith(f"{exercise} drawn ")])
    for framework in FRAMEWORKS:
        assert all(numbers[framework][name].dtype == np.float64 for name in names)
    variances = [name for name in names if name.endswith("variance")]
    others = {name: arrays for name, arrays in numbers.items() if name != "keras"}
    for arrays, some in ((numbers, set(names) - set(variances)), (others, variances)):
        assert compare(arrays, f"{exercise} trained", most_apart, some) < 1e-11
    assert compare(numbers, f"{exercise} variances", most_apart, variances) < 0.1


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_segnet_puts_the_first_of_equal_maxima_back(numbers, framework):
    """Numbers 0, 1 and 2 at random tie in most windows: the first in reading order is taken."""
    ties = numbers[framework]["ties"]
    expected = np.zeros_like(ties)
    for picture, row, column, channel in np.ndindex(2, 16, 16, 3):
        window = ties[picture, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2, channel]
        i, j = divmod(int(window.ravel().argmax()), 2)
        expected[picture, 2 * row + i, 2 * column + j, channel] = window.max()
    assert numbers[framework]["ties unpooled"] == pytest.approx(expected, abs=1e-3)


def test_shapes_that_no_framework_has_are_refused():
    answer = pytorch("unetlike")
    network = answer.Network()
    weights = convert_weights.get_weights("pytorch", network)
    weights["conv 3 kernel"] = weights["conv 3 kernel"][:, :-1]
    with pytest.raises(ValueError):
        convert_weights.set_weights("pytorch", network, weights)
