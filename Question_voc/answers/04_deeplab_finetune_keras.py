"""Exercise 4, deeplab_finetune, in Keras: train DeepLabV3 on new classes, from weights trained on others.

By default a small one is trained on one half of the classes, then on the other half, from those weights and, to compare
with, from random ones. With --weights FILE.pth, training on all classes begins with that file.

New here: NUMBERS, LEARNING_RATE, MOMENTUM, AUX_WEIGHT, CHOICES, PHASES, FEW, HEADS, SAVE_EVERY, Samples, draw_dropout,
draw_heads, write_pth, cross_entropy, compute_loss, learning_rate, SGD, prepare, train, save_checkpoint,
load_checkpoint, describe, evaluate, read_options, main. As in 01_voc_dataset_keras.py: VOID, read_mask, read_pair,
resize, centre_crop, random_crop, Batches, read_ahead, draw_batches, count_pairs, measure, __main__. All else is as in
03_deeplab_keras.py.
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
import tempfile
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Ctrl-C ends the script in one line, also during the imports that follow, which take seconds.
signal.signal(signal.SIGINT, lambda *_: sys.exit(f"{Path(__file__).name}: interrupted"))

import cv2
import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

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
VOID = 255  # the index of pixels along outlines, and of what is hard to tell, that count for nothing
# VOC's colour of an index, (256, 3): its bits 0, 3, 6 are the highest of red, bits 1, 4, 7 of green, 2, 5 of blue.
COLOURS = np.uint8([[sum((i >> 3 * k + c & 1) << 7 - k for k in range(3)) for c in range(3)] for i in range(256)])
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue, from 0 to 1
NUMBERS = {  # the default of an option, what it may be, and its meaning
    "iterations": (100, range(1, 10**6), "training steps"),
    "pretraining": (500, range(1, 10**6), "training steps on the first half of the classes"),
    "batch": (8, range(2, 4097), "images in a batch"),  # the mean of an image needs two for its batch norm
    "size": (128, range(32, 2049), "height and width of the crops"),
    "pictures": (16, range(10**6), "test images to write a picture of"),
    "workers": (2, range(65), "processes or threads that read ahead; 0 for none"),
    "seed": (0, range(2**63), "of all random numbers"),
}
LEARNING_RATE = 0.1  # of the first step, by default; of what others have trained, a tenth
MOMENTUM = 0.9
AUX_WEIGHT = 0.4  # of the auxiliary head's loss
CHOICES = {  # the first is the default
    "depth": ("14", "50", "101"),
    "heads": ("new", "kept"),
    "norm": ("frozen", "running"),
    "crop": ("random", "centre"),
    "device": ("auto", "cpu", "cuda"),
}
PHASES = {  # of a run without --weights: the classes that it learns, and the phase whose weights it begins with
    "pretrained": (range(1, 11), None),
    "scratch": (range(11, 21), None),
    "finetuned": (range(11, 21), "pretrained"),
}
FEW = 24  # images of the new classes to learn from: where there are few, the weights of others help most
HEADS = ("classifier.4.", "aux_classifier.4.")  # the layers that tell classes apart
SAVE_EVERY = 50  # steps from one checkpoint to the next, where --resume goes on
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


def read_mask(path):
    """Return the class index of each pixel, (height, width) uint8: 0 to 20, or VOID."""
    image = open_image(path)
    if image.mode not in ("P", "L"):  # not by its colours: a PNG without palette is no longer what VOC published
        stop(f"{path}: holds colours (mode {image.mode}), not class indices: take VOC's own PNG, which has a palette")
    mask = np.array(image)
    found = np.unique(mask)
    if unknown := sorted({*found.tolist()} - {*range(len(CLASSES)), VOID}):
        stop(f"{path}: unknown class indices {unknown[:5]}: use 0 to {len(CLASSES) - 1}, and {VOID} for void")
    if image.mode == "P":
        palette = np.array(image.getpalette() + 768 * [0], np.uint8).reshape(-1, 3)
        if (palette[found] != COLOURS[found]).any():  # an editor numbers the colours as it likes when it saves
            stop(f"{path}: its palette is not VOC's, so its indices mean other classes: take VOC's own PNG")
    return mask


def read_pair(voc, name):
    """Return an image (height, width, 3) uint8, red, green, blue, and its mask (height, width) uint8."""
    image = np.array(open_image(voc / "JPEGImages" / f"{name}.jpg").convert("RGB"))
    path = voc / "SegmentationClass" / f"{name}.png"
    mask = read_mask(path)
    if image.shape[:2] != mask.shape:
        stop(f"{path}: is {mask.shape} in size, its image, turned upright, {image.shape[:2]}: make them the same")
    return image, mask


def resize(image, mask, height, width):
    """Return image and mask at another size: of colours the mean or a blend, of class indices the nearest one."""
    smaller = height * width < mask.size
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    # INTER_NEAREST takes the top left corner of each new pixel, which shifts the mask; _EXACT takes its centre.
    return image, cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def centre_crop(image, mask, size):
    """Return the largest square in the middle of image and mask, resized to size x size."""
    side = min(mask.shape)
    top, left = ((length - side) // 2 for length in mask.shape)
    square = np.s_[top : top + side, left : left + side]
    return resize(image[square], mask[square], size, size)


def random_crop(image, mask, size, rng):
    """Return a crop, size x size, of image and mask at a random scale, mirrored or not (arXiv:1706.05587, section 4.1).

    At scale 1 the shorter side is as long as the crop, where the paper takes the image as it is; the scale is from 0.5
    to 2. What lies beyond the image has ImageNet's mean colour, about 0 after normalisation, and is void.
    """
    scale = rng.uniform(0.5, 2) * size / min(mask.shape)
    image, mask = resize(image, mask, *(round(scale * length) for length in mask.shape))
    below, right = (max(0, size - length) for length in mask.shape)
    mean = [255 * channel for channel in MEAN]
    image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT, value=mean)
    mask = cv2.copyMakeBorder(mask, 0, below, 0, right, cv2.BORDER_CONSTANT, value=VOID)
    top, left = (rng.integers(length - size + 1) for length in mask.shape)
    step = rng.choice((1, -1))  # a step of -1 mirrors left and right
    crop = np.s_[top : top + size, left : left + size]
    return image[crop][:, ::step], mask[crop][:, ::step]


def normalise(image):
    """Return an image (height, width, 3) uint8 such that ImageNet's have mean 0 and standard deviation 1."""
    return ((image / 255 - MEAN) / STD).astype(FLOAT)


