"""Exercise 4, semaseg_dataset, in PyTorch: read each mask as the index of a class at each pixel.

0 is background, 1 akahara (the fire-bellied newt), 2 madara (the marbled newt). Run it without options, or see --help.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

EXERCISE, FRAMEWORK = "semaseg_dataset", "pytorch"
VERSIONS = {"python": sys.version.split()[0], "pytorch": torch.__version__, "numpy": np.__version__}
CLASSES = {"background": (0, 0, 0), "akahara": (127, 0, 0), "madara": (0, 127, 0)}  # and their colours in a mask
DEFAULTS = {"iterations": 100, "batch": 8, "size": 64}


def read_mask(path):
    """Return (height, width) uint8, the index of each pixel's class: 0 background, 1 akahara, 2 madara."""
    mask = read_picture(path)
    mask[mask == 128] = 127  # the masks of the original photographs have 128
    is_class = np.stack([(mask == colour).all(axis=2) for colour in CLASSES.values()])  # (class, height, width)
    strange = np.unique(mask[~is_class.any(axis=0)], axis=0).tolist()
    if strange:
        known = ", ".join(f"{name} {colour}" for name, colour in CLASSES.items())
        stop(f"{path}: colours of no class, {strange[:3]}: paint {known}, and save as PNG, since JPEG changes colours")
    return is_class.argmax(axis=0).astype(np.uint8)


def paint(classes):
    """Return the colours (height, width, 3) uint8 of class indices (height, width)."""
    return np.array(list(CLASSES.values()), np.uint8)[classes]


def main():
    options = read_options()
    rng = np.random.default_rng(options.seed)
    newts = {part: load_newts(options.data / part, options.size) for part in ("train", "test") if vars(options)[part]}
    metrics = {"exercise": EXERCISE, "framework": FRAMEWORK, "versions": VERSIONS, "device": options.device}
    metrics |= {"seed": options.seed, "iterations": options.iterations, "pictures": {}, "class_share": {}}

    for part, (names, images, targets) in newts.items():
        for name, image, target in zip(names, tqdm(images, desc=part), targets, strict=True):
            save_picture(
                options.out / "pictures" / part / f"{name}.png", {"image": (image + 1) / 2, "target": paint(target)}
            )
        shares = np.bincount(targets.ravel(), minlength=len(CLASSES)) / targets.size
        metrics["pictures"][part] = len(names)
        metrics["class_share"][part] = dict(zip(CLASSES, shares.tolist(), strict=True))
        shown = ", ".join(f"{share:.1%} {name}" for name, share in zip(CLASSES, shares, strict=True))
        print(f"{part}: {len(names)} pictures; of their pixels are {shown}")

    _, images, targets = next(iter(newts.values()))
    start = time.perf_counter()
    bar = tqdm(draw_batches(images, targets, options, rng), desc="batches", total=options.iterations)
    for batch in bar:
        tensors = [to_tensor(array, options.device) for array in batch]
    seconds = time.perf_counter() - start
    for what, tensor in zip(("images", "targets"), tensors, strict=True):
        print(f"a batch of {what}: {type(tensor).__name__} {tuple(tensor.shape)}, {tensor.dtype}, on {options.device}")

    metrics |= {"seconds": seconds, "milliseconds_per_iteration": 1000 * seconds / options.iterations}
    metrics["peak_memory_mb"] = peak_memory_mb()
    write_whole(options.out / "metrics.json", lambda aside: aside.write_text(json.dumps(metrics, indent=2) + "\n"))
    print(f"Written to {options.out}/: metrics.json, pictures")


# As in bin_dataset_pytorch.py
def find_pictures(folder):
    """Return {name: path} of the pictures below folder; the name is the path below it, lower case, without suffix."""
    pictures = {}
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if path.suffix.lower() in (".jpg", ".jpeg", ".png") and "/." not in f"/{below.as_posix()}":  # not if hidden
            name = below.with_suffix("").as_posix().lower()
            if name in pictures:
                stop(f"{path}: has the same name as {pictures[name].name}: give one of them another, and its mask too")
            pictures[name] = path
    if not pictures:
        wrong = "no .jpg, .jpeg or .png picture in it" if folder.is_dir() else "no such folder"
        stop(f"{folder}: {wrong}: --data takes a folder with train/ and test/, in each images/ and seg_images/")
    return dict(sorted(pictures.items()))


def read_picture(path):
    """Return (height, width, 3) uint8, red-green-blue, of a JPEG or PNG file, be it grey, coloured or transparent."""
    data = path.read_bytes()  # cv2.imread cannot open a path with Japanese characters on Windows
    # What a cut-off JPEG lacks OpenCV paints grey and says nothing, so look for the end mark behind the last scan.
    is_jpeg = data.startswith(b"\xff\xd8")
    is_whole = data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda") if is_jpeg else b"IEND" in data[-64:]
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if is_whole else None
    if picture is None:
        stop(f"{path}: not a whole JPEG or PNG picture: copy or save it again, or remove it with its partner")
    return picture


def resize(image, target, size):
    """Return the image and its target resized to size x size pixels."""
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    # INTER_NEAREST would take each new pixel's top left corner, and so shift the mask; _EXACT takes its middle.
    return image, cv2.resize(target, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)


