"""Exercise 4, deeplab_finetune, in Chainer: train DeepLabV3 on new classes, from weights trained on others.

By default a small one is trained on one half of the classes, then on the other half, from those weights and, to compare
with, from random ones. With --weights FILE.pth, training on all classes begins with that file.

New here: NUMBERS, LEARNING_RATE, MOMENTUM, AUX_WEIGHT, CHOICES, PHASES, FEW, HEADS, SAVE_EVERY, Samples, draw_dropout,
draw_heads, write_pth, cross_entropy, compute_loss, learning_rate, train, save_checkpoint, load_checkpoint, describe,
evaluate, read_options, main. As in 01_voc_dataset_chainer.py: VOID, read_mask, read_pair, resize, centre_crop,
random_crop, draw_batches, count_pairs, measure, __main__. All else is as in 03_deeplab_chainer.py.
"""

import argparse
import collections
import functools
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
import warnings
import zipfile
import zlib
from pathlib import Path

# Ctrl-C ends the script in one line, also during the imports that follow, which take seconds.
signal.signal(signal.SIGINT, lambda *_: sys.exit(f"{Path(__file__).name}: interrupted"))

import cv2
import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

np.sctypes = {"int": [np.int32, np.int64]}  # Chainer reads this name, which NumPy 2 dropped
warnings.simplefilter("ignore")  # its last release predates what its dependencies now warn of
import chainer
from chainer import functions, links
from chainer.functions.array.im2col import Im2ColGrad

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
DEVICES = {"cpu": "@numpy", "cuda": "@cupy:0"}  # the names that Chainer has for them
# By depth, the number of layers in the backbone: blocks of each stage, its width, and the rates of ASPP.
RESNETS = {
    "101": ((3, 4, 23, 3), 64, (12, 24, 36)),
    "50": ((3, 4, 6, 3), 64, (12, 24, 36)),
    "14": ((1, 1, 1, 1), 16, (2, 4, 6)),  # small enough to be trained on a CPU, on crops of 128 pixels
}
# Of each stage: width, stride, dilation of the first block and of the others. Where ResNet has stride 2 in the last two
# stages, the features stay at an eighth of the image, and the kernels see twice and four times as far instead.
STAGES = {"layer1": (1, 1, 1, 1), "layer2": (2, 2, 1, 1), "layer3": (4, 1, 1, 2), "layer4": (8, 1, 2, 4)}
# What Chainer calls weights and running averages, and what the published files do, in their order.
NAMES = {
    "W": "weight",
    "b": "bias",
    "gamma": "weight",
    "beta": "bias",
    "avg_mean": "running_mean",
    "avg_var": "running_var",
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


def draw_batches(samples, options):
    """Yield batches on the device: images (batch, 3, height, width), masks (batch, height, width)."""
    device, order = chainer.get_device(DEVICES[options.device]), {"repeat": False, "shuffle": False}
    if options.workers:
        # Not a MultithreadIterator: Ctrl-C would end its threads within OpenCV, which aborts the process. An error in a
        # worker process is not reported, and the iterator waits forever: so each pair is read before, as in main.
        # The first batch is made here, and the processes forked then. By default, which has a time limit, it is made in
        # a thread, which may still hold a lock of OpenCV's as it ends: a process forked then would wait for it forever.
        order |= {"n_processes": options.workers, "dataset_timeout": None}
        iterator = chainer.iterators.MultiprocessIterator(samples, options.batch, **order)
    else:
        iterator = chainer.iterators.SerialIterator(samples, options.batch, **order)
    with iterator:  # it ends the processes, also where the caller leaves its loop early
        for batch in iterator:
            images, masks = chainer.dataset.concat_examples(batch, device)
            yield images.transpose(0, 3, 1, 2), masks


def draw_dropout(iteration, size, batch, options):
    """Return for each head an array (batch, height / 8, width / 8, channels) to multiply by: dropout of 0.5, 0.1."""
    # The frameworks' own dropout does the same, but each draws from its own generator: then no two curves would agree.
    rng = np.random.default_rng(np.random.SeedSequence(options.seed, spawn_key=(iteration, 0)))
    side = math.ceil(size / 8)
    shape = batch, side, side, 4 * RESNETS[options.depth][1]
    return [(rng.random(shape, np.float32) < keep).astype(FLOAT) / keep for keep in (0.5, 0.9)]


def to_tensor(array, device):
    """Return an array (batch, height, width, channels) as an array (batch, channels, height, width) on the device."""
    return chainer.get_device(DEVICES[device]).send(array.transpose(0, 3, 1, 2))  # an array of NumPy or CuPy


class DeepLabV3(chainer.Chain):
    """DeepLabV3 (arXiv:1706.05587) with an auxiliary head; its entries have the names of the published weights.

    Takes images (batch, 3, height, width), returns the logits of both heads, (batch, 21, height, width). In training
    dropout is two arrays (batch, channels, height / 8, width / 8), which the features before the last layers of each
    head are multiplied by.
    """

    def __init__(self, depth):
        super().__init__()
        blocks, width, rates = RESNETS[depth]
        with self.init_scope():
            self.backbone = ResNet(blocks, width)
            self.classifier = chainer.Sequential(
                ASPP(32 * width, 4 * width, rates),
                *conv_norm_relu(4 * width, 4 * width, 3),
                Convolution(4 * width, len(CLASSES), 1),
            )
            self.aux_classifier = chainer.Sequential(
                *conv_norm_relu(16 * width, 4 * width, 3),
                functions.identity,  # where the published network has dropout
                Convolution(4 * width, len(CLASSES), 1),
            )

    def forward(self, images, dropout=(1, 1)):
        middle, last = self.backbone(images)
        # An eighth of the height and width, as all features here.
        logits = run_layers(self.classifier[1:], self.classifier[0](last) * dropout[0])
        aux_logits = run_layers(self.aux_classifier[3:], run_layers(self.aux_classifier[:3], middle) * dropout[1])
        return [upsample(x, images.shape[2:]) for x in (logits, aux_logits)]


class ResNet(chainer.Chain):
    """The backbone (arXiv:1512.03385): images to the features of the last two stages, at an eighth of the size."""

    def __init__(self, blocks, width):
        super().__init__()
        with self.init_scope():
            self.conv1, self.bn1 = conv(3, width, 7, stride=2), batch_norm(width)
            channels = width
            for (name, (wider, stride, first, others)), number in zip(STAGES.items(), blocks, strict=True):
                stage = [Bottleneck(channels, wider * width, stride, first)]
                channels = 4 * wider * width
                stage += [Bottleneck(channels, wider * width, 1, others) for _ in range(number - 1)]
                setattr(self, name, chainer.Sequential(*stage))

    def forward(self, x):
        x = functions.relu(self.bn1(self.conv1(x)))  # (batch, width, height / 2, width / 2)
        # By default, cover_all=True, Chainer pads below and to the right until no pixel is left out: a pixel more.
        x = functions.max_pooling_2d(x, 3, stride=2, pad=1, cover_all=False)  # a quarter
        x = self.layer2(self.layer1(x))  # an eighth, from here on
        middle = self.layer3(x)
        return middle, self.layer4(middle)


class Bottleneck(chainer.Chain):
    """A residual block: what three convolutions, 1 x 1, 3 x 3 and 1 x 1, add to its input."""

    def __init__(self, in_channels, channels, stride, dilation):
        super().__init__()
        with self.init_scope():
            self.conv1, self.bn1 = conv(in_channels, channels, 1), batch_norm(channels)
            self.conv2, self.bn2 = conv(channels, channels, 3, stride, dilation), batch_norm(channels)
            self.conv3, self.bn3 = conv(channels, 4 * channels, 1), batch_norm(4 * channels)
            layers = [functions.identity]
            if in_channels != 4 * channels:  # the input is brought to the shape of what is added
                layers = conv(in_channels, 4 * channels, 1, stride), batch_norm(4 * channels)
            self.downsample = chainer.Sequential(*layers)

    def forward(self, x):
        y = functions.relu(self.bn1(self.conv1(x)))
        y = functions.relu(self.bn2(self.conv2(y)))
        return functions.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ASPP(chainer.Chain):
    """Atrous spatial pyramid pooling: the same features seen at several rates, and as a whole (section 3.3)."""

    def __init__(self, in_channels, channels, rates):
        super().__init__()
        branches = [conv_norm_relu(in_channels, channels, 1)]
        branches += [conv_norm_relu(in_channels, channels, 3, rate) for rate in rates]
        mean = functools.partial(functions.mean, axis=(2, 3), keepdims=True)
        branches += [chainer.Sequential(mean, *conv_norm_relu(in_channels, channels, 1))]  # (..., 1, 1)
        with self.init_scope():
            self.convs = chainer.ChainList(*branches)
            self.project = conv_norm_relu(len(branches) * channels, channels, 1)

    def forward(self, x):
        branches = [branch(x) for branch in self.convs]
        branches[-1] = functions.broadcast_to(branches[-1], branches[0].shape)  # the mean of the image, at every pixel
        return self.project(functions.concat(branches, axis=1))


def conv(in_channels, channels, kernel, stride=1, dilation=1):
    """Return a convolution without bias, which keeps the height and width but for its stride."""
    # Padding on all sides alike: TensorFlow's SAME would not do so at stride 2. See exercise 2.
    padding = dilation * (kernel // 2)
    # Its weights are 0 until build_network draws them: Chainer would draw others first, which takes a second.
    return Convolution(in_channels, channels, kernel, stride, padding, True, initialW=0, dilate=dilation)


class Convolution(links.Convolution2D):
    """Chainer's convolution, its weights (out, in, kernel, kernel), computed in a faster way on a CPU."""

    def forward(self, x):
        if self.xp is not np:
            return super().forward(x)
        kernel, (batch, channels, height, width) = self.ksize, x.shape
        if self.stride[0] > 1:
            windows = functions.im2col(x, kernel, self.stride, self.pad, dilate=self.dilate)
            x = multiply(self.W.reshape(self.out_channels, -1), windows)
        else:
            # Chainer copies the windows of all pixels, in x kernel x kernel numbers each, rearranges them, and
            # multiplies them by the kernel. This multiplies each pixel by all taps of the kernel, then shifts and adds
            # the products, out x kernel x kernel numbers: at most as many here, in ASPP an eighth. On one core, a
            # training step takes less than half the time.
            taps = functions.flip(self.W.reshape(self.out_channels, channels, -1), 2).transpose(0, 2, 1)
            x = multiply(taps.reshape(-1, channels), x)  # (batch, out x kernel x kernel, height, width)
            if kernel > 1:
                shape = batch, self.out_channels, height, width
                x = Im2ColGrad((kernel, kernel), (1, 1), self.pad, False, self.dilate, shape).apply((x,))[0]
        return x if self.b is None else functions.bias(x, self.b)


def multiply(weights, x):
    """Return x (batch, in, height, width) with each pixel's channels multiplied by weights (out, in)."""
    batch, channels, height, width = x.shape
    products = functions.matmul(weights, x.reshape(batch, channels, -1))  # one product for each image
    return products.reshape(batch, -1, height, width)


def batch_norm(channels):
    """Return batch normalisation with the constants that all four frameworks have here."""
    return links.BatchNormalization(channels, decay=0.9, eps=1e-5)


def conv_norm_relu(in_channels, channels, kernel, dilation=1):
    """Return convolution, batch norm and ReLU."""
    layers = conv(in_channels, channels, kernel, dilation=dilation), batch_norm(channels), functions.relu
    return chainer.Sequential(*layers)


def run_layers(layers, x):
    """Return x after some layers, one after the other."""
    return functools.reduce(lambda x, layer: layer(x), layers, x)


def upsample(x, size):
    """Return x (batch, channels, height, width) at another size, bilinear, with align_corners=False."""
    # Chainer's resize_images takes float32 alone, and a name that NumPy 1.24 dropped.
    rows, columns = (x.device.send(interpolate(*lengths)) for lengths in zip(x.shape[2:], size, strict=True))
    return functions.matmul(rows, functions.matmul(x, columns, transb=True))


def interpolate(length, new_length):
    """Return the matrix (new_length, length) that interpolates linearly between pixels, which keep their centres."""
    places = np.clip((np.arange(new_length) + 0.5) * length / new_length - 0.5, 0, length - 1)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(length))).astype(FLOAT)