class Samples:
    """What training sees: sample 0, 1, 2, ... is an image (size, size, 3) and a mask (size, size) uint8.

    Each has a random generator of its own, so it is the same whichever process or thread makes it, and when. (Workers
    that copy one generator would all draw the same crops.) Of the masks, background and some classes are kept; all
    other classes become void.
    """

    def __init__(self, voc, names, classes, number, options, rng):
        self.voc, self.options, self.first = voc, options, 0
        self.unknown = sorted({*range(len(CLASSES))} - {0, *classes})
        epochs = math.ceil(number / len(names))  # each epoch takes every image once, in another order
        self.names = [names[i] for _ in range(epochs) for i in rng.permutation(len(names))][:number]

    def __len__(self):
        return len(self.names) - self.first

    def __getitem__(self, number):
        number += self.first  # those before are known from a run that was stopped
        image, mask = read_pair(self.voc, self.names[number])
        mask[np.isin(mask, self.unknown)] = VOID
        if self.options.crop == "centre":
            image, mask = centre_crop(image, mask, self.options.size)
        else:
            rng = np.random.default_rng(np.random.SeedSequence(self.options.seed, spawn_key=(number,)))
            image, mask = random_crop(image, mask, self.options.size, rng)
        return normalise(image), np.ascontiguousarray(mask)


class Batches(keras.utils.PyDataset):
    """Samples in batches: item 0, 1, 2, ... is images (batch, height, width, 3) and masks (batch, height, width)."""

    def __init__(self, samples, options):
        super().__init__(workers=options.workers)
        self.samples, self.options = samples, options

    def __len__(self):
        return len(self.samples) // self.options.batch

    def __getitem__(self, number):
        start = number * self.options.batch
        images, masks = zip(*(self.samples[start + i] for i in range(self.options.batch)), strict=True)
        return np.stack(images), np.stack(masks)


