"""Exercise 4, deeplab_finetune, in PyTorch: train DeepLabV3 on new classes, from weights trained on others.

By default a small one is trained on one half of the classes, then on the other half, from those weights and, to compare
with, from random ones. With --weights FILE.pth, training on all classes begins with that file.

New here: MIXED, NUMBERS, LEARNING_RATE, MOMENTUM, AUX_WEIGHT, CHOICES, PHASES, FEW, HEADS, SAVE_EVERY, Samples,
draw_dropout, draw_heads, write_pth, cross_entropy, compute_loss, learning_rate, train, save_checkpoint,
load_checkpoint, describe, evaluate, read_options, main. As in 01_voc_dataset_pytorch.py: VOID, read_mask, read_pair,
resize, centre_crop, random_crop, ignore_interrupt, draw_batches, count_pairs, measure, __main__. All else is as in
03_deeplab_pytorch.py.
"""

import argparse
import io
import json
import math
import os
import pickle
import pickletools
import signal
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

# Ctrl-C ends the script in one line, also during the imports that follow, which take seconds.
signal.signal(signal.SIGINT, lambda *_: sys.exit(f"{Path(__file__).name}: interrupted"))

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

FLOAT = "float32"  # with "float64" the losses of all four frameworks coincide: see the lesson
MIXED = False  # True: convolutions in bfloat16; at --depth 101 a GPU needs 0.6 of the time, about half of the memory
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
# By depth, the number of layers in the backbone: blocks of each stage, its width, and the rates of ASPP.
RESNETS = {
    "101": ((3, 4, 23, 3), 64, (12, 24, 36)),
    "50": ((3, 4, 6, 3), 64, (12, 24, 36)),
    "14": ((1, 1, 1, 1), 16, (2, 4, 6)),  # small enough to be trained on a CPU, on crops of 128 pixels
}
# Of each stage: width, stride, dilation of the first block and of the others. Where ResNet has stride 2 in the last two
# stages, the features stay at an eighth of the image, and the kernels see twice and four times as far instead.
STAGES = {"layer1": (1, 1, 1, 1), "layer2": (2, 2, 1, 1), "layer3": (4, 1, 1, 2), "layer4": (8, 1, 2, 4)}
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


def ignore_interrupt(_):
    """Let a worker ignore Ctrl-C, which a terminal sends to it too: the main process ends in one line, for all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = lambda *_: None  # of the thread that hands tensors over, should the main process end meanwhile


def draw_batches(samples, options):
    """Yield batches on the device: images (batch, 3, height, width), masks (batch, height, width)."""
    loader = DataLoader(samples, options.batch, num_workers=options.workers, worker_init_fn=ignore_interrupt)
    for images, masks in loader:
        # The permuted view leaves the bytes where they are: that is torch.channels_last, the faster layout on a CPU.
        yield images.permute(0, 3, 1, 2).to(options.device), masks.to(options.device)


def draw_dropout(iteration, size, batch, options):
    """Return for each head an array (batch, height / 8, width / 8, channels) to multiply by: dropout of 0.5, 0.1."""
    # The frameworks' own dropout does the same, but each draws from its own generator: then no two curves would agree.
    rng = np.random.default_rng(np.random.SeedSequence(options.seed, spawn_key=(iteration, 0)))
    side = math.ceil(size / 8)
    shape = batch, side, side, 4 * RESNETS[options.depth][1]
    return [(rng.random(shape, np.float32) < keep).astype(FLOAT) / keep for keep in (0.5, 0.9)]


def to_tensor(array, device):
    """Return an array (batch, height, width, channels) as a tensor (batch, channels, height, width) on the device."""
    # The permuted view leaves the bytes where they are: that is torch.channels_last, the faster layout on a CPU.
    return torch.from_numpy(array).permute(0, 3, 1, 2).to(device)


class DeepLabV3(nn.Module):
    """DeepLabV3 (arXiv:1706.05587) with an auxiliary head; its entries have the names of the published weights.

    Takes images (batch, 3, height, width), returns the logits of both heads, (batch, 21, height, width). In training
    dropout is two arrays (batch, channels, height / 8, width / 8), which the features before the last layers of each
    head are multiplied by.
    """

    def __init__(self, depth):
        super().__init__()
        blocks, width, rates = RESNETS[depth]
        self.backbone = ResNet(blocks, width)
        self.classifier = nn.Sequential(
            ASPP(32 * width, 4 * width, rates),
            *conv_norm_relu(4 * width, 4 * width, 3),
            nn.Conv2d(4 * width, len(CLASSES), 1),
        )
        self.aux_classifier = nn.Sequential(
            *conv_norm_relu(16 * width, 4 * width, 3),
            nn.Identity(),  # where the published network has dropout
            nn.Conv2d(4 * width, len(CLASSES), 1),
        )

    def forward(self, images, dropout=(1, 1)):
        middle, last = self.backbone(images)
        logits = self.classifier[1:](self.classifier[0](last) * dropout[0])  # an eighth of the height and width
        aux_logits = self.aux_classifier[3:](self.aux_classifier[:3](middle) * dropout[1])
        size = images.shape[2:]
        return [functional.interpolate(x, size, mode="bilinear", align_corners=False) for x in (logits, aux_logits)]


class ResNet(nn.Module):
    """The backbone (arXiv:1512.03385): images to the features of the last two stages, at an eighth of the size."""

    def __init__(self, blocks, width):
        super().__init__()
        self.conv1, self.bn1 = conv(3, width, 7, stride=2), nn.BatchNorm2d(width)
        channels = width
        for (name, (wider, stride, first, others)), number in zip(STAGES.items(), blocks, strict=True):
            stage = [Bottleneck(channels, wider * width, stride, first)]
            channels = 4 * wider * width
            stage += [Bottleneck(channels, wider * width, 1, others) for _ in range(number - 1)]
            setattr(self, name, nn.Sequential(*stage))

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))  # (batch, width, height / 2, width / 2)
        x = functional.max_pool2d(x, 3, stride=2, padding=1)  # a quarter
        x = self.layer2(self.layer1(x))  # an eighth, from here on
        middle = self.layer3(x)
        return middle, self.layer4(middle)


class Bottleneck(nn.Module):
    """A residual block: what three convolutions, 1 x 1, 3 x 3 and 1 x 1, add to its input."""

    def __init__(self, in_channels, channels, stride, dilation):
        super().__init__()
        self.conv1, self.bn1 = conv(in_channels, channels, 1), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = conv(channels, channels, 3, stride, dilation), nn.BatchNorm2d(channels)
        self.conv3, self.bn3 = conv(channels, 4 * channels, 1), nn.BatchNorm2d(4 * channels)
        self.downsample = nn.Identity()
        if in_channels != 4 * channels:  # the input is brought to the shape of what is added
            self.downsample = nn.Sequential(conv(in_channels, 4 * channels, 1, stride), nn.BatchNorm2d(4 * channels))

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: the same features seen at several rates, and as a whole (section 3.3)."""

    def __init__(self, in_channels, channels, rates):
        super().__init__()
        branches = [conv_norm_relu(in_channels, channels, 1)]
        branches += [conv_norm_relu(in_channels, channels, 3, rate) for rate in rates]
        branches += [nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_norm_relu(in_channels, channels, 1))]  # (..., 1, 1)
        self.convs = nn.ModuleList(branches)
        self.project = conv_norm_relu(len(branches) * channels, channels, 1)

    def forward(self, x):
        branches = [branch(x) for branch in self.convs]
        branches[-1] = branches[-1].expand_as(branches[0])  # the mean of the image, at every pixel
        return self.project(torch.cat(branches, dim=1))


