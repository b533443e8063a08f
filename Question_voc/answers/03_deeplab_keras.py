"""Exercise 3, deeplab, in Keras: DeepLabV3, with the published weights if you have them, on your own photographs.

Without --weights its weights are random, and so is what it predicts: fetch some by Dataset/download_deeplab.py.

New here: NUMBERS, CHOICES, RESNETS, STAGES, NAMES, read_image, DeepLabV3, ResNet, Bottleneck, ASPP, Conv, BatchNorm,
conv_norm_relu, run_layers, upsample, interpolate, build_network, find_variables, list_entries, set_entries,
TensorUnpickler, read_pth, load_weights, predict, segment, paint, read_options, main. As in 02_atrous_keras.py:
to_tensor, pad, __main__. All else is as in 01_voc_dataset_keras.py.
"""

import argparse
import collections
import importlib.util
import io
import json
import math
import os
import pickle
import signal
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

# Ctrl-C ends the script in one line, also during the imports that follow, which take seconds.
signal.signal(signal.SIGINT, lambda *_: sys.exit(f"{Path(__file__).name}: interrupted"))

import cv2
import numpy as np
from PIL import Image, ImageOps

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
BACKEND = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if BACKEND not in ("tensorflow", "jax", "torch") or not importlib.util.find_spec(BACKEND):
    message = "unknown or not installed: set it to tensorflow, jax or torch, whichever is installed"
    print(f"{Path(__file__).name}: KERAS_BACKEND={BACKEND}: {message}", file=sys.stderr)
    raise SystemExit(2)
stderr = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # while imported, TensorFlow logs to stderr whatever that level says
try:
    import keras
finally:
    os.dup2(stderr, 2)

