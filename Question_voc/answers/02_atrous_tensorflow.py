"""Exercise 2, atrous, in TensorFlow: dilation, output stride, receptive field, ASPP; traps in padding and upsampling.

New here: NUMBERS, CHOICES, STACKS, LADDER, LAYERS, RATES, LARGE, WHITE, to_tensor, to_kernel, to_array, convolve,
max_pool, upsample, differentiate, compute_logits, draw_kernels, dilate, run_stack, find_field, find_features,
count_taps, show_fields, show_strides, draw_strides, show_taps, draw_aspp, show_paddings, show_corners, print_table,
save_panels, main, __main__. All else is as in 01_voc_dataset_tensorflow.py.
"""

import argparse
import itertools
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

# Ctrl-C ends the script in one line, also during the imports that follow, which take seconds.
signal.signal(signal.SIGINT, lambda *_: sys.exit(f"{Path(__file__).name}: interrupted"))

import cv2
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from PIL import Image, ImageOps

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
stderr = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # while imported, TensorFlow logs to stderr whatever that level says
try:
    import tensorflow as tf
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
    "size": (128, range(32, 513, 32), "height and width of the image"),
    "seed": (0, range(2**63), "of all random numbers"),
}
CHOICES = {"device": ("auto", "cpu", "cuda")}  # the first is the default
FOLDER = Path("VOCdevkit", "VOC2012")
DRAWN = Path(__file__, "../../../Dataset/voc").resolve()  # pictures in VOC's layout, which Dataset/draw_voc.py draws
STACKS = ((1, 1, 1), (1, 2, 4), (2, 2, 2))  # the rates of three 3 x 3 convolutions in a row
LADDER = (2, 2, 2, 2, 2, 1)  # the strides of six 3 x 3 convolutions in a row: as in ResNet, 32 in all
LAYERS = ((1, 1), (2, 1), (1, 2), (1, 4))  # stride and rate of the 3 x 3 convolutions after ResNet's stem
RATES = (1, 6, 12, 18, 24, 36)  # of ASPP: 6, 12, 18 at output stride 16; 12, 24, 36 at 8 (arXiv:1706.05587)
LARGE = 513  # the side of that paper's crops: 65 x 65 features at output stride 8
WHITE = {"cmap": "gray", "vmin": 0, "vmax": 1}  # options of imshow that draw False black, True white


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


def normalise(image):
    """Return an image (height, width, 3) uint8 such that ImageNet's have mean 0 and standard deviation 1."""
    return ((image / 255 - MEAN) / STD).astype(FLOAT)


def to_tensor(array, device):
    """Return an array (batch, height, width, channels) as a tensor on the device."""
    return tf.constant(array)  # channels last, as in NumPy; on the GPU if set_up has left TensorFlow one


def to_kernel(array, device):
    """Return an array (out, in, size, size) as a kernel (size, size, in, out)."""
    return tf.constant(array.transpose(2, 3, 1, 0))


def to_array(tensor):
    """Return a tensor as an array."""
    return tensor.numpy()


