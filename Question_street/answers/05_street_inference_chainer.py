"""Exercise 5, street_inference, in Chainer: pictures and videos painted over, the best and the worst case, ONNX.

New here: NUMBERS, NUMBER, EXPORTERS, OPACITY, WHITE, BLACK, WARM_UP, TIMED, CODEC, choose_pairs, read_pairs,
read_photographs, open_video, read_frames, write_video, shrink, segment, export, open_onnx, paint_over, letter,
make_legend, make_caption, name_confusion, judge, paint_all, show_case, time_run, read_options, main, __main__. As in
01_street_preprocess_chainer.py: SPLITS, DRAWN, find_streets. All else is as in 04_street_test_chainer.py.
"""

import argparse
import functools
import importlib.util
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest.mock
import warnings
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

# Ctrl-C ends the script in one line, also during the imports that follow, which take seconds.
signal.signal(signal.SIGINT, lambda *_: sys.exit(f"{Path(__file__).name}: interrupted"))

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from tqdm import tqdm

np.sctypes = {"int": [np.int32, np.int64]}  # Chainer reads this name, which NumPy 2 dropped
warnings.simplefilter("ignore")  # its last release predates what its dependencies now warn of
import chainer
from chainer import functions, links
from chainer.functions.array.im2col import Im2ColGrad

FLOAT = "float32"  # with "float64" the losses of all four frameworks coincide: see the lesson
VOID = 255  # the index of pixels that count for nothing; as train id: evaluation ignores this label


class Label(NamedTuple):
    """One of Cityscapes' labels."""

    name: str
    id: int
    train_id: int
    category: str
    colour: tuple[int, int, int]


LABELS = (
    Label("unlabeled", 0, VOID, "void", (0, 0, 0)),
    Label("ego vehicle", 1, VOID, "void", (0, 0, 0)),
    Label("rectification border", 2, VOID, "void", (0, 0, 0)),
    Label("out of roi", 3, VOID, "void", (0, 0, 0)),
    Label("static", 4, VOID, "void", (0, 0, 0)),
    Label("dynamic", 5, VOID, "void", (111, 74, 0)),
    Label("ground", 6, VOID, "void", (81, 0, 81)),
    Label("road", 7, 0, "flat", (128, 64, 128)),
    Label("sidewalk", 8, 1, "flat", (244, 35, 232)),
    Label("parking", 9, VOID, "flat", (250, 170, 160)),
    Label("rail track", 10, VOID, "flat", (230, 150, 140)),
    Label("building", 11, 2, "construction", (70, 70, 70)),
    Label("wall", 12, 3, "construction", (102, 102, 156)),
    Label("fence", 13, 4, "construction", (190, 153, 153)),
    Label("guard rail", 14, VOID, "construction", (180, 165, 180)),
    Label("bridge", 15, VOID, "construction", (150, 100, 100)),
    Label("tunnel", 16, VOID, "construction", (150, 120, 90)),
    Label("pole", 17, 5, "object", (153, 153, 153)),
    Label("polegroup", 18, VOID, "object", (153, 153, 153)),
    Label("traffic light", 19, 6, "object", (250, 170, 30)),
    Label("traffic sign", 20, 7, "object", (220, 220, 0)),
    Label("vegetation", 21, 8, "nature", (107, 142, 35)),
    Label("terrain", 22, 9, "nature", (152, 251, 152)),
    Label("sky", 23, 10, "sky", (70, 130, 180)),
    Label("person", 24, 11, "human", (220, 20, 60)),
    Label("rider", 25, 12, "human", (255, 0, 0)),
    Label("car", 26, 13, "vehicle", (0, 0, 142)),
    Label("truck", 27, 14, "vehicle", (0, 0, 70)),
    Label("bus", 28, 15, "vehicle", (0, 60, 100)),
    Label("caravan", 29, VOID, "vehicle", (0, 0, 90)),
    Label("trailer", 30, VOID, "vehicle", (0, 0, 110)),
    Label("train", 31, 16, "vehicle", (0, 80, 100)),
    Label("motorcycle", 32, 17, "vehicle", (0, 0, 230)),
    Label("bicycle", 33, 18, "vehicle", (119, 11, 32)),
    Label("license plate", -1, VOID, "vehicle", (0, 0, 142)),
)
CATEGORIES = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")  # void is none of them
CLASSES = {"category": CATEGORIES, "class": tuple(label.name for label in LABELS if label.train_id != VOID)}
LEADING = ("road", "building", "traffic sign", "vegetation", "sky", "person", "car")  # lend their category the colour
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue, from 0 to 1
NUMBERS = {  # the default of an option, what it may be, and its meaning
    "every": (10, range(1, 10**6), "of so many frames of a video, only the first is painted over"),
    "seed": (0, range(2**63), "of the choice of pictures"),
}
CHOICES = {"network": ("unet", "deeplab"), "device": ("auto", "cpu", "cuda")}  # the first is the default
DEVICES = {"cpu": "@numpy", "cuda": "@cupy:0"}  # the names that Chainer has for them
NUMBER = 12  # of pictures, by default
EARLIER = "02_street_records"  # the exercise whose output this one reads
TRAINED = "03_street_train"  # the exercise whose weights are tested
WEIGHTS = "best.npz"  # in --out, of the best mIoU
SPLITS = ("train", "val")  # the labels of Cityscapes' third, test, are not published
EXPORTERS = ("onnx", "onnxruntime")  # packages that --export needs, beside Chainer's own onnx_chainer
IMAGE, IDS = "_leftImg8bit.png", "_gtFine_labelIds.png"  # the ends of file names
DRAWN = Path(__file__, "../../../Dataset/streets").resolve()  # a set in the same layout, which draw_streets.py draws
CHANNELS = (16, 32, 64, 128, 256)  # of U-Net at each size
WIDTH = 16  # of DeepLabV3's first convolution
STAGES = ((1, 1, 1), (2, 2, 1), (4, 1, 1), (8, 1, 2))  # of its backbone: width, stride, dilation
RATES = (2, 4, 6)  # of its ASPP, for small images
MEASURES = {"iou": "IoU", "precision": "precision", "recall": "recall", "f1": "F1"}
LABEL_IDS = 34  # from 0 on; that of licence plates, -1, is at no pixel
OPACITY = 0.5  # of the colours that are laid over a picture
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
WARM_UP, TIMED = 3, 20  # runs before time is taken, and runs whose median is given
CODEC = "mp4v"  # MPEG-4: OpenCV's wheels can read H.264, but not write it


