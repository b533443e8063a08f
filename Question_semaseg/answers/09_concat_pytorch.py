"""Exercise 9, concat, in PyTorch: a skip connection: concatenation with the features before pooling.

New here: Network. All else is as in 08_transposeconv_pytorch.py.
"""

import argparse
import io
import json
import math
import os
import signal
import sys
import tempfile
import unicodedata
from pathlib import Path

# Ctrl-C ends the script in one line, also during the imports that follow, which take seconds.
signal.signal(signal.SIGINT, lambda *_: sys.exit(f"{Path(__file__).name}: interrupted"))

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn
from torch.nn import functional
from tqdm import tqdm

FLOAT = "float32"  # with "float64" the losses of all four frameworks coincide: see the lesson
COLOURS = {"background": (0, 0, 0), "akahara": (127, 0, 0), "madara": (0, 127, 0)}  # of the pixels in a mask
CLASSES = tuple(COLOURS)
NUMBERS = {  # the default of an option, what it may be, and its meaning
    "iterations": (400, range(1, 10**6), "training steps"),
    "batch": (8, range(1, 4097), "images in a batch"),
    "size": (64, range(8, 2049, 8), "height and width of the images"),  # halved by each pooling
    "poolings": (1, range(1, 4), "poolings, and as many upsamplings"),
    "seed": (0, range(2**63), "of all random numbers"),
}
LEARNING_RATE = 0.2  # at its peak, by default
CHOICES = {"augment": ("affine", "flips", "none"), "device": ("auto", "cpu", "cuda")}  # the first is the default


def find_images(folder):
    """Return {name: path} of the images below folder, and {path: name} of other files.

    The name is the path below the folder, in lower case, without suffix.
    """
    paths, others = {}, {}
    wrong = "--data takes a folder with train/ and test/ that you may read"
    walk = os.walk(folder, onerror=lambda error: stop(f"{error}: {wrong}"), followlinks=True)
    for path in sorted(Path(parent, file) for parent, _, files in walk for file in files):
        name = path.relative_to(folder).with_suffix("").as_posix().lower()
        name = unicodedata.normalize("NFC", name)  # a Mac may write an accented letter as two characters
        if path.suffix.lower() == ".json" or "/." in f"/{name}":  # of labelme, or hidden
            continue
        if path.suffix.lower() not in (".jpg", ".jpeg", ".png"):
            others[path] = name
        elif paths.setdefault(name, path) != path:
            stop(f"{path}: has the same name as {paths[name].name}: rename one of them, and its mask too")
    if len({path.resolve() for path in paths.values()}) < len(paths):
        stop(f"{folder}: links in it lead to the same image twice: remove one")
    if not paths:
        found = f", but {next(iter(others))}" if others else ""
        stop(f"{folder}: no .jpg or .png file here{found}: {wrong}")
    return paths, others


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
        stop(f"{path}: {error}: save it again as an 8-bit PNG of moderate size, or remove it, and its mask or image")


def read_image(path):
    """Return an image, (height, width, 3) uint8: red, green, blue."""
    image = open_image(path)
    if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
        stop(f"{path}: has transparent pixels, whose colours nobody has seen: save it without transparency")
    return np.array(image.convert("RGB"))


def read_mask(path):
    """Return the class index of each pixel, (height, width) uint8: 0 background, 1 akahara, 2 madara."""
    mask = np.array(open_image(path).convert("RGBA"))
    mask[mask == 128] = 127  # the masks of the original photographs have 128
    is_class = np.stack([(mask == (*colour, 255)).all(axis=2) for colour in COLOURS.values()])  # opaque, too
    unknown = np.unique(mask[~is_class.any(axis=0)], axis=0).tolist()
    if unknown:
        known = ", ".join(f"{name} {colour}" for name, colour in COLOURS.items())
        stop(f"{path}: unknown colours (R, G, B, alpha) {unknown[:3]}: paint {known}, opaque, and save as PNG")
    return is_class.argmax(axis=0).astype(np.uint8)