def convolve(x, kernel, stride=1, rate=1, same=False):
    """Return the convolution of x (batch, side, side, in) with a kernel (size, size, in, out) dilated by rate.

    Explicit padding is the same on all four sides, as in PyTorch; "SAME" adds no more than the last window needs, and
    the odd pixel below and to the right.
    """
    if not same:
        padding = 2 * [kernel.shape[0] // 2 * rate]
        x = tf.pad(x, [[0, 0], padding, padding, [0, 0]])
    # Not tf.nn.conv2d, which does the same but has no gradient for dilated kernels on a CPU, unless oneDNN helps out.
    return tf.nn.convolution(x, kernel, stride, "SAME" if same else "VALID", dilations=rate)


def max_pool(x, same):
    """Return the largest of each 3 x 3 pixels, with a stride of 2: half the height and width."""
    return tf.nn.max_pool2d(x, 3, 2, "SAME" if same else [[0, 0], [1, 1], [1, 1], [0, 0]])


def upsample(x, side, align_corners=None):
    """Return x (batch, height, width, channels) at side x side, bilinear; None leaves align_corners to TensorFlow."""
    if align_corners:  # TensorFlow 2 has no name for it
        return tf.compat.v1.image.resize(x, (side, side), align_corners=True)
    return tf.image.resize(x, (side, side))


def differentiate(function, tensor):
    """Return the gradient of the sum of function(tensor) with respect to tensor, in its shape."""
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        result = function(tensor)
    return tape.gradient(result, tensor)  # TensorFlow takes the sum by itself


def compute_logits(image, kernels, same):
    """Return logits (1, side / 8, side / 8, 21) of an image (1, side, side, 3): a network with ResNet's strides."""
    x = tf.nn.relu(convolve(image, kernels[0], 2, same=same))  # (1, side / 2, side / 2, 32)
    x = max_pool(x, same)  # (1, side / 4, side / 4, 32)
    for kernel, (stride, rate) in zip(kernels[1:-1], LAYERS, strict=True):
        x = tf.nn.relu(convolve(x, kernel, stride, rate, same))  # from the second on (1, side / 8, side / 8, 32)
    return convolve(x, kernels[-1])


def draw_kernels(rng, shapes, device):
    """Draw kernels (out, in, size, size), He normal by fan-in (arXiv:1502.01852, section 2.2), in this order."""
    kernels = [rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:])) for shape in shapes]
    return [to_kernel(kernel.astype(FLOAT), device) for kernel in kernels]


def dilate(output_stride):
    """Return strides and rates of LADDER's convolutions, with dilation in place of the strides beyond output_stride.

    Without a stride the features lie closer together, so the taps of all later kernels move apart as much; the layer
    that had the stride keeps its rate (arXiv:1606.00915, section 3.1).
    """
    strides, rates, total, rate = [], [], 1, 1
    for stride in LADDER:
        rates.append(rate)
        strides.append(stride if total < output_stride else 1)
        total, rate = total * strides[-1], rate * stride // strides[-1]
    return strides, rates


def run_stack(x, kernels, strides, rates, same=False):
    """Return x after convolutions in a row; no ReLU is between them, so that gradients do not depend on x."""
    for kernel, stride, rate in zip(kernels, strides, rates, strict=True):
        x = convolve(x, kernel, stride, rate, same)
    return x


