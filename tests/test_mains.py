"""What a run hands from one piece of an answer to the next: which images, which options, which random numbers.

main and the pieces that it calls are equal in all four frameworks (tools/copies.py), so PyTorch's are run.
"""

import csv
import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import AKAHARA, MADARA, encode, pytorch, write
from PIL import Image

NEWTS = ["--device", "cpu", "--iterations", "3", "--batch", "2", "--seed", "5"]
DIGITS = ["--device", "cpu", "--iterations", "3", "--batch", "4", "--pictures", "20", "--channels", "2"]


def run(answer, monkeypatch, folder, *arguments):
    """Run an answer's main, which writes to folder; return its metrics."""
    monkeypatch.setattr(sys, "argv", ["answer", "--out", str(folder), *map(str, arguments)])
    answer.main()
    return json.loads((folder / "metrics.json").read_text("utf-8"))


def watch(answer, monkeypatch, name):
    """Let a piece do its work as before; return the list to which each call adds its arguments and what it returns."""
    piece, calls = getattr(answer, name), []

    def watched(*arguments):
        calls.append((arguments, piece(*arguments)))
        return calls[-1][1]

    monkeypatch.setattr(answer, name, watched)
    return calls


def same(one, other):
    return np.array_equal(np.asarray(one), np.asarray(other))


# ---- newts ----


