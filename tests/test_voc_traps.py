"""The numbers in the traps of the lesson on VOC are those that benchmarks/voc_traps.py measures.

All but those that need a trained network: of these, what the answer's run at its defaults left is compared.
"""

import json
import re

import pytest
from conftest import ANSWERS, ROOT, pytorch, run_python

TRAPS = {  # by page and line of voc_traps.py: sentences, with the numbers that it prints there
    "01_voc_dataset": {
        "OpenCV, IMREAD_UNCHANGED: shape, values": ["gives (height, width, {2:g}), blue, green, red."],
        "Pillow, convert('L') of the colours of 0 to 20 and void": [
            "aeroplane, 1, becomes {1:g}, and void {21:g}. That is one of {22:g} greys for 22 indices: "
            "pottedplant, 16, becomes {16:g} too, and bird and sofa are both {3:g}.",
            "bird and sofa are both {18:g}.",
        ],
        "TensorFlow, decode_png: shape, values": ["`tf.io.decode_png`** gives (height, width, {2:g}), the colours"],
        "Keras, load_img(grayscale): shape, values": ["gives brightness: {2:g}, {3:g}, {4:g}."],
        "Chainer, ImageDataset: shape, values": ["({0:g}, height, width) with {3:g}, {4:g}, {5:g}."],
        "INTER_NEAREST against INTER_NEAREST_EXACT: IoU of objects": ["have an IoU of only {0:.3f} on the objects."],
        "INTER_LINEAR of masks: share of pixels of an index that the mask lacks": [
            "does not hold at {0:.2f} % of their pixels, in {1:g} of {2:g} masks."
        ],
        "a generator of the data set, 2 workers: distinct numbers, PyTorch": [
            "With two workers of PyTorch, {0:g} of {1:g} numbers are distinct"
        ],
        "NumPy's global one, 2 workers: distinct numbers, PyTorch": ["{0:g} of {1:g} numbers are distinct and the"],
        "10 items in batches of 4: PyTorch, TensorFlow": [
            "10 items in batches of 4 are {0:g}, {1:g}, {2:g}, unless",
            "**Batches of 10 items by 4** are {3:g}, {4:g}, {5:g} as well",
        ],
        "ImageNet's mean colour, normalised": ["should become about {0:.0f}."],
        "forgotten to divide by 255": ["it becomes ({0:.0f}, {1:.0f}, {2:.0f})."],
    },
    "02_atrous": {
        "PyTorch, padding='same' with stride 2": ["refuses a stride (`{0}`)"],
        "Keras, stride 2 and dilation 2 together": ["are refused by `Conv2D` (`{0}`)"],
        "Chainer, max pooling 3, stride 2, pad 1, of 128: with cover_all, without": [
            "of 128 pixels it makes {0:g}, not {1:g} "
        ],
        "Chainer, max pooling 3, stride 2, pad 1, of 129: with cover_all, without": [
            "at 129 both are {0:g},",
            "at 129 both are {1:g},",
        ],
        "padding of a 7 x 7 kernel with stride 2 by SAME: at 128, at 129": [
            "pads ({0:g}, {1:g}) for a 7 x 7 kernel of stride 2 at 128**, and ({2:g}, {3:g}) at 129."
        ],
        "TensorFlow, tf.image.resize of 0, 1, 2, 3 to 8": ["the former makes {0:g}, {1:g}, {2:g}, ... {7:g}, and"],
        "tf.compat.v1.image.resize_bilinear": [
            "of 0, 1, 2, 3 it makes {0:g}, {1:g}, {2:g}, {3:g}, {4:g}, {5:g}, {6:g}, {7:g},"
        ],
        "its align_corners=True": ["its `align_corners=True` {0:g}, {1:.2f}, {2:.2f}, ... {7:g}."],
        "tf.image.resize of float64 gives": ["It always returns {0}, whatever it is given."],
    },
    "03_deeplab": {
        "torch.load of a pickle that runs a command": ["Now it raises `{0}` at the line above."],
        "depth 101: entries, num_batches_tracked among them": ["has {0:g} entries with these {1:g} counters, and 564"],
        "epsilon of batch norm by default: Keras, Chainer": [
            "**Epsilon is {0:.0e} by default**, a hundred times",
            "and `eps={1:.0e}` that of batch norm.",
        ],
    },
    "04_deeplab_finetune": {
        "cross entropy, half void": ["raises `{1}` at 255 on a CPU.", "the pixels that count, {2:.4f} for a half"],
        "cross entropy, all void": ["and {0} where none does.", "and {2:g} for none.", "It gives {3:g} where no pixel"],
        "PyTorch, 255 and no ignore_index": ["Without `ignore_index`, 255 is an `{0}`;"],
        "Chainer, 255 and no ignore_label": ["by default.** 255 is an `{0}`;"],
        "PyTorch, uint8 masks": ["masks of uint8 are a `{0}`,"],
        "PyTorch, batch norm of (1, 8, 1, 1) in training": ["(1, 8, 1, 1)** in training raises a `{0}`"],
        "Keras, the same: output": ["**Batch norm of a single value** gives {0:g}, without a word."],
        "poly, of 150 steps: first, 76th, last": ["almost a straight line, {1:.3f} of the start at half of the way."],
    },
    "05_voc_test": {
        "everything background, whole images: mIoU, pixel accuracy": [
            "Background alone gives a pixel accuracy of {1:.3f} on the whole images, and an mIoU of {0:.3f}."
        ],
        "everything background, centre crops: mIoU, pixel accuracy": [
            "on centre crops an mIoU of {0:.3f} and an accuracy of {1:.3f},"
        ],
        "21 * 13 of uint8": ["21 * 13 is 273, which is {0:g} in a byte."],
    },
}
DONE = {  # by line of voc_traps.py, what the traps say in words
    "a generator of the data set, 2 workers: distinct numbers, PyTorch": [4, 8, "True"],  # the second epoch the same
    "NumPy's global one, 2 workers: distinct numbers, PyTorch": [8, 8, "False"],
    "SerialIterator of 3 items: repeats, shuffles by default": ["True"],
    "frozen by requires_grad_(False), trainable=False, disable_update: do the averages move": ["True", "False", "True"],
    "PyTorch, eval() of a layer, then train() of the network: in training": ["True"],
}