def load_newts(folder, size):
    """Return names, images (pictures, ..., 3) float32 from -1 to 1, targets (pictures, ...) uint8, sized by resize."""
    image_paths, mask_paths = find_pictures(folder / "images"), find_pictures(folder / "seg_images")
    for name in sorted(image_paths.keys() ^ mask_paths.keys()):
        lack = "mask in seg_images/" if name in image_paths else "picture in images/"
        stop(f"{(image_paths | mask_paths)[name]}: has no {lack}: add {name} there, or remove this file")
    images, targets = [], []
    for name, path in image_paths.items():
        image, target = read_picture(path), read_mask(mask_paths[name])
        if image.shape[:2] != target.shape:
            image_size, mask_size = ("{1} x {0}".format(*array.shape) for array in (image, target))
            stop(f"{mask_paths[name]}: is {mask_size} pixels, its picture {image_size}: make both the same size")
        for pictures, picture in zip((images, targets), resize(image, target, size), strict=True):
            pictures.append(picture)
    return list(image_paths), np.float32(images) / 127.5 - 1, np.stack(targets)


def augment(image, target, kind, rng):
    """Return an image and its target changed alike: mirrored at random; by "affine" half of them are turned as well."""
    if kind == "none":
        return image, target
    down, right = rng.choice((1, -1), size=2)  # -1 walks an axis backwards
    changed = [np.ascontiguousarray(array[::down, ::right]) for array in (image, target)]
    if kind == "affine" and rng.random() < 0.5:
        angle, scale, shift = rng.uniform(-180, 180), 1.7 ** rng.uniform(-1, 1), rng.uniform(-0.2, 0.2, size=2)
        for i, interpolation in enumerate((cv2.INTER_LINEAR, cv2.INTER_NEAREST)):  # a class has no in-between
            size = changed[i].shape[:2]
            matrix = cv2.getRotationMatrix2D(((size[1] - 1) / 2, (size[0] - 1) / 2), angle, scale)
            matrix[:, 2] += shift * len(target)
            edge = cv2.BORDER_REFLECT_101  # what comes in from outside is the picture mirrored, and so is its target
            changed[i] = cv2.warpAffine(changed[i], matrix, size, flags=interpolation, borderMode=edge)
    return changed


def draw_batches(images, targets, options, rng):
    """Yield options.iterations batches: images (batch, height, width, 3), targets (batch, height, width, 1)."""
    order = []
    for _ in range(options.iterations):
        while len(order) < options.batch:  # each picture comes once before any comes again
            order.extend(rng.permutation(len(images)))
        chosen, order = order[: options.batch], order[options.batch :]
        batch = [augment(images[i], targets[i], options.augment, rng) for i in chosen]
        yield np.stack([image for image, _ in batch]), np.stack([target for _, target in batch])[..., None]


def pick_device(name):
    """Return "cpu" or "cuda" for the option's auto, cpu or cuda."""
    if name == "cuda" and not torch.cuda.is_available():
        stop("--device cuda: PyTorch sees no GPU: use --device cpu, or install a driver and PyTorch's build for CUDA")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def to_tensor(array, device):
    """Return an array (batch, height, width, channels) as a tensor on the device, channels second."""
    # The transposed view leaves the bytes where they are: that is torch.channels_last, the faster layout on a CPU.
    return torch.from_numpy(array).permute(0, 3, 1, 2).to(device)  # (batch, channels, height, width)


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


def read_options():
    """Return the command line's options; stop at one that makes no sense."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    own_data, own_out = (Path(__file__).parent / "../../Dataset").resolve(), Path("outputs", Path(__file__).stem)
    parser.add_argument("--train", action="store_true", help="only the training pictures")
    parser.add_argument("--test", action="store_true", help="only the test pictures")
    parser.add_argument("--data", type=Path, default=own_data, help="folder with train/ and test/ (%(default)s)")
    parser.add_argument("--out", type=Path, default=own_out, help="folder for all that is written (%(default)s)")
    parser.add_argument("--iterations", type=int, default=DEFAULTS["iterations"], help="batches to draw (%(default)s)")
    parser.add_argument("--batch", type=int, default=DEFAULTS["batch"], help="pictures in a batch (%(default)s)")
    parser.add_argument(
        "--size",
        type=int,
        default=DEFAULTS["size"],
        help="side of the pictures that the network sees, in pixels (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (%(default)s)")
    parser.add_argument("--augment", choices=("affine", "flips", "none"), default="affine", help="(%(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(%(default)s)")
    options = parser.parse_args()
    for option, least, most in (("iterations", 1, 10**9), ("batch", 1, 4096), ("size", 8, 2048), ("seed", 0, 2**63)):
        if not least <= vars(options)[option] <= most:
            stop(f"--{option} {vars(options)[option]}: give a whole number from {least} to {most}")
    if not options.train and not options.test:
        options.train = options.test = True
    options.device = pick_device(options.device)
    return options


if __name__ == "__main__":
    try:
        main()
    except (OSError, KeyboardInterrupt) as error:  # a folder that may not be written, a full disk; Ctrl-C
        stop(f"{error}: mend that, or name another folder with --data or --out" if str(error) else "interrupted")
    except Exception as error:
        if not any(word in repr(error) for word in ("memory", "Memory", "OOM")):  # each framework says it otherwise
            raise
        stop("out of memory: give a smaller --batch or --size")
