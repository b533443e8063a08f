"""Exercise 2, digits_cnn, in Keras: find the digit in pictures made without end, by convolutions with dropout.

Four convolutions of 5 x 5 give a logit for each pixel; Adam trains them. What the network has to find is known for each
picture, so it can be tested on as many as you like. Run it without options, or see --help.
"""

import argparse
import gzip
import importlib.util
import io
import json
import math
import os
import pickle
import sys
import tempfile
import time
import warnings
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

EXERCISE, FRAMEWORK = "digits_cnn", "keras"
VERSIONS = {"python": sys.version.split()[0], "keras": keras.__version__, "numpy": np.__version__}
VERSIONS[BACKEND] = sys.modules[BACKEND].__version__
CLASSES = ("background", "digit")
ON_CPU = ON_GPU = {"iterations": 500, "batch": 64, "lr": 0.005}  # the defaults
CHOICES = {"device": ("auto", "cpu", "cuda")}  # the first is the default
DEVICES = {"cpu": "cpu", "cuda": "gpu"}  # as Keras calls them, whatever its backend
SIDE, DIGIT = 32, 14  # of a picture and of the digit in it, in pixels
BRIGHTEST = 200  # what a digit adds at most to a photograph's 0 to 255
INK = 0.3  # above this part of its full brightness a digit's pixel belongs to its mask
TRAIN_SHARE = 0.6  # of the digits and of the photographs; the rest is for testing alone
TEST_SEED = 10**6  # of the test pictures: the same for every --seed
TEST_EVERY = 50  # iterations from one look at a test batch to the next
SHOWN = 16  # test pictures that are written


def build_network(rng, options):
    """Return convolutions of 5 x 5, each with ReLU, and one to a logit: images to logits (batch, 32, 32, 1)."""
    with keras.device(DEVICES[options.device]):
        x = inputs = keras.Input((SIDE, SIDE, 3))
        settings = {"padding": "same", "kernel_initializer": initializer(rng)}
        for channels in options.channels:
            x = keras.layers.Conv2D(channels, 5, activation="relu", **settings)(x)  # (batch, 32, 32, channels)
        return keras.Model(inputs, keras.layers.Conv2D(1, 5, **settings)(x))


def add_dropout(network, options):
    """Return a network of the same layers that takes, beside the images, what draw_dropout returns."""
    x = network.inputs[0]
    inputs, (*hidden, classify) = [x], network.layers[1:]
    for convolve in hidden:
        x = convolve(x)
        if options.keep < 1:
            inputs.append(keras.Input(x.shape[1:]))
            x = keras.layers.multiply([x, inputs[-1]])
    return keras.Model(inputs, classify(x))


def train(network, pools, exam, options, rng):
    """Take options.iterations steps of Adam (arXiv:1412.6980) on pictures made of the pools, digits and photographs.

    Returns: the loss at each step, and at each TEST_EVERY of them what look_at_test told: (step, loss, IoU).
    """
    trained = add_dropout(network, options)
    trained.compile(
        keras.optimizers.Adam(options.lr, epsilon=1e-8),  # 1e-7 unless told
        loss=lambda targets, logits: compute_loss(logits, targets),  # Keras passes the targets first
        jit_compile=False,  # XLA would take longer to compile than it saves in a run of this length
    )
    losses, looks = [], []
    bar = tqdm(draw_batches(*pools, options, rng), desc="train", total=options.iterations)
    for step, (images, masks) in enumerate(bar, start=1):
        with keras.device(DEVICES[options.device]):
            inputs = [to_tensor(array, options.device) for array in (images, *draw_dropout(options, rng))]
            losses.append(float(trained.train_on_batch(inputs, to_tensor(masks, options.device))))
        show_loss(bar, losses[-1], options)
        if step % TEST_EVERY == 0 or step == options.iterations:
            looks.append((step, *look_at_test(network, *exam, options)))
    return losses, looks


def predict(network, images, options):
    """Return the logits, (pictures, height, width, 1) float32, of normalised images (pictures, height, width, 3)."""
    with keras.device(DEVICES[options.device]):
        return network.predict(images, batch_size=options.batch, verbose=0)


def save_weights(network, out):
    """Write the weights to out/network.weights.h5."""
    write_whole(out / "network.weights.h5", network.save_weights)


def load_weights(network, out):
    """Read into the network what save_weights wrote to out."""
    path = out / "network.weights.h5"
    try:
        with warnings.catch_warnings(action="error"):  # as for a layer that the file lacks
            network.load_weights(path)
    except Exception:  # a damaged file raises whatever its first wrong byte leads to
        wrong = "not the weights of this network" if path.exists() else "no such file"
        stop(
            f"{path}: {wrong}: train first, without --test, give the options of that training, or its folder with --out"
        )


