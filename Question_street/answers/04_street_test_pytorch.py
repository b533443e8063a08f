"""Exercise 4, street_test, in PyTorch: measure as Cityscapes does, write a report, and see what averages would say.

New here: NUMBERS, CHOICES, TRAINED, MEASURES, LABEL_IDS, TOGETHER, STYLE, read_examples, find_trained, check_truth,
find_groups, find_ids, count_pairs, measure, average, average_parts, imply_iou, measure_ways, compare_ways, merge,
summarise, draw_confusion, write_table, write_report, write_page, test, read_options, main, __main__. As in
01_street_preprocess_pytorch.py: Label, LABELS, CATEGORIES, CLASSES, LEADING, IMAGE, IDS, Faulty, find_pairs,
open_image, read_pair, make_table. All else is as in 03_street_train_pytorch.py.
"""

import argparse
import base64
import io
import itertools
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

# Ctrl-C ends the script in one line, also during the imports that follow, which take seconds.
signal.signal(signal.SIGINT, lambda *_: sys.exit(f"{Path(__file__).name}: interrupted"))

import cv2
import google_crc32c
import numpy as np
import torch
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from PIL import Image
from torch import nn
from torch.nn import functional
from tqdm import tqdm

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
    "batch": (8, range(1, 4097), "images that the network sees at once"),
    "pictures": (16, range(10**6), "images to write a picture of"),
    "seed": (0, range(2**63), "of the choice of images to write a picture of"),
}
CHOICES = {"network": ("unet", "deeplab"), "device": ("auto", "cpu", "cuda")}  # the first is the default
EARLIER = "02_street_records"  # the exercise whose output this one reads
TRAINED = "03_street_train"  # the exercise whose weights are tested
WEIGHTS = "best.pt"  # in --out, of the best mIoU
IMAGE, IDS = "_leftImg8bit.png", "_gtFine_labelIds.png"  # the ends of file names
CHANNELS = (16, 32, 64, 128, 256)  # of U-Net at each size
WIDTH = 16  # of DeepLabV3's first convolution
STAGES = ((1, 1, 1), (2, 2, 1), (4, 1, 1), (8, 1, 2))  # of its backbone: width, stride, dilation
RATES = (2, 4, 6)  # of its ASPP, for small images
MEASURES = {"iou": "IoU", "precision": "precision", "recall": "recall", "f1": "F1"}
LABEL_IDS = 34  # from 0 on; that of licence plates, -1, is at no pixel
TOGETHER = 8  # images in a batch, to show what a mean over batches would be
STYLE = """
body { max-width: 60em; margin: 2em auto; padding: 0 1em; font: 16px/1.5 sans-serif; color: #222; background: #fff }
table { border-collapse: collapse; margin: 1em 0 }
th, td { padding: 0.2em 0.8em; border-bottom: 1px solid #ccc; text-align: left }
td:first-child { white-space: nowrap }
img { max-width: 100% }
"""


class Faulty(Exception):
    """A picture or its labels cannot be used; the message names the file and the fix."""


class Damaged(Exception):
    """A record is not what was written; the message names the shard, the byte where the record begins, and the fix."""


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


def make_table(level):
    """Return the class of each label id, (256,) uint8; table[ids] is that of each pixel."""
    table = np.full(256, VOID, np.uint8)
    for label in LABELS:
        if label.category in CATEGORIES and label.id >= 0:
            table[label.id] = label.train_id if level == "class" else CATEGORIES.index(label.category)
    return table


