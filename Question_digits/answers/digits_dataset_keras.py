"""Exercise 1, digits_dataset, in Keras: make pictures without end, each a handwritten digit over a photograph.

Where the digit was laid is known, so its mask is too, and no batch needs to come twice. Making pictures is NumPy, the
same in all four frameworks. They part at `to_tensor`, where a batch becomes theirs.
Run it without options, for the digits and photographs that come with scikit-learn, or see --help.
"""

import argparse
import gzip
import importlib.util
import io
import json
import os
import pickle
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from sklearn import datasets
from tqdm import tqdm

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
BACKEND = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if BACKEND not in ("tensorflow", "jax", "torch") or not importlib.util.find_spec(BACKEND):
    mend = "set it to tensorflow (the default), jax or torch, whichever is installed"
    print(f"{Path(__file__).name}: KERAS_BACKEND={BACKEND}: unknown or not installed: {mend}", file=sys.stderr)
    raise SystemExit(2)
stderr = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # while imported, TensorFlow logs to stderr whatever that level says
try:
    import keras
finally:
    os.dup2(stderr, 2)

EXERCISE, FRAMEWORK = "digits_dataset", "keras"
VERSIONS = {"python": sys.version.split()[0], "keras": keras.__version__, "numpy": np.__version__}
VERSIONS[BACKEND] = sys.modules[BACKEND].__version__
DEFAULTS = {"iterations": 100, "batch": 64, "pictures": 16}
CHOICES = {"device": ("auto", "cpu", "cuda")}  # the first is the default
DEVICES = {"cpu": "cpu", "cuda": "gpu"}  # as Keras calls them, whatever its backend
SIDE, DIGIT = 32, 14  # of a picture and of the digit in it, in pixels
BRIGHTEST = 200  # what a digit adds at most to a photograph's 0 to 255
INK = 0.3  # above this part of its full brightness a digit's pixel belongs to its mask
TRAIN_SHARE = 0.6  # of the digits and of the photographs; the rest is for testing alone


# As in bin_dataset_keras.py
def pick_device(name):
    """Return "cpu" or "cuda" for the option's auto, cpu or cuda."""
    if BACKEND == "torch":  # whose devices Keras 3.15 does not list
        has_gpu = sys.modules["torch"].cuda.is_available()
    else:
        has_gpu = any(device.startswith("gpu") for device in keras.distribution.list_devices())
    if name == "cuda" and not has_gpu:
        stop(f"--device cuda: Keras on {BACKEND} sees no GPU: use --device cpu, or install {BACKEND} for a GPU")
    return "cuda" if name != "cpu" and has_gpu else "cpu"


def to_tensor(array, device):
    """Return an array (batch, height, width, channels) as a tensor on the device."""
    with keras.device(DEVICES[device]):
        return keras.ops.convert_to_tensor(array)  # channels last, as NumPy and OpenCV have them


# As in digits_dataset_pytorch.py
def make_pictures(digits, photographs, number, rng):
    """Lay random digits at random places over random patches of photographs.

    Arguments: digits (any, 14, 14) float32 from 0 to 1, photographs (any, height, width, 3) uint8.
    Returns: images (number, 32, 32, 3) float32 from 0 to 1, and masks (number, 32, 32, 1) uint8, 1 on the digit.
    """
    images, masks = np.zeros((number, SIDE, SIDE, 3), np.float32), np.zeros((number, SIDE, SIDE, 1), np.uint8)
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
    """Return images (any, 32, 32, 3) changed so that each for itself has the mean 0 and the standard deviation 1."""
    centred = images - images.mean(axis=(1, 2, 3), keepdims=True)
    # Over white no digit shows: such a picture is plain, and must not be divided by 0.
    return centred / np.maximum(centred.std(axis=(1, 2, 3), keepdims=True), 1e-4)


def draw_batches(digits, photographs, options, rng):
    """Yield options.iterations batches: normalised images (batch, 32, 32, 3) and masks (batch, 32, 32, 1)."""
    for _ in range(options.iterations):  # none comes twice
        images, masks = make_pictures(digits, photographs, options.batch, rng)
        yield normalise(images), masks


def load_data(options):
    """Return {"train": (digits, photographs), "test": (digits, photographs)}, as make_pictures takes them.

    What one part has, the other has not: the first 60 % of the digits are for training, and of the photographs, or,
    where there are only two, of the width of each.
    """
    digits, photographs = load_digits(options.mnist), load_photographs(options.cifar)
    for name, array in (("mnist", digits), ("cifar", photographs)):
        if len(array) < 2:
            stop(
                f"--{name} {vars(options)[name]}: {len(array)} in it: give more, some to train on and others to test on"
            )
    pools = split(digits, axis=0), split(photographs, axis=0 if options.cifar else 2)
    return dict(zip(("train", "test"), zip(*pools, strict=True), strict=True))


def split(array, axis):
    """Return the first 60 % of an array along an axis, and the rest."""
    return np.split(array, [int(TRAIN_SHARE * array.shape[axis])], axis)