# As in digits_cnn_pytorch.py
def draw_dropout(options, rng):
    """Return for each layer an array (batch, 32, 32, channels) float32 to multiply by: 0 drops a value."""
    # What is kept grows by 1 / keep, so that the sums of the next layer stay as large as in testing, without dropout.
    # nn.Dropout does the same, but draws by its framework's own generator: then no two curves would be one.
    shapes = [(options.batch, SIDE, SIDE, channels) for channels in options.channels if options.keep < 1]
    return [(rng.random(shape, np.float32) < options.keep) / np.float32(options.keep) for shape in shapes]


def look_at_test(network, images, masks, options):
    """Return the loss, and the mean over the pictures of the digit's IoU, on the first options.batch test pictures."""
    images, masks = images[: options.batch], masks[: options.batch]
    logits = predict(network, normalise(images), options)
    loss = compute_loss(to_tensor(logits, options.device), to_tensor(masks, options.device))
    return float(loss), mean_digit_iou(logits >= 0, masks)


def mean_digit_iou(predictions, masks):
    """Return the mean over the pictures of the intersection over union of the digit; arrays (pictures, 32, 32, 1)."""
    both, either = ((np.sum(f(predictions > 0, masks > 0), axis=(1, 2, 3))) for f in (np.logical_and, np.logical_or))
    return float(np.mean(both / np.maximum(either, 1)))


def test(network, images, masks, options):
    """Predict the test pictures, write what came out of the first beside the truth, and return the measures."""
    logits = predict(network, normalise(images), options)
    probabilities = 0.5 + 0.5 * np.tanh(0.5 * logits)  # the sigmoid, 1 / (1 + exp(-logits)), with nothing to overflow
    predictions = (probabilities >= 0.5).astype(np.uint8)
    for i in tqdm(range(min(SHOWN, len(images))), desc="test"):
        panels = {"input": images[i], "truth": masks[i]}
        panels |= {"probability": probabilities[i], "at 0.5": predictions[i]}
        save_picture(options.out / "pictures" / f"{i:04}.png", panels)
        files = {"test/images": images[i] * 255, "test/seg_images": masks[i] * 255, "predictions": predictions[i] * 255}
        for folder, picture in files.items():
            png = cv2.imencode(".png", picture.round().astype(np.uint8)[..., ::-1])[1].tobytes()
            write_whole(options.out / folder / f"{i:04}.png", lambda aside, png=png: aside.write_bytes(png))
    measures = measure(predictions, masks) | {"mean_digit_iou": mean_digit_iou(predictions, masks)}
    print(f"mean IoU of the digit over {len(images)} test pictures: {measures['mean_digit_iou']:.3f}", end=", ")
    print(f"over all their pixels {measures['iou']['digit']:.3f}; pixel accuracy {measures['pixel_accuracy']:.3f}")
    return measures


# As in bin_loss_keras.py
def initializer(rng):
    """Return a function that draws a kernel by NumPy, so that all four frameworks start from the same weights."""

    def initialise(shape, dtype=None):  # here kernels end in (in, out)
        return he_normal(rng, (shape[3], shape[2], *shape[:2])).transpose(2, 3, 1, 0)

    return initialise


def compute_loss(logits, targets):
    """Return sigmoid cross entropy, the mean over all pixels; logits and targets (batch, height, width, 1)."""
    # From logits, not from a sigmoid layer: at a logit of 17 that is 1 in float32, and log(1 - 1) infinite.
    return keras.ops.mean(keras.losses.binary_crossentropy(targets, logits, from_logits=True))


# As in bin_loss_tensorflow.py
def count_parameters(network):
    """Return how many numbers training sets."""
    return sum(int(np.prod(variable.shape)) for variable in network.trainable_variables)


# As in bin_loss_pytorch.py
def he_normal(rng, shape):
    """Draw weights (out, in, kernel height, kernel width), He normal by fan-in (arXiv:1502.01852, section 2.2)."""
    return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)


def show_loss(bar, loss, options):
    """Show the loss in the progress bar; stop where it is no number any more."""
    bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
    if not math.isfinite(loss):
        bar.close()
        stop(f"--lr {options.lr}: the loss is {loss} after {bar.n} iterations: give a smaller one")