def masked_crc(data):
    """Return the sum of data as records have it, 4 bytes: its CRC-32C, rotated right by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", (crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF)


def read_varint(data, position):
    """Return the number that begins at position, and the position after it."""
    number = shift = 0
    while data[position] > 127:
        number |= (data[position] & 127) << shift
        position, shift = position + 1, shift + 7
    return number | data[position] << shift, position + 1


def split_fields(data):
    """Return the fields that data is made of, [(number, content), ...]."""
    fields, position = [], 0
    while position < len(data):
        tag, position = read_varint(data, position)
        length, position = read_varint(data, position)
        fields.append((tag >> 3, data[position : position + length]))
        position += length
    return fields


def parse_example(payload):
    """Return the features that make_example was given."""
    features = {}
    [(_, entries)] = split_fields(payload)
    for _, entry in split_fields(entries):
        (_, key), (_, feature) = split_fields(entry)
        [(kind, values)] = split_fields(feature)
        [(_, content)] = split_fields(values)
        features[key.decode()] = content if kind == 1 else read_varint(content, 0)[0]
    return features


def read_length(file, offset):
    """Return the length of the payload of the record at offset; the file then stands at the payload."""
    file.seek(offset)
    head = file.read(12)
    if len(head) < 12 or masked_crc(head[:8]) != head[8:]:
        raise Damaged(f"{file.name}: the record at byte {offset} is damaged or cut off: write the records again")
    return struct.unpack("<Q", head[:8])[0]


def read_record(file, offset):
    """Return the payload of the record that begins at offset of a file; Damaged where a sum is wrong."""
    length = read_length(file, offset)
    data = file.read(length + 4)
    if len(data) < length + 4 or masked_crc(data[:-4]) != data[-4:]:
        raise Damaged(f"{file.name}: the record at byte {offset} is damaged or cut off: write the records again")
    return data[:-4]


def index_records(path):
    """Return where the records of a shard begin, found by their lengths alone, so that each can be read by itself."""
    offsets, size = [0], path.stat().st_size
    with open(path, "rb") as file:
        while offsets[-1] < size:
            offsets.append(offsets[-1] + 16 + read_length(file, offsets[-1]))
    if offsets[-1] > size:
        raise Damaged(f"{path}: the record at byte {offsets[-2]} is damaged or cut off: write the records again")
    return offsets[:-1]


def read_shard(path):
    """Yield the payloads of a shard, one after another."""
    offsets = index_records(path)
    with open(path, "rb") as file:
        for offset in offsets:
            yield read_record(file, offset)


def decode(features):
    """Return the name of an example, its image (height, width, 3) uint8 and its classes (height, width) uint8."""
    keys = "image/encoded", "image/segmentation/class/encoded"
    return features["image/filename"].decode(), *(np.array(Image.open(io.BytesIO(features[key]))) for key in keys)


def check_shards(folder, metrics):
    """Stop where a shard is missing, is not as long as it was written, or was not written at all.

    A shard that is cut off between two records is a good one by itself: only its length, which metrics tell, shows it.
    """
    found = {path.name: path.stat().st_size for path in folder.glob("[!.]*.tfrecord")}
    for shard in itertools.chain(*metrics["shards"].values()):
        size = found.pop(shard["name"], "no such file")
        if size != shard["bytes"]:
            stop(
                f"{folder / shard['name']}: {shard['bytes']} bytes were written, found {size}: write the records again"
            )
    for name in found:
        stop(f"{folder / name}: {folder / 'metrics.json'} does not name it: remove it, or write the records again")


def read_examples(paths):
    """Yield all examples of shards: name, image (height, width, 3) uint8, classes (height, width) uint8."""
    for path in paths:
        for payload in read_shard(path):
            yield decode(parse_example(payload))


def check_truth(paths, truth, metrics):
    """Read everything once; Faulty where an example was not made of the raw picture of its name in truth."""
    table, number = make_table(metrics["level"]), sum(shard["records"] for shard in metrics["shards"]["val"])
    with tqdm(read_examples(paths), "read", number) as bar:
        for name, _, classes in bar:
            if name not in truth:
                raise Faulty(
                    f"--truth: has no {name}{IDS} in gtFine/val/: name the raw set that the records are made of"
                )
            labels = table[read_pair(*truth[name])[1]]
            made = cv2.resize(labels, classes.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
            if not np.array_equal(made, classes):
                raise Faulty(
                    f"{truth[name][1]}: the records were not made of it: make them anew, or name another --truth"
                )


def normalise(image):
    """Return an image (height, width, 3) uint8 such that ImageNet's have mean 0 and standard deviation 1."""
    return ((image / 255 - MEAN) / STD).astype(FLOAT)


