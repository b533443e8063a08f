"""How well can newts be told from their background by the colour of each pixel alone?

The rule counts how often every colour occurs in each class of the training pictures (a histogram over red, green and
blue, smoothed), and gives a test pixel the class whose count, times the weight of the class, is largest. With enough
pictures no other rule that sees one pixel at a time does better (Bayes). The number of bins, the smoothing and the
weights are those with the best mean IoU on training pictures that were held out from the counting. A network has to
beat this by shape and texture, or it has learnt nothing but colours.

    python benchmarks/colour_baseline.py --data Dataset
"""

import argparse
import itertools
import sys
from pathlib import Path

import cv2
import numpy as np

CLASSES = ("background", "akahara", "madara")
SIZE = 64  # pictures are reduced to SIZE x SIZE, as the networks see them
FOLDS = 4
ENDINGS = (".jpg", ".jpeg", ".png")


def stop(message):
    """Ends the program with one line and exit status 2."""
    print(f"colour_baseline.py: {message}", file=sys.stderr)
    sys.exit(2)


def read(path):
    """The picture in a file: (height, width, 3) uint8 BGR."""
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        stop(f"{path} is no picture that can be read: replace it or take it out")
    return picture


def load_newts(folder):
    """The newts of train/ or test/: images (n, SIZE, SIZE, 3) uint8 BGR, classes (n, SIZE, SIZE) uint8."""
    files = sorted(
        path
        for path in (folder / "images").rglob("*")
        if path.suffix.lower() in ENDINGS and not path.name.startswith(".")
    )
    if not files:
        stop(f"no pictures in {folder / 'images'}: give a folder like Dataset/ with --data")
    images, classes = [], []
    for path in files:
        mask_path = folder / "seg_images" / path.relative_to(folder / "images").with_suffix(".png")
        if not mask_path.is_file():
            stop(f"{path} has no mask: draw {mask_path}")
        mask = cv2.resize(read(mask_path), (SIZE, SIZE), interpolation=cv2.INTER_NEAREST_EXACT)
        images.append(cv2.resize(read(path), (SIZE, SIZE), interpolation=cv2.INTER_AREA))
        classes.append(np.where(mask[..., 2] > 63, 1, np.where(mask[..., 1] > 63, 2, 0)).astype(np.uint8))
    return np.stack(images), np.stack(classes)