def read_metrics(path):
    """Return the metrics of an earlier run, none if there is no such file or a damaged one."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


# As in bin_test_pytorch.py
def measure(predictions, targets):
    """Return pixel accuracy, IoU (intersection over union) by class, None if in neither array, and their mean."""
    pairs = np.bincount((len(CLASSES) * targets.astype(int) + predictions).ravel(), minlength=len(CLASSES) ** 2)
    confusion = pairs.reshape(len(CLASSES), len(CLASSES))  # a row for each true class, a column for each predicted
    intersection = confusion.diagonal()
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - intersection
    iou = {name: float(i / u) if u else None for name, i, u in zip(CLASSES, intersection, union, strict=True)}
    miou = float(np.mean([value for value in iou.values() if value is not None]))
    return {"pixel_accuracy": float(intersection.sum() / confusion.sum()), "iou": iou, "miou": miou}


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


# As in digits_cnn_pytorch.py
def read_options():
    """Return the command line's options; stop at one that makes no sense."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    own_out = Path("outputs", Path(__file__).stem)
    parser.add_argument("--train", action="store_true", help="only train")
    parser.add_argument("--test", action="store_true", help="only test, with the weights that training saved")
    parser.add_argument("--mnist", type=Path, help="folder with MNIST's files, as digits (scikit-learn's)")
    parser.add_argument("--cifar", type=Path, help="folder with CIFAR-10's batches, as photographs (scikit-learn's)")
    parser.add_argument("--out", type=Path, default=own_out, help="folder for all that is written (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers in training (%(default)s)")
    for name, choices in CHOICES.items():
        parser.add_argument(f"--{name}", choices=choices, default=choices[0], help="(%(default)s)")
    defaults = {name: f"{value} on a CPU, {ON_GPU[name]} on a GPU" for name, value in ON_CPU.items()}
    defaults |= {name: value for name, value in ON_CPU.items() if value == ON_GPU[name]}
    parser.add_argument("--iterations", type=int, help=f"steps of training ({defaults['iterations']})")
    parser.add_argument("--batch", type=int, help=f"pictures in a batch ({defaults['batch']})")
    parser.add_argument("--lr", type=float, help=f"learning rate ({defaults['lr']})")
    parser.add_argument("--keep", type=float, default=0.7, help="part that dropout keeps; 1 is all (%(default)s)")
    parser.add_argument("--channels", type=int, nargs="+", default=[10, 12, 8], help="of each layer (%(default)s)")
    parser.add_argument("--pictures", type=int, default=1000, help="to test on (%(default)s)")
    options = parser.parse_args()
    options.device = pick_device(options.device)
    for name, value in (ON_CPU if options.device == "cpu" else ON_GPU).items():
        if vars(options)[name] is None:
            setattr(options, name, value)
    limits = {"iterations": (1, 10**9), "batch": (1, 4096), "pictures": (1, 10**6), "seed": (0, 2**63)}
    for name, (least, most) in (limits | {"channels": (1, 1024)}).items():
        for number in np.atleast_1d(vars(options)[name]).tolist():
            if not least <= number <= most:
                stop(f"--{name} {number}: give a whole number from {least} to {most}")
    if not 0 < options.lr < math.inf:
        stop(f"--lr {options.lr}: give a number above 0, such as {ON_CPU['lr']}")
    if not 0 < options.keep <= 1:
        stop(f"--keep {options.keep}: give a number above 0, up to 1")
    options.train, options.test = (options.train or not options.test), (options.test or not options.train)
    return options


def main():
    options = read_options()
    rng = np.random.default_rng(options.seed)
    data = load_data(options)
    exam = make_pictures(*data["test"], options.pictures, np.random.default_rng(TEST_SEED))
    options.out.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=options.out).close()  # fails now, not after training, where nothing may be written
    network = build_network(rng, options)
    metrics = {"exercise": EXERCISE, "framework": FRAMEWORK, "versions": VERSIONS, "device": options.device}
    metrics_path = options.out / "metrics.json"
    if options.train:
        start = time.perf_counter()
        losses, looks = train(network, data["train"], exam, options, rng)
        seconds = time.perf_counter() - start
        metrics |= {"seed": options.seed, "iterations": options.iterations, "parameters": count_parameters(network)}
        metrics |= {"seconds": seconds, "milliseconds_per_iteration": 1000 * seconds / options.iterations}
        metrics |= {"peak_memory_mb": peak_memory_mb(), "final_loss": losses[-1]}
        save_weights(network, options.out)
        for name, head, rows in (
            ("loss.csv", "iteration,loss", enumerate(losses, start=1)),
            ("test.csv", "iteration,loss,mean_digit_iou", looks),
        ):
            lines = "".join(f"{','.join(map(str, row))}\n" for row in [(head,), *rows])
            write_whole(options.out / name, lambda aside, lines=lines: aside.write_text(lines))
    else:
        load_weights(network, options.out)
        metrics = read_metrics(metrics_path) | metrics
    if options.test:
        metrics |= test(network, *exam, options)
    write_whole(metrics_path, lambda aside: aside.write_text(json.dumps(metrics, indent=2) + "\n"))
    print(f"Written to {options.out}/: {', '.join(sorted(path.name for path in options.out.glob('[!.]*')))}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, KeyboardInterrupt) as error:  # a folder that may not be written, a full disk; Ctrl-C
        stop(f"{error}: mend that, or name another folder with --out" if str(error) else "interrupted")
    except Exception as error:
        if not any(word in repr(error) for word in ("memory", "Memory", "OOM")):  # each framework says it otherwise
            raise
        stop("out of memory: give a smaller --batch or --pictures")
