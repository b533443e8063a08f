"""Exercise 1, street_preprocess, in PyTorch: pictures and labels as Cityscapes has them, made ready for training.

Everything is new here.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

# Ctrl-C ends the script in one line, also during the imports that follow, which take seconds.
signal.signal(signal.SIGINT, lambda *_: sys.exit(f"{Path(__file__).name}: interrupted"))

import cv2
import numpy as np
import torch
from PIL import Image
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
COLOURS = {label.name: label.colour for label in LABELS} | {  # of each class and of each category
    category: label.colour
    for category, leading in zip(CATEGORIES, LEADING, strict=True)
    for label in LABELS
    if label.name == leading
}
NUMBERS = {  # the default of an option, what it may be, and its meaning
    "size": (128, range(32, 2049), "height of the pictures that are written; their width keeps the ratio"),
    "pictures": (16, range(10**6), "pictures of each split to show with their classes"),
    "workers": (2, range(65), "processes that work at once; 0 for none beside this one"),
    "seed": (0, range(2**63), "of the choice of pictures to show"),
}
CHOICES = {  # the first is the default
    "level": ("category", "class"),
    "faulty": ("stop", "skip"),
    "device": ("auto", "cpu", "cuda"),
}
SPLITS = ("train", "val")  # the labels of Cityscapes' third, test, are not published
IMAGE, IDS = "_leftImg8bit.png", "_gtFine_labelIds.png"  # the ends of file names
MEASURED = 50  # pictures at most to measure on what reading colours would do
DRAWN = Path(__file__, "../../../Dataset/streets").resolve()  # a set in the same layout, which draw_streets.py draws


class Faulty(Exception):
    """A picture or its labels cannot be used; the message names the file and the fix."""


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


def resize(image, mask, height, width):
    """Return image and mask at another size: of colours the mean or a blend, of class indices the nearest one."""
    smaller = height * width < mask.size
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    # INTER_NEAREST takes the top left corner of each new pixel, which shifts the mask; _EXACT takes its centre.
    return image, cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def make_table(level):
    """Return the class of each label id, (256,) uint8; table[ids] is that of each pixel."""
    table = np.full(256, VOID, np.uint8)
    for label in LABELS:
        if label.category in CATEGORIES and label.id >= 0:
            table[label.id] = label.train_id if level == "class" else CATEGORIES.index(label.category)
    return table


def paint(classes, level):
    """Return the colours, (height, width, 3) uint8, of classes (height, width); void is black."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(CLASSES[level])] = [COLOURS[name] for name in CLASSES[level]]
    return palette[classes]


def find_size(pairs, options):
    """Return the height and width of what is written; their ratio is that of most pictures."""
    widths = Counter()
    for path, _ in pairs.values():
        with contextlib.suppress(Exception), Image.open(path) as image:  # a damaged one is told where it is converted
            widths[round(options.size * image.width / image.height)] += 1
    if not widths:
        stop(f"{options.data}: no picture can be read: take the originals")
    return options.size, widths.most_common(1)[0][0]


def list_outputs(options, split, name):
    """Return the paths that a pair is written to."""
    return [options.out / split / kind / f"{name}.png" for kind in ("images", "labels")]


def convert(task):
    """Write a picture and its classes at another size; return a message where they cannot be used, else None."""
    options, shape, split, name, paths = task
    outputs = list_outputs(options, split, name)
    try:
        image, ids = read_pair(*paths)
        if shape != (options.size, round(options.size * ids.shape[1] / ids.shape[0])):
            raise Faulty(f"{paths[0]}: is {ids.shape} in size, another ratio than most have: make it the same")
    except Faulty as fault:
        for path in outputs:  # of a run in which it was not faulty
            path.unlink(missing_ok=True)
        return str(fault)
    image, ids = resize(image, ids, *shape)
    for path, pixels in zip(outputs, (image, make_table(options.level)[ids]), strict=True):
        save_image(path, pixels)


def is_done(options, split, name, paths):
    """Return whether a pair has been written since its files were last changed."""
    outputs = list_outputs(options, split, name)
    if not all(path.exists() for path in outputs):
        return False
    return min(path.stat().st_mtime_ns for path in outputs) > max(path.stat().st_mtime_ns for path in paths)