def bin_of(images, bins):
    """The histogram bin of every pixel: images (..., 3) uint8 -> (...) int."""
    red, green, blue = np.moveaxis(images.astype(int) * bins // 256, -1, 0)
    return (red * bins + green) * bins + blue


def count_colours(images, classes, class_count, bins, smoothing):
    """How often each colour occurs in each class, as a share of the class: (class_count, bins ** 3)."""
    pixels = bin_of(images, bins).ravel() + classes.ravel().astype(int) * bins**3
    counts = np.bincount(pixels, minlength=class_count * bins**3).reshape(class_count, bins, bins, bins).astype(float)
    offsets = np.arange(-3, 4)
    kernel = np.exp(-0.5 * (offsets / smoothing) ** 2)
    for axis in (1, 2, 3):
        padded = np.pad(counts, [(3, 3) if axis == other else (0, 0) for other in range(4)])
        counts = sum(
            weight * np.take(padded, np.arange(bins) + 3 + offset, axis)
            for weight, offset in zip(kernel, offsets, strict=True)
        )
    counts = counts.reshape(class_count, -1)
    return (counts + 1e-6) / (counts + 1e-6).sum(axis=1, keepdims=True)


def confusion(truth, predicted, class_count):
    """Pixels of each true class (rows) given to each class (columns): (class_count, class_count) int."""
    together = truth.ravel().astype(int) * class_count + predicted.ravel()
    return np.bincount(together, minlength=class_count**2).reshape(class_count, class_count)


def scores(matrix):
    """Pixel accuracy and the IoU of each class of a confusion matrix; a class that occurs nowhere has IoU nan."""
    hits = np.diag(matrix)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - hits
    return hits.sum() / matrix.sum(), np.where(union > 0, hits / np.maximum(union, 1), np.nan)


def fit_rule(images, classes, class_count):
    """The colour rule with the best mean IoU on held-out pictures, then counted on all of them.

    Returns bins and the class of each colour: table (bins ** 3,). The whole search takes some seconds.
    """
    folds = np.arange(len(images)) % FOLDS
    choices = [
        (1.0, *weights)
        for weights in itertools.product(np.geomspace(0.05, 4, 18 if class_count > 2 else 60), repeat=class_count - 1)
    ]
    best = (-1.0,)
    for bins, smoothing in itertools.product((8, 16, 32, 64), (0.3, 0.7, 1.2, 2.0)):
        # Held-out pixels are counted by colour first, so that each rule is tried on the colours, not on all pixels.
        matrices = np.zeros((len(choices), class_count, class_count), int)
        for fold in range(FOLDS):
            shares = count_colours(images[folds != fold], classes[folds != fold], class_count, bins, smoothing)
            found = confusion_by_colour(images[folds == fold], classes[folds == fold], class_count, bins)
            seen = found.sum(axis=0) > 0
            for matrix, weights in zip(matrices, choices, strict=True):
                chosen = np.argmax(shares[:, seen] * np.array(weights)[:, None], axis=0)
                for given in range(class_count):
                    matrix[:, given] += found[:, seen][:, chosen == given].sum(axis=1)
        means = [np.nanmean(scores(matrix)[1]) for matrix in matrices]
        if max(means) > best[0]:
            best = max(means), bins, smoothing, choices[int(np.argmax(means))]
    _, bins, smoothing, weights = best
    shares = count_colours(images, classes, class_count, bins, smoothing)
    return bins, np.argmax(shares * np.array(weights)[:, None], axis=0)


def confusion_by_colour(images, classes, class_count, bins):
    """How many pixels of each class have each colour: (class_count, bins ** 3) int."""
    together = classes.ravel().astype(int) * bins**3 + bin_of(images, bins).ravel()
    return np.bincount(together, minlength=class_count * bins**3).reshape(class_count, -1)


def measure(folder, class_count):
    """Confusion matrices on the test pictures by rule: the colour rule, all background, all newt.

    class_count 2 is newt against background, 3 has the species apart.
    """
    train_images, train_classes = load_newts(folder / "train")
    test_images, test_classes = load_newts(folder / "test")
    train_classes, test_classes = (np.minimum(classes, class_count - 1) for classes in (train_classes, test_classes))
    bins, table = fit_rule(train_images, train_classes, class_count)
    flat = np.zeros_like(test_classes)
    matrices = {
        "colour rule": confusion(test_classes, table[bin_of(test_images, bins)], class_count),
        "all background": confusion(test_classes, flat, class_count),
    }
    if class_count == 2:
        matrices["whole frame newt"] = confusion(test_classes, flat + 1, class_count)
    return matrices


def main():
    parser = argparse.ArgumentParser(description="The best rule that sees the colour of one pixel at a time.")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(__file__).resolve().parent.parent / "Dataset",
        metavar="DIR",
        help="a folder like Dataset/ (default: the bundled newts)",
    )
    folder = parser.parse_args().data
    if not folder.is_dir():
        stop(f"--data {folder} is no folder: give one like Dataset/")
    for class_count, names in ((2, ("background", "newt")), (3, CLASSES)):
        print(f"{' / '.join(names)}, {SIZE} x {SIZE} pixels")
        for rule, matrix in measure(folder, class_count).items():
            accuracy, iou = scores(matrix)
            parts = ", ".join(f"IoU {name} {value:.3f}" for name, value in zip(names, iou, strict=True))
            print(f"  {rule + ':':18} pixel accuracy {accuracy:.3f}, {parts}, mIoU {np.nanmean(iou):.3f}")


if __name__ == "__main__":
    main()