class Faulty(Exception):
    """A picture or its labels cannot be used; the message names the file and the fix."""


def find_script(exercise):
    """Return the path of the answer to another exercise in the same framework; it writes to outputs/STEM by default."""
    return Path(__file__).with_name(f"{exercise}_{Path(__file__).stem.split('_')[-1]}.py")


def find_stage(folder, exercise, key):
    """Return the metrics of an earlier exercise, which have key if it was finished.

    Where it was not, and folder is where it writes by default, it is run first.
    """
    script, metrics = find_script(exercise), read_metrics(folder / "metrics.json")
    if key not in metrics and folder == Path("outputs", script.stem) and script.exists():
        print(f"{folder} is not there, or not whole: {script.name} runs first, with its defaults", flush=True)
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # what stops that script, Ctrl-C too, it says itself
        status = subprocess.run([sys.executable, str(script)]).returncode
        signal.signal(signal.SIGINT, handler)
        if status:
            raise SystemExit(status)
        metrics = read_metrics(folder / "metrics.json")
    if key not in metrics:
        stop(f"{folder}: is not there, or not whole: run {script.name} first, or name its folder by --data")
    return metrics


def find_trained(options):
    """Train first where the default --weights are missing; say so where their training has not ended.

    Weights of a training that was stopped are as good as any, and must not be overwritten.
    """
    default = Path("outputs", find_script(EARLIER).stem), Path("outputs", find_script(TRAINED).stem, WEIGHTS)
    if (options.data, options.weights) != default or not find_script(TRAINED).exists():
        return
    if not options.weights.exists():
        find_stage(options.weights.parent, TRAINED, "miou")
    elif not (options.weights.parent / "metrics.json").exists():
        print(f"{options.weights} is of a training that has not ended: {find_script(TRAINED).name} --resume goes on")


def find_streets(folder):
    """Return folder, which holds leftImg8bit/ and gtFine/; draw streets first where none are at the default place."""
    draw = DRAWN.with_name("draw_streets.py")
    whole = (folder / "leftImg8bit").is_dir() and not (folder / "unfinished.txt").exists()
    if folder == DRAWN and not whole and draw.exists():
        print(f"drawing streets in Cityscapes' layout to {DRAWN}, once: less than a minute", flush=True)
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # what stops draw_streets.py, Ctrl-C too, it says itself
        status = subprocess.run([sys.executable, str(draw)], stdout=subprocess.DEVNULL).returncode
        signal.signal(signal.SIGINT, handler)
        if status:
            raise SystemExit(status)
    for part in [Path(kind, split) for kind in ("leftImg8bit", "gtFine") for split in SPLITS]:
        if not (folder / part).is_dir():
            stop(f"{folder}: holds no {part.as_posix()}/: name the folder with leftImg8bit/ and gtFine/")
    return folder


def find_pairs(streets, split):
    """Return the picture and the labels of each name, {name: (path, path)}, and a message for each without partner."""
    files = []
    for kind, end in (("leftImg8bit", IMAGE), ("gtFine", IDS)):
        paths = sorted((streets / kind / split).glob(f"*/[!.]*{end}"))
        files.append({path.name.removesuffix(end): path for path in paths})
        if len(files[-1]) < len(paths):
            stop(f"{streets / kind / split}: two cities have files of the same name: let names begin with the city's")
    images, labels = files
    pairs = {name: (images[name], labels[name]) for name in images if name in labels}
    if not pairs:
        pair = f"leftImg8bit/{split}/CITY/NAME{IMAGE} and gtFine/{split}/CITY/NAME{IDS}"
        stop(f"{streets}: no pair such as {pair}: name the folder with leftImg8bit/ and gtFine/")
    faults = [f"{images[name]}: has no labels, {name}{IDS}: add them" for name in images if name not in labels]
    return pairs, faults + [f"{labels[name]}: has no {name}{IMAGE}: add it" for name in labels if name not in images]


def open_image(path):
    """Return an image as Pillow has it, read to its end."""
    try:
        image = Image.open(path)
        if ";16" in str(image.tile) or image.mode[0] in "IF":  # instanceIds, for one; Pillow would drop or clip values
            raise ValueError("it has more than 8 bits per channel")
        image.load()
        return image
    except Exception as error:  # a damaged file raises whatever its first wrong byte leads to
        if getattr(error, "errno", None):  # it is not the file's content that is wrong
            raise
        raise Faulty(f"{path}: {error}: take the original") from None