def read_ahead(batches):
    """Yield the batches in order, while batches.workers threads read those that follow.

    fit() has its own means for this, which Keras keeps private: a plain loop over a PyDataset reads nothing ahead.
    """
    waiting = collections.deque()
    with ThreadPoolExecutor(batches.workers) as pool:
        for number in range(len(batches)):
            waiting.append(pool.submit(batches.__getitem__, number))
            if len(waiting) > batches.workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def draw_batches(samples, options):
    """Yield batches on the device: images (batch, height, width, 3), masks (batch, height, width)."""
    batches = Batches(samples, options)
    for batch in read_ahead(batches) if batches.workers else batches:
        with keras.device(DEVICES[options.device]):
            images, masks = (keras.ops.convert_to_tensor(array) for array in batch)
        yield images, masks


def draw_dropout(iteration, size, batch, options):
    """Return for each head an array (batch, height / 8, width / 8, channels) to multiply by: dropout of 0.5, 0.1."""
    # The frameworks' own dropout does the same, but each draws from its own generator: then no two curves would agree.
    rng = np.random.default_rng(np.random.SeedSequence(options.seed, spawn_key=(iteration, 0)))
    side = math.ceil(size / 8)
    shape = batch, side, side, 4 * RESNETS[options.depth][1]
    return [(rng.random(shape, np.float32) < keep).astype(FLOAT) / keep for keep in (0.5, 0.9)]


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


def draw_heads(network, rng):
    """Draw the layers that tell classes apart anew: Xavier uniform (Glorot and Bengio, 2010), biases 0.01."""
    entries = list_entries(network)
    for name in [name for name in entries if name.startswith(HEADS)]:
        shape = entries[name].shape
        if name.endswith("bias"):
            entries[name] = np.full(shape, 0.01, FLOAT)
        else:
            limit = np.sqrt(6 / (shape[0] + shape[1]))  # of a kernel 1 x 1: (out, in, 1, 1)
            entries[name] = rng.uniform(-limit, limit, shape).astype(FLOAT)
    set_entries(network, entries)


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