def to_tensor(array, device):
    """Return an array (batch, height, width, channels) as a tensor (batch, channels, height, width) on the device."""
    # The permuted view leaves the bytes where they are: that is torch.channels_last, the faster layout on a CPU.
    return torch.from_numpy(array).permute(0, 3, 1, 2).to(device)


class UNet(nn.Module):
    """U-Net with padding: images (batch, 3, height, width), sides multiples of 16, to logits (batch, class, ...)."""

    def __init__(self, classes):
        super().__init__()
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for in_channels, channels in itertools.pairwise((3, *CHANNELS)):
            self.encoder.append(block(in_channels, channels))
        for in_channels, channels in itertools.pairwise(CHANNELS[::-1]):
            upsample = nn.ConvTranspose2d(in_channels, channels, 2, stride=2)
            self.decoder.append(nn.Sequential(upsample, nn.BatchNorm2d(channels), nn.ReLU()))
            self.decoder.append(block(2 * channels, channels))
        self.classifier = nn.Conv2d(CHANNELS[0], classes, 1)

    def forward(self, x):
        skips = []
        for encode in self.encoder[:-1]:
            skips.append(encode(x))
            x = functional.max_pool2d(skips[-1], 2)  # half the height and width, and next twice the channels
        x = self.encoder[-1](x)
        for upsample, decode in zip(self.decoder[::2], self.decoder[1::2], strict=True):
            x = torch.cat([skips.pop(), upsample(x)], dim=1)  # twice the height and width
            x = decode(x)
        return self.classifier(x)


def block(in_channels, channels):
    """Return two times conv(3) + BatchNorm + ReLU; it keeps the size."""
    return nn.Sequential(*conv_norm_relu(in_channels, channels, 3), *conv_norm_relu(channels, channels, 3))


class DeepLabV3(nn.Module):
    """A small DeepLabV3 (arXiv:1706.05587) without auxiliary head and dropout: see Question_voc.

    A ResNet of a block in each stage, which ends at an eighth of the height and width, ASPP, and bilinear upsampling.
    """

    def __init__(self, classes):
        super().__init__()
        self.stem = conv_norm_relu(3, WIDTH, 7, stride=2)
        stages, channels = [], WIDTH
        for wider, stride, dilation in STAGES:
            stages.append(Bottleneck(channels, wider * WIDTH, stride, dilation))
            channels = 4 * wider * WIDTH
        self.stages = nn.Sequential(*stages)
        self.aspp = ASPP(channels, 4 * WIDTH)
        self.head = conv_norm_relu(4 * WIDTH, 4 * WIDTH, 3)
        self.classifier = nn.Conv2d(4 * WIDTH, classes, 1)

    def forward(self, images):
        x = functional.max_pool2d(self.stem(images), 3, stride=2, padding=1)  # a quarter of the height and width
        x = self.classifier(self.head(self.aspp(self.stages(x))))  # an eighth
        return functional.interpolate(x, images.shape[2:], mode="bilinear", align_corners=False)