def read_pair(image_path, labels_path):
    """Return a picture (height, width, 3) uint8, red, green, blue, and its label ids (height, width) uint8."""
    image, labels = open_image(image_path), open_image(labels_path)
    if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
        raise Faulty(f"{image_path}: has transparent pixels, whose colours nobody has seen: take the original")
    if labels.mode != "L":  # a palette is no better: a program that makes one numbers the colours as it likes
        raise Faulty(f"{labels_path}: holds colours (mode {labels.mode}), not label ids: take the original")
    ids = np.array(labels)
    if unknown := sorted({*np.unique(ids).tolist()} - {label.id for label in LABELS}):
        raise Faulty(f"{labels_path}: unknown label ids {unknown[:5]}: take the original")
    image = np.array(image.convert("RGB"))
    if image.shape[:2] != ids.shape:
        raise Faulty(f"{labels_path}: is {ids.shape} in size, its picture {image.shape[:2]}: make them the same")
    return image, ids


def choose_pairs(options):
    """Return {name: paths of picture and labels} of pictures of a split, drawn by options.seed; by default NUMBER."""
    streets = find_streets(options.truth)
    pairs, _ = find_pairs(streets, options.split)
    number = options.number or min(NUMBER, len(pairs))
    if number > len(pairs):
        stop(f"{number} {options.split}: {streets} has {len(pairs)} pictures there: give fewer")
    names = np.random.default_rng(options.seed).permutation(list(pairs))[:number]
    return {name: pairs[name] for name in sorted(names.tolist())}


def read_pairs(pairs):
    """Yield of each pair its name, the picture and its label ids, as read_pair returns them."""
    for name, paths in pairs.items():
        yield name, *read_pair(*paths)


def read_photographs(paths):
    """Yield of each of one's own pictures its name, the picture (height, width, 3) uint8, and None for label ids."""
    for path in paths:
        try:
            image = open_image(path)
        except OSError as error:
            raise Faulty(f"--images {path}: {error.strerror}: name a picture's file") from None
        if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
            raise Faulty(f"{path}: has transparent pixels, whose colours nobody has seen: save it without transparency")
        try:  # to turn it upright, as its camera noted
            image = ImageOps.exif_transpose(image).convert("RGB")
        except Exception as error:  # damaged EXIF raises whatever its first wrong byte leads to
            raise Faulty(f"{path}: {error}: save it again without EXIF") from None
        yield path.stem, np.array(image), None


def open_video(path):
    """Return a video as OpenCV reads it."""
    try:
        path.open("rb").close()  # says what is wrong with the path, which OpenCV does not
    except OSError as error:
        raise Faulty(f"--video {path}: {error.strerror}: name a video's file") from None
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"  # FFmpeg would tell of damage in words of its own,
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # and so would OpenCV
    return cv2.VideoCapture(str(path))


def read_frames(path, every):
    """Yield of every so many frames of a video the first: a name, the frame (height, width, 3) uint8, and None."""
    video = open_video(path)
    for number in itertools.count():
        there, frame = video.read()
        if not there:
            break
        if number % every == 0:
            yield f"{path.stem}_{number:06}", cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), None
    if number == 0:
        stop(f"--video {path}: OpenCV finds no frame in it: convert it to an .mp4 first")