def conv(in_channels, channels, kernel, stride=1, dilation=1):
    """Return a convolution without bias, which keeps the height and width but for its stride."""
    # Padding on all sides alike: TensorFlow's SAME would not do so at stride 2. See exercise 2.
    padding = dilation * (kernel // 2)
    return nn.Conv2d(in_channels, channels, kernel, stride, padding, dilation, bias=False)


def conv_norm_relu(in_channels, channels, kernel, dilation=1):
    """Return convolution, batch norm and ReLU."""
    layers = conv(in_channels, channels, kernel, dilation=dilation), nn.BatchNorm2d(channels), nn.ReLU()
    return nn.Sequential(*layers)


def build_network(rng, options):
    """Return a DeepLabV3 on the device. NumPy draws its weights, so that all four frameworks start from the same.

    He normal by fan-in (arXiv:1502.01852, section 2.2), in the order of the entries; biases are 0. The last batch norm
    of each residual block begins at 0.2, so that the sum of many blocks stays of moderate size.
    """
    network = DeepLabV3(options.depth)
    for name, weight in network.named_parameters():
        if weight.ndim == 4:
            weight.data.copy_(torch.from_numpy(rng.standard_normal(weight.shape) * np.sqrt(2 / weight[0].numel())))
        elif name.endswith("bn3.weight"):
            nn.init.constant_(weight, 0.2)
        elif name.endswith("4.bias"):
            nn.init.zeros_(weight)
    return network.to(options.device, memory_format=torch.channels_last)


def list_entries(network):
    """Return {name: array} of all weights and running averages, as in the published files: kernels (out, in, h, w)."""
    return {
        name: entry.cpu().numpy().copy()  # what training does to the network must not change it
        for name, entry in network.state_dict().items()
        if not name.endswith("num_batches_tracked")  # which nothing uses: the averages move by a tenth each step
    }


def set_entries(network, entries):
    """Set all weights and running averages of the network to the arrays of {name: array}."""
    network.load_state_dict({name: torch.from_numpy(entry) for name, entry in entries.items()}, strict=False)


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


def read_pth(path):
    """Return {name: array} of a file that torch.save has written of a network's state_dict; run nothing from it.

    Files are zip archives, or, before PyTorch 1.6, pickles one after the other, and then the numbers.
    """
    zipped = zipfile.is_zipfile(path)
    if zipped:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():  # PyTorch does not compare the checksums
                raise ValueError("its numbers are damaged")
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)  # refuses whatever is not a tensor
    except pickle.UnpicklingError:  # whose text advises to load without this guard
        raise ValueError("it is damaged, or holds more than tensors") from None
    if not zipped:  # PyTorch does not ask whether the last of the pickles names the numbers of all tensors
        with open(path, "rb") as file:
            *_, keys = ({text for _, text, _ in pickletools.genops(file) if isinstance(text, str)} for _ in range(5))
        if len(keys) < len({tensor.untyped_storage().data_ptr() for tensor in tensors.values()}):
            raise ValueError("it lacks the numbers of some tensors")
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


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
    weights = io.BytesIO()  # in memory first, since torch.save reports a full disk by an error that names no file
    torch.save(network.state_dict(), weights)
    write_whole(path, lambda part: part.write_bytes(weights.getvalue()))


