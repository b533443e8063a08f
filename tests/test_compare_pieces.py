"""The pieces of tools/compare.py alone: what is marked, what a chart draws, and the pictures that the page holds."""

import argparse
import base64

import compare
import cv2
import numpy as np
import pytest
from conftest import encode_mask
from exercises import find_exercise
from matplotlib.figure import Figure
from results import shows_only


def decode(uri):
    """Return the media type of a data URI and the picture in it, (height, width, 3), red-green-blue."""
    head, _, data = uri.partition(";base64,")
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR_RGB)
    return head.removeprefix("data:"), picture


def test_the_shortest_answer_is_marked(tmp_path):
    results = [
        compare.Result(framework, tmp_path, metrics={"lines": lines, "seconds": 3.0})
        for framework, lines in (("pytorch", 301), ("keras", 300), ("chainer", 302))
    ]
    rows = dict(compare.build_rows(results))
    assert rows["lines of code"] == [("301", False), ("300", True), ("302", False)]
    assert rows["seconds, whole run"] == [("3.0", False)] * 3  # where all are equal none is the least


@pytest.mark.parametrize("dark", [0, 1])
def test_the_chart_of_losses_shows_each_in_its_own_style(dark):
    rng = np.random.default_rng(0)
    curves = {name: dict(enumerate(rng.random(60), start=1)) for name in compare.FRAMEWORKS}
    axes = Figure().add_subplot()
    compare.draw_curves(axes, curves, dark)
    assert len(axes.lines) == 4
    for line, (framework, curve) in zip(axes.lines, curves.items(), strict=True):
        assert line.get_label() == compare.FRAMEWORKS[framework]
        assert list(line.get_xdata()) == list(range(1, 61)) and list(line.get_ydata()) == list(curve.values())
        assert line.get_color() == compare.LINES[framework][2 + dark]
    assert len({line.get_linewidth() for line in axes.lines}) == 4
    assert len({str(line._unscaled_dash_pattern) for line in axes.lines}) == 4  # what no public method tells


def test_the_first_crossing_counts_not_the_last():
    curve = dict.fromkeys(range(1, 21), 0.5)
    curves = {"pytorch": curve, "keras": curve | {7: 0.51, 15: 0.52}}
    assert compare.find_crossing(compare.find_differences(curves)) == 7
    sentences = compare.describe_curves(curves)
    assert "up to iteration 6; at iteration 7" in sentences[0] and "at iteration 15 (" in sentences[1]


def test_the_truth_is_reduced_by_the_pixel_in_the_middle():
    truth = np.zeros((8, 8, 3), np.uint8)
    truth[1::2, 1::2] = 127, 0, 0  # the middle of 2 x 2 pixels, rounded down
    prediction = np.full((4, 4, 3), (127, 0, 0), np.uint8)
    assert compare.overlap(prediction, truth) == 1


@pytest.mark.parametrize("mious", [(0.5, 0.6, 0.8), (0.8, 0.5, 0.6), (0.5, 0.8, 0.6)])
def test_the_distance_of_three_results_is_that_of_the_farthest(tmp_path, mious):
    results = [compare.Result("keras", tmp_path, metrics={"miou": miou}) for miou in mious]
    options = argparse.Namespace(data=tmp_path / "other", iterations=3)
    sentences = compare.describe_results(find_exercise("unetlike"), results, options)
    assert sentences[0].startswith("In mIoU the three frameworks here lie 0.300 apart.")


def test_the_page_holds_the_pictures_as_they_are():
    mask = np.zeros((20, 30, 3), np.uint8)
    mask[5:9, 7:8], mask[12:, 20:] = (127, 0, 0), (0, 127, 0)
    cell = compare.make_cell("truth", mask, "mask")
    media, picture = decode(cell["uri"])
    assert media == "image/png" and np.array_equal(picture, compare.brighten(mask))
    assert picture[6, 7].tolist() == [255, 64, 64] and picture[15, 25].tolist() == [64, 255, 64]
    photograph = np.full((20, 30, 3), (200, 100, 20), np.uint8)
    media, picture = decode(compare.make_cell("input", photograph, "photo")["uri"])
    assert media == "image/jpeg" and np.abs(picture - np.array([200.0, 100, 20])).max() < 8
    media, picture = decode(compare.make_cell("PyTorch", photograph, "plot")["uri"])
    assert media == "image/png" and np.array_equal(picture, photograph)
    assert compare.make_cell("Keras", None, "mask")["uri"] == ""


@pytest.mark.parametrize("learnt, shown", [(["car", "person"], True), (["car", "dog"], False), (["person"], False)])
def test_images_that_show_other_classes_are_known(tmp_path, learnt, shown):
    """A phase of deeplab_finetune has learnt half of the classes; void and background are none."""
    mask = np.array([[0, 7], [15, 255]], np.uint8)
    (tmp_path / "mask.png").write_bytes(encode_mask(mask))
    assert shows_only(tmp_path / "mask.png", ["background", *learnt]) == shown