def write_video(path, frames, rate):
    """Write frames (height, width, 3) uint8, all of one size, as a video of rate frames per second."""

    def write(part):
        writer, number = None, 0
        for frame in frames:
            height, width = (length // 2 * 2 for length in frame.shape[:2])  # the codec has one colour for 2 x 2 pixels
            if writer is None:
                writer = cv2.VideoWriter(str(part), cv2.VideoWriter_fourcc(*CODEC), rate, (width, height))
            writer.write(cv2.cvtColor(frame[:height, :width], cv2.COLOR_RGB2BGR))
            number += 1
        writer.release()
        if open_video(part).get(cv2.CAP_PROP_FRAME_COUNT) != number:  # OpenCV raises no error
            raise OSError(f"{path}: only some of the {number} frames could be written")

    write_whole(path, write)


def shrink(image, size):
    """Return an image at the size, (height, width), of the records that the network was trained on."""
    smaller = size[0] * size[1] < image.shape[0] * image.shape[1]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def make_table(level):
    """Return the class of each label id, (256,) uint8; table[ids] is that of each pixel."""
    table = np.full(256, VOID, np.uint8)
    for label in LABELS:
        if label.category in CATEGORIES and label.id >= 0:
            table[label.id] = label.train_id if level == "class" else CATEGORIES.index(label.category)
    return table


def normalise(image):
    """Return an image (height, width, 3) uint8 such that ImageNet's have mean 0 and standard deviation 1."""
    return ((image / 255 - MEAN) / STD).astype(FLOAT)


def to_tensor(array, device):
    """Return an array (batch, height, width, channels) as an array (batch, channels, height, width) on the device."""
    return chainer.get_device(DEVICES[device]).send(array.transpose(0, 3, 1, 2))  # an array of NumPy or CuPy


class UNet(chainer.Chain):
    """U-Net with padding: images (batch, 3, height, width), sides multiples of 16, to logits (batch, class, ...)."""

    def __init__(self, rng, classes):
        super().__init__()
        with self.init_scope():
            self.encoder, self.decoder = chainer.ChainList(), chainer.ChainList()
            for in_channels, channels in itertools.pairwise((3, *CHANNELS)):
                self.encoder.append(block(rng, in_channels, channels))
            for in_channels, channels in itertools.pairwise(CHANNELS[::-1]):
                upsample, norm = TransposedConvolution(rng, in_channels, channels), batch_norm(channels)
                self.decoder.append(chainer.Sequential(upsample, norm, functions.relu))
                self.decoder.append(block(rng, 2 * channels, channels))
            self.classifier = Convolution(rng, CHANNELS[0], classes, 1)

    def forward(self, x):
        skips = []
        for encode in self.encoder[:-1]:
            skips.append(encode(x))
            x = functions.max_pooling_2d(skips[-1], 2)  # half the height and width, and next twice the channels
        x = self.encoder[-1](x)
        for upsample, decode in zip(self.decoder[::2], self.decoder[1::2], strict=True):
            x = functions.concat([skips.pop(), upsample(x)], axis=1)  # twice the height and width
            x = decode(x)
        return self.classifier(x)


def block(rng, in_channels, channels):
    """Return two times conv(3) + BatchNorm + ReLU; it keeps the size."""
    layers = conv_norm_relu(rng, in_channels, channels, 3), conv_norm_relu(rng, channels, channels, 3)
    return chainer.Sequential(*itertools.chain(*layers))


class DeepLabV3(chainer.Chain):
    """A small DeepLabV3 (arXiv:1706.05587) without auxiliary head and dropout: see Question_voc.

    A ResNet of a block in each stage, which ends at an eighth of the height and width, ASPP, and bilinear upsampling.
    """

    def __init__(self, rng, classes):
        super().__init__()
        with self.init_scope():
            self.stem = conv_norm_relu(rng, 3, WIDTH, 7, stride=2)
            stages, channels = [], WIDTH
            for wider, stride, dilation in STAGES:
                stages.append(Bottleneck(rng, channels, wider * WIDTH, stride, dilation))
                channels = 4 * wider * WIDTH
            self.stages = chainer.Sequential(*stages)
            self.aspp = ASPP(rng, channels, 4 * WIDTH)
            self.head = conv_norm_relu(rng, 4 * WIDTH, 4 * WIDTH, 3)
            self.classifier = Convolution(rng, 4 * WIDTH, classes, 1)

    def forward(self, images):
        # By default, cover_all=True, Chainer pads below and to the right until no pixel is left out: a pixel more.
        x = functions.max_pooling_2d(self.stem(images), 3, stride=2, pad=1, cover_all=False)  # a quarter of the size
        x = self.classifier(self.head(self.aspp(self.stages(x))))  # an eighth
        return upsample(x, images.shape[2:])


class Bottleneck(chainer.Chain):
    """A residual block: what three convolutions, 1 x 1, 3 x 3 and 1 x 1, add to its input."""

    def __init__(self, rng, in_channels, channels, stride, dilation):
        super().__init__()
        with self.init_scope():
            self.narrow = conv_norm_relu(rng, in_channels, channels, 1)
            self.middle = conv_norm_relu(rng, channels, channels, 3, stride, dilation)
            self.widen = conv_norm(rng, channels, 4 * channels, 1)
            self.shortcut = conv_norm(rng, in_channels, 4 * channels, 1, stride)

    def forward(self, x):
        return functions.relu(self.widen(self.middle(self.narrow(x))) + self.shortcut(x))


class ASPP(chainer.Chain):
    """Atrous spatial pyramid pooling: the same features seen at several rates, and as a whole (section 3.3)."""

    def __init__(self, rng, in_channels, channels):
        super().__init__()
        branches = [conv_norm_relu(rng, in_channels, channels, 1)]
        branches += [conv_norm_relu(rng, in_channels, channels, 3, dilation=rate) for rate in RATES]
        branches += [conv_norm_relu(rng, in_channels, channels, 1)]
        with self.init_scope():
            self.branches = chainer.ChainList(*branches)
            self.project = conv_norm_relu(rng, len(branches) * channels, channels, 1)

    def forward(self, x):
        mean = functions.mean(x, axis=(2, 3), keepdims=True)
        branches = [branch(x) for branch in self.branches[:-1]]
        whole = self.branches[-1](mean)
        branches.append(functions.broadcast_to(whole, branches[0].shape))  # the mean of the image, at every pixel
        return self.project(functions.concat(branches, axis=1))


def conv_norm(rng, in_channels, channels, kernel, stride=1, dilation=1):
    """Return a convolution and batch norm, whose shift stands for a bias; they keep the size but for the stride."""
    conv = Convolution(rng, in_channels, channels, kernel, stride, dilation, nobias=True)
    return chainer.Sequential(conv, batch_norm(channels))


class Convolution(links.Convolution2D):
    """A convolution, its weights drawn by NumPy and, on a CPU, computed in a faster way than Chainer's."""

    def __init__(self, rng, in_channels, channels, kernel, stride=1, dilation=1, nobias=False):
        # Padding on all sides alike: TensorFlow's SAME would not do so at stride 2. See Question_voc.
        settings = {"stride": stride, "pad": dilation * (kernel // 2), "dilate": dilation, "nobias": nobias}
        weights = he_normal(rng, (channels, in_channels, kernel, kernel))
        super().__init__(in_channels, channels, kernel, initialW=weights, **settings)  # biases are 0

    def forward(self, x):
        if self.xp is not np:
            return super().forward(x)
        kernel, (batch, channels, height, width) = self.ksize, x.shape
        if self.stride[0] > 1 or kernel > 1 and channels < self.out_channels:
            # Chainer multiplies all windows of a batch at once, and to rearrange them for that takes longer than to
            # multiply them. One product for each image needs none of it.
            windows = functions.im2col(x, kernel, self.stride, self.pad, dilate=self.dilate)
            x = multiply(self.W.reshape(self.out_channels, -1), windows)
        else:
            # Not the windows of all pixels, in x kernel x kernel numbers each: each pixel is multiplied by all taps of
            # the kernel, and the products, out x kernel x kernel numbers, are shifted and added.
            taps = functions.flip(self.W.reshape(self.out_channels, channels, -1), 2).transpose(0, 2, 1)
            x = multiply(taps.reshape(-1, channels), x)  # (batch, out x kernel x kernel, height, width)
            if kernel > 1:
                shape = batch, self.out_channels, height, width
                x = Im2ColGrad((kernel, kernel), (1, 1), self.pad, False, self.dilate, shape).apply((x,))[0]
        return x if self.b is None else functions.bias(x, self.b)


class TransposedConvolution(links.Deconvolution2D):
    """A transposed convolution of kernel 2 and stride 2, its weights drawn by NumPy: it doubles height and width."""

    def __init__(self, rng, in_channels, channels):
        weights = he_normal(rng, (channels, in_channels, 2, 2)).transpose(1, 0, 2, 3)  # Chainer has (in, out, ...)
        super().__init__(in_channels, channels, 2, stride=2, initialW=weights)  # biases are 0


def multiply(weights, x):
    """Return x (batch, in, height, width) with each pixel's channels multiplied by weights (out, in)."""
    batch, channels, height, width = x.shape
    products = functions.matmul(weights, x.reshape(batch, channels, -1))  # one product for each image
    return products.reshape(batch, -1, height, width)


def he_normal(rng, shape):
    """Draw weights (out, in, height, width), He normal by fan-in (arXiv:1502.01852, section 2.2)."""
    return rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))


def batch_norm(channels):
    """Return batch normalisation with the constants that all four frameworks have here."""
    return links.BatchNormalization(channels, decay=0.9, eps=1e-5)


def conv_norm_relu(rng, in_channels, channels, kernel, stride=1, dilation=1):
    """Return convolution, batch norm and ReLU."""
    return chainer.Sequential(*conv_norm(rng, in_channels, channels, kernel, stride, dilation), functions.relu)


def upsample(x, size):
    """Return x (batch, channels, height, width) at another size, bilinear, with align_corners=False."""
    # Chainer's resize_images takes float32 alone, and a name that NumPy 1.24 dropped.
    rows, columns = (x.device.send(interpolate(*lengths)) for lengths in zip(x.shape[2:], size, strict=True))
    return functions.matmul(rows, functions.matmul(x, columns, transb=True))


def interpolate(length, new_length):
    """Return the matrix (new_length, length) that interpolates linearly between pixels, which keep their centres."""
    places = np.clip((np.arange(new_length) + 0.5) * length / new_length - 0.5, 0, length - 1)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(length))).astype(FLOAT)