@pytest.mark.parametrize("exercise", ["bin_loss", "bin_test", "unetlike"])
def test_training_gets_the_training_images_the_options_and_the_seed(newts, tmp_path, monkeypatch, exercise):
    answer = pytorch(exercise)
    trained, tested = watch(answer, monkeypatch, "train"), watch(answer, monkeypatch, "test")
    drawn = watch(answer, monkeypatch, "draw_batches")
    arguments = ["--data", newts, "--size", 16, "--lr", 0.0371, "--augment", "flips", *NEWTS]
    metrics = run(answer, monkeypatch, tmp_path / "out", *arguments)
    ((network, images, targets, options, rng), losses), *more = trained
    assert not more and metrics["final_loss"] == losses[-1]
    _, expected_images, expected_targets = answer.load_newts(newts / "train", 16)
    assert same(images, expected_images) and same(targets, expected_targets)
    assert (options.lr, options.augment, options.batch, options.iterations) == (0.0371, "flips", 2, 3)
    # The generator of the seed has drawn the weights, and goes on with the batches.
    other = np.random.default_rng(5)
    answer.build_network(other, options)
    for batch in answer.draw_batches(images, targets, options, other):
        assert len(batch[0]) == 2
    assert other.random() == rng.random()
    (arguments, _), *_ = drawn
    assert arguments[0] is images and arguments[1] is targets and arguments[2] is options and arguments[3] is rng
    ((tested_network, names, images, targets, _), measures), *more = tested
    expected = answer.load_newts(newts / "test", 16)
    assert not more and tested_network is network and names == expected[0] and len(names) == 3
    assert same(images, expected[1]) and same(targets, expected[2])
    assert metrics.items() >= measures.items()
    with open(tmp_path / "out/loss.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["iteration"]), float(row["loss"])) for row in rows] == list(enumerate(losses, start=1))


def test_the_loss_of_unseen_images_takes_the_running_averages(monkeypatch):
    """Not the averages of the batch: so it is the mean over the images, each for itself."""
    answer, rng = pytorch("bin_loss"), np.random.default_rng(0)
    options = SimpleNamespace(device="cpu")
    network = answer.build_network(rng, options)
    images = np.float32(rng.uniform(-1, 1, (4, 16, 16, 3)) * np.float32([0.1, 0.5, 1, 2])[:, None, None, None])
    targets = rng.integers(0, 2, (4, 16, 16), np.uint8)
    alone = [answer.evaluate(network, images[i : i + 1], targets[i : i + 1], options) for i in range(4)]
    assert answer.evaluate(network, images, targets, options) == pytest.approx(np.mean(alone), rel=1e-5)
    assert np.ptp(alone) > 0.01


def test_the_binary_exercises_call_either_newt_1_and_the_others_tell_them_apart(tmp_path):
    mask = np.zeros((16, 16, 3), np.uint8)
    mask[:4], mask[4:6] = AKAHARA, MADARA
    for folder in ("images", "seg_images"):
        write(tmp_path / folder / "newt.png", encode(".png", mask))
    for exercise, classes in {"bin_dataset": [10, 6], "bin_test": [10, 6], "semaseg_dataset": [10, 4, 2]}.items():
        _, _, targets = pytorch(exercise).load_newts(tmp_path, 16)
        assert np.bincount(targets[0, :, 0]).tolist() == classes


@pytest.mark.parametrize("exercise", ["bin_dataset", "semaseg_dataset"])
def test_the_shares_are_those_of_the_masks_and_pictures_show_them(newts, tmp_path, monkeypatch, exercise):
    answer = pytorch(exercise)
    metrics = run(answer, monkeypatch, tmp_path, "--data", newts, "--size", 16, *NEWTS)
    colours = np.uint8([(0, 0, 0), (254, 0, 0), (0, 254, 0)])
    for part in ("train", "test"):
        names, images, targets = answer.load_newts(newts / part, 16)
        counts = np.bincount(targets.ravel(), minlength=len(answer.CLASSES)) / targets.size
        if exercise == "bin_dataset":
            assert metrics["newt_share"][part] == pytest.approx(counts[1])
        else:
            assert list(metrics["class_shares"][part].items()) == [
                (name, pytest.approx(share)) for name, share in zip(answer.CLASSES, counts, strict=True)
            ]
        for name, image, target in zip(names, images, targets, strict=True):
            picture = np.array(Image.open(tmp_path / "pictures" / part / f"{name}.png"))[::4, ::4].astype(int)
            panels = np.split(picture, 3 if exercise == "bin_dataset" else 2, axis=1)
            shown = 127.5 * (image.astype(float) + 1)
            assert np.abs(panels[0] - shown).max() <= 1
            if exercise == "bin_dataset":
                assert same(panels[1], 255 * target[..., None].repeat(3, axis=2))
                assert np.abs(panels[2] - shown * target[..., None]).max() <= 1
            else:
                assert same(panels[1], colours[target])


# ---- digits ----


def test_digits_dataset_shows_both_parts(digits, tmp_path, monkeypatch):
    answer = pytorch("digits_dataset")
    made = watch(answer, monkeypatch, "make_pictures")
    arguments = ["--data", digits, "--device", "cpu", "--pictures", 3, "--iterations", 1, "--batch", 2, "--seed", 4]
    metrics = run(answer, monkeypatch, tmp_path, *arguments)
    data, rng = answer.load_data(SimpleNamespace(data=digits)), np.random.default_rng(4)
    for part, ((digits_given, photographs, *_), (images, masks)) in zip(("train", "test"), made, strict=False):
        assert same(digits_given, data[part][0]) and same(photographs, data[part][1])
        expected = answer.make_pictures(*data[part], 3, rng)
        assert same(images, expected[0]) and same(masks, expected[1])
        assert metrics["digit_share"][part] == pytest.approx(masks.mean())
        for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
            picture = np.array(Image.open(tmp_path / "pictures" / part / f"{i:04}.png"))[::8, ::8]
            panels = np.split(picture, 3, axis=1)
            assert np.abs(panels[0] - 255 * image).max() <= 0.51
            assert same(panels[1], 255 * mask.repeat(3, axis=2)) and same(panels[2], panels[0] * mask)


@pytest.mark.parametrize("exercise", ["digits_cnn", "graph_conv"])
@pytest.mark.parametrize("seed", [0, 7])
def test_digits_are_tested_on_their_own_images_whatever_the_seed(digits, tmp_path, monkeypatch, exercise, seed):
    answer = pytorch(exercise)
    trained, tested = watch(answer, monkeypatch, "train"), watch(answer, monkeypatch, "test")
    arguments = ["--data", digits, "--lr", 0.0123, "--keep", 0.75, "--seed", seed, *DIGITS]
    metrics = run(answer, monkeypatch, tmp_path / "out", *arguments)
    ((_, data, exam, options, rng), (losses, evaluations)), *_ = trained
    whole = answer.load_data(options)
    assert same(data[0], whole["train"][0]) and same(data[1], whole["train"][1])
    assert (options.lr, options.keep, options.batch) == (0.0123, 0.75, 4)
    expected = answer.make_pictures(*whole["test"], 20, np.random.default_rng(10**6))
    ((_, images, masks, _), measures), *_ = tested
    for given in ((images, masks), exam):
        assert same(given[0], expected[0]) and same(given[1], expected[1])
    other = np.random.default_rng(seed)
    answer.build_network(other, options)
    for _ in answer.draw_batches(*data, options, other):
        answer.draw_dropout(options, other)
    assert other.random() == rng.random()
    assert metrics.items() >= measures.items() and metrics["final_loss"] == losses[-1]
    for name, rows in (("loss.csv", list(enumerate(losses, start=1))), ("test.csv", evaluations)):
        written = np.loadtxt(tmp_path / "out" / name, delimiter=",", skiprows=1, ndmin=2)
        assert written == pytest.approx(np.array(rows))


def test_the_network_is_watched_every_fifty_iterations_and_at_the_last(digits, tmp_path, monkeypatch):
    answer = pytorch("digits_cnn")
    watched = watch(answer, monkeypatch, "evaluate")
    run(answer, monkeypatch, tmp_path, "--data", digits, *DIGITS, "--iterations", 120, "--batch", 1)
    assert len(watched) == 3
    assert np.loadtxt(tmp_path / "test.csv", delimiter=",", skiprows=1)[:, 0].tolist() == [50, 100, 120]


def plant(answer, monkeypatch, logits):
    """Let the network predict these logits; return the list to which each call adds the images that it was given."""
    given = []

    def predict(network, images, options):
        given.append(images)
        return logits[: len(images)]

    monkeypatch.setattr(answer, "predict", predict)
    return given


@pytest.mark.parametrize("exercise", ["digits_cnn", "graph_conv"])
def test_images_of_digits_are_normalised_for_testing_too(tmp_path, monkeypatch, exercise):
    answer, rng = pytorch(exercise), np.random.default_rng(0)
    images = np.float32(rng.random((5, 32, 32, 3)) * rng.uniform(0.2, 1, (5, 1, 1, 1)))
    masks, logits = rng.integers(0, 2, (5, 32, 32, 1), np.uint8), np.float32(rng.normal(0, 3, (5, 32, 32, 1)))
    given = plant(answer, monkeypatch, logits)
    answer.test(None, images, masks, SimpleNamespace(out=tmp_path, batch=2))
    loss, iou = answer.evaluate(None, images, masks, SimpleNamespace(out=tmp_path, batch=3, device="cpu"))
    assert [len(each) for each in given] == [5, 3]
    for each in given:
        means, deviations = (function(axis=(1, 2, 3), keepdims=True) for function in (images.mean, images.std))
        assert np.abs(each - ((images - means) / deviations)[: len(each)]).max() < 1e-4
    # The loss and the IoU of the first three, worked out one pixel at a time.
    pairs = list(zip(logits[:3].ravel().tolist(), masks[:3].ravel().tolist(), strict=True))
    assert loss == pytest.approx(np.mean([math.log1p(math.exp(-logit if mask else logit)) for logit, mask in pairs]))
    shares = []
    for prediction, mask in zip(logits[:3] >= 0, masks[:3] == 1, strict=True):
        shares.append((prediction & mask).sum() / (prediction | mask).sum())
    assert iou == pytest.approx(np.mean(shares))


def test_pictures_of_digits_show_input_truth_probability_and_prediction(tmp_path, monkeypatch):
    answer, rng = pytorch("digits_cnn"), np.random.default_rng(0)
    images, masks = np.float32(rng.random((20, 32, 32, 3))), rng.integers(0, 2, (20, 32, 32, 1), np.uint8)
    probabilities = rng.choice([0.1, 0.4999, 0.5001, 0.9], (20, 32, 32, 1))
    plant(answer, monkeypatch, np.log(probabilities / (1 - probabilities)))
    measures = answer.test(None, images, masks, SimpleNamespace(out=tmp_path))
    predictions = probabilities > 0.5
    assert measures["pixel_accuracy"] == pytest.approx((predictions == masks).mean())
    assert measures["mean_digit_iou"] == pytest.approx(
        np.mean([(a & (b == 1)).sum() / (a | (b == 1)).sum() for a, b in zip(predictions, masks, strict=True)])
    )
    assert len(list((tmp_path / "pictures").iterdir())) == 16
    for i in range(16):
        picture = np.array(Image.open(tmp_path / "pictures" / f"{i:04}.png"))[::8, ::8]
        panels, names = np.split(picture, 4, axis=1), ("test/images", "test/seg_images", "predictions")
        saved = [np.array(Image.open(tmp_path / name / f"{i:04}.png")) for name in names]
        assert np.abs(panels[0] - 255.0 * images[i]).max() <= 0.51 and same(panels[0], saved[0])
        assert same(panels[1][..., 0], 255 * masks[i, ..., 0]) and same(panels[1][..., 0], saved[1])
        assert np.abs(panels[2] - 255 * probabilities[i]).max() <= 0.51
        assert same(panels[3][..., 0], 255 * predictions[i, ..., 0]) and same(panels[3][..., 0], saved[2])


def test_the_cuts_of_grid_graph_are_of_training_and_of_test_images(digits, tmp_path, monkeypatch):
    answer = pytorch("grid_graph")
    made, cut = watch(answer, monkeypatch, "make_pictures"), watch(answer, monkeypatch, "segment")
    arguments = ["--data", digits, "--device", "cpu", "--pictures", 3, "--iterations", 1, "--batch", 2, "--seed", 4]
    metrics = run(answer, monkeypatch, tmp_path, *arguments)
    options = cut[0][0][1]
    data, masks = answer.load_data(options), {}
    for part, ((digits_given, photographs, *_), (images, masks[part])) in zip(("train", "test"), made, strict=False):
        assert same(digits_given, data[part][0]) and same(photographs, data[part][1])
        first = 0 if part == "train" else 3
        assert all(same(call[0][0], image) for call, image in zip(cut[first : first + 3], images, strict=True))
    for part, calls in (("train", cut[:3]), ("test", cut[3:])):
        shares = []
        for ((_, _), (_, digit)), mask in zip(calls, masks[part][..., 0], strict=True):
            shares.append((digit & mask).sum() / (digit | mask).sum())
        assert metrics["digit_iou"][part] == pytest.approx(np.mean(shares))
