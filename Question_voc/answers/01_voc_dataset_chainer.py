"""Exercise 1, voc_dataset, in Chainer: read Pascal VOC 2012, and let an iterator hand out its batches.

Everything is new here.
"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import warnings
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
    "iterations": (10, range(1, 10**6), "batches to draw"),
    "batch": (8, range(1, 4097), "images in a batch"),
    "size": (128, range(32, 2049), "height and width of the crops"),
    "pictures": (16, range(10**6), "images of each split to write"),
    "workers": (2, range(65), "processes or threads that read ahead; 0 for none"),
    "seed": (0, range(2**63), "of all random numbers"),
}
CHOICES = {"crop": ("random", "centre"), "device": ("auto", "cpu", "cuda")}  # the first is the default
DEVICES = {"cpu": "@numpy", "cuda": "@cupy:0"}  # the names that Chainer has for them
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
    that copy one generator would all draw the same crops.)
    """

    def __init__(self, voc, names, options, rng):
        self.voc, self.options = voc, options
        number = options.iterations * options.batch
        epochs = math.ceil(number / len(names))  # each epoch takes every image once, in another order
        self.names = [names[i] for _ in range(epochs) for i in rng.permutation(len(names))][:number]

    def __len__(self):
        return len(self.names)

    def __getitem__(self, number):
        image, mask = read_pair(self.voc, self.names[number])
        if self.options.crop == "centre":
            image, mask = centre_crop(image, mask, self.options.size)
        else:
            rng = np.random.default_rng(np.random.SeedSequence(self.options.seed, spawn_key=(number,)))
            image, mask = random_crop(image, mask, self.options.size, rng)
        return normalise(image), np.ascontiguousarray(mask)


def numpy_batches(samples, options):
    """Yield batches: images (batch, height, width, 3), masks (batch, height, width)."""
    for start in range(0, len(samples), options.batch):
        images, masks = zip(*(samples[start + i] for i in range(options.batch)), strict=True)
        yield np.stack(images), np.stack(masks)


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


def to_numpy(images, masks):
    """Return a batch of draw_batches as numpy_batches has it."""
    return chainer.backends.cuda.to_cpu(images).transpose(0, 2, 3, 1), chainer.backends.cuda.to_cpu(masks)


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


def measure_crop(masks, size):
    """Return what a centre crop, resized to size x size, leaves of whole masks, and what of their detail.

    The latter is the mIoU of the crops, enlarged again, with the truth: no prediction of that size can be expected to
    do better.
    """
    kept, pairs = [], 0
    for mask in masks:
        side = min(mask.shape)
        small, square = (centre_crop(mask, mask, length)[1] for length in (size, side))
        large = cv2.resize(small, (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
        large[large == VOID] = 0  # a class must be given; most of what is void lies between an object and background
        kept.append(square.size / mask.size)
        pairs = pairs + count_pairs(square, large)
    return {"pixels_kept": float(np.mean(kept)), "miou_at_most": measure(pairs)["miou"]}


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
    rng = np.random.default_rng(options.seed)
    voc = find_voc(options.data)
    names = {split: read_names(voc, split) for split in ("train", "val")}
    metrics = {"answer": Path(__file__).stem, "images": {}, "share": {}}
    for split in names:
        masks = []
        for number, name in enumerate(tqdm(names[split], split)):
            image, mask = read_pair(voc, name)
            masks.append(mask)
            if number < options.pictures:
                image, mask = centre_crop(image, mask, options.size)
                overlay = np.uint8(image // 2 + COLOURS[mask] // 2)
                panels = np.hstack([image, COLOURS[mask], overlay])
                save_image(options.out / "pictures" / split / f"{name}.png", panels.repeat(2, axis=0).repeat(2, axis=1))
        pixels = np.bincount(np.concatenate([mask.ravel() for mask in masks]), minlength=256)
        share = {name: float(pixels[i] / pixels.sum()) for i, name in [*enumerate(CLASSES), (VOID, "void")]}
        metrics["images"][split], metrics["share"][split] = len(masks), share
        print(f"{split}: {len(masks)} images, {share['background']:.1%} background, {share['void']:.1%} void")
    metrics["centre_crop"] = measure_crop(masks, options.size)
    kept, at_most = metrics["centre_crop"].values()
    print(
        f"a centre crop, {options.size} x {options.size}, of val: {kept:.1%} of the pixels, at most mIoU {at_most:.3f}"
    )

    samples = Samples(voc, names["train"], options, rng)
    batches = zip(numpy_batches(samples, options), draw_batches(samples, options), strict=True)
    same = True
    for batch, tensors in tqdm(batches, "batches", options.iterations):
        same &= all((a == b).all() and a.dtype == b.dtype for a, b in zip(batch, to_numpy(*tensors), strict=True))
    for what, tensor in zip(("images", "masks"), tensors, strict=True):
        print(f"a batch of {what}: {type(tensor).__name__} {tuple(tensor.shape)}, {tensor.dtype}, on {options.device}")
    metrics["same_batches"] = bool(same)
    print(f"batches by NumPy and by the framework's own means: {'the same' if same else 'NOT THE SAME'}")
    write_whole(options.out / "metrics.json", lambda part: part.write_text(json.dumps(metrics, indent=2) + "\n"))
    print(f"Pictures of image, mask, and both are in {options.out}/pictures/")


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
