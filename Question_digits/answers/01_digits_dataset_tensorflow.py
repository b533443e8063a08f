"""Exercise 1, digits_dataset, in TensorFlow: make images without end, each a handwritten digit over a photograph, and
their masks.

Everything is new here.
"""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

# Ctrl-C ends the script in one line, also during the imports that follow, which take seconds.
signal.signal(signal.SIGINT, lambda *_: sys.exit(f"{Path(__file__).name}: interrupted"))

import cv2
import numpy as np
from PIL import Image
from sklearn import datasets
from tqdm import tqdm

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
stderr = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # while imported, TensorFlow logs to stderr whatever that level says
try:
    import tensorflow as tf
finally:
    os.dup2(stderr, 2)

FLOAT = "float32"  # with "float64" the losses of all four frameworks coincide: see the lesson
NUMBERS = {  # the default of an option, what it may be, and its meaning
    "iterations": (100, range(1, 10**6), "batches to draw"),
    "batch": (64, range(1, 4097), "images in a batch"),
    "pictures": (16, range(1, 10**6), "images of each part to save"),
    "seed": (0, range(2**63), "of all random numbers"),
}
CHOICES = {"device": ("auto", "cpu", "cuda")}  # the first is the default
SIDE = 32  # height and width of an image, in pixels
DIGIT = 14  # height and width of the digit in it
BRIGHTEST = 200  # what a digit adds at most to a photograph's 0 to 255
INK = 0.3  # above this part of its full brightness a digit's pixel belongs to its mask
TRAIN_SHARE = 0.6  # of the digits and of the photographs; the rest is for testing alone


def load_data(options):
    """Return {"train": (digits, photographs), "test": (digits, photographs)}, from --data or from scikit-learn.

    digits (N, 14, 14) from 0 to 1, photographs (N, height, width, 3) uint8. The parts have nothing in common: the first
    60 % of the digits and photographs are for training; scikit-learn's two photographs are cut, at 60 % of their width.
    """
    if options.data is None:
        digits, photographs = datasets.load_digits().images, np.stack(datasets.load_sample_images().images)
        brightest, axis = 16, 2  # digits (1797, 8, 8), photographs (2, 427, 640, 3)
    else:
        digits, photographs = read_data(options.data)
        brightest, axis = 255, 0
    # INTER_AREA takes the mean where a digit gets smaller; where it grows, it would make uneven steps.
    interpolation = cv2.INTER_AREA if digits.shape[1] > DIGIT else cv2.INTER_LINEAR
    resized = [cv2.resize(digit.astype(FLOAT), (DIGIT, DIGIT), interpolation=interpolation) for digit in digits]
    digits = np.split(np.stack(resized) / brightest, [int(TRAIN_SHARE * len(digits))])
    photographs = np.split(photographs, [int(TRAIN_SHARE * photographs.shape[axis])], axis)
    return {"train": (digits[0], photographs[0]), "test": (digits[1], photographs[1])}