def load_newts(folder, size):
    """Return names, images (N, size, size, 3) from -1 to 1, and targets (N, size, size) uint8."""
    (image_paths, others), (mask_paths, more) = find_images(folder / "images"), find_images(folder / "seg_images")
    others |= more
    for name in sorted(image_paths.keys() ^ mask_paths.keys()):
        missing = "mask in seg_images/" if name in image_paths else "image in images/"
        missing += "".join(f", but {path.name}" for path, other in others.items() if other == name)
        stop(f"{(image_paths | mask_paths)[name]}: has no {missing}: add {name}.png there, or remove this file")
    images, targets = [], []
    for name, path in image_paths.items():
        image, target = read_image(path), read_mask(mask_paths[name])
        if image.shape[:2] != target.shape:
            sizes = f"is {target.shape} in size, its image, turned upright as its EXIF says, {image.shape[:2]}"
            stop(f"{mask_paths[name]}: {sizes}: make them the same")
        images.append(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA))
        # INTER_NEAREST takes the top left corner of each new pixel, which shifts the mask; _EXACT takes its centre.
        targets.append(cv2.resize(target, (size, size), interpolation=cv2.INTER_NEAREST_EXACT))
    if others:
        first, *rest = others
        print(f"passed over, being neither .jpg nor .png: {first}" + (f" and {len(rest)} more" if rest else ""))
    return list(image_paths), np.array(images, FLOAT) / 127.5 - 1, np.stack(targets)


def augment(image, target, kind, rng):
    """Flip image and target alike at random; if kind is "affine", also rotate, scale and shift a quarter of them."""
    if kind == "none":
        return image, target
    down, right = rng.choice((1, -1), size=2)  # a step of -1 reverses an axis
    changed = [np.ascontiguousarray(array[::down, ::right]) for array in (image, target)]
    if kind == "affine" and rng.random() < 0.25:
        angle, scale, shift = rng.uniform(-180, 180), 1.35 ** rng.uniform(-1, 1), rng.uniform(-0.1, 0.1, size=2)
        for i, interpolation in enumerate((cv2.INTER_LINEAR, cv2.INTER_NEAREST)):  # class indices must not be blended
            size, edge = len(changed[i]), cv2.BORDER_REFLECT_101  # what comes in from outside is mirrored
            matrix = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), angle, scale)
            matrix[:, 2] += shift * len(target)
            changed[i] = cv2.warpAffine(changed[i], matrix, (size, size), flags=interpolation, borderMode=edge)
    return changed


def draw_batches(images, targets, options, rng):
    """Yield options.iterations batches: images (batch, height, width, 3), targets (batch, height, width, 1)."""
    order = []
    for _ in range(options.iterations):
        while len(order) < options.batch:  # sampled without replacement, reshuffled each epoch
            order.extend(rng.permutation(len(images)))
        chosen, order = order[: options.batch], order[options.batch :]
        batch = [augment(images[i], targets[i], options.augment, rng) for i in chosen]
        yield np.stack([image for image, _ in batch]), np.stack([target for _, target in batch])[..., None]


def to_tensor(array, device):
    """Return an array (batch, height, width, channels) as a tensor (batch, channels, height, width) on the device."""
    # The permuted view leaves the bytes where they are: that is torch.channels_last, the faster layout on a CPU.
    return torch.from_numpy(array).permute(0, 3, 1, 2).to(device)


class Network(nn.Module):
    """As transposeconv, with a skip connection around each pooling: images to logits (batch, 3, height, width)."""

    def __init__(self, poolings):
        super().__init__()
        self.encoder = nn.ModuleList([nn.Sequential(block(3), block(32))])
        self.decoder = nn.ModuleList()
        for _ in range(poolings):
            self.encoder.append(nn.Sequential(block(32), block(32)))
        for _ in range(poolings):
            self.decoder.append(nn.Sequential(nn.ConvTranspose2d(32, 32, 2, stride=2), nn.ReLU(), nn.BatchNorm2d(32)))
            join = nn.Sequential(nn.Conv2d(64, 32, 1), nn.ReLU(), nn.BatchNorm2d(32))
            self.decoder.append(nn.Sequential(join, block(32), block(32)))
        self.classifier = nn.Conv2d(32, len(CLASSES), 1)

    def forward(self, x):
        skips = []
        for encode in self.encoder[:-1]:
            skips.append(encode(x))  # (batch, 32, height, width)
            x = functional.max_pool2d(skips[-1], 2)  # half the height and width
        x = self.encoder[-1](x)
        for upsample, decode in zip(self.decoder[::2], self.decoder[1::2], strict=True):
            x = torch.cat([skips.pop(), upsample(x)], dim=1)  # (batch, 64, ...): twice the height and width
            x = decode(x)
        return self.classifier(x)


