"""Exercise 3, deeplab, in PyTorch: DeepLabV3, with the published weights if you have them, on your own photographs.

Without --weights its weights are random, and so is what it predicts: fetch some by Dataset/download_deeplab.py.

New here: NUMBERS, CHOICES, RESNETS, STAGES, read_image, DeepLabV3, ResNet, Bottleneck, ASPP, conv, conv_norm_relu,
build_network, list_entries, set_entries, read_pth, load_weights, predict, segment, paint, read_options, main. As in
02_atrous_pytorch.py: to_tensor, __main__. All else is as in 01_voc_dataset_pytorch.py.
"""

import argparse
import json
import os
import pickle
import pickletools
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

# Ctrl-C ends the script in one line, also during the imports that follow, which take seconds.
signal.signal(signal.SIGINT, lambda *_: sys.exit(f"{Path(__file__).name}: interrupted"))

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn
from torch.nn import functional

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


def predict(network, images, options):
    """Return the logits, (N, height, width, class), of images (N, height, width, 3)."""
    network.eval()  # batch norm by its running averages: a prediction must not depend on the rest of its batch
    with torch.inference_mode():
        logits = network(to_tensor(images, options.device))[0]
    return logits.permute(0, 2, 3, 1).cpu().numpy()


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
    """Let PyTorch compute in FLOAT, and choose the device where it is left open."""
    torch.set_default_dtype(getattr(torch, FLOAT))
    if options.device == "cuda" and not torch.cuda.is_available():
        stop("--device cuda: PyTorch sees no GPU: use --device cpu, or install a driver and PyTorch's build for CUDA")
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"


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