def build_network(rng, options):
    """Return a DeepLabV3 on the device. NumPy draws its weights, so that all four frameworks start from the same.

    He normal by fan-in (arXiv:1502.01852, section 2.2), in the order of the entries; biases are 0. The last batch norm
    of each residual block begins at 0.2, so that the sum of many blocks stays of moderate size.
    """
    network = DeepLabV3(options.depth)
    for name, variable in find_variables(network):
        array = chainer.as_array(variable)
        if array.ndim == 4:
            array[...] = rng.standard_normal(array.shape) * np.sqrt(2 / array[0].size)
        elif name.endswith("bn3.weight"):
            array.fill(0.2)
    network.to_device(DEVICES[options.device])
    return network


def find_variables(link, path=""):
    """Yield the name, as in the published files, of each Parameter and each array of running averages, and itself."""
    for attribute, name in NAMES.items():
        variable = getattr(link, attribute, None)
        if variable is not None:
            yield path + name, variable
    # Not Chainer's namedparams, which sorts the links of a Chain, and numbers those of a Sequential 0, 3, 2, 1.
    children = enumerate(link) if isinstance(link, chainer.ChainList) else vars(link).items()
    for name, child in children:
        if isinstance(child, chainer.Link):
            yield from find_variables(child, f"{path}{name}.")