class Bottleneck(nn.Module):
    """A residual block: what three convolutions, 1 x 1, 3 x 3 and 1 x 1, add to its input."""

    def __init__(self, in_channels, channels, stride, dilation):
        super().__init__()
        self.narrow = conv_norm_relu(in_channels, channels, 1)
        self.middle = conv_norm_relu(channels, channels, 3, stride, dilation)
        self.widen = conv_norm(channels, 4 * channels, 1)
        self.shortcut = conv_norm(in_channels, 4 * channels, 1, stride)

    def forward(self, x):
        return functional.relu(self.widen(self.middle(self.narrow(x))) + self.shortcut(x))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: the same features seen at several rates, and as a whole (section 3.3)."""

    def __init__(self, in_channels, channels):
        super().__init__()
        branches = [conv_norm_relu(in_channels, channels, 1)]
        branches += [conv_norm_relu(in_channels, channels, 3, dilation=rate) for rate in RATES]
        branches += [conv_norm_relu(in_channels, channels, 1)]
        self.branches = nn.ModuleList(branches)
        self.project = conv_norm_relu(len(branches) * channels, channels, 1)

    def forward(self, x):
        mean = x.mean(dim=(2, 3), keepdim=True)
        branches = [branch(x) for branch in self.branches[:-1]]
        branches.append(self.branches[-1](mean).expand_as(branches[0]))  # the mean of the image, at every pixel
        return self.project(torch.cat(branches, dim=1))


def conv_norm(in_channels, channels, kernel, stride=1, dilation=1):
    """Return a convolution and batch norm, whose shift stands for a bias; they keep the size but for the stride."""
    # Padding on all sides alike: TensorFlow's SAME would not do so at stride 2. See Question_voc.
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels))


def conv_norm_relu(in_channels, channels, kernel, stride=1, dilation=1):
    """Return convolution, batch norm and ReLU."""
    return nn.Sequential(*conv_norm(in_channels, channels, kernel, stride, dilation), nn.ReLU())


def build_network(rng, classes, options):
    """Return a network for a number of classes on the device. NumPy draws its weights, so that all four start alike.

    He normal by fan-in (arXiv:1502.01852, section 2.2), in the order of the layers; biases are 0.
    """
    network = (UNet if options.network == "unet" else DeepLabV3)(classes)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            # PyTorch stores the kernel of a transposed convolution as (in, out, ...): draw both as (out, in, ...).
            weight = layer.weight.data.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight.data
            weight.copy_(torch.from_numpy(rng.standard_normal(weight.shape) * np.sqrt(2 / weight[0].numel())))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network.to(options.device, memory_format=torch.channels_last)


def load_weights(network, path):
    """Read into the network what save_weights wrote."""
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception:  # a damaged file raises whatever its first wrong byte leads to
        wrong = "not the weights of this --network for these records" if path.exists() else "no such file"
        stop(f"{path}: {wrong}: train first, or name what training wrote")


def predict(network, images, options):
    """Return the logits, (N, height, width, class), of images (N, height, width, 3)."""
    network.eval()  # batch norm by its running averages: a prediction must not depend on the rest of its batch
    with torch.inference_mode():
        logits = network(to_tensor(images, options.device))
    return logits.permute(0, 2, 3, 1).cpu().numpy()


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


def average_parts(parts, groups):
    """Return the rows of measure as means over parts, each the pairs of an image or of a batch: how not to do it.

    Where a part lacks a group, it counts as 0. F1 is that of the mean precision and the mean recall.
    """
    measured, rows = [measure(pairs, groups) for pairs in parts], {}
    for name in groups:
        row = {key: float(np.mean([part[name][key] or 0 for part in measured])) for key in MEASURES}
        precision, recall = row["precision"], row["recall"]
        rows[name] = row | {"f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0}
    return rows


def imply_iou(row):
    """Return the IoU that follows from precision and recall if all three are counted over the same pixels, or None."""
    if not row["precision"] or not row["recall"]:
        return row["precision"]
    return 1 / (1 / row["precision"] + 1 / row["recall"] - 1)


def measure_ways(pairs):
    """Return {way: rows by category}, first over the set, then as averages; pairs (images, 34, 34), of each image.

    Each way also with void as a category like any other.
    """
    batches = [pairs[start : start + TOGETHER].sum(axis=0) for start in range(0, len(pairs), TOGETHER)]
    batches = batches[: len(pairs) // TOGETHER] or batches  # without the last, which is smaller
    ways = {}
    for more, void in (("", False), (", void too", True)):
        groups = find_groups("category", void)
        ways[f"over the set{more}"] = measure(pairs.sum(axis=0), groups)
        ways[f"by image{more}"] = average_parts(pairs, groups)
        ways[f"by batch of {TOGETHER}{more}"] = average_parts(batches, groups)
    return ways


def compare_ways(ways):
    """Return {way: {"mean", "change", "gap", "most"}} of what measure_ways returns.

    mean is that over the categories, change by how much its IoU exceeds that of the first way. gap is the IoU of a
    category less the one that its precision and recall imply, of the category, most, that has the largest.
    """
    found = {}
    for way, rows in ways.items():
        gaps = {name: row["iou"] - imply_iou(row) for name, row in rows.items() if row["iou"] is not None}
        most, mean = max(gaps, key=lambda name: abs(gaps[name])), average(rows)
        first = next(iter(found.values()))["mean"] if found else mean
        found[way] = {"mean": mean, "change": mean["iou"] - first["iou"], "gap": gaps[most], "most": most}
    return found


def merge(pairs, groups):
    """Return how many pixels of each true group (rows) were taken for each (columns), as an array."""
    return np.array([[pairs[np.ix_(ids, others)].sum() for others in groups.values()] for ids in groups.values()])


def summarise(rows, confusion):
    """Return sentences on what is found best and worst, and what is confused; confusion is as merge returns it."""
    names = list(rows)
    there = {name: row["iou"] for name, row in rows.items() if row["iou"] is not None}
    low, high = min(there.values()), max(there.values())
    worst, best = (", ".join(name for name in there if there[name] == iou) for iou in (low, high))
    sentences = [f"Best, with an IoU of {high:.3f}: {best}. Worst, with {low:.3f}: {worst}."]
    wrong = confusion - np.diag(confusion.diagonal())
    if wrong.any():
        one, other = np.unravel_index(np.triu(wrong + wrong.T).argmax(), wrong.shape)
        if wrong[one, other] < wrong[other, one]:
            one, other = other, one
        share = (wrong[one, other] + wrong[other, one]) / wrong.sum()
        sentences.append(
            f"Confused most are {names[one]} and {names[other]}: {wrong[one, other]:,} pixels of {names[one]} were "
            f"taken for {names[other]}, and {wrong[other, one]:,} the other way round, {share:.1%} of all wrong pixels."
        )
        shares = wrong / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
        one, other = np.unravel_index(shares.argmax(), shares.shape)
        sentences.append(
            f"The largest loss of one to another: {shares[one, other]:.1%} of the pixels of {names[one]} were taken "
            f"for {names[other]}."
        )
    if absent := [name for name, row in rows.items() if row["iou"] is None]:
        sentences.append(f"Neither in the truth nor predicted, and so not measured: {', '.join(absent)}.")
    return " ".join(sentences)


def draw_confusion(path, confusion, names):
    """Draw what percentage of each true group's pixels (rows) was taken for each group (columns)."""
    shares = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = 2.5 + 0.5 * len(names)  # inches
    figure = Figure((side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set(
        xlabel="predicted", ylabel="true", title="Percent of the true pixels of a row, by what they were taken for"
    )
    for (row, column), share in np.ndenumerate(shares):
        if share:
            colour = "white" if share > 50 else "black"
            axes.text(column, row, f"{share:.1f}", ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, shrink=0.8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_whole(path, lambda part: part.write_bytes(picture.getvalue()))


def write_table(head, rows):
    """Return a table in Markdown; numbers have three decimals, None is a dash."""
    show = {float: "{:.3f}".format, type(None): lambda _: "–"}
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(show.get(type(cell), str)(cell) for cell in line)} |" for line in lines)


def write_report(metrics):
    """Return the report in Markdown."""
    height, width = metrics["size"]
    parts = [
        f"# {metrics['tested']} street scenes, measured",
        f"The network of `{metrics['options']['weights']}` saw images of {width} x {height} pixels; its logits were "
        "enlarged to the size of the truth. The pixels of all images are counted in one confusion matrix, as "
        "Cityscapes' own scripts do it: true pixels that are void, or of a class that these ignore, are left out.",
    ]
    for level, found in metrics["levels"].items():
        rows = [*found["rows"].items(), ("**mean**", found["mean"])]
        rows = [[name, *row.values()] for name, row in rows]
        parts += [f"## By {level}", write_table([level, *MEASURES.values()], rows), found["summary"]]
        parts.append(f"![Confusion matrix by {level}](confusion_{level}.png)")
    ways, rows = compare_ways(metrics["ways"]), []
    for way, found in ways.items():
        gap = "0" if abs(found["gap"]) < 1e-9 else f"{found['gap']:+.3f}, {found['most']}"
        rows.append([way, *found["mean"].values(), f"{found['change']:+.3f}", gap])
    head = ["counted", *(f"mean {name}" for name in MEASURES.values()), "change of IoU", "largest gap"]
    parts += [
        "## What averages would say",
        "What is counted over one set of pixels obeys IoU = 1 / (1 / precision + 1 / recall - 1). Means over images, "
        f"or over batches of {TOGETHER} without the rest, do not, above all where images lack a category, which counts "
        "as 0 there. The gap is the IoU of a category less the one that its precision and recall imply. In the last "
        "three rows void is a category like any other; the network never predicts it.",
        write_table(head, rows),
    ]
    first, *others = [way for way in ways if "void" not in way]
    rows, changes = [], {}
    for name, row in metrics["ways"][first].items():
        averages = [metrics["ways"][way][name] for way in others]
        rows.append([name, row["iou"], *itertools.chain(*((each["iou"], imply_iou(each)) for each in averages))])
        for way, each in zip(others, averages, strict=True):
            changes[name, way] = each["iou"], row["iou"] or 0
    (name, way), (iou, right) = max(changes.items(), key=lambda change: abs(np.subtract(*change[1])))
    head = ["IoU", first, *itertools.chain(*((way, "implied") for way in others))]
    parts += [write_table(head, rows), f"Changed most is {name}: {iou:.3f} {way}, {right:.3f} {first}."]
    rows = [[what, *mean.values()] for what, mean in metrics["sizes"].items()]
    parts += [
        "## What the size says",
        "Whoever measures at the size of the records does not ask for what is too thin to be seen there. The labels of "
        "the records themselves, enlarged, show what is lost by the size alone.",
        write_table(["mean over the categories", *MEASURES.values()], rows),
    ]
    return "\n\n".join(parts) + "\n"


def write_page(markdown, folder):
    """Return a report as a page of HTML that needs no other file: the pictures of folder that it shows are in it."""
    body = MarkdownIt().enable("table").render(markdown)
    for name in re.findall(r'src="([^"]+)"', body):
        data = base64.b64encode((folder / name).read_bytes()).decode()
        body = body.replace(f'src="{name}"', f'src="data:image/png;base64,{data}"')
    title = markdown.splitlines()[0].removeprefix("# ")
    head = f'<meta charset="utf-8">\n<title>{title}</title>\n<style>{STYLE}</style>\n'
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}</head>\n<body>\n{body}</body>\n</html>\n'


def test(network, paths, truth, metrics, options):
    """Write what is predicted; return the pairs of each image, (number, 34, 34), and of the set at other sizes.

    results/ holds the label ids that Cityscapes' own scripts read; pictures/ shows image, truth, prediction, mistakes.
    """
    ids, table = find_ids(metrics["level"]), make_table(metrics["level"])
    number = sum(shard["records"] for shard in metrics["shards"]["val"])
    shown = set(np.random.default_rng(options.seed).permutation(number)[: options.pictures].tolist())
    examples, pairs, small, enlarged = read_examples(paths), [], 0, 0
    with tqdm(total=number, desc="test") as bar:
        while batch := list(itertools.islice(examples, options.batch)):
            logits = predict(network, np.stack([normalise(image) for _, image, _ in batch]), options)
            for (name, _, classes), its_logits in zip(batch, logits, strict=True):
                image, labels = read_pair(*truth[name])
                # Logits are enlarged, not classes: so outlines stay smooth. Pixels keep their centres.
                found = cv2.resize(its_logits, labels.shape[::-1], interpolation=cv2.INTER_LINEAR).argmax(axis=2)
                if len(pairs) in shown:
                    true = table[labels]
                    wrong = (true != found) & (true != VOID)
                    marked = np.where(wrong[..., None], np.uint8([255, 0, 0]), image // 2)
                    colours = [paint(each, metrics["colours"]) for each in (true, found)]
                    panels = np.vstack([np.hstack([image, colours[0]]), np.hstack([colours[1], marked])])
                    save_image(options.out / "pictures" / f"{name}.png", panels)
                save_image(options.out / "results" / f"{name}_pred_labelIds.png", ids[found])
                pairs.append(count_pairs(labels, ids[found]))
                small = small + count_pairs(ids[classes], ids[its_logits.argmax(axis=2)])
                large = cv2.resize(classes, labels.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
                enlarged = enlarged + count_pairs(labels, ids[large])
                bar.update()
    return np.stack(pairs), small, enlarged


def paint(classes, colours):
    """Return the colours, (height, width, 3) uint8, of classes (height, width); void is black."""
    return np.uint8([*colours, *[(0, 0, 0)] * (VOID + 1 - len(colours))])[classes]


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
    own_truth = Path(__file__, "../../../Dataset/streets").resolve()
    parser.add_argument("--data", type=Path, default=own_data, help=f"what {EARLIER} wrote (%(default)s)")
    parser.add_argument("--weights", type=Path, default=own_weights, help=f"what {TRAINED} wrote (%(default)s)")
    parser.add_argument("--truth", type=Path, default=own_truth, help="raw set the records are made of (%(default)s)")
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
    """Let PyTorch compute in FLOAT, and choose the device where it is left open."""
    torch.set_default_dtype(getattr(torch, FLOAT))
    if options.device == "cuda" and not torch.cuda.is_available():
        stop("--device cuda: PyTorch sees no GPU: use --device cpu, or install a driver and PyTorch's build for CUDA")
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"


def main():
    options = read_options()
    source = find_stage(options.data, EARLIER, "noticed")
    find_trained(options)
    check_shards(options.data, source)
    paths = [options.data / shard["name"] for shard in source["shards"]["val"]]
    truth, _ = find_pairs(options.truth, "val")
    network = build_network(np.random.default_rng(options.seed), len(source["classes"]), options)
    load_weights(network, options.weights)
    check_truth(paths, truth, source)
    options.out.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=options.out).close()  # fails now, not after the test, if nothing may be written
    pairs, small, enlarged = test(network, paths, truth, source, options)

    metrics = {"answer": Path(__file__).stem, "options": {name: str(value) for name, value in vars(options).items()}}
    metrics |= {"tested": len(pairs), "size": source["size"], "level": source["level"], "levels": {}}
    for level in dict.fromkeys(("category", source["level"])):
        groups = find_groups(level)
        rows, confusion = measure(pairs.sum(axis=0), groups), merge(pairs.sum(axis=0), groups)
        if not confusion.any():
            stop(f"{options.truth}: no pixel of val counts: take labels that are not all void")
        metrics["levels"][level] = {"rows": rows, "mean": average(rows), "summary": summarise(rows, confusion)}
        draw_confusion(options.out / f"confusion_{level}.png", confusion, list(groups))
        print(f"mean by {level}: " + ", ".join(f"{MEASURES[key]} {value:.3f}" for key, value in average(rows).items()))
        print(metrics["levels"][level]["summary"])
    metrics |= {"miou": average(rows)["iou"], "iou": {name: row["iou"] for name, row in rows.items()}}
    metrics["ways"] = measure_ways(pairs)
    for way, found in compare_ways(metrics["ways"]).items():
        gap = round(found["gap"], 3) + 0  # not -0.000
        print(f"  {way:25} mean IoU {found['mean']['iou']:.3f}, largest gap {gap:+.3f} ({found['most']})")
    groups = find_groups("category")
    sizes = {"at the size of the records": small, "at the size of the truth": pairs.sum(axis=0)}
    sizes["the labels of the records, enlarged"] = enlarged
    metrics["sizes"] = {what: average(measure(each, groups)) for what, each in sizes.items()}
    markdown = write_report(metrics)
    page = write_page(markdown, options.out)
    for name, text in (("report.md", markdown), ("report.html", page)):
        write_whole(options.out / name, lambda part, text=text: part.write_text(text, encoding="utf-8"))
    write_metrics(options.out / "metrics.json", metrics)
    print(f"The report is {options.out}/report.html; beside it are pictures/, and results/ for Cityscapes' own scripts")


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has no such method
        sys.stdout.reconfigure(errors="backslashreplace")  # for names in letters that the terminal lacks
    try:
        main()
    except (Damaged, Faulty) as error:
        stop(error)
    except OSError as error:  # a folder that may not be written, a full disk
        stop(f"{error}: fix that, or name another folder with --data or --out")
    except Exception as error:
        words = ("ut of memory", "to allocate", "OOM when")  # each framework says it in its own
        if not isinstance(error, MemoryError) and not any(each in str(error) for each in words):
            raise
        stop("out of memory: give smaller numbers, or free some memory")