def block(in_channels):
    """Return conv(3, 32) + ReLU + BatchNorm; it keeps the size."""
    return nn.Sequential(nn.Conv2d(in_channels, 32, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(32))


def build_network(rng, options):
    """Return a Network on the device. NumPy draws its weights, so that all four frameworks start from the same.

    He normal by fan-in (arXiv:1502.01852, section 2.2), in the order of the layers; biases are 0.
    """
    network = Network(options.poolings)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            # PyTorch stores the kernel of a transposed convolution as (in, out, ...): draw both as (out, in, ...).
            weight = layer.weight.data.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight.data
            weight.copy_(torch.from_numpy(rng.standard_normal(weight.shape) * np.sqrt(2 / weight[0].numel())))
            nn.init.zeros_(layer.bias)
    return network.to(options.device, memory_format=torch.channels_last)


def compute_loss(logits, targets):
    """Return softmax cross entropy, the mean over all pixels; logits (batch, 3, height, width)."""
    logits = logits.permute(0, 2, 3, 1).reshape(-1, len(CLASSES))  # (batch x height x width, class)
    return functional.cross_entropy(logits, targets.reshape(-1).long())  # expects logits; includes the softmax


def learning_rate(iteration, options):
    """Return the learning rate of an iteration, counted from 0: linear warm-up over a tenth, then cosine decay."""
    warm_up = math.ceil(options.iterations / 10)
    if iteration < warm_up:
        return options.lr * (iteration + 1) / warm_up
    return options.lr * (1 + math.cos(math.pi * (iteration - warm_up) / (options.iterations - warm_up))) / 2


def train(network, images, targets, options, rng):
    """Take options.iterations steps of stochastic gradient descent with momentum; return the loss at each."""
    optimizer = torch.optim.SGD(network.parameters(), lr=options.lr, momentum=0.9)
    network.train()
    losses = []
    bar = tqdm(draw_batches(images, targets, options, rng), "train", options.iterations)
    for iteration, batch in enumerate(bar):
        rate, last_rate = learning_rate(iteration, options), learning_rate(max(iteration - 1, 0), options)
        # PyTorch multiplies the velocity by the current learning rate, the others each gradient by its own step's.
        optimizer.param_groups[0].update(lr=rate, momentum=0.9 * last_rate / rate)  # makes PyTorch match the others
        batch_images, batch_targets = (to_tensor(array, options.device) for array in batch)
        loss = compute_loss(network(batch_images), batch_targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        bar.set_postfix_str(f"loss {losses[-1]:.4f}", refresh=False)
        if not math.isfinite(losses[-1]):
            bar.close()
            stop(f"--lr {options.lr}: the loss is {losses[-1]} at iteration {iteration + 1}: try a smaller one")
    return losses


def save_weights(network, out):
    """Write the weights and the running averages of batch norm to out/weights.pt."""
    weights = io.BytesIO()  # in memory first, since torch.save reports a full disk by an error that names no file
    torch.save(network.state_dict(), weights)
    write_whole(out / "weights.pt", lambda part: part.write_bytes(weights.getvalue()))


def load_weights(network, out):
    """Read into the network what save_weights wrote to out."""
    path = out / "weights.pt"
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception:  # a damaged file raises whatever its first wrong byte leads to
        wrong = "not the weights of this network" if path.exists() else "no such file"
        stop(f"{path}: {wrong}: train first, without --test, or name the folder of the weights with --out")


def read_metrics(path):
    """Return what training wrote to metrics.json, or the same without content where there is no such file."""
    try:
        metrics = json.loads(path.read_text()) if path.exists() else {"options": {}}
        dict(metrics["options"])
    except (ValueError, KeyError, TypeError):
        stop(f"{path}: not what training writes: train first, without --test, or name its folder with --out")
    return metrics


def predict(network, images, options):
    """Return the logits, (N, height, width, class), of images (N, height, width, 3)."""
    network.eval()  # batch norm by its running averages: a prediction must not depend on the rest of its batch
    logits = []
    with torch.inference_mode():
        for start in tqdm(range(0, len(images), options.batch), "predict", leave=False):
            batch_logits = network(to_tensor(images[start : start + options.batch], options.device))
            logits.append(batch_logits.permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(logits)


def predict_augmented(network, images, options):
    """Return the logits as predict does, their mean over the eight symmetries of a square: test-time augmentation."""
    ways = [(turns, step) for turns in range(4) for step in (1, -1)]  # quarter turns; a step of -1 reverses an axis
    changed = np.concatenate([np.rot90(images[:, ::step], turns, axes=(1, 2)) for turns, step in ways])
    logits = np.split(predict(network, changed, options), len(ways))
    back = [np.rot90(part, -turns, axes=(1, 2))[:, ::step] for part, (turns, step) in zip(logits, ways, strict=True)]
    return np.mean(back, axis=0)


def measure(predictions, targets):
    """Return {"miou": mean, "iou": {class: intersection over union, None if in neither}, "pixel_accuracy": share}."""
    pairs = np.bincount((len(CLASSES) * targets.astype(int) + predictions).ravel(), minlength=len(CLASSES) ** 2)
    confusion = pairs.reshape(len(CLASSES), len(CLASSES))  # a row for each true class, a column for each predicted
    intersection = confusion.diagonal()
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - intersection
    iou = {name: float(i / u) if u else None for name, i, u in zip(CLASSES, intersection, union, strict=True)}
    miou = float(np.mean([value for value in iou.values() if value is not None]))
    return {"miou": miou, "iou": iou, "pixel_accuracy": float(intersection.sum() / confusion.sum())}


def test(network, names, images, targets, options):
    """Save each prediction, and a picture of input, truth and prediction; return the measures."""
    predictions = predict_augmented(network, images, options).argmax(axis=3)  # (N, height, width)
    colours = np.uint8(list(COLOURS.values()))
    for name, image, target, prediction in zip(names, images, targets, predictions, strict=True):
        panels = np.hstack([np.uint8(np.rint(127.5 * (image + 1))), 2 * colours[target], 2 * colours[prediction]])
        save_image(options.out / "pictures" / f"{name}.png", panels.repeat(4, axis=0).repeat(4, axis=1))
        save_image(options.out / "predictions" / f"{name}.png", colours[prediction])
    measures = measure(predictions, targets)
    print(f"mIoU {measures['miou']:.3f}, pixel accuracy {measures['pixel_accuracy']:.3f}")
    return measures


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
    own_data, own_out = Path(__file__, "../../../Dataset").resolve(), Path("outputs", Path(__file__).stem)
    parser.add_argument("--test", action="store_true", help="only test, with the weights that training saved")
    parser.add_argument("--data", type=Path, default=own_data, help="folder with train/ and test/ (%(default)s)")
    parser.add_argument("--out", type=Path, default=own_out, help="folder for all that is written (%(default)s)")
    parser.add_argument("--lr", type=float, default=LEARNING_RATE, help="learning rate at its peak (%(default)s)")
    for name, (default, _, meaning) in NUMBERS.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (%(default)s)")
    for name, choices in CHOICES.items():
        parser.add_argument(f"--{name}", choices=choices, default=choices[0], help="(%(default)s)")
    options = parser.parse_args()
    for name, (_, allowed, _) in NUMBERS.items():
        if vars(options)[name] not in allowed:
            stop(f"--{name} {vars(options)[name]}: give {allowed.start} to {allowed[-1]}, in steps of {allowed.step}")
    if not options.test and options.batch * (options.size // NUMBERS["size"][1].step) ** 2 == 1:
        stop("--batch 1: at this --size the deepest batch norm would see one value of each channel: give a larger one")
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
    rng = np.random.default_rng(options.seed)
    # All images are read before training: what is wrong with a test image should show now, not after minutes.
    parts = ("test",) if options.test else ("train", "test")
    newts = {part: load_newts(options.data / part, options.size) for part in parts}
    network = build_network(rng, options)
    path = options.out / "metrics.json"
    if options.test:
        metrics = read_metrics(path)
        for name in sorted({"poolings", "size", "upsampling"} & metrics["options"].keys() & vars(options).keys()):
            given, trained = str(vars(options)[name]), metrics["options"][name]
            if given != trained:
                stop(f"--{name} {given}: the weights in {options.out} were trained with {trained}: give the same")
        load_weights(network, options.out)
    else:
        options.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=options.out).close()  # fails now, not after training, where nothing may be written
        losses = train(network, *newts["train"][1:], options, rng)
        save_weights(network, options.out)
        rows = [f"{iteration},{loss}\n" for iteration, loss in enumerate(losses, start=1)]
        write_whole(options.out / "loss.csv", lambda part: part.write_text("".join(["iteration,loss\n", *rows])))
        metrics = {"answer": Path(__file__).stem, "final_loss": losses[-1]}
        metrics["options"] = {name: str(value) for name, value in vars(options).items()}
        write_whole(path, lambda part: part.write_text(json.dumps(metrics, indent=2) + "\n"))
    before = path.exists() and path.read_bytes()
    metrics |= test(network, *newts["test"], options)
    if before != (path.exists() and path.read_bytes()):
        stop(f"{path}: another run has written there meanwhile: run this one again, with an --out of its own")
    write_whole(path, lambda part: part.write_text(json.dumps(metrics, indent=2) + "\n"))
    pictures = list((options.out / "pictures").rglob("[!.]*.png"))
    old = len(pictures) - len(newts["test"][0]) if pictures else 0
    print(f"All is in {options.out}/" + (f"; {old} images in pictures/ are of earlier runs" if old else ""))


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