FLOAT = "float32"  # with "float64" the losses of all four frameworks coincide: see the lesson
CLASSES = tuple(
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor".split()
)
# VOC's colour of an index, (256, 3): its bits 0, 3, 6 are the highest of red, bits 1, 4, 7 of green, 2, 5 of blue.
COLOURS = np.uint8([[sum((i >> 3 * k + c & 1) << 7 - k for k in range(3)) for c in range(3)] for i in range(256)])
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue, from 0 to 1
NUMBERS = {  # the default of an option, what it may be, and its meaning
    "size": (520, range(64, 4097), "shorter side to which a larger image is reduced for the network"),
    "seed": (0, range(2**63), "of the random weights"),
}
CHOICES = {"depth": ("101", "50", "14"), "device": ("auto", "cpu", "cuda")}  # the first is the default
DEVICES = {"cpu": "cpu", "cuda": "gpu"}  # as Keras calls them, whatever its backend
# By depth, the number of layers in the backbone: blocks of each stage, its width, and the rates of ASPP.
RESNETS = {
    "101": ((3, 4, 23, 3), 64, (12, 24, 36)),
    "50": ((3, 4, 6, 3), 64, (12, 24, 36)),
    "14": ((1, 1, 1, 1), 16, (2, 4, 6)),  # small enough to be trained on a CPU, on crops of 128 pixels
}
# Of each stage: width, stride, dilation of the first block and of the others. Where ResNet has stride 2 in the last two
# stages, the features stay at an eighth of the image, and the kernels see twice and four times as far instead.
STAGES = {"layer1": (1, 1, 1, 1), "layer2": (2, 2, 1, 1), "layer3": (4, 1, 1, 2), "layer4": (8, 1, 2, 4)}
NAMES = {  # of a layer's variables: Keras's, and those in the published weights
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
FOLDER = Path("VOCdevkit", "VOC2012")
DRAWN = Path(__file__, "../../../Dataset/voc").resolve()  # pictures in VOC's layout, which Dataset/draw_voc.py draws


def find_voc(folder):
    """Return the folder VOC2012 that is in folder; draw pictures first where none are at the default place."""
    complete, draw = folder / FOLDER / "ImageSets" / "Segmentation" / "val.txt", DRAWN.with_name("draw_voc.py")
    if folder.resolve() == DRAWN and not complete.exists() and draw.exists():
        print(f"drawing pictures in VOC's layout to {DRAWN}, once: less than a minute", flush=True)
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # what stops draw_voc.py, Ctrl-C too, it says itself
        status = subprocess.run([sys.executable, str(draw)], stdout=subprocess.DEVNULL).returncode
        signal.signal(signal.SIGINT, handler)
        if status:
            raise SystemExit(status)
    for voc in (folder / FOLDER, folder / FOLDER.name, folder):
        if (voc / "ImageSets" / "Segmentation").is_dir():
            return voc
    stop(f"{folder}: holds no {FOLDER.as_posix()}/ImageSets/Segmentation/: name the folder with VOCdevkit/ by --data")


def read_names(voc, split):
    """Return the names of the images of a split, "train" or "val"; each has an image and a mask."""
    path = voc / "ImageSets" / "Segmentation" / f"{split}.txt"
    try:
        names = path.read_text(encoding="utf-8-sig").split()  # some editors begin such a file with a mark
    except UnicodeDecodeError:
        stop(f"{path}: not in UTF-8: save it so, or take VOC's own file")
    if not names or len(set(names)) < len(names):
        stop(f"{path}: empty, or names an image twice: take VOC's own file")
    for name in names:
        if any(part in name for part in ("/", "\\", ":", "..")):  # what is written for it could lie anywhere
            stop(f"{path}: {name}: not the name of an image, but a path: take VOC's own file")
        for file in (voc / "JPEGImages" / f"{name}.jpg", voc / "SegmentationClass" / f"{name}.png"):
            if not file.is_file():
                stop(f"{file}: not there, but {path} names it: add it, or remove the name")
    return names


def open_image(path):
    """Return an image as Pillow has it, read to its end and turned upright as its camera noted (EXIF)."""
    try:
        image = Image.open(path)
        if ";16" in str(image.tile) or image.mode[0] in "IF":  # Pillow would drop or clip what 8 bits cannot hold
            raise ValueError("it has more than 8 bits per channel")
        return ImageOps.exif_transpose(image)
    except Exception as error:  # a damaged file raises whatever its first wrong byte leads to
        if getattr(error, "errno", None):  # it is not the file's content that is wrong
            raise
        stop(f"{path}: {error}: save it again as an 8-bit image of moderate size, or take the original")


def read_image(path):
    """Return an image, (height, width, 3) uint8: red, green, blue."""
    image = open_image(path)
    if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
        stop(f"{path}: has transparent pixels, whose colours nobody has seen: save it without transparency")
    return np.array(image.convert("RGB"))


def normalise(image):
    """Return an image (height, width, 3) uint8 such that ImageNet's have mean 0 and standard deviation 1."""
    return ((image / 255 - MEAN) / STD).astype(FLOAT)


def to_tensor(array, device):
    """Return an array (batch, height, width, channels) as a tensor of the same shape on the device."""
    with keras.device(DEVICES[device]):
        return keras.ops.convert_to_tensor(array)


class DeepLabV3(keras.Model):
    """DeepLabV3 (arXiv:1706.05587) with an auxiliary head; its layers have the names of the published weights.

    Takes images (batch, height, width, 3), returns the logits of both heads, (batch, height, width, 21). In training
    dropout is two arrays (batch, height / 8, width / 8, channels), which the features before the last layers of each
    head are multiplied by.
    """

    def __init__(self, depth):
        super().__init__()
        blocks, width, rates = RESNETS[depth]
        self.backbone = ResNet(blocks, width, name="backbone")
        self.classifier = [
            ASPP(4 * width, rates, name="classifier-0"),
            *conv_norm_relu(4 * width, 3, name="classifier", first=1),
            Conv(len(CLASSES), 1, use_bias=True, name="classifier-4"),
        ]
        self.aux_classifier = [
            *conv_norm_relu(4 * width, 3, name="aux_classifier"),
            Conv(len(CLASSES), 1, use_bias=True, name="aux_classifier-4"),  # 3 is dropout in the published network
        ]

    def call(self, images, dropout=(1, 1)):
        middle, last = self.backbone(images)
        # An eighth of the height and width, as all features here.
        logits = run_layers(self.classifier[1:], self.classifier[0](last) * dropout[0])
        aux_logits = run_layers(self.aux_classifier[3:], run_layers(self.aux_classifier[:3], middle) * dropout[1])
        return [upsample(x, keras.ops.shape(images)[1:3]) for x in (logits, aux_logits)]


class ResNet(keras.layers.Layer):
    """The backbone (arXiv:1512.03385): images to the features of the last two stages, at an eighth of the size."""

    def __init__(self, blocks, width, name):
        super().__init__(name=name)
        self.conv1, self.bn1 = Conv(width, 7, stride=2, name="conv1"), BatchNorm(name="bn1")
        for (stage, (wider, stride, first, others)), number in zip(STAGES.items(), blocks, strict=True):
            rest = [Bottleneck(wider * width, 1, others, name=f"{stage}-{i}") for i in range(1, number)]
            setattr(self, stage, [Bottleneck(wider * width, stride, first, name=f"{stage}-0"), *rest])

    def call(self, x):
        x = keras.ops.relu(self.bn1(self.conv1(x)))  # (batch, height / 2, width / 2, width)
        x = keras.ops.max_pool(pad(x, 1, -math.inf), 3, 2, "valid")  # a quarter
        x = run_layers([*self.layer1, *self.layer2], x)  # an eighth, from here on
        middle = run_layers(self.layer3, x)
        return middle, run_layers(self.layer4, middle)


class Bottleneck(keras.layers.Layer):
    """A residual block: what three convolutions, 1 x 1, 3 x 3 and 1 x 1, add to its input."""

    def __init__(self, channels, stride, dilation, name):
        super().__init__(name=name)
        self.conv1, self.bn1 = Conv(channels, 1, name="conv1"), BatchNorm(name="bn1")
        self.conv2, self.bn2 = Conv(channels, 3, stride, dilation, name="conv2"), BatchNorm(name="bn2")
        self.conv3, self.bn3 = Conv(4 * channels, 1, name="conv3"), BatchNorm(name="bn3")
        self.downsample = []
        if name.endswith("-0"):  # the input is brought to the shape of what is added
            self.downsample = [Conv(4 * channels, 1, stride, name="downsample-0"), BatchNorm(name="downsample-1")]

    def call(self, x):
        y = keras.ops.relu(self.bn1(self.conv1(x)))
        y = keras.ops.relu(self.bn2(self.conv2(y)))
        return keras.ops.relu(self.bn3(self.conv3(y)) + run_layers(self.downsample, x))


class ASPP(keras.layers.Layer):
    """Atrous spatial pyramid pooling: the same features seen at several rates, and as a whole (section 3.3)."""

    def __init__(self, channels, rates, name):
        super().__init__(name=name)
        mean = keras.layers.GlobalAveragePooling2D(keepdims=True)
        self.convs = [conv_norm_relu(channels, 1, name="convs-0")]
        self.convs += [conv_norm_relu(channels, 3, rate, f"convs-{i}") for i, rate in enumerate(rates, start=1)]
        self.convs += [[mean, *conv_norm_relu(channels, 1, name=f"convs-{len(self.convs)}", first=1)]]
        self.project = conv_norm_relu(channels, 1, name="project")

    def call(self, x):
        branches = [run_layers(branch, x) for branch in self.convs]
        # The mean of the image, (batch, 1, 1, channels), at every pixel.
        branches[-1] = keras.ops.broadcast_to(branches[-1], keras.ops.shape(branches[0]))
        return run_layers(self.project, keras.ops.concatenate(branches, axis=3))


class Conv(keras.layers.Conv2D):
    """A convolution that keeps the height and width but for its stride; its weights are 0 until they are set."""

    def __init__(self, channels, kernel, stride=1, dilation=1, use_bias=False, name=None):
        padding = "same" if stride == 1 else "valid"
        options = {"dilation_rate": dilation, "use_bias": use_bias, "kernel_initializer": "zeros", "name": name}
        super().__init__(channels, kernel, stride, padding, **options)

    def call(self, x):
        # Padding on all sides alike: "same" would not do so at stride 2. See exercise 2.
        return super().call(x if self.padding == "same" else pad(x, self.kernel_size[0] // 2, 0.0))


class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalisation (arXiv:1502.03167) with running averages that move by a tenth each step in training.

    Keras's own differs where it counts little: its running variance is biased, and with floats of 64 bits it computes
    in 32 on any backend but TensorFlow.
    """

    def call(self, x, training=None):
        mean, variance = self.moving_mean, self.moving_variance
        if training and self.trainable:
            mean, variance = keras.ops.moments(x, axes=(0, 1, 2))
            count = keras.ops.cast(keras.ops.size(x) / x.shape[3], FLOAT)
            self.moving_mean.assign_add(0.1 * (mean - self.moving_mean))
            unbiased = variance * count / (count - 1)  # as in PyTorch
            self.moving_variance.assign_add(0.1 * (unbiased - self.moving_variance))
        return keras.ops.batch_normalization(x, mean, variance, -1, self.beta, self.gamma, 1e-5)


def conv_norm_relu(channels, kernel, dilation=1, name=None, first=0):
    """Return convolution, batch norm and ReLU; the name of a layer ends with its number, counted from first."""
    conv = Conv(channels, kernel, dilation=dilation, name=f"{name}-{first}")
    return [conv, BatchNorm(name=f"{name}-{first + 1}"), keras.layers.ReLU()]


def run_layers(layers, x):
    """Return x after some layers, one after the other."""
    for layer in layers:
        x = layer(x)
    return x


def pad(x, width, value):
    """Return x (batch, height, width, channels) with so many pixels more on all four sides."""
    return keras.ops.pad(x, ((0, 0), (width, width), (width, width), (0, 0)), constant_values=value)


def upsample(x, size):
    """Return x (batch, height, width, channels) at another size, bilinear, with align_corners=False."""
    # keras.ops.image.resize does the same, but on TensorFlow computes in float32 whatever it is given.
    rows, columns = (interpolate(*lengths) for lengths in zip(keras.ops.shape(x)[1:3], size, strict=True))
    return keras.ops.einsum("wj,bhjc->bhwc", columns, keras.ops.einsum("hi,bijc->bhjc", rows, x))


def interpolate(length, new_length):
    """Return the matrix (new_length, length) that interpolates linearly between pixels, which keep their centres."""
    old, new = (keras.ops.arange(number, dtype=FLOAT) for number in (length, new_length))
    scale = keras.ops.cast(length, FLOAT) / keras.ops.cast(new_length, FLOAT)
    places = keras.ops.minimum(keras.ops.relu((new + 0.5) * scale - 0.5), old[-1])
    return keras.ops.relu(1 - keras.ops.abs(places[:, None] - old))


def build_network(rng, options):
    """Return a DeepLabV3 on the device. NumPy draws its weights, so that all four frameworks start from the same.

    He normal by fan-in (arXiv:1502.01852, section 2.2), in the order of the entries; biases are 0. The last batch norm
    of each residual block begins at 0.2, so that the sum of many blocks stays of moderate size.
    """
    with keras.device(DEVICES[options.device]):
        network = DeepLabV3(options.depth)
        network(keras.Input((None, None, 3)))  # makes the variables; height and width are left open
    network.compile(jit_compile=False)  # XLA would compile predict() anew for each size of image
    entries = list_entries(network)
    for name, entry in entries.items():
        if entry.ndim == 4:
            entries[name] = rng.standard_normal(entry.shape) * np.sqrt(2 / entry[0].size)
        elif name.endswith("bn3.weight"):
            entries[name] = np.full_like(entry, 0.2)
    set_entries(network, entries)
    return network


def find_variables(network):
    """Yield the name, as in the published files, and the variable of all weights and running averages of a network."""
    for variable in network.variables:  # in the order in which the layers were made
        # Its path is such as deep_lab_v3/backbone/layer1-0/conv1/kernel; Keras on PyTorch allows no dots in it.
        _, *path, kind = variable.path.replace("-", "/").split("/")
        yield ".".join([*path, NAMES[kind]]), variable


def list_entries(network):
    """Return {name: array} of all weights and running averages, as in the published files: kernels (out, in, h, w)."""
    entries = {name: keras.ops.convert_to_numpy(variable) for name, variable in find_variables(network)}
    return {name: entry.transpose(3, 2, 0, 1) if entry.ndim == 4 else entry for name, entry in entries.items()}


def set_entries(network, entries):
    """Set all weights and running averages of the network to the arrays of {name: array}."""
    for name, variable in find_variables(network):
        entry = entries[name]
        variable.assign(entry.transpose(2, 3, 1, 0) if entry.ndim == 4 else entry)


class TensorUnpickler(pickle.Unpickler):
    """Reads what torch.save writes of a state_dict: its tensors, as arrays. Anything else in the file is refused.

    A plain Unpickler would call whatever function a file names, so a hostile file could run a program of its own.
    """

    DTYPES = {"Float": np.float32, "Double": np.float64, "Half": np.float16, "Long": np.int64}

    def __init__(self, file, storages):
        super().__init__(file)
        self.storages = storages  # a function of key, dtype and length: the array (length,) that a file calls key

    def find_class(self, module, name):
        known = {"_rebuild_tensor_v2": self.rebuild, "_rebuild_parameter": lambda array, *_: array}
        if module == "torch._utils" and name in known:
            return known[name]
        if module == "torch" and name.removesuffix("Storage") in self.DTYPES:
            return self.DTYPES[name.removesuffix("Storage")]
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no tensor")

    def persistent_load(self, identifier):
        _, dtype, key, _, length, *_ = identifier
        if not any(dtype is known for known in self.DTYPES.values()):  # an array of objects would hold addresses
            raise pickle.UnpicklingError("its numbers are of an unknown type")
        if length < 0:  # which NumPy would take as all that are there
            raise pickle.UnpicklingError("it has a negative number of numbers")
        return self.storages(key, dtype, length)

    @staticmethod
    def rebuild(storage, offset, shape, strides, *_):
        last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
        inside = min((offset, *shape, *strides)) >= 0 and (0 in shape or last < len(storage))
        if not inside or storage.ndim != 1 or not storage.flags.c_contiguous:  # a tensor is no storage
            raise pickle.UnpicklingError("a tensor lies beyond its storage")
        return np.lib.stride_tricks.as_strided(storage[offset:], shape, [storage.itemsize * s for s in strides])


def read_pth(path):
    """Return {name: array} of a file that torch.save has written of a network's state_dict; run nothing from it.

    Files are zip archives, or, before PyTorch 1.6, pickles one after the other, and then the numbers.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            (root,) = {name.split("/")[0] for name in archive.namelist()}
            if f"{root}/byteorder" in archive.namelist() and archive.read(f"{root}/byteorder") != b"little":
                raise ValueError("its numbers are big-endian")

            def read(key, dtype, length):
                return np.frombuffer(archive.read(f"{root}/data/{key}"), dtype, length)

            return dict(TensorUnpickler(io.BytesIO(archive.read(f"{root}/data.pkl")), read).load())
    with open(path, "rb") as file:
        storages = {}

        def find(key, dtype, length):
            if length * np.dtype(dtype).itemsize > os.fstat(file.fileno()).st_size:
                raise ValueError("it ends before its numbers do")
            return storages.setdefault(key, np.zeros(length, dtype))

        magic, _, system, entries, keys = (TensorUnpickler(file, find).load() for _ in range(5))
        if magic != 0x1950A86A20F9469CFC6C or not system["little_endian"]:
            raise ValueError("it is of another kind")
        if {*keys} != {*storages}:
            raise ValueError("it lacks the numbers of some tensors")
        for key in keys:
            length, storage = struct.unpack("<q", file.read(8)), storages[key]
            if length != (len(storage),) or file.readinto(storage) != storage.nbytes:
                raise ValueError("it ends before its numbers do")
    return dict(entries)


def load_weights(network, path, depth):
    """Read weights in the published format into the network; stop at a file of another network, or a damaged one."""
    try:
        entries = read_pth(path)
        found = {name: np.shape(entries[name]) for name in entries if not name.endswith("num_batches_tracked")}
    except OSError:
        raise
    except Exception as error:  # a damaged file raises whatever its first wrong byte leads to
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        stop(f"{path}: not a whole file of weights in PyTorch's format ({reason}): fetch it again")
    own = {name: entry.shape for name, entry in list_entries(network).items()}
    for name in [*own, *found]:
        if own.get(name) != found.get(name):
            shapes = f"{name} is {found.get(name, 'missing')}, not {own.get(name, 'there')}"
            stop(f"{path}: not the weights of DeepLabV3 of --depth {depth}: {shapes}: give their --depth, or others")
    entries = {name: np.array(entries[name], FLOAT) for name in own}
    for name, entry in entries.items():
        if not np.isfinite(entry).all():
            stop(f"{path}: {name} holds NaN or infinity, as after a training that failed: give other weights")
    set_entries(network, entries)


def predict(network, images, options):
    """Return the logits, (N, height, width, class), of images (N, height, width, 3)."""
    with keras.device(DEVICES[options.device]):
        # Batch norm by its running averages: a prediction must not depend on the rest of its batch.
        return network.predict_on_batch(images)[0]


def segment(network, image, options):
    """Return the class index of each pixel, (height, width) uint8, of an image (height, width, 3) uint8 of any size."""
    height, width = image.shape[:2]
    scale = min(1, options.size / min(height, width))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
    logits = predict(network, normalise(small)[None], options)[0]
    # Logits are resized, not classes: so outlines stay smooth. Pixels keep their centres, as in align_corners=False.
    return cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR).argmax(axis=2).astype(np.uint8)


def paint(image, prediction):
    """Return an image with the classes found laid over it, and beside it a legend of their names and shares."""
    overlay = np.where(prediction[..., None] > 0, image // 2 + COLOURS[prediction] // 2, image)
    shares = np.bincount(prediction.ravel(), minlength=len(CLASSES)) / prediction.size
    found = sorted(np.flatnonzero(shares), key=lambda index: -shares[index])
    line = max(20, min(image.shape[0] // (len(found) + 1), 32))  # height of a line of the legend, in pixels
    legend = np.full((max(image.shape[0], line * (len(found) + 1)), 9 * line, 3), 255, np.uint8)
    for number, index in enumerate(found):
        top, text = line * number + line // 2, f"{CLASSES[index]} {shares[index]:.1%}"
        cv2.rectangle(legend, (line // 2, top), (line, top + line // 2), COLOURS[index].tolist(), cv2.FILLED)
        place = (line + line // 3, top + line // 2)
        cv2.putText(legend, text, place, cv2.FONT_HERSHEY_SIMPLEX, line / 45, (0, 0, 0), 1, cv2.LINE_AA)
    panels = [np.pad(panel, ((0, len(legend) - len(panel)), (0, 0), (0, 0))) for panel in (image, overlay)]
    return np.hstack([*panels, legend])


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
    parser.add_argument("--weights", type=Path, help="file.pth of published weights, or of exercise 4 (random ones)")
    parser.add_argument("--image", type=Path, help="your photograph (the first image of --data)")
    parser.add_argument("--data", type=Path, default=DRAWN, help="folder with VOCdevkit/ in it (%(default)s)")
    parser.add_argument("--out", type=Path, default=own_out, help="folder for all that is written (%(default)s)")
    for name, (default, _, meaning) in NUMBERS.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (%(default)s)")
    for name, choices in CHOICES.items():
        parser.add_argument(f"--{name}", choices=choices, default=choices[0], help="(%(default)s)")
    options = parser.parse_args()
    for name, (_, allowed, _) in NUMBERS.items():
        if vars(options)[name] not in allowed:
            stop(f"--{name} {vars(options)[name]}: give {allowed.start} to {allowed[-1]}, in steps of {allowed.step}")
    for name in ("weights", "image"):
        if vars(options)[name] and not vars(options)[name].is_file():
            stop(f"--{name} {vars(options)[name]}: no such file: check its name and folder")
    set_up(options)
    return options


def set_up(options):
    """Let Keras compute in FLOAT, whatever the user's keras.json says, and choose the device where it is left open."""
    keras.config.set_floatx(FLOAT)
    keras.config.set_dtype_policy(FLOAT)
    keras.config.set_image_data_format("channels_last")
    default_device = str(keras.ops.zeros(1).device).lower()  # a GPU's name contains gpu or cuda, by backend
    has_gpu = "gpu" in default_device or "cuda" in default_device
    if options.device == "cuda" and not has_gpu:
        stop(f"--device cuda: Keras on {BACKEND} sees no GPU: use --device cpu, or install {BACKEND} for a GPU")
    if options.device == "auto":
        options.device = "cuda" if has_gpu else "cpu"


def main():
    options = read_options()
    if not options.image:
        voc = find_voc(options.data)
        options.image = voc / "JPEGImages" / f"{read_names(voc, 'val')[0]}.jpg"
    image = read_image(options.image)
    network = build_network(np.random.default_rng(options.seed), options)
    if options.weights:
        load_weights(network, options.weights, options.depth)
    parts = {}  # of the network: how many entries, how many parameters
    for name, entry in list_entries(network).items():
        part = ".".join(name.split(".")[: 2 if name.startswith("backbone") else 1])
        parts[part] = np.add(parts.get(part, (0, 0)), (1, 0 if "running" in name else entry.size))
    parts["together"] = sum(parts.values())
    for part, (count, parameters) in parts.items():
        print(f"{part:17} {count:4} entries {parameters:11,} parameters")

    prediction = segment(network, image, options)
    save_image(options.out / "pictures" / f"{options.image.stem}.png", paint(image, prediction))
    share = np.bincount(prediction.ravel(), minlength=len(CLASSES)) / prediction.size
    metrics = {"answer": Path(__file__).stem, "parameters": int(parts["together"][1])}
    metrics["share"] = {name: float(part) for name, part in zip(CLASSES, share, strict=True) if part}
    metrics["options"] = {name: str(value) for name, value in vars(options).items()}
    write_whole(options.out / "metrics.json", lambda part: part.write_text(json.dumps(metrics, indent=2) + "\n"))
    if not options.weights:
        print("Its weights are random, and so is what it finds: give the published ones by --weights")
    print(f"The picture of image, classes and legend is in {options.out}/pictures/")


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has no such method
        sys.stdout.reconfigure(errors="backslashreplace")  # for names in letters that the terminal lacks
    try:
        main()
    except OSError as error:  # a folder that may not be written, a full disk
        stop(f"{error}: fix that, or name another folder with --data or --out")
    except Exception as error:
        words = ("ut of memory", "to allocate", "OOM when")  # each framework says it in its own
        if not isinstance(error, MemoryError) and not any(each in str(error) for each in words):
            raise
        stop("out of memory: give a smaller --size")