def find_field(kernels, strides, rates, shape, device):
    """Return the receptive field of the features in the middle of an image (side, side, channels), and its extent.

    It is how much they depend on each pixel, (side, side): the size of their gradient, summed over the channels.
    """
    length = math.ceil(shape[0] / math.prod(strides))
    middle = np.zeros((1, length, length, 1), FLOAT)
    middle[0, length // 2, length // 2] = 1  # differentiate takes the sum over all places: this leaves one of them
    middle, image = to_tensor(middle, device), to_tensor(np.zeros((1, *shape), FLOAT), device)
    gradient = differentiate(lambda x: middle * run_stack(x, kernels, strides, rates), image)
    field = np.abs(to_array(gradient)[0]).sum(axis=2)
    return field, int(np.ptp(np.flatnonzero(field.any(axis=0)))) + 1


def find_features(sparse, dense, step):
    """Return the first place, 0 to step - 1, from which on every step-th of the dense features is one of the sparse.

    Returned, too, are their largest difference there, and that at the next best place. Features are (side, side,
    channels).
    """
    parts = [dense[first::step, first::step] for first in range(step)]
    differences = [float(np.abs(sparse[: len(part), : len(part)] - part).max()) for part in parts]
    return int(np.argmin(differences)), *sorted(differences)[:2]


def count_taps(length, rate, device):
    """Return how many taps lie on features at each place, (length, length), and at how many places each tap does, (9,).

    Features and weights are all 1, so the convolution counts the former, and the gradient of its sum the latter. A tap
    whose gradient is 0 here is multiplied by padding alone: its gradient is 0 for any features.
    """
    features = to_tensor(np.ones((1, length, length, 1), FLOAT), device)
    kernel = to_kernel(np.ones((1, 1, 3, 3), FLOAT), device)
    gradient = differentiate(lambda weights: convolve(features, weights, rate=rate), kernel)
    return to_array(convolve(features, kernel, rate=rate))[0, ..., 0], to_array(gradient).ravel()


def show_fields(folder, device):
    """Show what three 3 x 3 convolutions in a row see, at the rates of STACKS; return the rows of the table."""
    rows, panels = [], []
    # All weights are 1, so the gradient is the number of ways from a pixel to the result, through one tap of each.
    kernels = 3 * [to_kernel(np.ones((1, 1, 3, 3), FLOAT), device)]
    for rates in STACKS:
        field, extent = find_field(kernels, (1, 1, 1), rates, (17, 17, 1), device)
        row = {"rates": rates, "extent": extent, "formula": 1 + sum(2 * rate for rate in rates)}
        rows.append(row | {"pixels": int(np.count_nonzero(field)), "largest_gradient": float(field.max())})
        title = f"rates {rates}:\n{rows[-1]['pixels']} pixels of {extent} x {extent}"
        panels.append((title, np.where(field, field, np.nan), {"norm": LogNorm(1, 49)}))
    print_table("Receptive field of three 3 x 3 convolutions: extent, 1 + the sum of 2 x rate, pixels in it", rows)
    title = "Pixels that one feature depends on, after three 3 x 3 convolutions"
    save_panels(folder / "receptive_field.png", title, panels, 3, "ways from the pixel to the feature")
    return rows


def show_strides(folder, images, kernels, device):
    """Show LADDER at several output strides, and where two of them have the same features; return both tables."""
    rows, matches, features, size = [], [], {}, len(images[0])
    for output_stride in (32, 16, 8, 1):
        strides, rates = dilate(output_stride)
        for image, same in itertools.product(images, (False, True)):
            x = run_stack(to_tensor(normalise(image)[None], device), kernels, strides, rates, same)
            features[output_stride, len(image), same] = to_array(x)[0]
        row = {"output_stride": output_stride, "strides": strides, "rates": rates}
        row |= {"features": len(features[output_stride, size, False])}
        row |= {"weights": sum(to_array(kernel).size for kernel in kernels)}
        rows.append(row | {"receptive_field": find_field(kernels, strides, rates, (129, 129, 3), device)[1]})
    for image, same, (one, other) in itertools.product(images, (False, True), ((32, 8), (8, 1))):
        row = {"size": len(image), "padding": "SAME" if same else "explicit", "output_stride": one, "in": other}
        match = find_features(*(features[stride, len(image), same] for stride in (one, other)), one // other)
        matches.append(row | dict(zip(("first", "difference", "elsewhere"), match, strict=True)))
    print_table(f"Dilation in place of strides, at {size} x {size}", rows)
    print_table("Features of one output stride among those of another: the first place, how far they differ", matches)
    draw_strides(folder / "output_stride.png", images[0], [features[stride, size, False] for stride in (32, 16, 8)])
    return rows, matches


def draw_strides(path, image, features):
    """Draw an image and the first channel of its features at output stride 32, 16 and 8."""
    lowest, highest = features[-1][..., 0].min(), features[-1][..., 0].max()
    panels = [(f"image: {len(image)} x {len(image)}", image, {})]
    for step, array in zip((1, 2, 4), features, strict=True):
        opaque = np.full(array.shape[:2], 0.25)
        opaque[::step, ::step] = 1
        title = f"output stride {32 // step}: {len(array)} x {len(array)}"
        panels.append((title, array[..., 0], {"alpha": opaque, "vmin": lowest, "vmax": highest}))
    save_panels(path, "One channel of the features; in full colour, those that output stride 32 has too", panels, 4)


def show_taps(folder, images, device):
    """Show which taps of ASPP lie on features, not on padding, at output stride 8; return the rows of the table."""
    rows, panels = [], []
    for image, rate in itertools.product(images, RATES):
        length = math.ceil(len(image) / 8)
        taps, places = count_taps(length, rate, device)
        row = {"size": len(image), "features": length, "rate": rate, "dead": int(np.count_nonzero(places == 0))}
        row |= {"all_nine": float((taps == 9).mean()), "only_one": float((taps == 1).mean())}
        rows.append(row | {name: int(taps[i, i]) for name, i in (("middle", length // 2), ("corner", length // 8))})
        panels.append((f"{length} x {length}, rate {rate}: {row['dead']} dead", taps, {"vmin": 1, "vmax": 9}))
    print_table("Taps of ASPP: dead; share of places with all nine on features, with one; how many at two places", rows)
    title = "How many of the nine taps lie on features, not on padding, at each place; a dead tap does so nowhere"
    save_panels(folder / "taps.png", title, panels, len(RATES), "taps on features")
    draw_aspp(folder / "aspp.png", images, rows)
    return rows


def draw_aspp(path, images, rows):
    """Draw the nine taps of each rate over images, in the middle and near a corner; rows are those of show_taps."""
    figure = Figure((13, 14), layout="constrained")
    figure.suptitle("Taps of 3 x 3 kernels at output stride 8: o on a feature, x on padding", fontsize=16)
    places = itertools.product(images, (("middle", 2), ("corner", 8)))
    for axes, (image, (name, part)) in zip(figure.subplots(2, 2).flat, places, strict=True):
        size, length = len(image), math.ceil(len(image) / 8)
        axes.imshow(image)
        for colour, row in enumerate(row for row in rows if row["size"] == size):
            axes.plot([], [], "s", color=f"C{colour}", label=f"rate {row['rate']}: {row[name]} of 9")
            for i, j in itertools.product((-1, 0, 1), repeat=2):
                x, y = (length // part + row["rate"] * step for step in (i, j))
                marker = "o" if 0 <= min(x, y) and max(x, y) < length else "x"
                axes.plot(8 * x, 8 * y, marker, color=f"C{colour}", markersize=8, markeredgewidth=2)
        reach = 8 * (length // 8 - RATES[-1]) - 24, 8 * (length // 2 + RATES[-1]) + 24
        axes.set(xlim=reach, ylim=reach[::-1], facecolor="0.92")
        axes.set_title(f"{size} x {size} pixels, {length} x {length} features: {name}")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.05), ncols=3, title="taps on features")
    write_whole(path, lambda part: figure.savefig(part, dpi=80))


def show_paddings(folder, images, kernels, device):
    """Show how the logits of a network differ between "SAME" and explicit padding; return the rows of the table."""
    rows, panels = [], []
    for image in images:
        x, size = to_tensor(normalise(image)[None], device), len(image)
        # align_corners is given, since by default it is not the same in all frameworks.
        logits = [to_array(upsample(compute_logits(x, kernels, same), size, False))[0] for same in (False, True)]
        explicit, same = (array.argmax(axis=2) for array in logits)
        row = {"size": size, "largest_logit": float(np.abs(logits[0]).max())}
        row |= {"difference": float(np.abs(logits[0] - logits[1]).max())}
        rows.append(row | {"equal_arg_max": float((explicit == same).mean())})
        panels.append((f"image: {size} x {size}", image, {}))
        panels += [("arg max, explicit padding", COLOURS[explicit], {}), ("arg max, SAME", COLOURS[same], {})]
        panels.append((f"equal at {rows[-1]['equal_arg_max']:.1%} (white)", explicit == same, WHITE))
    print_table("SAME against explicit padding: the largest difference of a logit, the share of equal arg maxes", rows)
    title = "The same network, its weights random, with explicit padding and with SAME"
    save_panels(folder / "padding.png", title, panels, 4)
    return rows


def show_corners(folder, image, kernels, device):
    """Show what align_corners changes when features are upsampled to the size of the image; return the numbers."""
    size, length = len(image), len(image) // 8
    logits = compute_logits(to_tensor(normalise(image)[None], device), kernels, False)
    spots = np.zeros((1, length, length, length), FLOAT)
    spots[0, range(length), range(length), range(length)] = 1  # one in each channel, along the diagonal
    large, places = {}, {}
    for how in (False, True, None):
        large[how] = [to_array(upsample(x, size, how))[0] for x in (logits, to_tensor(spots, device))]
        columns = large[how][1].sum(axis=0)  # (size, spots)
        places[how] = np.arange(size) @ columns / columns.sum(axis=0)  # centre of gravity, in pixels
    apart = {how: float(np.abs(large[how][0] - large[None][0]).max()) for how in (False, True)}
    equal = large[False][0].argmax(axis=2) == large[True][0].argmax(axis=2)
    row = {"default": min(apart, key=apart.get), "difference": max(apart.values()), "equal_arg_max": equal.mean()}
    moves = places[True] - places[False]  # at the border itself a spot is cut off: take the next ones
    row |= {"first_moves": moves[1], "last_moves": moves[-2]}
    title = f"align_corners, {length} x {length} to {size} x {size}: the default; how far it moves a feature, in pixels"
    print_table(title, [row])
    shown = length // 4 + 1  # features, from the corner on
    panels = [(f"a feature in the corner of {length} x {length}", spots[0, :shown, :shown, 1], {})]
    for how in (False, True):
        title = f"align_corners={how}: at pixel {places[how][1]:.1f}"
        panels.append((title, large[how][1][: 8 * shown, : 8 * shown, 1], {}))
    panels.append((f"arg max equal at {equal.mean():.1%} (white)", equal, WHITE))
    save_panels(folder / "align_corners.png", "A feature upsampled, and the arg max of all logits", panels, 4)
    return row


def print_table(title, rows):
    """Print rows, dictionaries with the same keys, under their keys."""
    table = [list(rows[0])]
    table += [[f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print(f"\n{title}")
    for line in table:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def save_panels(path, title, panels, columns, label=None):
    """Save panels, each a title, an array, and options of imshow, so many in a line; label says what colours mean."""
    lines = math.ceil(len(panels) / columns)
    figure = Figure((3.4 * columns, 3.8 * lines), layout="constrained")
    figure.suptitle(title, fontsize=14)
    axes = figure.subplots(lines, columns, squeeze=False)
    for place, (name, array, options) in zip(axes.flat, panels, strict=True):
        drawn = place.imshow(array, interpolation="nearest", **options)
        place.set(title=name, xticks=(), yticks=())
    if label:
        figure.colorbar(drawn, ax=axes, label=label, format="%d")
    write_whole(path, lambda part: figure.savefig(part, dpi=80))


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
    """Choose the device: TensorFlow takes the GPU for whatever can run there, unless it is hidden."""
    tf.get_logger().setLevel("ERROR")  # or weights of another network would be told in many lines
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    if options.device == "cuda" and not has_gpu:
        stop("--device cuda: TensorFlow sees no GPU: use --device cpu, or install a driver and tensorflow[and-cuda]")
    if options.device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    if options.device == "auto":
        options.device = "cuda" if has_gpu else "cpu"


def main():
    options = read_options()
    rng, device, folder = np.random.default_rng(options.seed), options.device, options.out / "pictures"
    voc = find_voc(options.data)
    image, mask = read_pair(voc, read_names(voc, "val")[0])
    image, odd, large = (centre_crop(image, mask, size)[0] for size in (options.size, options.size + 1, LARGE))
    ladder = draw_kernels(rng, [(8, 3, 3, 3), *(len(LADDER) - 1) * [(8, 8, 3, 3)]], device)
    shapes = [(32, 3, 7, 7), *len(LAYERS) * [(32, 32, 3, 3)], (len(CLASSES), 32, 1, 1)]
    network = draw_kernels(rng, shapes, device)

    metrics = {"answer": Path(__file__).stem, "receptive_field": show_fields(folder, device)}
    metrics["output_stride"], metrics["shared_features"] = show_strides(folder, (image, odd), ladder, device)
    metrics["taps"] = show_taps(folder, (image, large), device)
    metrics["padding"] = show_paddings(folder, (image, odd), network, device)
    metrics["align_corners"] = show_corners(folder, image, network, device)
    write_whole(options.out / "metrics.json", lambda part: part.write_text(json.dumps(metrics, indent=2) + "\n"))
    print(f"\nPictures of what each table is about are in {options.out}/pictures/")


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