def list_entries(network):
    """Return {name: array} of all weights and running averages, as in the published files: kernels (out, in, h, w)."""
    # Copies: what training does to the network must not change them.
    variables = find_variables(network)
    return {name: np.array(chainer.backends.cuda.to_cpu(chainer.as_array(variable))) for name, variable in variables}


def set_entries(network, entries):
    """Set all weights and running averages of the network to the arrays of {name: array}."""
    for name, variable in find_variables(network):
        chainer.backend.copyto(chainer.as_array(variable), entries[name])


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
    """Return softmax cross entropy, the mean over all pixels that are not void; logits (batch, 21, height, width)."""
    return functions.softmax_cross_entropy(logits, masks.astype(np.int32), ignore_label=VOID)


def compute_loss(logits, masks):
    """Return the cross entropy of the logits of both heads; that of the auxiliary one has the smaller weight."""
    return cross_entropy(logits[0], masks) + AUX_WEIGHT * cross_entropy(logits[1], masks)


def learning_rate(iteration, number, lr):
    """Return the learning rate of an iteration of a number of them, counted from 0 (arXiv:1706.05587, section 4.1)."""
    return lr * (1 - iteration / number) ** 0.9


def train(network, samples, phase, options):
    """Train by stochastic gradient descent with momentum; return the loss at each step.

    A phase that begins with trained weights has two learning rates: what is not new gets a tenth. If its batch norm is
    frozen, running averages, scale and shift stay as they are.
    """
    fine = phase == "finetuned"
    frozen = fine and options.norm == "frozen"
    optimizer = chainer.optimizers.MomentumSGD(momentum=MOMENTUM).setup(network)
    weights = [(name, weight) for name, weight in find_variables(network) if isinstance(weight, chainer.Parameter)]
    old = [weight for name, weight in weights if not name.startswith(HEADS) and fine]
    for link in network.links():
        if isinstance(link, links.BatchNormalization) and frozen:
            link.disable_update()
    path, number = options.out / f"{phase}.checkpoint", len(samples) // options.batch
    losses = load_checkpoint(network, optimizer, path, options) if options.resume and path.exists() else []
    samples.first = len(losses) * options.batch
    batches = draw_batches(samples, options) if len(samples) else ()  # of none, Chainer's iterator makes an error
    bar = tqdm(batches, phase, number, initial=len(losses))
    for iteration, (images, masks) in enumerate(bar, start=len(losses)):
        optimizer.lr = learning_rate(iteration, number, options.lr)
        for weight in old:
            weight.update_rule.hyperparam.lr = 0.1 * optimizer.lr
        factors = draw_dropout(iteration, options.size, options.batch, options)
        dropout = [to_tensor(array, options.device) for array in factors]
        with chainer.using_config("train", not frozen):  # nothing but batch norm reads it
            loss = compute_loss(network(images, dropout), masks)
        network.cleargrads()
        loss.backward()
        optimizer.update()
        losses.append(float(loss.array))
        bar.set_postfix_str(f"loss {losses[-1]:.4f}", refresh=False)
        if not math.isfinite(losses[-1]):
            bar.close()
            stop(f"--lr {options.lr}: the loss is {losses[-1]} at iteration {iteration + 1}: try a smaller one")
        if len(losses) % SAVE_EVERY == 0 or len(losses) == number:
            save_checkpoint(network, optimizer, path, losses, options)
    return losses