def build_network(rng, classes, options):
    """Return a network for a number of classes on the device, its weights drawn in the order of the layers."""
    network = (UNet if options.network == "unet" else DeepLabV3)(rng, classes)
    network.to_device(DEVICES[options.device])
    return network


def load_weights(network, path):
    """Read into the network what save_weights wrote."""
    try:
        own = chainer.serializers.DictionarySerializer()
        own.save(network)
        with np.load(path) as saved:  # load_npz alone would spread 1 x 1 over 3 x 3, and ignore what a deeper one has
            if {name: saved[name].shape for name in saved} != {name: np.shape(own.target[name]) for name in own.target}:
                raise ValueError
        chainer.serializers.load_npz(path, network)
    except Exception:  # a damaged file raises whatever its first wrong byte leads to
        wrong = "not the weights of this --network for these records" if path.exists() else "no such file"
        stop(f"{path}: {wrong}: train first, or name what training wrote")


def predict(network, images, options):
    """Return the logits, (N, height, width, class), of images (N, height, width, 3)."""
    # Batch norm by its running averages: a prediction must not depend on the rest of its batch.
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        logits = network(to_tensor(images, options.device))
    return chainer.backends.cuda.to_cpu(logits.array.transpose(0, 2, 3, 1))


def segment(run, image, size):
    """Return the class of each pixel, (height, width) uint8, of an image of any size.

    run returns the logits of images (1, height, width, 3) at the size.
    """
    classes = run(normalise(shrink(image, size))[None])[0].argmax(axis=2).astype(np.uint8)
    return cv2.resize(classes, image.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def export(network, path, size):
    """Write the network as ONNX, for any number of images of a size."""
    import onnx  # here, since only --export needs it

    # Chainer's exporter takes two tables from a module that onnx has dropped in version 1.19. The second may be empty.
    types = [np.dtype(name) for name in ("float32", "float64", "int64")]
    table = {dtype: onnx.helper.np_dtype_to_tensor_dtype(dtype) for dtype in types}
    onnx.mapping = SimpleNamespace(NP_TYPE_TO_TENSOR_TYPE=table, STORAGE_TENSOR_TYPE_TO_FIELD={})
    sys.modules["onnx.mapping"] = onnx.mapping
    import onnx_chainer

    images = network.xp.zeros((1, 3, *size), FLOAT)
    # It knows a convolution, but not the parts that Convolution is made of here.
    with unittest.mock.patch.object(Convolution, "forward", links.Convolution2D.forward):
        shapes = ("batch", 3, *size)
        model = onnx_chainer.export(network, images, input_names=["images"], input_shapes=shapes)
    inputs = [each for each in model.graph.input if each.name == "images"]
    del model.graph.input[:]  # which lists all weights, too, as what may be given anew with each image
    model.graph.input.extend(inputs)
    write_whole(path, lambda part: part.write_bytes(model.SerializeToString()))


def open_onnx(path):
    """Return a function that returns the logits, (N, height, width, class), of images (N, height, width, 3)."""
    import onnxruntime  # here, since only --export needs it

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images):
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        return session.run(None, {session.get_inputs()[0].name: images})[0].transpose(0, 2, 3, 1)

    return run


