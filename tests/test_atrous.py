"""atrous: what each framework measures of dilation, padding and upsampling is what can be counted by hand.

What uses no framework is equal in all four answers (tools/copies.py), so where a function is tested by itself it is
PyTorch's.
"""

import functools
import itertools
import json
import os

import cv2
import numpy as np
import pytest
from conftest import ANSWERS, FRAMEWORKS, pytorch, run_python
from PIL import Image

ANSWER = pytorch("atrous")
SIZE = 128
PICTURES = {"align_corners", "aspp", "output_stride", "padding", "receptive_field", "taps"}
by_framework = pytest.mark.parametrize("framework", FRAMEWORKS)


@pytest.fixture(scope="module")
def run(fork, voc, tmp_path_factory):
    """Run the answer in a framework, once: (its folder, what it printed, its metrics)."""
    folder = tmp_path_factory.mktemp("atrous")

    @functools.cache
    def run_once(framework):
        out = folder / framework
        arguments = ["--data", voc, "--out", out, "--size", SIZE, "--device", "cpu"]
        done = fork(ANSWERS["atrous", framework], *arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
        return out, done.stdout, json.loads((out / "metrics.json").read_text("utf-8"))

    return run_once


def flatten(value, name=""):
    """Yield the name and value of each number and text in metrics."""
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flatten(part, f"{name}/{key}")
    else:
        yield name, value


def count_axis(length, rate, place):
    """Return how many of the places place - rate, place, place + rate there are in so many."""
    return sum(0 <= place + step < length for step in (-rate, 0, rate))


# ---- a run ----


@by_framework
def test_the_files_are_written_and_the_folder_is_told(run, framework):
    out, printed, metrics = run(framework)
    assert metrics["answer"] == ANSWERS["atrous", framework].stem
    assert {path.name for path in out.iterdir()} == {"metrics.json", "pictures"}
    assert {path.name for path in (out / "pictures").iterdir()} == {f"{name}.png" for name in PICTURES}
    assert printed.splitlines()[-1].endswith(f"are in {out}/pictures/")
    for path in (out / "pictures").iterdir():
        picture = np.array(Image.open(path).convert("RGB"))
        assert min(picture.shape[:2]) > 250 and picture.std() > 20


@by_framework
def test_all_frameworks_measure_the_same(run, framework):
    expected, found = (dict(flatten(run(name)[2])) for name in ("pytorch", framework))
    assert expected.keys() == found.keys()
    for name in expected.keys() - {"/answer", "/align_corners/default"}:
        # Where two logits are equal but for rounding, another may be the arg max: at a few pixels of thousands.
        bound = 1e-3 if "arg_max" in name else 1e-4
        is_float = isinstance(expected[name], float)
        assert found[name] == (pytest.approx(expected[name], rel=1e-4, abs=bound) if is_float else expected[name]), name


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_keras_measures_the_same_on_each_backend(run, voc, tmp_path, backend):
    arguments = ["--data", voc, "--out", tmp_path, "--size", SIZE, "--device", "cpu"]
    environment = os.environ | {"KERAS_BACKEND": backend}
    done = run_python(ANSWERS["atrous", "keras"], *arguments, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    found = dict(flatten(json.loads((tmp_path / "metrics.json").read_text("utf-8"))))
    for name, value in flatten(run("keras")[2]):
        assert found[name] == (pytest.approx(value, rel=1e-4, abs=1e-3) if isinstance(value, float) else value), name


def test_the_seed_decides_the_weights(run, fork, voc, tmp_path):
    found = []
    for seed in (0, 1):
        arguments = ["--data", voc, "--out", tmp_path, "--size", SIZE, "--device", "cpu", "--seed", seed]
        assert fork(ANSWERS["atrous", "pytorch"], *arguments, cwd=tmp_path).returncode == 0
        found.append(json.loads((tmp_path / "metrics.json").read_text("utf-8"))["padding"])
    assert found[0] == run("pytorch")[2]["padding"] != found[1]


def test_weights_are_drawn_in_their_order_with_the_deviation_of_he():
    kernels = ANSWER.draw_kernels(np.random.default_rng(5), [(4, 3, 7, 7), (2, 4, 3, 3)], "cpu")
    rng = np.random.default_rng(5)
    for kernel, shape, fan_in in zip(kernels, [(4, 3, 7, 7), (2, 4, 3, 3)], [3 * 49, 4 * 9], strict=True):
        expected = rng.standard_normal(shape) * (2 / fan_in) ** 0.5
        np.testing.assert_allclose(kernel.numpy(), expected, rtol=1e-6)


# ---- receptive fields ----


@by_framework
def test_receptive_fields_are_those_of_the_formula(run, framework):
    rows = run(framework)[2]["receptive_field"]
    assert [tuple(row["rates"]) for row in rows] == [(1, 1, 1), (1, 2, 4), (2, 2, 2)]
    for row in rows:
        # A tap of each kernel moves by -rate, 0 or rate: the pixels seen are where all such sums lead.
        sums = [sum(steps) for steps in itertools.product(*((-rate, 0, rate) for rate in row["rates"]))]
        seen = set(sums)
        assert row["extent"] == row["formula"] == 1 + max(seen) - min(seen) == 1 + 2 * sum(row["rates"])
        assert row["pixels"] == len(seen) ** 2
        assert row["largest_gradient"] == max(sums.count(step) for step in seen) ** 2  # ways down times ways across
    assert [(row["extent"], row["pixels"]) for row in rows] == [(7, 49), (15, 225), (13, 49)]  # the last has gaps


@pytest.mark.parametrize("rates", [(1, 1, 1), (1, 2, 4), (2, 2, 2), (3, 1, 2)])
def test_the_gradient_counts_the_ways_to_a_pixel(rates):
    kernels = 3 * [ANSWER.to_kernel(np.ones((1, 1, 3, 3), np.float32), "cpu")]
    field, extent = ANSWER.find_field(kernels, (1, 1, 1), rates, (17, 17, 1), "cpu")
    expected = np.zeros((17, 17))
    moves = list(itertools.product(*((-rate, 0, rate) for rate in rates)))
    for down, right in itertools.product(moves, repeat=2):
        expected[8 + sum(down), 8 + sum(right)] += 1
    np.testing.assert_array_equal(field, expected)
    assert extent == 1 + 2 * sum(rates)


# ---- output stride ----


def test_dilation_takes_the_place_of_strides_as_in_torchvision():
    """The layer that loses its stride keeps the rate before it, and those after it have twice that rate."""
    assert ANSWER.dilate(32) == ([2, 2, 2, 2, 2, 1], [1, 1, 1, 1, 1, 1])
    assert ANSWER.dilate(16) == ([2, 2, 2, 2, 1, 1], [1, 1, 1, 1, 1, 2])
    assert ANSWER.dilate(8) == ([2, 2, 2, 1, 1, 1], [1, 1, 1, 1, 2, 4])
    assert ANSWER.dilate(1) == ([1, 1, 1, 1, 1, 1], [1, 2, 4, 8, 16, 32])


@by_framework
def test_dilation_keeps_the_weights_and_the_receptive_field(run, framework):
    rows = run(framework)[2]["output_stride"]
    assert {row["output_stride"]: row["features"] for row in rows} == {32: 4, 16: 8, 8: 16, 1: 128}
    for row in rows:
        distances = np.cumprod([1, *row["strides"][:-1]])  # of a layer's features, in pixels
        assert row["receptive_field"] == 1 + sum(2 * np.multiply(distances, row["rates"])) == 127
        assert row["weights"] == 9 * (3 * 8 + 5 * 8 * 8)


@by_framework
def test_strided_features_are_among_the_dilated_ones(run, framework):
    """With explicit padding at every n-th place from 0 on, the border included; with "SAME" only where nothing is odd.

    At 128 "SAME" pads nothing above and to the left, so a layer's features lie a pixel further on: (n - 1) in the end.
    """
    rows = run(framework)[2]["shared_features"]
    assert len(rows) == 8
    for row in rows:
        shifted = row["padding"] == "SAME" and row["size"] == SIZE
        assert row["first"] == (row["output_stride"] // row["in"] - 1 if shifted else 0)
        assert row["difference"] < 1e-4 and row["elsewhere"] > 1


def test_shared_features_are_found_where_they_are():
    dense = np.random.default_rng(0).standard_normal((12, 12, 2))
    first, difference, elsewhere = ANSWER.find_features(dense[2::4, 2::4] + 1e-3, dense, 4)
    assert first == 2 and difference == pytest.approx(1e-3) and elsewhere > 1
    assert ANSWER.find_features(dense[:9:4, :9:4], dense[:9, :9], 4)[:2] == (0, 0)  # 3 places, the others only 2


# ---- taps ----


@by_framework
def test_taps_are_those_counted_by_hand(run, framework):
    rows = run(framework)[2]["taps"]
    sizes = [(SIZE, 16), (513, 65)]
    assert [(row["size"], row["features"], row["rate"]) for row in rows] == [
        (*size, rate) for size in sizes for rate in (1, 6, 12, 18, 24, 36)
    ]
    for row in rows:
        length, rate = row["features"], row["rate"]
        along = np.array([count_axis(length, rate, place) for place in range(length)])
        taps = along[:, None] * along
        assert row["all_nine"] == pytest.approx((taps == 9).mean())
        assert row["only_one"] == pytest.approx((taps == 1).mean())
        assert row["middle"] == taps[length // 2, length // 2] and row["corner"] == taps[length // 8, length // 8]
        assert row["dead"] == (8 if rate >= length else 0)
    assert [row["dead"] for row in rows] == [0, 0, 0, 8, 8, 8] + 6 * [0]


@pytest.mark.parametrize("length, rate", [(16, 12), (16, 18), (16, 24), (16, 36), (9, 8), (9, 9), (65, 36)])
def test_dead_taps_have_no_gradient_for_any_features(length, rate):
    torch, rng = ANSWER.torch, np.random.default_rng(0)
    features, weights = (rng.standard_normal((1, length, length, 4)).astype(np.float32) for _ in range(2))
    kernel = torch.from_numpy(rng.standard_normal((4, 4, 3, 3)).astype(np.float32)).requires_grad_()
    result = torch.conv2d(ANSWER.to_tensor(features, "cpu"), kernel, padding=rate, dilation=rate)
    (result * ANSWER.to_tensor(weights, "cpu")).sum().backward()
    dead = ANSWER.count_taps(length, rate, "cpu")[1].reshape(3, 3) == 0
    assert ((kernel.grad.numpy() == 0) == dead).all() and not dead[1, 1]


def test_taps_are_drawn_where_they_lie(monkeypatch, tmp_path):
    figures = []

    class Figure(ANSWER.Figure):
        def __init__(self, *arguments, **options):
            figures.append(self)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(ANSWER, "Figure", Figure)
    images = [np.zeros((size, size, 3), np.uint8) for size in (SIZE, 513)]
    rows = ANSWER.show_taps(tmp_path, images, "cpu")
    panels = list(itertools.product((SIZE, 513), ("middle", "corner")))
    for axes, (size, place) in zip(figures[-1].axes, panels, strict=True):
        low, high = axes.get_xlim()
        texts = [text.get_text() for text in axes.get_legend().get_texts()]
        for colour, row in enumerate(row for row in rows if row["size"] == size):
            taps = [line for line in axes.lines if line.get_color() == f"C{colour}" and len(line.get_xdata())]
            corners = np.array([[*line.get_xdata(), *line.get_ydata()] for line in taps])
            inside = ((corners >= 0) & (corners < size)).all(axis=1)
            assert [line.get_marker() for line in taps] == ["o" if each else "x" for each in inside]
            assert len(taps) == 9 and inside.sum() == row[place] and corners.min() > low and corners.max() < high
            assert np.ptp(corners, axis=0).tolist() == [16 * row["rate"]] * 2  # 8 pixels to a feature
            assert texts[colour] == f"rate {row['rate']}: {row[place]} of 9"


# ---- padding ----


@by_framework
def test_same_is_explicit_padding_at_8k_plus_1_alone(run, framework):
    even, odd = run(framework)[2]["padding"]
    assert (even["size"], odd["size"]) == (SIZE, SIZE + 1)
    assert odd["difference"] < 1e-5 and odd["equal_arg_max"] == 1
    assert even["difference"] > 0.5 and even["equal_arg_max"] < 0.9


@pytest.mark.parametrize("side, reach, stride, before, after", [(128, 7, 2, 2, 3), (129, 7, 2, 3, 3), (64, 3, 2, 0, 1)])
def test_same_adds_what_tensorflow_documents(side, reach, stride, before, after):
    padded = ANSWER.pad_same(ANSWER.torch.ones(1, 1, side, side), reach, stride, 5)[0, 0].numpy()
    expected = np.pad(np.ones((side, side)), (before, after), constant_values=5)
    np.testing.assert_array_equal(padded, expected)


# ---- upsampling ----


@by_framework
def test_align_corners_moves_features_by_what_can_be_computed(run, framework):
    row = run(framework)[2]["align_corners"]
    assert row["default"] is (framework == "chainer")
    # Feature 1 lies at pixel (1 + 1/2) 128/16 - 1/2 = 11.5; with align_corners in a tent around 127/15.
    tent = np.maximum(0, 1 - np.abs(np.arange(SIZE) * 15 / (SIZE - 1) - 1))
    move = np.arange(SIZE) @ tent / tent.sum() - 11.5
    assert move == pytest.approx(-3.03, abs=0.01) and row["first_moves"] == pytest.approx(move, abs=1e-3)
    assert row["last_moves"] == pytest.approx(-move, abs=1e-3)
    assert row["difference"] > 0.1 and 0.5 < row["equal_arg_max"] < 1


def test_upsampling_is_that_of_others():
    """Half-pixel centres as OpenCV has them; with align_corners, straight lines from the first to the last feature."""
    features = np.random.default_rng(0).standard_normal((1, 16, 16, 2)).astype(np.float32)
    x = ANSWER.to_tensor(features, "cpu")
    for how in (False, None):
        expected = cv2.resize(features[0], (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(ANSWER.to_array(ANSWER.upsample(x, SIZE, how))[0], expected, atol=1e-5)
    places = np.linspace(0, 15, SIZE)
    expected = np.apply_along_axis(lambda line: np.interp(places, range(16), line), 1, features[0])
    expected = np.apply_along_axis(lambda line: np.interp(places, range(16), line), 0, expected)
    np.testing.assert_allclose(ANSWER.to_array(ANSWER.upsample(x, SIZE, True))[0], expected, atol=1e-5)


# ---- wrong input ----


@by_framework
@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--size", 100], "--size 100: give 32 to 512, in steps of 32"),
        (["--data", "nothing"], "nothing: holds no VOCdevkit/VOC2012/ImageSets/Segmentation/"),
    ],
)
def test_wrong_input_is_told_in_one_line(fork, tmp_path, framework, arguments, told):
    script = ANSWERS["atrous", framework]
    done = fork(script, *arguments, "--device", "cpu", cwd=tmp_path)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == 2 and len(lines) == 1 and lines[0].startswith(f"{script.name}: ") and told in lines[0]
    assert not list(tmp_path.iterdir())