def save_checkpoint(network, optimizer, path, losses, options):
    """Write what training needs to go on from here."""
    state = chainer.serializers.DictionarySerializer()
    for name, part in (("network", network), ("optimizer", optimizer)):
        state[name].save(part)
    content = io.BytesIO()
    np.savez(content, losses=losses, options=describe(options), **state.target)
    write_whole(path, lambda part: part.write_bytes(content.getvalue()))


def load_checkpoint(network, optimizer, path, options):
    """Set the network and the optimizer to what save_checkpoint wrote; return the losses up to there."""
    try:
        with np.load(path) as state:
            given, losses = str(state["options"]), state["losses"].tolist()
            if given == describe(options):
                saved = chainer.serializers.NpzDeserializer(state)
                for name, part in (("network", network), ("optimizer", optimizer)):
                    saved[name].load(part)
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
    # Batch norm by its running averages: a prediction must not depend on the rest of its batch.
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        logits = network(to_tensor(images, options.device))[0]
    return chainer.backends.cuda.to_cpu(logits.array.transpose(0, 2, 3, 1))


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
    """Let Chainer compute in FLOAT, whatever CHAINER_DTYPE says, and choose the device where it is left open."""
    chainer.config.dtype = np.dtype(FLOAT)
    if options.device == "cuda" and not chainer.backends.cuda.available:
        stop("--device cuda: Chainer sees no GPU: use --device cpu, or install a driver and CuPy")
    if options.device == "auto":
        options.device = "cuda" if chainer.backends.cuda.available else "cpu"


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