def find_groups(level, void=False):
    """Return {name: label ids} of the categories or classes that count; with void, of all, be they ignored or not.

    Cityscapes ignores what is void, and what is rare, such as tunnels.
    """
    groups = {}
    for label in LABELS:
        if label.id >= 0 and (void or label.train_id != VOID):
            groups.setdefault(label.category if level == "category" else label.name, []).append(label.id)
    return groups


def find_ids(level):
    """Return the label id that stands for each class of a level, (256,) uint8: of a category, that which leads it.

    For whatever is no class, VOID among them, stands 0, unlabeled.
    """
    names = LEADING if level == "category" else CLASSES[level]
    ids = np.zeros(256, np.uint8)
    ids[: len(names)] = [label.id for name in names for label in LABELS if label.name == name]
    return ids


def count_pairs(labels, predictions):
    """Return how many pixels of each true label id (rows) have each predicted label id (columns), (34, 34)."""
    pairs = np.bincount(LABEL_IDS * labels.ravel().astype(int) + predictions.ravel(), minlength=LABEL_IDS**2)
    return pairs.reshape(LABEL_IDS, LABEL_IDS)


def measure(pairs, groups):
    """Return {name: {"iou", "precision", "recall", "f1"}} of groups of label ids, as Cityscapes' own scripts count.

    pairs is what count_pairs returns. True pixels of no group are left out, but a pixel of a group that is predicted to
    be of none, such as void, is missed. All four are None where a group is neither in the truth nor predicted.
    """
    rows = {}
    for name, ids in groups.items():
        others = [i for other, other_ids in groups.items() if other != name for i in other_ids]
        right = pairs[np.ix_(ids, ids)].sum()
        missed = pairs[ids].sum() - right
        wrong = pairs[np.ix_(others, ids)].sum()  # of other groups, but taken for this one
        if not right + missed + wrong:
            rows[name] = dict.fromkeys(MEASURES)
            continue
        rows[name] = {
            "iou": float(right / (right + missed + wrong)),
            "precision": float(right / max(right + wrong, 1)),
            "recall": float(right / max(right + missed, 1)),
            "f1": float(2 * right / (2 * right + missed + wrong)),
        }
    return rows


def average(rows):
    """Return the mean of each measure over the rows, {name: measures}, that have one; None where none has."""
    mean = {}
    for key in MEASURES:
        values = [row[key] for row in rows.values() if row[key] is not None]
        # np.mean adds in another order, which can change the last digit; Cityscapes' own script adds one by one.
        mean[key] = sum(values) / len(values) if values else None
    return mean


def merge(pairs, groups):
    """Return how many pixels of each true group (rows) were taken for each (columns), as an array."""
    return np.array([[pairs[np.ix_(ids, others)].sum() for others in groups.values()] for ids in groups.values()])


def paint(classes, colours):
    """Return the colours, (height, width, 3) uint8, of classes (height, width); void is black."""
    return np.uint8([*colours, *[(0, 0, 0)] * (VOID + 1 - len(colours))])[classes]


def paint_over(image, classes, colours):
    """Return an image with its classes laid over it in their colours, and white lines between them; void is black."""
    over = np.uint8((1 - OPACITY) * image + OPACITY * paint(classes, colours))
    edges = np.zeros(classes.shape, bool)
    edges[1:] |= classes[1:] != classes[:-1]
    edges[:, 1:] |= classes[:, 1:] != classes[:, :-1]
    over[edges] = WHITE
    return over