def cross_entropy(logits, masks):
    """Return softmax cross entropy, the mean over all pixels that are not void; logits (batch, 21, height, width)."""
    total = functional.cross_entropy(logits, masks.long(), ignore_index=VOID, reduction="sum")
    return total / (masks != VOID).sum().clamp(min=1)  # all of a crop may be void


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
    new = [weight for name, weight in network.named_parameters() if name.startswith(HEADS) or not fine]
    old = [weight for name, weight in network.named_parameters() if not name.startswith(HEADS) and fine]
    groups = [{"params": new, "scale": 1.0}, {"params": old, "scale": 0.1}]
    optimizer = torch.optim.SGD(groups, lr=options.lr, momentum=MOMENTUM)
    network.train()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d) and fine and options.norm == "frozen":
            layer.eval().requires_grad_(False)
    path, number = options.out / f"{phase}.checkpoint", len(samples) // options.batch
    losses = load_checkpoint(network, optimizer, path, options) if options.resume and path.exists() else []
    samples.first = len(losses) * options.batch
    bar = tqdm(draw_batches(samples, options), phase, number, initial=len(losses))
    for iteration, (images, masks) in enumerate(bar, start=len(losses)):
        rate = learning_rate(iteration, number, options.lr)
        last_rate = learning_rate(max(iteration - 1, 0), number, options.lr)
        for group in optimizer.param_groups:
            # PyTorch multiplies the velocity by the current learning rate, the others each gradient by its own step's.
            # So momentum, too, is adjusted, which makes PyTorch match the others.
            group.update(lr=group["scale"] * rate, momentum=MOMENTUM * last_rate / rate)
        factors = draw_dropout(iteration, options.size, options.batch, options)
        dropout = [to_tensor(array, options.device) for array in factors]
        with torch.autocast(options.device, torch.bfloat16, enabled=MIXED):  # the weights stay in float32
            loss = compute_loss(network(images, dropout), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        bar.set_postfix_str(f"loss {losses[-1]:.4f}", refresh=False)
        if not math.isfinite(losses[-1]):
            bar.close()
            stop(f"--lr {options.lr}: the loss is {losses[-1]} at iteration {iteration + 1}: try a smaller one")
        if len(losses) % SAVE_EVERY == 0 or len(losses) == number:
            save_checkpoint(network, optimizer, path, losses, options)
    return losses


def save_checkpoint(network, optimizer, path, losses, options):
    """Write what training needs to go on from here."""
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "losses": losses}
    content = io.BytesIO()
    torch.save(state | {"options": describe(options)}, content)
    write_whole(path, lambda part: part.write_bytes(content.getvalue()))


def load_checkpoint(network, optimizer, path, options):
    """Set the network and the optimizer to what save_checkpoint wrote; return the losses up to there."""
    try:
        state = torch.load(path, map_location=options.device, weights_only=True)
        same = state["options"] == describe(options)
        if same:
            network.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
    except OSError:
        raise
    except Exception:  # a damaged file raises whatever its first wrong byte leads to
        stop(f"{path}: not a whole checkpoint: remove it, and train from the start")
    if not same:
        stop(f"--resume: {path} is of a run with other options, {state['options']}: give the same")
    return state["losses"]


def describe(options):
    """Return, as a text, the options that decide what training computes, with the checksum of given weights."""
    rest = ("resume", "out", "device", "workers", "pictures", "crc")
    given = ", ".join(f"--{name} {value}" for name, value in vars(options).items() if name not in rest)
    return given if options.weights is None else f"{given} (weights of CRC-32 {options.crc:08x})"


def predict(network, images, options):
    """Return the logits, (N, height, width, class), of images (N, height, width, 3)."""
    network.eval()  # batch norm by its running averages: a prediction must not depend on the rest of its batch
    with torch.inference_mode():
        logits = network(to_tensor(images, options.device))[0]
    return logits.permute(0, 2, 3, 1).cpu().numpy()


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
    """Let PyTorch compute in FLOAT, and choose the device where it is left open."""
    torch.set_default_dtype(getattr(torch, FLOAT))
    if options.device == "cuda" and not torch.cuda.is_available():
        stop("--device cuda: PyTorch sees no GPU: use --device cpu, or install a driver and PyTorch's build for CUDA")
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"


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