def start_process():
    """Let a worker process leave Ctrl-C to the main process, which a terminal sends it to as well, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def convert_all(tasks, options):
    """Convert all pairs, in options.workers processes; return the messages of those that were skipped."""
    cv2.setNumThreads(1)  # each process works on a picture of its own; and threads do not live through a fork
    pool = ProcessPoolExecutor(options.workers, initializer=start_process) if options.workers else None
    with warnings.catch_warnings(action="ignore"):  # JAX warns of a fork, but no process that is started here calls it
        results, faults = pool.map(convert, tasks) if pool else map(convert, tasks), []
    try:
        for fault in tqdm(results, "convert", len(tasks)):
            if fault and options.faulty == "stop":
                stop(f"{fault}, or leave it out by --faulty skip")
            faults += [fault] if fault else []
    except BrokenProcessPool:
        stop("--workers: one was killed, for lack of memory perhaps: give fewer")
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)  # where one has failed, the others need not be done
    return faults


def count_pixels(labels, device):
    """Return how many pixels of labels, an array of any shape, have each index from 0 to VOID: (256,) int64."""
    return torch.bincount(torch.from_numpy(labels).to(device).flatten(), minlength=VOID + 1).cpu().numpy()


def measure_colours(label_paths, shape):
    """Return what reading colours instead of label ids would do, from label ids that are painted in their colours.

    "shared" lists the labels of one colour; "wrong" is the share of pixels that would get the class of a label of the
    same colour instead of their own; "blended" is the share of pixels whose colour is no label's after resizing.
    """
    by_colour = {}
    for label in LABELS:
        by_colour.setdefault(label.colour, []).append(label)
    shared = [[label.name for label in labels] for labels in by_colour.values() if len(labels) > 1]
    palette, table = np.zeros((256, 3), np.uint8), make_table("class")
    read = table.copy()  # the class that a label has by its colour: that of the first label of this colour
    for label in LABELS[:-1]:  # the last, id -1, is at no pixel
        palette[label.id], read[label.id] = label.colour, by_colour[label.colour][0].train_id
    known = palette @ (1 << 16, 1 << 8, 1)  # a colour as one number
    wrong = blended = number = 0
    for path in label_paths:
        ids = np.array(open_image(path))
        wrong += np.mean(read[ids] != table[ids])
        blended += np.mean(~np.isin(resize(palette[ids], ids, *shape)[0] @ (1 << 16, 1 << 8, 1), known))
        number += 1
    return {"shared": shared, "wrong": wrong / number, "blended": blended / number}


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


def check_earlier(earlier, pairs, options):
    """Stop where an earlier run into the same folder was one with other options, or of other pictures."""
    for name, before in earlier.items():
        if name in ("data", "size", "level") and before != str(vars(options)[name]):
            stop(f"--{name} {vars(options)[name]}: {options.out} was made with {before}: give that, or another --out")
    for split in SPLITS:
        for path in options.out.glob(f"{split}/*/[!.]*.png"):
            if path.stem not in pairs[split]:
                stop(f"{path}: there is no such pair in {options.data}: remove it, or name another --out")


def stop(message):
    """End the script with one line that names the file or option and the fix, and with status 2."""
    tqdm.write(f"{Path(__file__).name}: {message}", file=sys.stderr)  # not behind a progress bar
    raise SystemExit(2)


def read_options():
    """Return the options of the command line; stop at one that makes no sense."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    own_out = Path("outputs", Path(__file__).stem)
    parser.add_argument("--data", type=Path, default=DRAWN, help="folder with leftImg8bit/ and gtFine/ (%(default)s)")
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
    rng = np.random.default_rng(options.seed)
    streets, path = find_streets(options.data), options.out / "metrics.json"
    pairs, faults = {}, []
    for split in SPLITS:
        pairs[split], alone = find_pairs(streets, split)
        faults += alone
    if faults and options.faulty == "stop":
        stop(f"{faults[0]}, or leave it out by --faulty skip")
    shape = find_size(pairs["train"], options)
    earlier = read_metrics(path)["options"]
    check_earlier(earlier, pairs, options)
    metrics = {"answer": Path(__file__).stem}
    metrics["options"] = {name: str(value) for name, value in vars(options).items()}
    write_metrics(path, metrics)  # tells a next run that this one was not finished
    tasks = [(options, shape, split, *pair) for split in SPLITS for pair in pairs[split].items()]
    missing = [task for task in tasks if not (earlier and is_done(options, *task[2:]))]
    faults += convert_all(missing, options)
    print(*(f"skipped {fault}" for fault in faults), f"{len(missing)} of {len(tasks)} pairs were missing", sep="\n")

    metrics |= {"level": options.level, "size": shape, "classes": CLASSES[options.level], "images": {}, "pixels": {}}
    metrics["colours"] = [COLOURS[name] for name in metrics["classes"]]
    for split in SPLITS:
        names, pixels = [name for name in pairs[split] if list_outputs(options, split, name)[1].exists()], 0
        if not names:
            stop(f"{options.data}: no pair of {split} is left: take the originals")
        shown = set(rng.permutation(names)[: options.pictures])
        for name in tqdm(names, f"count {split}"):
            image, classes = (np.array(Image.open(file)) for file in list_outputs(options, split, name))
            pixels = pixels + count_pixels(classes, options.device)
            if name in shown:
                colours = paint(classes, options.level)
                panels = np.hstack([image, colours, image // 2 + colours // 2])
                save_image(options.out / "pictures" / split / f"{name}.png", panels)
        if pixels[VOID] == pixels.sum():
            stop(f"{options.data}: all pixels of {split} are void: take the originals")
        metrics["images"][split] = len(names)
        metrics["pixels"][split] = {
            name: int(pixels[i]) for i, name in [*enumerate(metrics["classes"]), (VOID, "void")]
        }
        shares = ", ".join(f"{name} {count / pixels.sum():.1%}" for name, count in metrics["pixels"][split].items())
        print(f"{split}: {len(names)} pictures, {shape[0]} x {shape[1]}: {shares}")
    sample = [pairs["val"][name][1] for name in rng.permutation(names)[:MEASURED]]
    metrics["colours_read"] = measure_colours(sample, shape)
    print(
        f"labels by their colours instead, on {len(sample)} pictures: {metrics['colours_read']['wrong']:.3%} of the "
        f"pixels of another class, {metrics['colours_read']['blended']:.1%} of no label's colour once resized"
    )
    write_metrics(path, metrics)
    print(f"Pictures of image, classes, and both are in {options.out}/pictures/")


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
        stop("out of memory: give smaller numbers, or free some memory")