def letter(entries, width):
    """Return a white strip of a width, (height, width, 3) uint8, with lines of texts; entries: (text, colour or None).

    A text that has a colour stands after a square of it.
    """
    size = max(12, width // 40)
    font = ImageFont.load_default(size)
    x, y, places = size // 2, size // 2, []
    for text, colour in entries:
        length = font.getlength(text) + (1.5 * size if colour else 0)
        if x + length > width - size // 2 and x > size // 2:
            x, y = size // 2, y + 3 * size // 2
        places.append((x, y))
        x += length + (size if colour else size // 3)
    strip = Image.new("RGB", (width, y + 3 * size // 2), WHITE)
    draw = ImageDraw.Draw(strip)
    for (text, colour), (x, y) in zip(entries, places, strict=True):
        if colour:
            draw.rectangle((x, y, x + size, y + size), tuple(colour), BLACK)
            x += 1.5 * size
        draw.text((x, y + size / 2), text, BLACK, font, anchor="lm")
    return np.array(strip)


def make_legend(shown, names, colours, width):
    """Return a strip with the names and colours of the classes that are in shown, an array of any shape."""
    entries = [(names[index], colours[index]) for index in np.unique(shown) if index != VOID]
    return letter(entries + [("void", BLACK)] * (VOID in shown), width)


def make_caption(text, width):
    """Return a strip with a text."""
    return letter([(word, None) for word in text.split()], width)


def name_confusion(confusion, names):
    """Return what was confused most, as a sentence; confusion: true (rows) and predicted (columns), by merge."""
    wrong = confusion - np.diag(confusion.diagonal())
    if not wrong.any():
        return "nothing was confused"
    true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    share = wrong[true, predicted] / confusion[true].sum()
    return f"{names[true]} taken for {names[predicted]}: {share:.1%} of its pixels"


def judge(ids, classes, level):
    """Return the mean IoU of a picture, None where all of it is void, IoU by class, and what was confused most."""
    groups = find_groups(level)
    pairs = count_pairs(ids, find_ids(level)[classes])
    rows = measure(pairs, groups)
    confused = name_confusion(merge(pairs, groups), list(groups))
    return {"miou": average(rows)["iou"], "iou": {name: row["iou"] for name, row in rows.items()}, "confused": confused}


def paint_all(run, run_onnx, inputs, metrics, options, found):
    """Yield each of inputs, (name, image, label ids or None), painted over; append to found what is measured on it."""
    names, colours = metrics["classes"], metrics["colours"]
    for name, image, ids in inputs:
        classes = segment(run, image, metrics["size"])
        found.append({"name": name} | ({} if ids is None else judge(ids, classes, metrics["level"])))
        if run_onnx:
            different = int((segment(run_onnx, image, metrics["size"]) != classes).sum())
            found[-1] |= {"pixels": classes.size, "different": different}
        shown = np.arange(len(names)) if options.video else classes  # the frames of a video must be of one size
        legend = make_legend(shown, names, colours, image.shape[1])
        picture = np.vstack([paint_over(image, classes, colours), legend])
        save_image(options.out / "pictures" / f"{name}.png", picture)
        yield picture


def show_case(kind, case, image, ids, classes, metrics):
    """Return a picture, its truth and what was found, below each other, with a legend, and in words what is shown."""
    truth, colours, width = make_table(metrics["level"])[ids], metrics["colours"], image.shape[1]
    texts = f"{kind}: {case['name']}", "truth", f"prediction: mean IoU {case['miou']:.3f}; {case['confused']}"
    panels = image, paint_over(image, truth, colours), paint_over(image, classes, colours)
    strips = [make_caption(text, width) for text in texts]
    legend = make_legend(np.stack([truth, classes]), metrics["classes"], colours, width)
    return np.vstack([*itertools.chain(*zip(strips, panels, strict=True)), legend])


def time_run(run):
    """Return the median of the milliseconds that a call of run takes, after a warm-up."""
    milliseconds = []
    for _ in range(WARM_UP + TIMED):
        start = time.perf_counter()
        run()
        milliseconds.append(1000 * (time.perf_counter() - start))
    return float(np.median(milliseconds[WARM_UP:]))


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


def write_metrics(path, metrics):
    """Write metrics.json."""
    write_whole(path, lambda part: part.write_text(json.dumps(metrics, indent=2) + "\n"))


def read_metrics(path):
    """Return what an earlier run wrote to metrics.json, or the same without content where there is no such file."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"options": {}}
        dict(metrics["options"])
    except (ValueError, KeyError, TypeError):
        stop(f"{path}: not what this exercise writes: remove it, or name another folder")
    return metrics


def stop(message):
    """End the script with one line that names the file or option and the fix, and with status 2."""
    tqdm.write(f"{Path(__file__).name}: {message}", file=sys.stderr)  # not behind a progress bar
    raise SystemExit(2)


def read_options():
    """Return the options of the command line; stop at one that makes no sense."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    own_out = Path("outputs", Path(__file__).stem)
    own_data = Path("outputs", find_script(EARLIER).stem)
    own_weights = Path("outputs", find_script(TRAINED).stem, WEIGHTS)
    parser.add_argument("number", nargs="?", type=int, help=f"pictures of --truth to paint over ({NUMBER})")
    parser.add_argument("split", nargs="?", choices=SPLITS, help=f"where to take them from ({SPLITS[1]})")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--images", nargs="+", type=Path, metavar="FILE", help="pictures of your own instead")
    instead.add_argument("--video", type=Path, metavar="FILE", help="or a video")
    parser.add_argument("--export", type=Path, metavar="FILE.onnx", help="write the network as ONNX, and run it")
    parser.add_argument("--data", type=Path, default=own_data, help=f"what {EARLIER} wrote (%(default)s)")
    parser.add_argument("--weights", type=Path, default=own_weights, help=f"what {TRAINED} wrote (%(default)s)")
    parser.add_argument("--truth", type=Path, default=DRAWN, help="raw set the records are made of (%(default)s)")
    parser.add_argument("--out", type=Path, default=own_out, help="folder for all that is written (%(default)s)")
    for name, (default, _, meaning) in NUMBERS.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (%(default)s)")
    for name, choices in CHOICES.items():
        parser.add_argument(f"--{name}", choices=choices, default=choices[0], help="(%(default)s)")
    options = parser.parse_args()
    for name, (_, allowed, _) in NUMBERS.items():
        if vars(options)[name] not in allowed:
            stop(f"--{name} {vars(options)[name]}: give {allowed.start} to {allowed[-1]}, in steps of {allowed.step}")
    if options.number is not None and (options.images or options.video):
        stop(f"{options.number}: counts pictures of --truth: leave it out, or --images and --video")
    options.split = options.split or SPLITS[1]
    if options.number is not None and options.number < 1:
        stop(f"{options.number}: give the number of pictures, 1 or more")
    for path in options.images or ():
        painted = options.out / "pictures" / f"{path.stem}.png"
        if [other.stem for other in options.images].count(path.stem) > 1 or path.resolve() == painted.resolve():
            stop(f"--images {path}: {painted} would replace it, or another's: rename it, or name another --out")
    if options.export and options.export.suffix != ".onnx":
        stop(f"--export {options.export}: give a name that ends in .onnx")
    missing = [name for name in EXPORTERS if not importlib.util.find_spec(name)]
    if options.export and missing:
        stop(f"--export needs other packages, too: pip install {' '.join(missing)}")
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
    metrics = find_stage(options.data, EARLIER, "noticed")
    find_trained(options)
    network = build_network(np.random.default_rng(options.seed), len(metrics["classes"]), options)
    load_weights(network, options.weights)
    if options.video:
        read = functools.partial(read_frames, options.video, options.every)
        number = math.ceil(open_video(options.video).get(cv2.CAP_PROP_FRAME_COUNT) / options.every)
        number = number if number > 0 else None  # some videos do not tell
    elif options.images:
        read, number = functools.partial(read_photographs, options.images), len(options.images)
    else:
        pairs = choose_pairs(options)
        read, number = functools.partial(read_pairs, pairs), len(pairs)
    # What is wrong with the last picture should show now, not after the others; of a video, the first frame is enough.
    [(_, image, _)] = deque(itertools.islice(read(), 1 if options.video else None), maxlen=1)
    for folder in {options.out, options.export.parent if options.export else options.out}:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()  # fails now, not at the end, if nothing may be written
    run, run_onnx, found = functools.partial(predict, network, options=options), None, []
    timed = {"network": run}
    if options.export:
        export(network, options.export, metrics["size"])
        timed["network, by onnxruntime"] = run_onnx = open_onnx(options.export)
    pictures = tqdm(paint_all(run, run_onnx, read(), metrics, options, found), "predict", number)
    if options.video:
        rate = open_video(options.video).get(cv2.CAP_PROP_FPS)
        rate = rate if 0 < rate < math.inf else 25
        write_video(options.out / f"{options.video.stem}_painted.mp4", pictures, rate / options.every)
    for _ in pictures:
        pass

    own = {"answer": Path(__file__).stem, "options": {name: str(value) for name, value in vars(options).items()}}
    own |= {"size": metrics["size"], "pictures": found}
    judged = sorted((case for case in found if case.get("miou") is not None), key=lambda case: -case["miou"])
    for case in judged:
        print(f"{case['name']}: mean IoU {case['miou']:.3f}; {case['confused']}")
    cases = dict(zip(("best", "worst"), judged[:1] + judged[1:][-1:], strict=False))
    for kind in ("best", "worst"):
        (options.out / f"{kind}.png").unlink(missing_ok=True)  # of an earlier run
    for name, picture, ids in read() if cases else ():
        for kind, case in cases.items():
            if name == case["name"]:
                classes = segment(run, picture, metrics["size"])
                save_image(options.out / f"{kind}.png", show_case(kind, case, picture, ids, classes, metrics))
    own |= {kind: case["name"] for kind, case in cases.items()}
    if run_onnx:
        own |= {key: sum(case[key] for case in found) for key in ("pixels", "different")}
        print(f"{options.export}, by onnxruntime: another class at {own['different']:,} of {own['pixels']:,} pixels")
    small = normalise(shrink(image, metrics["size"]))[None]
    own["milliseconds"] = {name: time_run(functools.partial(timed[name], small)) for name in timed}
    own["milliseconds"]["all, with resizing"] = time_run(lambda: segment(run, image, metrics["size"]))
    print(f"milliseconds a picture of {small.shape[2]} x {small.shape[1]}, median of {TIMED}:")
    for name, milliseconds in own["milliseconds"].items():
        print(f"{milliseconds:9.1f}  {name}")
    write_metrics(options.out / "metrics.json", own)
    more = " best.png and worst.png," if cases else " a video," if options.video else ""
    print(f"All is in {options.out}/:{more} metrics.json, and each picture in pictures/")


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has no such method
        sys.stdout.reconfigure(errors="backslashreplace")  # for names in letters that the terminal lacks
    try:
        main()
    except Faulty as error:
        stop(error)
    except OSError as error:  # a folder that may not be written, a full disk
        stop(f"{error}: fix that, or name another folder with --data or --out")
    except Exception as error:
        words = ("ut of memory", "to allocate", "OOM when")  # each framework says it in its own
        if not isinstance(error, MemoryError) and not any(each in str(error) for each in words):
            raise
        stop("out of memory: give smaller numbers, or free some memory")