def write_pth(path, network):
    """Write all weights and running averages as the published ones are, so that read_pth reads them anywhere."""

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def numbers(*values):
        return b"".join(b"J" + struct.pack("<i", value) for value in values)

    entries = {}
    for name, entry in list_entries(network).items():
        entries[name] = np.ascontiguousarray(entry)
        if name.endswith("running_var"):
            entries[name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    # torch.save pickles calls of PyTorch's functions. pickle would have to import those, so here are its own codes:
    # X, J text and numbers, c a name, ( to t a tuple, Q what stands for the numbers of a tensor, R a call, u a dict.
    # ZipInfo notes no time, so that the same weights are the same bytes.
    pickled, content = [b"\x80\x02}("], io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for key, (name, entry) in enumerate(entries.items()):
            kind = {"int64": b"Long", "float32": b"Float", "float64": b"Double"}[entry.dtype.name]
            strides = [step // entry.itemsize for step in entry.strides]
            pickled += [text(name), b"ctorch._utils\n_rebuild_tensor_v2\n((", text("storage")]
            pickled += [b"ctorch\n" + kind + b"Storage\n", text(str(key)), text("cpu"), numbers(entry.size), b"tQ"]
            pickled += [numbers(0), b"(", numbers(*entry.shape), b"t(", numbers(*strides), b"t"]
            pickled += [b"\x89ccollections\nOrderedDict\n)RtR"]
            archive.writestr(zipfile.ZipInfo(f"archive/data/{key}"), entry.tobytes())
        archive.writestr(zipfile.ZipInfo("archive/data.pkl"), b"".join([*pickled, b"u."]))
        archive.writestr(zipfile.ZipInfo("archive/version"), "3\n")
    write_whole(path, lambda part: part.write_bytes(content.getvalue()))


def cross_entropy(logits, masks):
    """Return softmax cross entropy, the mean over all pixels that are not void; logits (batch, height, width, 21)."""
    # SparseCategoricalCrossentropy(ignore_class=VOID) computes the same, but on PyTorch it rounds float64 to float32.
    valid = keras.ops.not_equal(masks, VOID)
    labels = keras.ops.where(valid, masks, 0)
    losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    total = keras.ops.sum(keras.ops.where(valid, losses, 0))
    return total / keras.ops.maximum(keras.ops.sum(keras.ops.cast(valid, FLOAT)), 1)  # all of a crop may be void


def compute_loss(logits, masks):
    """Return the cross entropy of the logits of both heads; that of the auxiliary one has the smaller weight."""
    return cross_entropy(logits[0], masks) + AUX_WEIGHT * cross_entropy(logits[1], masks)


def learning_rate(iteration, number, lr):
    """Return the learning rate of an iteration of a number of them, counted from 0 (arXiv:1706.05587, section 4.1)."""
    return lr * (1 - iteration / number) ** 0.9


class SGD(keras.optimizers.SGD):
    """Stochastic gradient descent with momentum, in which the variables of some paths learn at a tenth of the rate."""

    def __init__(self, lr, slow):
        # Of NumPy's type, since Keras on TensorFlow casts a Python float by way of float32, where 0.9 is 2.6e-8 off.
        super().__init__(lr, momentum=np.float64(MOMENTUM))
        self.slow = slow

    def build(self, variables):
        super().build(variables)
        self.scales = [10 if variable.path in self.slow else 1 for variable in variables]

    def apply(self, gradients, trainable_variables=None):
        # A learning rate multiplies its gradient, so this comes to the same.
        gradients = [gradient / scale for gradient, scale in zip(gradients, self.scales, strict=True)]
        super().apply(gradients, trainable_variables)


def prepare(network, optimizer, options):
    """Return a model to train the network with: its inputs are images and the dropout of both heads."""
    # Were height and width left open, Keras on JAX or PyTorch would try some at which images and dropout do not match.
    side, width = math.ceil(options.size / 8), 4 * RESNETS[options.depth][1]
    inputs = [keras.Input((options.size, options.size, 3)), *(keras.Input((side, side, width)) for _ in range(2))]
    trainer = keras.Model(inputs, keras.ops.stack(network(inputs[0], inputs[1:])))  # (head, batch, height, width, 21)
    trainer.compile(
        optimizer,
        loss=lambda masks, logits: compute_loss(logits, masks),  # Keras passes the targets first
        jit_compile=BACKEND == "jax",  # else JAX runs step by step; elsewhere XLA compiles longer than it saves
    )
    optimizer.build(trainer.trainable_variables)
    return trainer


def train(network, samples, phase, options):
    """Train by stochastic gradient descent with momentum; return the loss at each step.

    A phase that begins with trained weights has two learning rates: what is not new gets a tenth. If its batch norm is
    frozen, running averages, scale and shift stay as they are.
    """
    fine = phase == "finetuned"
    slow = [variable.path for name, variable in find_variables(network) if fine and not name.startswith(HEADS)]
    for layer in network._flatten_layers():  # Keras has no public name for all layers that are within others
        if isinstance(layer, BatchNorm) and fine and options.norm == "frozen":
            layer.trainable = False
    optimizer = SGD(options.lr, slow)
    trainer = prepare(network, optimizer, options)
    path, number = options.out / f"{phase}.checkpoint", len(samples) // options.batch
    losses = load_checkpoint(network, optimizer, path, options) if options.resume and path.exists() else []
    samples.first = len(losses) * options.batch
    bar = tqdm(draw_batches(samples, options), phase, number, initial=len(losses))
    for iteration, (images, masks) in enumerate(bar, start=len(losses)):
        optimizer.learning_rate = learning_rate(iteration, number, options.lr)
        factors = draw_dropout(iteration, options.size, options.batch, options)
        dropout = [to_tensor(array, options.device) for array in factors]
        with keras.device(DEVICES[options.device]):
            losses.append(float(trainer.train_on_batch([images, *dropout], masks)))
        bar.set_postfix_str(f"loss {losses[-1]:.4f}", refresh=False)
        if not math.isfinite(losses[-1]):
            bar.close()
            stop(f"--lr {options.lr}: the loss is {losses[-1]} at iteration {iteration + 1}: try a smaller one")
        if len(losses) % SAVE_EVERY == 0 or len(losses) == number:
            save_checkpoint(network, optimizer, path, losses, options)
    return losses


def save_checkpoint(network, optimizer, path, losses, options):
    """Write what training needs to go on from here."""
    content, variables = io.BytesIO(), optimizer.variables
    state = {f"optimizer {i}": keras.ops.convert_to_numpy(variable) for i, variable in enumerate(variables)}
    np.savez(content, losses=losses, options=describe(options), **state, **list_entries(network))
    write_whole(path, lambda part: part.write_bytes(content.getvalue()))


def load_checkpoint(network, optimizer, path, options):
    """Set the network and the optimizer to what save_checkpoint wrote; return the losses up to there."""
    try:
        with np.load(path) as state:
            given, losses = str(state["options"]), state["losses"].tolist()
            if given == describe(options):
                set_entries(network, state)
                for i, variable in enumerate(optimizer.variables):
                    variable.assign(state[f"optimizer {i}"])
    except OSError:
        raise
    except Exception:  # a damaged file raises whatever its first wrong byte leads to
        stop(f"{path}: not a whole checkpoint: remove it, and train from the start")
    if given != describe(options):
        stop(f"--resume: {path} is of a run with other options, {given}: give the same")
    return losses


def describe(options):
    """Return, as a text, the options that decide what training computes, with the checksum of given weights."""
    rest = ("resume", "out", "device", "workers", "pictures", "crc")
    given = ", ".join(f"--{name} {value}" for name, value in vars(options).items() if name not in rest)
    return given if options.weights is None else f"{given} (weights of CRC-32 {options.crc:08x})"


def predict(network, images, options):
    """Return the logits, (N, height, width, class), of images (N, height, width, 3)."""
    with keras.device(DEVICES[options.device]):
        # Batch norm by its running averages: a prediction must not depend on the rest of its batch.
        return network.predict_on_batch(images)[0]


def count_pairs(masks, predictions):
    """Return how many pixels of each true class (rows) have each predicted class (columns); void is left out."""
    valid = masks != VOID
    pairs = np.bincount(len(CLASSES) * masks[valid].astype(int) + predictions[valid], minlength=len(CLASSES) ** 2)
    return pairs.reshape(len(CLASSES), len(CLASSES))


def measure(pairs):
    """Return pixel accuracy, IoU by class, None if it is neither in the truth nor predicted, and their mean."""
    if not pairs.any():
        stop("--data: every pixel of val that is to be measured is void: name data whose masks show classes")
    intersection = pairs.diagonal()
    union = pairs.sum(axis=0) + pairs.sum(axis=1) - intersection
    iou = {name: float(i / u) if u else None for name, i, u in zip(CLASSES, intersection, union, strict=True)}
    miou = float(np.mean([value for value in iou.values() if value is not None]))
    return {"miou": miou, "iou": iou, "pixel_accuracy": float(intersection.sum() / pairs.sum())}


def evaluate(network, voc, names, classes, options):
    """Return the measures of centre crops, and of the first the class of each pixel by name, for the pictures.

    Masks are as those in training.
    """
    pairs, predictions = 0, {}
    for name in tqdm(names, "test", leave=False):
        image, mask = centre_crop(*read_pair(voc, name), options.size)
        mask[~np.isin(mask, [0, *classes])] = VOID
        prediction = predict(network, normalise(image)[None], options)[0].argmax(axis=2).astype(np.uint8)
        pairs = pairs + count_pairs(mask, prediction)
        if len(predictions) < options.pictures:
            predictions[name] = prediction
    measures = measure(pairs)
    learnt = [CLASSES[index] for index in (0, *classes)]
    iou = {name: value for name, value in measures["iou"].items() if name in learnt and value is not None}
    miou = float(np.mean(list(iou.values())))
    return {"miou": miou, "iou": iou, "pixel_accuracy": measures["pixel_accuracy"]}, predictions


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
    parser.add_argument("--weights", type=Path, help="file.pth to begin with (trains its own on half of the classes)")
    parser.add_argument("--resume", action="store_true", help="go on with a run of the same options that was stopped")
    parser.add_argument("--data", type=Path, default=DRAWN, help="folder with VOCdevkit/ in it (%(default)s)")
    parser.add_argument("--out", type=Path, default=own_out, help="folder for all that is written (%(default)s)")
    parser.add_argument("--lr", type=float, default=LEARNING_RATE, help="learning rate of the first step (%(default)s)")
    for name, (default, _, meaning) in NUMBERS.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (%(default)s)")
    for name, choices in CHOICES.items():
        parser.add_argument(f"--{name}", choices=choices, default=choices[0], help="(%(default)s)")
    options = parser.parse_args()
    for name, (_, allowed, _) in NUMBERS.items():
        if vars(options)[name] not in allowed:
            stop(f"--{name} {vars(options)[name]}: give {allowed.start} to {allowed[-1]}, in steps of {allowed.step}")
    if options.weights and not options.weights.is_file():
        stop(f"--weights {options.weights}: no such file: check its name and folder")
    if not 0 < options.lr < math.inf:
        stop(f"--lr {options.lr}: give a number above 0, such as {LEARNING_RATE}")
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
    if options.resume and (options.out / "metrics.json").exists():
        stop(f"--resume: the training in {options.out} is finished: train anew without it, or name another --out")
    if options.resume and not [*options.out.glob("*.checkpoint")]:
        print(f"--resume: no checkpoint in {options.out}/: training begins from the start")
    voc = find_voc(options.data)
    names = {split: read_names(voc, split) for split in ("train", "val")}
    # All masks are read before training: what is wrong with one should show now, not after minutes.
    present = {name: set(np.unique(read_pair(voc, name)[1])) for part in names.values() for name in tqdm(part, "read")}
    own = {"answer": Path(__file__).stem, "options": {name: str(value) for name, value in vars(options).items()}}
    metrics, predictions = own | {"phases": {}}, {}
    options.crc = zlib.crc32(options.weights.read_bytes()) if options.weights else None  # for describe
    phases = {"finetuned": (range(1, len(CLASSES)), None)} if options.weights else PHASES
    for phase, (classes, start) in phases.items():
        train_names, val_names = ([name for name in part if present[name] & {*classes}] for part in names.values())
        if not train_names or not val_names:
            wanted = f"a class from {CLASSES[classes[0]]} to {CLASSES[classes[-1]]}"
            stop(f"{voc}: no image of {wanted} in train or in val: add some")
        train_names = train_names[:FEW] if phase != "pretrained" and not options.weights else train_names
        number = options.batch * (options.pretraining if phase == "pretrained" else options.iterations)
        rng = np.random.default_rng(options.seed)
        network = build_network(rng, options)
        samples = Samples(voc, train_names, classes, number, options, rng)
        if phase == "finetuned":
            load_weights(network, options.weights or options.out / f"{start}.pth", options.depth)
            if options.heads == "new":
                draw_heads(network, rng)
        # Not before all that is given has been read: where something is wrong with it, nothing is written.
        options.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=options.out).close()  # fails now, not after training, if nothing may be written
        (options.out / "metrics.json").unlink(missing_ok=True)  # of an earlier training, whose weights are replaced now
        losses = train(network, samples, phase, options)
        write_pth(options.out / f"{phase}.pth", network)
        rows = [f"{iteration},{loss}\n" for iteration, loss in enumerate(losses, start=1)]
        table = options.out / ("loss.csv" if phase == "finetuned" else f"loss_{phase}.csv")
        write_whole(table, lambda part, rows=rows: part.write_text("".join(["iteration,loss\n", *rows])))
        measures, predictions[phase] = evaluate(network, voc, val_names, classes, options)
        measures["final_loss"] = losses[-1]
        metrics["phases"][phase] = {"images": len(train_names), **measures}
        print(f"{phase}: mIoU {measures['miou']:.3f}, pixel accuracy {measures['pixel_accuracy']:.3f}")
    for name in val_names[: options.pictures]:
        image, mask = centre_crop(*read_pair(voc, name), options.size)
        mask[~np.isin(mask, [0, *classes])] = VOID
        found = [predictions[phase][name] for phase in ("scratch", "finetuned") if name in predictions.get(phase, {})]
        panels = np.hstack([image, *(COLOURS[classes] for classes in (mask, *found))])
        save_image(options.out / "pictures" / f"{name}.png", panels.repeat(2, axis=0).repeat(2, axis=1))
        save_image(options.out / "predictions" / f"{name}.png", COLOURS[predictions["finetuned"][name]])
    metrics |= measures  # of the last phase
    write_whole(options.out / "metrics.json", lambda part: part.write_text(json.dumps(metrics, indent=2) + "\n"))
    for phase in phases:
        (options.out / f"{phase}.checkpoint").unlink(missing_ok=True)
    print(f"Weights, losses and measures are in {options.out}/, pictures of what was found in {options.out}/pictures/")


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
        stop("out of memory: give a smaller --batch or --size")