def read_page(page):
    """Return a page of the lesson in one line."""
    return " ".join((ROOT / f"Question_voc/lesson/{page}.md").read_text("utf-8").split())


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Return {line of voc_traps.py, without its numbers: numbers, and names of errors and of types}."""
    script = ROOT / "benchmarks/voc_traps.py"
    done = run_python(script, "--untrained", cwd=tmp_path_factory.mktemp("traps"))
    assert done.returncode == 0, done.stderr[-3000:]
    lines, found = done.stdout.splitlines(), {}
    for label in {*DONE, *(label for traps in TRAPS.values() for label in traps)}:
        (values,) = (line[len(label) + 4 :] for line in lines if line.startswith(f"  {label}: "))
        words = re.findall(r"\w+Error|True|False|nan|float\d+|-?\d[\d.]*(?:e-?\d+)?", values)
        found[label] = [float(word) + 0 if word[-1] in "0123456789." and word[0] != "f" else word for word in words]
    return found


@pytest.mark.parametrize("page", TRAPS)
def test_numbers_of_traps_are_those_that_are_measured(measured, page):
    text = read_page(page)
    for label, sentences in TRAPS[page].items():
        for sentence in sentences:
            said = sentence.format(*measured[label]).replace("e-0", "e-")
            assert said in text, f"{label}: {measured[label]}"


def test_traps_without_a_number_are_as_they_are_told(measured):
    assert {label: measured[label] for label in DONE} == DONE


def test_traps_of_atrous_are_what_its_answer_measures(fork, tmp_path):
    """On the drawn pictures, as the lesson."""
    done = fork(ANSWERS["atrous", "pytorch"], "--out", tmp_path, "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    even, odd = metrics["padding"]
    taps = {each["rate"]: each for each in metrics["taps"] if each["features"] == 16}
    dead = [rate for rate, each in taps.items() if each["dead"] == 8]
    (grid,) = (each for each in metrics["receptive_field"] if each["rates"] == [2, 2, 2])
    corners = metrics["align_corners"]
    assert taps[12]["middle"] == 1 and corners["first_moves"] * corners["last_moves"] < 0
    text, readme = read_page("02_atrous"), " ".join((ROOT / "Question_voc/README.md").read_text("utf-8").split())
    for said in (
        "8 of 9 taps are dead at rates {}, {} and {},".format(*dead),
        f"logits that are at most {even['largest_logit']:.1f} differ by up to {even['difference']:.1f} at 128 x 128, "
        f"and {100 * even['equal_arg_max']:.1f} % of the arg maxes agree. "
        f"At 129 x 129 the difference is {odd['difference']:g}.",
        f"near the border by {corners['last_moves']:.1f} pixels, in opposite directions at both ends, and changes the "
        f"arg max of {100 - 100 * corners['equal_arg_max']:.1f} % of the pixels",
        f"{grid['pixels']} pixels of {grid['extent']} x {grid['extent']} for 2, 2, 2.",
    ):
        assert said in text
    assert f"agree in {100 * even['equal_arg_max']:.1f} % of the arg maxes" in readme


def test_traps_of_a_trained_network_are_of_its_run():
    """What the run of the lesson left in results.json, whose answer test_double_precision.py knows."""
    run = json.loads((ROOT / "Question_voc/assets/results.json").read_text("utf-8"))["answers"]["voc_test_pytorch"]
    faults = run["faults"]
    none, training, plain = (faults[name] for name in ("none", "in training mode", "without normalisation"))
    assert f"| nothing | {run['miou']:.3f} |" in read_page("03_deeplab")
    text = read_page("05_voc_test")
    for said in (
        f"classes that occur (VOC's way) | {run['miou']:.3f} |",
        f"not lower: {training['pixel_accuracy']:.3f} instead of {none['pixel_accuracy']:.3f},",
        f"an mIoU of {plain['miou']:.3f} and an accuracy of {plain['pixel_accuracy']:.3f},",
        f"whatever the network does: from {run['pixel_accuracy']:.3f} to ",
    ):
        assert said in text
    answer = pytorch("voc_test")
    assert len(answer.CLASSES) == 21 and sum(iou is None for iou in run["iou"].values()) == 7