def load_digits(folder):
    """Return digits (any, 14, 14) float32 from 0 to 1: MNIST's in a folder, or for None those of scikit-learn."""
    if folder is None:
        digits = np.float32(datasets.load_digits().images) / 16  # (1797, 8, 8)
    else:
        parts = ("train", "t10k")
        names = [[f"{part}-images{dot}idx3-ubyte{end}" for dot in "-." for end in ("", ".gz")] for part in parts]
        digits = [np.float32(digit) / 255 for path in find_files("--mnist", folder, names) for digit in read_idx(path)]
    # INTER_AREA takes the mean where a digit gets smaller; where it grows, it would make uneven steps.
    way = cv2.INTER_AREA if len(digits[0]) > DIGIT else cv2.INTER_LINEAR
    return np.stack([cv2.resize(digit, (DIGIT, DIGIT), interpolation=way) for digit in digits])


def load_photographs(folder):
    """Return (any, height, width, 3) uint8: CIFAR-10's in a folder, or for None the two of scikit-learn."""
    if folder is None:
        return np.stack(datasets.load_sample_images().images)  # (2, 427, 640, 3)
    parts = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
    paths = find_files("--cifar", folder, [[f"{part}.bin", part] for part in parts])
    return np.concatenate([read_cifar(path) for path in paths])  # (60000, 32, 32, 3)


def find_files(option, folder, names):
    """Return the path of the first file of each list of names that is below folder; of some lists it may be none."""
    there = {path.name: path for path in sorted(folder.rglob("*"), reverse=True) if path.is_file()}
    paths = [there[name] for spellings in names if (name := next(filter(there.get, spellings), None))]
    if not paths:
        wrong = f"no {names[0][0]} in it" if folder.is_dir() else "no such folder"
        stop(f"{option} {folder}: {wrong}: python Dataset/download_digits.py fetches what belongs there")
    return paths


def read_idx(path):
    """Return the pictures (any, height, width) uint8 of a file in MNIST's format, packed (.gz) or not."""
    # https://yann.lecun.com/exdb/mnist: four numbers, each four bytes with the highest first, then the pixels
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except Exception:  # damage shows at whatever its first wrong byte leads to
        stop(f"{path}: not a whole .gz file: fetch it again")
    magic, *shape = np.frombuffer(data[:16].ljust(16, b"\0"), ">u4").tolist()
    if magic != 0x803:
        stop(f"{path}: begins with {magic:#x} where pictures in MNIST's format have 0x803: fetch the file again")
    if len(data) != 16 + np.prod(shape, dtype=object) or not len(data) > 16:
        stop(f"{path}: has {len(data)} bytes, and by its head should have another number: fetch it again")
    return np.frombuffer(data, np.uint8, offset=16).reshape(shape)


def read_cifar(path):
    """Return the pictures (any, 32, 32, 3) uint8 of a batch of CIFAR-10, of its binary or its Python version."""
    # https://www.cs.toronto.edu/~kriz/cifar.html: in binary a label from 0 to 9, then 32 x 32 red, green, blue each
    data = path.read_bytes()
    try:
        if path.suffix == ".bin":
            labels, pixels = np.split(np.frombuffer(data, np.uint8).reshape(-1, 3073), [1], axis=1)
            if labels.max() > 9:
                raise ValueError(f"a label is {labels.max()}, and the last is 9")
        else:
            pixels = unpickle(data)
        planes = pixels.reshape(len(pixels), 3, 32, 32)
    except Exception as error:  # damage shows at whatever its first wrong byte leads to
        stop(f"{path}: not a whole batch of CIFAR-10 ({error}): fetch it again")
    return planes.transpose(0, 2, 3, 1)