def read_data(path):
    """Return digits (N, height, width) and photographs (N, height, width, 3), both uint8, from a .npz file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            digits, photographs = file["digits"], file["photographs"]
    except Exception:  # a damaged file raises whatever its first wrong byte leads to
        wrong = "not a whole .npz file of digits and photographs" if path.exists() else "no such file"
        stop(f"--data {path}: {wrong}: make one with python Dataset/download_digits.py")
    # At least two of each, one to train on and one to test on, and no photograph smaller than an image.
    for name, array, least in (("digits", digits, (2, 1, 1)), ("photographs", photographs, (2, SIDE, SIDE, 3))):
        is_right = array.ndim == len(least) and array.shape[3:] == least[3:] and np.all(np.array(array.shape) >= least)
        if array.dtype != np.uint8 or not is_right:
            stop(f"--data {path}: {name} {array.shape} {array.dtype}: give uint8, of the shape {least} or larger")
    return digits, photographs


def make_pictures(digits, photographs, number, rng):
    """Lay random digits at random places over random patches of photographs.

    Arguments: digits (N, 14, 14) from 0 to 1, photographs (N, height, width, 3) uint8.
    Returns: images (number, 32, 32, 3) from 0 to 1, and masks (number, 32, 32, 1) uint8, 1 on the digit.
    """
    images, masks = np.zeros((number, SIDE, SIDE, 3), FLOAT), np.zeros((number, SIDE, SIDE, 1), np.uint8)
    for image, mask in zip(images, masks, strict=True):
        photograph, digit = (array[rng.integers(len(array))] for array in (photographs, digits))
        top, left = (rng.integers(length - SIDE + 1) for length in photograph.shape[:2])
        image[:] = photograph[top : top + SIDE, left : left + SIDE]
        row, column = rng.integers(SIDE - DIGIT + 1, size=2)
        window = slice(row, row + DIGIT), slice(column, column + DIGIT)
        image[window] += BRIGHTEST * digit[..., None]
        mask[window] = digit[..., None] > INK
    return np.minimum(images, 255) / 255, masks


def normalise(images):
    """Return images (N, 32, 32, 3) changed so that each for itself has mean 0 and standard deviation 1."""
    centred = images - images.mean(axis=(1, 2, 3), keepdims=True)
    # Over white no digit shows: such an image is plain, and must not be divided by 0.
    return centred / np.maximum(centred.std(axis=(1, 2, 3), keepdims=True), 1e-4)


def draw_batches(digits, photographs, options, rng):
    """Yield options.iterations batches: normalised images (batch, 32, 32, 3), masks (batch, 32, 32, 1)."""
    for _ in range(options.iterations):  # each of new images
        images, masks = make_pictures(digits, photographs, options.batch, rng)
        yield normalise(images), masks


def to_tensor(array, device):
    """Return an array (batch, height, width, channels) as a tensor on the device."""
    return tf.constant(array)  # channels last, as in NumPy; on the GPU if set_up has left TensorFlow one


def save_image(path, image):
    """Save an image, (height, width) or (height, width, 3) uint8, as PNG."""
    write_whole(path, lambda part: Image.fromarray(image).save(part))


def write_whole(path, write):
    """Write a file beside path, then rename it: even if the script is killed, path is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{os.getpid()}-{path.name}")  # another run may write to the same folder
    try:
        write(part)
        part.replace(path)
    except OSError as error:  # that of a full disk names no file
        raise OSError(f"{path}: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


def stop(message):
    """End the script with one line that names the file or option and the fix, and with status 2."""
    print(f"{Path(__file__).name}: {message}", file=sys.stderr)
    raise SystemExit(2)


def read_options():
    """Return the options of the command line; stop at one that makes no sense."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    own_out = Path("outputs", Path(__file__).stem)
    parser.add_argument("--data", type=Path, help=".npz file of Dataset/download_digits.py (scikit-learn's data)")
    parser.add_argument("--out", type=Path, default=own_out, help="folder for all that is written (%(default)s)")
    for name, (default, _, meaning) in NUMBERS.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (%(default)s)")
    for name, choices in CHOICES.items():
        parser.add_argument(f"--{name}", choices=choices, default=choices[0], help="(%(default)s)")
    options = parser.parse_args()
    for name, (_, allowed, _) in NUMBERS.items():
        if vars(options)[name] not in allowed:
            stop(f"--{name} {vars(options)[name]}: give {allowed.start} to {allowed[-1]}, in steps of {allowed.step}")
    set_up(options)
    return options


def set_up(options):
    """Choose the device: TensorFlow takes the GPU for whatever can run there, unless it is hidden."""
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    if options.device == "cuda" and not has_gpu:
        stop("--device cuda: TensorFlow sees no GPU: use --device cpu, or install a driver and tensorflow[and-cuda]")
    if options.device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    if options.device == "auto":
        options.device = "cuda" if has_gpu else "cpu"


def main():
    options = read_options()
    rng = np.random.default_rng(options.seed)
    data = load_data(options)
    metrics = {"answer": Path(__file__).stem, "images": {}, "digit_share": {}}
    for part, (digits, photographs) in data.items():
        images, masks = make_pictures(digits, photographs, options.pictures, rng)
        for i, (image, mask) in enumerate(zip(tqdm(images, part), masks, strict=True)):
            panels = np.uint8(np.round(255 * np.hstack([image, mask.repeat(3, axis=2), image * mask])))
            save_image(options.out / "pictures" / part / f"{i:04}.png", panels.repeat(8, axis=0).repeat(8, axis=1))
        metrics["images"][part], metrics["digit_share"][part] = len(images), float(masks.mean())
        print(f"{part}: {len(digits)} digits over {len(photographs)} photographs of", end=" ")
        print(f"{photographs.shape[1]} x {photographs.shape[2]} pixels; {masks.mean():.1%} of the pixels are digit")

    for batch in tqdm(draw_batches(*data["train"], options, rng), "batches", options.iterations):
        tensors = [to_tensor(array, options.device) for array in batch]
    for what, tensor in zip(("images", "masks"), tensors, strict=True):
        print(f"a batch of {what}: {type(tensor).__name__} {tuple(tensor.shape)}, {tensor.dtype}, on {options.device}")
    write_whole(options.out / "metrics.json", lambda part: part.write_text(json.dumps(metrics, indent=2) + "\n"))
    print(f"Pictures of image, mask, and image where the digit is are in {options.out}/pictures/")


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has no such method
        sys.stdout.reconfigure(errors="backslashreplace")  # for names in letters that the terminal lacks
    try:
        main()
    except OSError as error:  # a folder that may not be written, a full disk
        stop(f"{error}: fix that, or name another folder with --out")
    except Exception as error:
        words = ("ut of memory", "to allocate", "OOM when")  # each framework says it in its own
        if not isinstance(error, MemoryError) and not any(each in str(error) for each in words):
            raise
        stop("out of memory: give a smaller --batch or --pictures")