class Stand:
    """Stands in for whatever a pickle would make: it keeps what it is given, and does nothing."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __setstate__(self, state):
        self.state = state


class CifarUnpickler(pickle.Unpickler):
    """Reads a batch of CIFAR-10. A pickle may name any function to be called; here it may name few, and calls ours."""

    ADMITTED = {(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}
    ADMITTED |= {("numpy", "ndarray"), ("numpy", "dtype")}

    def find_class(self, module, name):
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return lambda text, encoding: text.encode("latin1")
        if (module, name) not in self.ADMITTED:
            raise ValueError(f"it asks for {module}.{name}, which no such batch holds")
        return Stand


def unpickle(data):
    """Return the pixels (any, 3072) uint8 of the bytes of a pickled batch; an error where they hold anything else."""
    batch = CifarUnpickler(io.BytesIO(data), encoding="bytes").load()
    _, shape, dtype, is_fortran, pixels = batch[b"data"].state  # the state by which NumPy pickles an array
    if dtype.arguments[0] not in ("u1", b"u1"):
        raise ValueError("its pixels are not bytes")
    return np.frombuffer(pixels, np.uint8).reshape(shape, order="F" if is_fortran else "C")


def read_options():
    """Return the command line's options; stop at one that makes no sense."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    own_out = Path("outputs", Path(__file__).stem)
    parser.add_argument("--train", action="store_true", help="only training pictures")
    parser.add_argument("--test", action="store_true", help="only test pictures")
    parser.add_argument("--mnist", type=Path, help="folder with MNIST's files, as digits (scikit-learn's)")
    parser.add_argument("--cifar", type=Path, help="folder with CIFAR-10's batches, as photographs (scikit-learn's)")
    parser.add_argument("--out", type=Path, default=own_out, help="folder for all that is written (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (%(default)s)")
    for name, choices in CHOICES.items():
        parser.add_argument(f"--{name}", choices=choices, default=choices[0], help="(%(default)s)")
    parser.add_argument("--iterations", type=int, default=DEFAULTS["iterations"], help="batches to draw (%(default)s)")
    parser.add_argument("--batch", type=int, default=DEFAULTS["batch"], help="pictures in a batch (%(default)s)")
    parser.add_argument("--pictures", type=int, default=DEFAULTS["pictures"], help="of each part to save (%(default)s)")
    options = parser.parse_args()
    limits = (("iterations", 1, 10**9), ("batch", 1, 4096), ("pictures", 1, 10**6), ("seed", 0, 2**63))
    for name, least, most in limits:
        if not least <= vars(options)[name] <= most:
            stop(f"--{name} {vars(options)[name]}: give a whole number from {least} to {most}")
    options.train, options.test = (options.train or not options.test), (options.test or not options.train)
    options.device = pick_device(options.device)
    return options


def main():
    options = read_options()
    rng = np.random.default_rng(options.seed)
    data = {part: pools for part, pools in load_data(options).items() if vars(options)[part]}
    metrics = {"exercise": EXERCISE, "framework": FRAMEWORK, "versions": VERSIONS, "device": options.device}
    metrics |= {"seed": options.seed, "iterations": options.iterations}
    metrics |= {"pictures": {}, "digits": {}, "digit_share": {}}

    for part, (digits, photographs) in data.items():
        images, masks = make_pictures(digits, photographs, options.pictures, rng)
        for i, (image, mask) in enumerate(zip(tqdm(images, desc=part), masks, strict=True)):
            panels = {"image": image, "mask": mask[..., 0], "image where digit": image * mask}
            save_picture(options.out / "pictures" / part / f"{i:04}.png", panels)
        metrics["pictures"][part], metrics["digits"][part] = len(images), len(digits)
        metrics["digit_share"][part] = float(masks.mean())
        print(f"{part}: {len(digits)} digits over {len(photographs)} photographs of", end=" ")
        print(f"{photographs.shape[1]} x {photographs.shape[2]} pixels; {masks.mean():.1%} of the pixels are digit")

    start = time.perf_counter()
    bar = tqdm(draw_batches(*next(iter(data.values())), options, rng), desc="batches", total=options.iterations)
    for batch in bar:
        tensors = [to_tensor(array, options.device) for array in batch]
    seconds = time.perf_counter() - start
    for what, tensor in zip(("images", "masks"), tensors, strict=True):
        print(f"a batch of {what}: {type(tensor).__name__} {tuple(tensor.shape)}, {tensor.dtype}, on {options.device}")

    metrics |= {"seconds": seconds, "milliseconds_per_iteration": 1000 * seconds / options.iterations}
    metrics["peak_memory_mb"] = peak_memory_mb()
    write_whole(options.out / "metrics.json", lambda aside: aside.write_text(json.dumps(metrics, indent=2) + "\n"))
    print(f"Written to {options.out}/: metrics.json, pictures")


# As in bin_dataset_pytorch.py
def write_whole(path, write):
    """Call write with a path beside `path`, then rename: even if we are killed, the file is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".part-{path.name}")
    write(aside)
    aside.replace(path)


def save_picture(path, panels):
    """Write a picture of panels side by side: {title: (height, width) from 0 to 1, or (height, width, 3)}."""
    figure = Figure(figsize=(2.4 * len(panels), 2.7), layout="tight")
    for axes, (title, panel) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        axes.imshow(panel, cmap="gray", vmin=0, vmax=1)
        axes.set(title=title, xticks=[], yticks=[])
    write_whole(path, figure.savefig)


def peak_memory_mb():
    """Return the most main memory that this process has held, in 10^6 bytes; None on Windows, which does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def stop(message):
    """End the script with one line that names the file or option and the mend, and with status 2."""
    print(f"{Path(__file__).name}: {message}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    try:
        main()
    except (OSError, KeyboardInterrupt) as error:  # a folder that may not be written, a full disk; Ctrl-C
        stop(f"{error}: mend that, or name another folder with --out" if str(error) else "interrupted")
    except Exception as error:
        if not any(word in repr(error) for word in ("memory", "Memory", "OOM")):  # each framework says it otherwise
            raise
        stop("out of memory: give a smaller --batch")
