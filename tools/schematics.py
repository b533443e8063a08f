"""Draw the lesson's explanatory figures: Question_semaseg/assets/<name>.svg, and <name>.ja.svg in Japanese.

    python tools/schematics.py [names]

Every number in a figure is computed here: shapes come from running the answers' own networks, upsampled and unpooled
values from NumPy. sigmoid, loss_curves and augmentation show what runs of the answers gave and read it from
outputs/lesson/, which `make lesson-figures` fills. A second run writes the same bytes.

All positions and letters are measured in pixels of a page that shows the figure 800 wide, downwards from the top left.
"""

import argparse
import csv
import functools
import importlib.util
import itertools
import logging
import math
import sys
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import cv2
import exercises
import matplotlib.style
import numpy as np
import torch
from matplotlib import font_manager
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.patheffects import Normal, Stroke
from matplotlib.text import Text
from torch.overrides import TorchFunctionMode

REPOSITORY = Path(__file__).resolve().parent.parent
ASSETS = REPOSITORY / "Question_semaseg/assets"
RUNS = REPOSITORY / "outputs/lesson"
NEWT = "madara/madara_0010"  # the test picture that most figures show
WIDTH = 800
STYLE = [
    "default",  # whatever the user's own matplotlibrc says
    {
        "svg.fonttype": "path",  # letters as curves: the same on every machine
        "svg.hashsalt": "imori",
        "font.family": "DejaVu Sans",  # comes with Matplotlib
        "mathtext.fontset": "dejavusans",
        "figure.facecolor": "#f8f9fa",  # opaque and light, so that a dark page shows the ink too
        "path.simplify": False,
    },
]
INK, SOFT, RULE, WHITE = "#1f2933", "#56616c", "#c3cbd3", "#ffffff"
BLUE, PALE_BLUE, ORANGE, PALE_ORANGE = "#1f6fb2", "#cde2f4", "#c8560b", "#fbdcc4"
GREEN, PALE_GREEN, RED, PALE_RED = "#2c7a45", "#cfe8d6", "#b3261e", "#f7d3d0"
PURPLE, PALE_PURPLE, GREY = "#7b3fb0", "#e8dcf3", "#e4e8ec"
YELLOW, DARK_YELLOW = "#ffd54a", "#b8860b"
OPTIONS = Namespace(device="cpu", upsampling="nearest", poolings=1, batch=1)  # of the answers whose networks are shown
CLASS_COLOURS = {"background": GREY, "akahara": PALE_RED, "madara": PALE_GREEN}
STEP_COLOURS = {"conv2d": INK, "max_pool2d": RED, "conv_transpose2d": GREEN, "cat": BLUE}  # of arrows
FRAMEWORKS = {  # the curves should coincide, so each is narrower than the one below it and dashed in its own way
    "pytorch": ("PyTorch", 6, "-", "#74bdec"),
    "tensorflow": ("TensorFlow", 3.8, (0, (6, 1)), "#0b5fb3"),
    "keras": ("Keras", 2.2, (0, (4, 2)), "#f0701e"),
    "chainer": ("Chainer", 1.1, (0, (1.5, 3)), "#15181c"),
}
JAPANESE = {
    "background": "背景",
    "akahara": "アカハラ",
    "madara": "マダラ",
    "newt": "イモリ",
    "input": "入力",
    "image": "画像",
    "mask": "マスク",
    "truth": "正解",
    "classification": "分類",
    "1 answer for the image": "画像一枚に 1 個の答え",
    "segmentation": "セグメンテーション",
    "{} × {} = {} answers, one for each pixel": "{} × {} = {} 個の答え（画素ごとに一つ）",
    "mask, {} × {}": "マスク、{} × {}",
    "colours": "色",
    "class indices": "クラスのインデックス",
    "logit": "ロジット",
    "logits": "ロジット",
    "probability of newt": "イモリの確率",
    "probability": "確率",
    "probability ≥ 0.5": "確率 ≥ 0.5",
    "{} blocks": "{} ブロック",
    "loss": "損失",
    "loss of the pixel": "画素の損失",
    "convolution": "畳み込み",
    "convolution {} × {}": "{} × {} の畳み込み",
    "convolution {} × {}, ReLU, batch normalisation": "{} × {} の畳み込み、ReLU、バッチ正規化",
    "2 blocks, convolution 3 × 3": "2 ブロック、3 × 3 の畳み込み",
    "a row for each pixel": "画素ごとの行",
    "softmax": "ソフトマックス",
    "(batch, height, width, class)": "(バッチ, 高さ, 幅, クラス)",
    "(batch × height × width, class)": "(バッチ × 高さ × 幅, クラス)",
    "nearest": "最近傍補間",
    "bilinear": "バイリニア補間",
    "nearest or bilinear": "最近傍補間かバイリニア補間",
    "transposed convolution": "転置畳み込み",
    "kernel": "カーネル",
    "same place": "同じ場所",
    "encoder": "エンコーダー",
    "decoder": "デコーダー",
    "skip connection": "スキップ接続",
    "max pooling": "最大プーリング",
    "concatenation": "連結",
    "crop, concatenation": "切り抜き、連結",
    "above: channels": "上：チャンネルの数",
    "below: height and width": "下：高さと幅",
    "input, mirrored outward": "鏡映で広げた入力",
    "target": "正解マスク",
    "feature map": "特徴マップ",
    "pooling": "プーリング",
    "maxima": "最大値",
    "indices": "インデックス",
    "indices of the maxima": "最大値のインデックス",
    "more layers": "ほかの層",
    "unpooling": "アンプーリング",
    "unpooled": "結果",
    "maximum": "最大値",
    "equal, but later": "同じ値だが後にある",
    "a colour for each window": "窓ごとに別の色",
    "{} convolutions": "畳み込み {} 回",
    "{} × {} pixels": "{} × {} 画素",
    "{} × {} pixels; {} × {} of a larger image": "{} × {} 画素、大きな画像なら {} × {}",
    "one pixel of the output": "出力の一つの画素",
    "its receptive field": "その受容野",
    "iteration": "イテレーション",
    "difference from\nPyTorch / loss": "PyTorch との差\n/ 損失",
    "train {}": "学習 {}",
    "test {}": "テスト {}",
}


def stop(message):
    """End with one line and status 2."""
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    raise SystemExit(2)


# ---- languages ----


logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # that find_japanese_font finds none in bold


def find_japanese_font():
    """Make the font that matplotlib-fontja brings known to Matplotlib, and return its name."""
    # Only found, not imported: that would set the font for all figures.
    package = importlib.util.find_spec("matplotlib_fontja").submodule_search_locations[0]
    path = Path(package, "fonts", "ipaexg.ttf")
    font_manager.fontManager.addfont(path)
    return font_manager.FontProperties(fname=path).get_name()


def in_japanese(draw, words):
    """Return what draw, a function of a translation, draws with Japanese labels, by a dictionary."""
    families = [*matplotlib.rcParams["font.family"], find_japanese_font()]  # the second has what the first lacks
    with matplotlib.rc_context({"font.family": families}):
        figure = draw(words.__getitem__)
    for text in figure.findobj(Text):
        if text.get_weight() == "bold" and max(text.get_text()) > "\u3000":  # that font has no bold letters
            outline = Stroke(linewidth=0.6, foreground=text.get_color())
            text.set(weight="normal", path_effects=[outline, Normal()])
    return figure


def in_both(drawn, words):
    """Return {name: function} of figures in English, and of <name>.ja, by {name: function of a translation}."""
    figures = {name: functools.partial(draw, str) for name, draw in drawn.items()}
    return figures | {f"{name}.ja": functools.partial(in_japanese, draw, words) for name, draw in drawn.items()}


# ---- drawing ----


def new_card(height):
    """Return a figure of WIDTH x height pixels and axes that cover it, in pixels, y downwards."""
    figure = Figure(figsize=(WIDTH / 96, height / 96), dpi=96)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0), autoscale_on=False)
    axes.axis("off")
    return figure, axes


def write(axes, x, y, text, size=15, colour=INK, **style):
    """Put a line of text around (x, y); size is the height of its letters in pixels, as in CSS."""
    style = {"ha": "center", "va": "baseline"} | style  # by the base line, so that neighbours stand level
    axes.text(x, y + 0.36 * size, text, fontsize=0.75 * size, color=colour, **style)


def heading(axes, x, y, text):
    write(axes, x, y, text, 17, weight="bold")


def box(axes, x, y, width, height, colour="none", edge=INK, line=1.0, **style):
    axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor=edge, linewidth=line, **style))


def chip(axes, x, y, width, text, colour):
    """Put a rounded label around (x, y)."""
    shape = FancyBboxPatch((x - width / 2, y - 11), width, 22, boxstyle="round,pad=0,rounding_size=6")
    axes.add_patch(shape)
    shape.set(facecolor=colour, edgecolor=INK, linewidth=0.8)
    write(axes, x, y, text, 14)


def swatch(axes, x, y, text, colour="none", **style):
    """Explain a colour: a square of it with its left edge at (x, y), and a text."""
    box(axes, x, y - 8, 16, 16, colour, **style)
    write(axes, x + 24, y, text, 14, ha="left")


def draw_legend(axes, x, y, colours):
    """Explain the colours of arrows, one below the other."""
    for i, (text, colour) in enumerate(colours.items()):
        arrow(axes, (x, y + 27 * i), (x + 26, y + 27 * i), colour, 2)
        write(axes, x + 34, y + 27 * i, text, 14, ha="left")


def arrow(axes, start, end, colour=INK, line=1.5, head="-|>,head_width=0.3,head_length=0.5", dashes="-"):
    properties = {"arrowstyle": head, "color": colour, "linewidth": line, "linestyle": dashes}
    axes.annotate("", end, start, arrowprops=properties | {"shrinkA": 0, "shrinkB": 0})


def bracket(axes, start, over, end, colour, line=2.0, dashes="-"):
    """Draw an arrow that goes from start to y = over, across, and to end."""
    (x, y), (end_x, end_y) = start, end
    style = {"color": colour, "linewidth": line, "linestyle": dashes, "solid_capstyle": "projecting"}
    axes.plot([x, x, end_x], [y, over, over], **style, solid_joinstyle="miter")
    arrow(axes, (end_x, over), (end_x, end_y), colour, line)


def show(axes, picture, x, y, width, height, edge=INK):
    """Show a picture (height, width, 3) uint8 pixel by pixel, with a frame."""
    axes.imshow(picture, extent=(x, x + width, y + height, y), interpolation="none", aspect="auto")
    box(axes, x, y, width, height, edge=edge, line=0.8)


def grid(axes, array, x, y, cell, colour, size=15, text="{}"):
    """Draw an array (rows, columns) as a table; colour is one for all or a function of value, row and column."""
    for (row, column), value in np.ndenumerate(array):
        fill = colour(value, row, column) if callable(colour) else colour
        box(axes, x + column * cell, y + row * cell, cell, cell, fill, edge=WHITE, line=1.2)
        label = text.format(value).replace("-", "\N{MINUS SIGN}")
        write(axes, x + (column + 0.5) * cell, y + (row + 0.5) * cell, label, size)
    box(axes, x, y, cell * array.shape[1], cell * array.shape[0])


def new_chart(figure, x, y, width, height, **labels):
    """Return axes for a chart whose frame is at these pixels of the figure."""
    whole = figure.get_figheight() * 96
    axes = figure.add_axes((x / WIDTH, 1 - (y + height) / whole, width / WIDTH, height / whole), facecolor=WHITE)
    axes.grid(color=GREY, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=0.75 * 14, labelcolor=INK, color=RULE)
    axes.spines[["left", "bottom"]].set_color(RULE)
    for name, label in labels.items():
        getattr(axes, f"set_{name}")(label, fontsize=0.75 * 15, color=INK)
    return axes


# ---- the answers ----


@functools.cache
def load_answer(name):
    """Import the answer of a name such as unetlike_pytorch as a module; it does nothing until it is called."""
    exercise, _, framework = name.rpartition("_")
    return exercises.load_answer(exercises.answer_path(exercise, framework))


@functools.cache
def read_newts(exercise, size):
    """Return {name: (image (height, width, 3) uint8, target)} of the test pictures as an exercise reads them."""
    names, images, targets = load_answer(f"{exercise}_pytorch").load_newts(REPOSITORY / "Dataset/test", size)
    return {name: (np.uint8(np.round(127.5 * (x + 1))), y) for name, x, y in zip(names, images, targets, strict=True)}


def read_picture(name):
    """Return a test picture (height, width, 3) uint8 and the class (height, width) of each of its pixels."""
    answer = load_answer("semaseg_dataset_pytorch")
    folder = REPOSITORY / "Dataset/test"
    picture = np.array(answer.open_image(folder / f"images/{name}.jpg"))
    return picture, answer.read_mask(folder / f"seg_images/{name}.png")


def paint(classes):
    """Return class indices in the colours of the masks."""
    return np.uint8(list(load_answer("semaseg_test_pytorch").COLOURS.values()))[classes]


def draw_classes(axes, say, places, text="{2}"):
    """Explain the colours of the masks at places [(x, y)] with a text of each class's colour, index and name."""
    classes = load_answer("semaseg_test_pytorch").COLOURS.items()
    for i, ((name, colour), place) in enumerate(zip(classes, places, strict=True)):
        swatch(axes, *place, text.format(", ".join(map(str, colour)), i, say(name)), np.array(colour) / 255)


def to_grey(array):
    """Return numbers from 0 to 1 (height, width) as a picture (height, width, 3) uint8."""
    return np.uint8(np.round(255 * array))[..., None].repeat(3, axis=2)


class Stage(NamedTuple):
    """What a network has made after one step: its shape, the step, and the earlier stage that came in by a skip."""

    channels: int
    size: int  # height and width
    step: str  # input, conv2d, max_pool2d, interpolate, conv_transpose2d, cat or max_unpool2d
    kernel: int | None = None
    skip: int | None = None  # index of the stage before the pooling
    kept: int | None = None  # height and width of what the crop kept of it


class Recorder(TorchFunctionMode):
    """Notes the stages of whatever network runs under it."""

    def __init__(self, size):
        super().__init__()
        self.stages, self.before_pooling = [Stage(3, size, "input")], []

    def __torch_function__(self, function, types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        step = function.__name__.removesuffix("_with_indices")
        if step in ("conv2d", "conv_transpose2d", "max_pool2d", "interpolate", "cat", "max_unpool2d"):
            shape = (result[0] if isinstance(result, tuple) else result).shape
            kernel = arguments[1].shape[2] if step.startswith("conv") else None
            skip = self.before_pooling.pop() if step in ("cat", "max_unpool2d") else None
            kept = arguments[0][0].shape[2] if step == "cat" else None
            if step == "max_pool2d":
                self.before_pooling.append(len(self.stages) - 1)
            self.stages.append(Stage(shape[1], shape[2], step, kernel, skip, kept))
        return result


@functools.cache
def record_stages(exercise, size=None):
    """Return the stages of the PyTorch answer's network on a picture of size x size, its default unless given."""
    answer = load_answer(f"{exercise}_pytorch")
    size = size or answer.NUMBERS["size"][0]
    # On the meta device a tensor has a shape and no numbers, so that a pass through U-Net takes no time or memory.
    network = answer.build_network(np.random.default_rng(0), OPTIONS).to("meta")
    images = torch.zeros(1, 3, size, size, device="meta")
    with Recorder(size) as recorder:
        network.eval()(images)
    return recorder.stages


# ---- what is computed ----


def sigmoid(logits):
    return 1 / (1 + np.exp(-np.asarray(logits, float)))


def softmax(logits):
    """Return the softmax over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def upsample_nearest(array):
    """Return an array (rows, columns) at twice the size: each value four times."""
    return array.repeat(2, axis=0).repeat(2, axis=1)


def upsample_bilinear(array):
    """Return an array (rows, columns) at twice the size, interpolated between the middles of its pixels."""
    for axis in (0, 1):
        length = array.shape[axis]
        place = np.clip((np.arange(2 * length) + 0.5) / 2 - 0.5, 0, length - 1)
        low = np.minimum(place.astype(int), length - 2)
        share = np.expand_dims(place - low, 1 - axis)
        array = (1 - share) * array.take(low, axis) + share * array.take(low + 1, axis)
    return array


def upsample_transposed(array, kernel):
    """Return the transposed convolution of stride 2 of an array (rows, columns) with a kernel of 2 x 2."""
    return np.kron(array, kernel)


def pool(array):
    """Return the maximum of each 2 x 2 window and its place, counted in reading order over the whole array."""
    rows, columns = array.shape
    windows = array.reshape(rows // 2, 2, columns // 2, 2).swapaxes(1, 2).reshape(rows // 2, columns // 2, 4)
    first = windows.argmax(axis=2)  # of equal values the first
    row, column = np.indices(first.shape)
    return windows.max(axis=2), (2 * row + first // 2) * columns + 2 * column + first % 2


def unpool(array, places, shape):
    """Return zeros of a shape with each value of the array at its place."""
    result = np.zeros(shape, array.dtype)
    result.flat[places] = array
    return result


@functools.cache
def find_receptive_field(exercise, size):
    """Return (size, size) bool: the input pixels that the output pixel in the middle depends on.

    No training is needed: with weights above zero nothing cancels, and a gradient shows every path. Max pooling would
    pass it to one pixel of four, but any of them may be the largest, so an average takes its place.
    """
    answer = load_answer(f"{exercise}_pytorch")
    network = answer.build_network(np.random.default_rng(0), OPTIONS)
    network.double().eval()  # in float32 so many sums of positive numbers might overflow
    for parameter in network.parameters():
        parameter.data.abs_()
    images = torch.ones(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    average = answer.functional.avg_pool2d
    with mock.patch.object(answer.functional, "max_pool2d", lambda x, window, *_, **__: average(x, window)):
        network(images)[0, :, size // 2, size // 2].sum().backward()
    return images.grad[0].sum(dim=0).numpy() > 0


def measure_extent(field):
    """Return height and width of the True part of an array (height, width)."""
    rows, columns = np.nonzero(field)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def read_table(path, *columns):
    """Return the columns of a CSV file as lists of strings; stop where there is no such file or column."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [[row[column] for row in rows] for column in columns]
    except OSError:
        stop(f"{path}: no such file: run make lesson-figures, which makes it")
    except KeyError as error:
        stop(f"{path}: has no column {error}: remove it and run make lesson-figures, which makes it")


# ---- the figures ----


def draw_segmentation(say):
    """Draw one picture, what a classifier says of it, and what segmentation does."""
    picture, classes = read_picture(NEWT)
    height, width = classes.shape
    names = list(load_answer("semaseg_dataset_pytorch").CLASSES)
    figure, axes = new_card(344)
    show(axes, picture, 24, 110, width, height)
    write(axes, 24 + width / 2, 92, say("input"))
    arrow(axes, (292, 160), (356, 66))
    arrow(axes, (292, 204), (356, 232))
    write(axes, 372, 34, say("classification"), 17, weight="bold", ha="left")
    found = names[np.bincount(classes[classes > 0]).argmax()]
    chip(axes, 422, 70, 100, say(found), CLASS_COLOURS[found])
    write(axes, 490, 70, say("1 answer for the image"), 15, SOFT, ha="left")
    write(axes, 372, 128, say("segmentation"), 17, weight="bold", ha="left")
    show(axes, paint(classes), 372, 150, width, height)
    draw_classes(axes, say, [(648, 170 + 30 * i) for i in range(len(names))])
    answers = say("{} × {} = {} answers, one for each pixel").format(width, height, f"{width * height:,}")
    write(axes, 372, 318, answers, 15, SOFT, ha="left")
    return figure


def draw_masks(say):
    """Draw a picture of each species and its mask, in the colours that the file has."""
    width, height, top = 180, 101, 80
    figure, axes = new_card(240)
    for left, name in ((24, "akahara/akahara_0014"), (408, "madara/madara_0012")):
        picture, classes = read_picture(name)
        heading(axes, left + width + 4, 26, say(name.partition("/")[0]))
        small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        for x, text, shown in ((left, "image", small), (left + width + 8, "mask", paint(classes))):
            write(axes, x + width / 2, 60, say(text))
            show(axes, shown, x, top, width, height)
    draw_classes(axes, say, [(24 + 260 * i, 210) for i in range(3)], "{0}  {2}")
    return figure


def draw_class_indices(say):
    """Draw pieces of two masks and the class indices that are read from them."""
    answer = load_answer("semaseg_test_pytorch")
    size, side, cell = answer.NUMBERS["size"][0], 8, 27
    span, middle, right = side * cell, 272, 560
    figure, axes = new_card(556)
    heading(axes, 128, 26, say("mask, {} × {}").format(size, size))
    heading(axes, 380, 26, say("colours"))
    heading(axes, 668, 26, say("class indices"))
    for y, name, (row, column) in ((48, "akahara/akahara_0012", (48, 20)), (288, NEWT, (24, 44))):
        classes = read_newts("semaseg_test", size)[name][1]
        piece = classes[row : row + side, column : column + side]
        show(axes, paint(classes), 20, y, span, span)
        scale = span / size
        left, top, edge = 20 + column * scale, y + row * scale, 20 + (column + side) * scale
        box(axes, left, top, side * scale, side * scale, edge=YELLOW, line=2)
        axes.plot([edge, middle], [top, y], color=DARK_YELLOW, linewidth=1)
        axes.plot([edge, middle], [top + side * scale, y + span], color=DARK_YELLOW, linewidth=1)
        show(axes, paint(piece), middle, y, span, span)
        for line in range(cell, span, cell):
            axes.plot([middle, middle + span], [y + line] * 2, color=SOFT, linewidth=0.5)
            axes.plot([middle + line] * 2, [y, y + span], color=SOFT, linewidth=0.5)
        arrow(axes, (middle + span + 12, y + span / 2), (right - 12, y + span / 2))
        grid(axes, piece, right, y, cell, lambda value, *_: list(CLASS_COLOURS.values())[value])
    draw_classes(axes, say, [(20 + 260 * i, 532) for i in range(3)], "{}  →  {}  {}")
    return figure


def draw_sigmoid(say):
    """Draw the sigmoid, and the probabilities that a trained bin_test gives, cut at the threshold."""
    answer, run = load_answer("bin_test_pytorch"), RUNS / "03_bin_test_pytorch"
    if not (run / "weights.pt").exists():
        stop(f"{run / 'weights.pt'}: no such file: run make lesson-figures, which makes it")
    network = answer.build_network(np.random.default_rng(0), OPTIONS)
    answer.load_weights(network, run)
    picture, _ = read_picture(NEWT)
    image, target = read_newts("bin_test", answer.NUMBERS["size"][0])[NEWT]
    logits = answer.predict_augmented(network, np.float32(image)[None] / 127.5 - 1, OPTIONS)[0, ..., 0]
    probabilities = sigmoid(logits)
    figure, axes = new_card(344)
    chart = new_chart(figure, 102, 34, 230, 240, xlabel=say("logit"), ylabel=say("probability of newt"))
    x = np.linspace(-6, 6, 241)
    chart.plot(x, sigmoid(x), color=BLUE, linewidth=3)
    chart.axhline(0.5, color=ORANGE, linewidth=1.5, linestyle="--")
    chart.set(xlim=(-6, 6), ylim=(0, 1), xticks=range(-6, 7, 3), yticks=(0, 0.25, 0.5, 0.75, 1))
    chart.text(-5.7, 0.53, say("newt"), fontsize=0.75 * 15, color=ORANGE, va="bottom")
    chart.text(-5.7, 0.47, say("background"), fontsize=0.75 * 15, color=ORANGE, va="top")
    # The greys of the probability map stand along the axis.
    show(axes, to_grey(np.linspace(1, 0, 64)[:, None]), 84, 34, 14, 240)
    chart.tick_params(axis="y", pad=18)
    width = 206
    height = width * picture.shape[0] / picture.shape[1]
    panels = {"input": image, "truth": to_grey(target), "probability": to_grey(probabilities)}
    panels["probability ≥ 0.5"] = to_grey(probabilities >= 0.5)
    for i, (title, panel) in enumerate(panels.items()):
        x, y = 358 + 222 * (i % 2), 48 + 158 * (i // 2)
        show(axes, panel, x, y, width, height)
        write(axes, x + width / 2, y - 15, say(title))
    return figure


def draw_bin_loss(say):
    """Draw the network of exercise 2 with the shape of each stage, and the loss of a pixel by its logit."""
    image, _ = read_newts("bin_loss", load_answer("bin_loss_pytorch").NUMBERS["size"][0])[NEWT]
    _, *blocks, logits = record_stages("bin_loss")
    figure, axes = new_card(300)
    side, middle = 2 * logits.size, 128
    show(axes, image, 14, middle - side / 2, side, side)
    write(axes, 14 + side / 2, 30, say("image"))
    places = [184 + 35 * i for i in range(len(blocks))]
    for x, stage in zip(places, blocks, strict=True):
        draw_bar(axes, x, middle, 0.8 * stage.channels, 2 * stage.size, PALE_BLUE)
    last = places[-1] + 60
    draw_bar(axes, last, middle, 6, side, ORANGE)
    arrow(axes, (146, middle), (167, middle), INK, 2)
    arrow(axes, (places[-1] + 17, middle), (last - 8, middle), PURPLE, 2)
    write(axes, sum(places) / len(places), 30, say("{} blocks").format(len(blocks)))
    write(axes, last, 30, say("logits"))
    for x, channels in ((14 + side / 2, 3), (sum(places) / len(places), blocks[0].channels), (last, logits.channels)):
        write(axes, x, middle + side / 2 + 16, f"{logits.size} × {logits.size}", 13)
        write(axes, x, middle + side / 2 + 33, f"× {channels}", 13, weight="bold")
    legend = {
        "convolution {} × {}, ReLU, batch normalisation": (blocks[0], INK),
        "convolution {} × {}": (logits, PURPLE),
    }
    legend = {say(text).format(stage.kernel, stage.kernel): colour for text, (stage, colour) in legend.items()}
    draw_legend(axes, 40, 258, legend)
    chart = new_chart(figure, 556, 44, 226, 176, xlabel=say("logit"), ylabel=say("loss of the pixel"))
    x = np.linspace(-6, 6, 241)
    for target, colour, place in ((1, ORANGE, -2.2), (0, BLUE, 2.2)):
        chart.plot(x, np.maximum(x, 0) - x * target + np.log1p(np.exp(-np.abs(x))), color=colour, linewidth=3)
        name = say("newt" if target else "background")
        chart.text(place, 5.2, name, fontsize=0.75 * 15, color=colour, ha="center", va="center")
    chart.set(xlim=(-6, 6), ylim=(0, 6), xticks=range(-6, 7, 3), yticks=range(0, 7, 2))
    return figure


# Made up so that the rounded probabilities of each pixel add up to 1.
LOGITS = np.array([[[2.0, 0.5, -0.8], [0.1, 1.8, 0.3]], [[-0.5, 2.5, 1.1], [0.0, -0.3, 1.3]]])


def draw_pixelwise_softmax(say):
    """Draw the logits of 2 x 2 pixels, the same reshaped to a row for each pixel, and the softmax of each row."""
    answer = load_answer("semaseg_loss_pytorch")
    names, colours = list(answer.CLASSES), list(CLASS_COLOURS.values())
    rows = LOGITS.reshape(-1, len(names))
    figure, axes = new_card(424)
    cell, top = 46, 104
    left, middle, right = 104, 338, 614  # of the planes, the rows and the probabilities
    wide = len(names) * cell
    heading(axes, left + cell, 28, say("logits"))
    heading(axes, middle + wide / 2, 28, say("a row for each pixel"))
    heading(axes, right + wide / 2, 28, say("softmax"))
    for plane, name in enumerate(names):
        y = 54 + 104 * plane
        write(axes, left - 10, y + cell, say(name), 14, ha="right")
        grid(axes, LOGITS[..., plane], left, y, cell, colours[plane], text="{:.1f}")
        box(axes, left + cell, y, cell, cell, edge=BLUE, line=2.5)  # pixel (0, 1), to be followed by the eye
    for x, table, text in ((middle, rows, "{:.1f}"), (right, softmax(rows), "{:.2f}")):
        grid(axes, table, x, top, cell, lambda _, row, column: colours[column], text=text)
        box(axes, x, top + cell, wide, cell, edge=BLUE, line=2.5)
    arrow(axes, (left + 2 * cell + 14, top + 2 * cell), (middle - 64, top + 2 * cell))
    for row in range(len(rows)):
        y = top + (row + 0.5) * cell
        write(axes, middle - 10, y, f"{divmod(row, LOGITS.shape[1])}", 14, BLUE if row == 1 else SOFT, ha="right")
        arrow(axes, (middle + wide + 12, y), (right - 12, y))
    write(axes, (middle + wide + right) / 2, top - 12, r"$e^{z_c}\,/\,\sum_k e^{z_k}$", 18)
    size = answer.NUMBERS["size"][0]
    shape = answer.NUMBERS["batch"][0], size, size, len(names)
    for x, text, numbers in (
        (left + cell, "(batch, height, width, class)", shape),
        (middle + wide / 2, "(batch × height × width, class)", (math.prod(shape[:-1]), shape[-1])),
    ):
        write(axes, x, 380, say(text), 14)
        write(axes, x, 402, f"{numbers}", 14, BLUE)
    return figure


UPSAMPLED = np.array([[16, 32, 16], [0, 64, 48], [32, 0, 80]])  # made up so that bilinear gives whole numbers
KERNEL = np.array([[1, 0.5], [0.5, 0.25]])


def draw_upsampling(say):
    """Draw 3 x 3 numbers and what three ways of upsampling make of them."""
    figure, axes = new_card(644)

    def shade(value, *_):
        share = 0.6 * value / UPSAMPLED.max()
        return tuple(1 - share + share * np.array(to_rgb(BLUE)))

    for title, array, x, y in (
        ("input", UPSAMPLED, 60, 56),
        ("nearest", upsample_nearest(UPSAMPLED), 520, 56),
        ("bilinear", upsample_bilinear(UPSAMPLED), 60, 380),
        ("transposed convolution", upsample_transposed(UPSAMPLED, KERNEL), 520, 380),
    ):
        cell = 240 / len(array)
        heading(axes, x + 120, y - 22, say(title))
        grid(axes, array, x, y, cell, shade, 9 + cell / 6, "{:.0f}")
        for line in (80, 160):  # between what came of one input pixel and what of the next
            axes.plot([x + line] * 2, [y, y + 240], color=INK, linewidth=1.2)
            axes.plot([x, x + 240], [y + line] * 2, color=INK, linewidth=1.2)
        box(axes, x + 80, y + 80, 80, 80, edge=ORANGE, line=3, zorder=2.5)  # to be followed by the eye
    arrow(axes, (316, 176), (504, 176))
    arrow(axes, (180, 306), (180, 340))
    arrow(axes, (316, 290), (504, 400))
    swatch(axes, 362, 212, say("same place"), edge=ORANGE, line=3)
    write(axes, 442, 454, say("kernel"))
    grid(axes, KERNEL, 398, 470, 44, PALE_ORANGE, text="{:g}")
    return figure


def draw_bar(axes, x, y, width, height, *colours):
    """Draw a bar around (x, y), in two halves where there are two colours."""
    part = width / len(colours)
    for i, colour in enumerate(colours):
        box(axes, x - width / 2 + i * part, y - height / 2, part, height, colour)


def draw_skip(say):
    """Draw the network of exercise 9 with the shape of each stage."""
    stages = record_stages("concat")
    # Of several convolutions of one kind in a row only the last is shown.
    kinds = [(stage.step, stage.kernel) for stage in stages]
    shown = [stage for stage, kind, after in zip(stages, kinds, [*kinds[1:], None], strict=True) if kind != after]
    figure, axes = new_card(456)
    upper, lower = 156, 330
    bars = []  # of each shown stage: the middle, and the half of width and height
    for stage, (x, y, *colours) in zip(
        shown,
        (
            (46, upper, GREY),
            (140, upper, PALE_BLUE),
            (140, lower, PALE_BLUE),
            (262, lower, PALE_BLUE),
            (384, upper, PALE_ORANGE),
            (478, upper, PALE_BLUE, PALE_ORANGE),
            (586, upper, PALE_ORANGE),
            (676, upper, PALE_ORANGE),
            (756, upper, PALE_ORANGE),
        ),
        strict=True,
    ):
        width, height = max(0.8 * stage.channels, 6), 2 * stage.size
        draw_bar(axes, x, y, width, height, *colours)
        write(axes, x, y + height / 2 + 14, f"{stage.size} × {stage.size}", 13)
        write(axes, x, y + height / 2 + 31, f"× {stage.channels}", 13, weight="bold")
        bars.append((x, y, width / 2, height / 2))
    for (x, y, side, half), (end_x, end_y, end_side, end_half), stage in zip(bars, bars[1:], shown[1:], strict=False):
        colour = STEP_COLOURS[stage.step] if stage.kernel != 1 else PURPLE
        if y == end_y:
            arrow(axes, (x + side + 4, y), (end_x - end_side - 4, y), colour, 2)
        elif x == end_x:
            arrow(axes, (x, y + half + 44), (x, end_y - end_half - 4), colour, 2)
        else:
            axes.plot([x + side + 4, end_x], [y, y], color=colour, linewidth=2)
            arrow(axes, (end_x, y + 1), (end_x, end_y + end_half + 44), colour, 2)
    (x, y, _, half), (end_x, _, side, end_half) = bars[1], bars[5]
    bracket(axes, (x, y - half - 4), 48, (end_x - side / 2, y - end_half - 4), BLUE)
    write(axes, (x + end_x) / 2, 30, say("skip connection"), colour=BLUE)
    names = {"conv2d": "2 blocks, convolution 3 × 3", "max_pool2d": "max pooling"}
    names |= {"conv_transpose2d": "transposed convolution", "cat": "concatenation"}
    legend = {say(name): STEP_COLOURS[step] for step, name in names.items()}
    draw_legend(axes, 478, 292, legend | {say("convolution {} × {}").format(1, 1): PURPLE})
    draw_parts(axes, say, 478, 430)
    return figure


def draw_parts(axes, say, x, y):
    """Explain the colours of the bars of encoder and decoder."""
    swatch(axes, x, y, say("encoder"), PALE_BLUE)
    swatch(axes, x + 150, y, say("decoder"), PALE_ORANGE)


BAR_COLOURS = {
    "input": GREY,
    "conv2d": PALE_BLUE,
    "cat": "#7fb2e0",
    "max_pool2d": "#e57368",
    "interpolate": "#e9c46a",
    "conv_transpose2d": "#62b27a",
    "max_unpool2d": "#b48ad6",
}


def draw_encoder_decoder(say):
    """Draw the networks of exercises 7 to 12: every stage a bar, as high as its picture is large."""
    figure, axes = new_card(590)
    for i, exercise in enumerate("nearest transposeconv concat unet unetlike segnet".split()):
        stages = record_stages(exercise)
        centre, middle, step = 138 + 262 * (i % 3), 150 + 240 * (i // 3), min(236 / len(stages), 14)
        heading(axes, centre, middle - 118, f"{7 + i}  {exercise}")
        xs = [centre + (j + 0.5 - len(stages) / 2) * step for j in range(len(stages))]
        heights = [136 * math.sqrt(stage.size / stages[0].size) for stage in stages]
        for x, height, stage in zip(xs, heights, stages, strict=True):
            draw_bar(axes, x, middle, 0.78 * step, height, BAR_COLOURS[stage.step])
            if stage.skip is not None:
                top = middle - heights[stage.skip] / 2
                style = (BLUE, 1.3) if stage.step == "cat" else (PURPLE, 1.3, "--")
                bracket(axes, (xs[stage.skip], top), top - 10, (x, middle - height / 2), *style)
        for x, height, stage in ((xs[0], heights[0], stages[0]), (xs[-1], heights[-1], stages[-1])):
            write(axes, x, middle + height / 2 + 13, f"{stage.size}", 13, SOFT)
    for x, y, text, step in (
        (24, 514, "input", "input"),
        (164, 514, "convolution", "conv2d"),
        (360, 514, "max pooling", "max_pool2d"),
        (570, 514, "transposed convolution", "conv_transpose2d"),
        (24, 541, "concatenation", "cat"),
        (164, 541, "unpooling", "max_unpool2d"),
        (360, 541, "nearest or bilinear", "interpolate"),
    ):
        swatch(axes, x, y, say(text), BAR_COLOURS[step])
    for x, text, colour, dashes in ((164, "skip connection", BLUE, "-"), (360, "indices of the maxima", PURPLE, "--")):
        arrow(axes, (x - 6, 568), (x + 18, 568), colour, dashes=dashes)
        write(axes, x + 24, 568, say(text), 14, ha="left")
    return figure


def draw_unet(say):
    """Draw U-Net with the size and the channels of each stage, for the size of picture in the paper."""
    stages = record_stages("unet", 572)
    heights = [5.4 * math.sqrt(stage.size) for stage in stages]
    rows, y = [], 42  # the middle of each level
    for stage, height in zip(stages, heights, strict=True):
        if stage.step in ("input", "max_pool2d"):
            rows.append(y + height / 2)
            y += height + 68
    figure, axes = new_card(764)
    column = level = 0
    bars = []  # of each stage: the middle, and the half of width and height
    for stage, height in zip(stages, heights, strict=True):
        column += stage.step == "conv2d"
        level += (stage.step == "max_pool2d") - (stage.step == "conv_transpose2d")
        x, y, width = 24 + 39.6 * column, rows[level], 2.2 * math.log2(stage.channels)
        bars.append((x, y, width / 2, height / 2))
        if stage.step == "conv_transpose2d":  # shown as a half of the concatenation that follows
            continue
        is_encoder = len(bars) < len(stages) / 2
        colours = [PALE_BLUE, PALE_ORANGE] if stage.step == "cat" else [PALE_BLUE if is_encoder else PALE_ORANGE]
        draw_bar(axes, x, y, width, height, *(colours if column else [GREY]))
        write(axes, x, y - height / 2 - 11, f"{stage.channels}", 13)
        write(axes, x, y + height / 2 + 11, f"{stage.size}", 13, SOFT)
        if stage.step == "conv2d":
            last_x, _, last_side, _ = bars[-2]
            colour = INK if stage.kernel == 3 else PURPLE
            arrow(axes, (last_x + last_side + 2, y), (x - width / 2 - 2, y), colour)
        elif stage.step == "max_pool2d":
            _, last_y, _, last_half = bars[-2]
            arrow(axes, (x, last_y + last_half + 21), (x, y - height / 2 - 21), RED, 2)
        elif stage.step == "cat":
            _, last_y, _, last_half = bars[-3]
            arrow(axes, (x, last_y - last_half - 21), (x, y + height / 2 + 21), GREEN, 2)
            skip, (skip_x, _, skip_side, skip_half) = stages[stage.skip], bars[stage.skip]
            arrow(axes, (skip_x + skip_side + 2, y), (x - width / 2 - 2, y), BLUE, 2)
            write(axes, (skip_x + x) / 2, y - 13, f"{skip.size}\u2009→\u2009{stage.kept}", 13, BLUE)
            for edge in (-skip_half * stage.kept / skip.size, skip_half * stage.kept / skip.size):
                across = skip_x - skip_side, skip_x + skip_side
                axes.plot(across, (y + edge, y + edge), color=BLUE, linewidth=1.2, dashes=(2, 1.5))
    three, one = (say("convolution {} × {}").format(kernel, kernel) for kernel in (3, 1))
    legend = {three: INK, say("max pooling"): RED, say("transposed convolution"): GREEN}
    draw_legend(axes, 24, 634, legend | {say("crop, concatenation"): BLUE, one: PURPLE})
    draw_parts(axes, say, 524, 634)
    write(axes, 524, 661, say("above: channels"), 14, ha="left")
    write(axes, 524, 688, say("below: height and width"), 14, SOFT, ha="left")
    return figure


def draw_unet_margin(say):
    """Draw a picture mirrored outward for U-Net, and the target that lies over its middle."""
    answer = load_answer("unet_pytorch")
    size = 572  # as in the paper
    image, target = read_newts("unet", size)[NEWT]
    start, inner = answer.MARGIN, len(target)
    image = cv2.resize(image, (size // 2, size // 2), interpolation=cv2.INTER_AREA)  # a page shows no more of it
    figure, axes = new_card(508)
    scale, left, top, right = 380 / size, 24, 54, 516
    low, high = left + start * scale, left + (start + inner) * scale
    upper, lower = top + start * scale, top + (start + inner) * scale
    show(axes, image, left, top, size * scale, size * scale)
    box(axes, low, upper, inner * scale, inner * scale, edge=WHITE, line=3.5)
    box(axes, low, upper, inner * scale, inner * scale, edge=BLUE, line=2)
    show(axes, paint(target), right, upper, inner * scale, inner * scale, edge=BLUE)
    for edge in (upper, lower):
        axes.plot([high, right], [edge, edge], color=BLUE, linewidth=1.3, dashes=(4, 3))
    heading(axes, left + size * scale / 2, 26, say("input, mirrored outward"))
    heading(axes, right + inner * scale / 2, upper - 22, say("target"))
    draw_classes(axes, say, [(right, lower + 57 + 24 * i) for i in range(3)])
    edges = [(left + pixel * scale, pixel) for pixel in (0, start, start + inner, size)]
    for one, other in itertools.pairwise(edges):
        measure_out(axes, one, other, top + size * scale + 14)
    measure_out(axes, (right, 0), (right + inner * scale, inner), lower + 14)
    return figure


def measure_out(axes, start, end, y):
    """Draw a dimension line from start to end, each (x, pixel of the picture), with the pixels between them below."""
    arrow(axes, (start[0], y), (end[0], y), SOFT, 1.2, head="|-|,widthA=0.25,widthB=0.25")
    write(axes, (start[0] + end[0]) / 2, y + 14, f"{end[1] - start[1]}", 14)


POOLED = np.array([[1, 3, 2, 0], [4, 2, 1, 6], [5, 0, 3, 7], [1, 5, 7, 2]])  # made up, with ties
DECODED = np.array([[8, 9], [6, 4]])


def draw_unpooling(say):
    """Draw max pooling that keeps the places of the maxima, and unpooling to these places."""
    figure, axes = new_card(566)
    maxima, places = pool(POOLED)
    tints, cell = np.array([[PALE_BLUE, PALE_ORANGE], [PALE_GREEN, PALE_PURPLE]]), 52
    first, later = {"line": 2}, {"line": 1.8, "edge": RED, "linestyle": (0, (3, 2))}
    for x, y, array, title in (
        (30, 68, POOLED, "feature map"),
        (352, 120, maxima, "maxima"),
        (544, 120, places, "indices"),
        (352, 382, DECODED, "decoder"),
        (580, 330, unpool(DECODED, places, POOLED.shape), "unpooled"),
    ):
        heading(axes, x + len(array) * cell / 2, y - 22, say(title))
        step = len(array) // 2
        grid(axes, array, x, y, cell, lambda _, row, column, step=step: tints[row // step, column // step], 18)
        if array.shape != POOLED.shape:
            continue
        for place, (row, column) in enumerate(np.ndindex(array.shape)):
            left, top = x + column * cell, y + row * cell
            write(axes, left + 13, top + 11, f"{place}", 11, SOFT)
            if place in places:
                box(axes, left + 1.5, top + 1.5, cell - 3, cell - 3, **first)
            elif array is POOLED and array[row, column] == maxima[row // 2, column // 2]:
                box(axes, left + 1.5, top + 1.5, cell - 3, cell - 3, **later)
    arrow(axes, (254, 172), (336, 172))
    write(axes, 295, 154, say("pooling"), 14)
    arrow(axes, (404, 240), (404, 336), SOFT, dashes=(0, (4, 3)))
    write(axes, 416, 286, say("more layers"), 14, SOFT, ha="left")
    arrow(axes, (472, 434), (564, 434))
    write(axes, 518, 416, say("unpooling"), 14)
    arrow(axes, (596, 240), (596, 322), PURPLE, 2)
    swatch(axes, 34, 320, say("maximum"), **first)
    swatch(axes, 34, 350, say("equal, but later"), **later)
    write(axes, 34, 380, say("a colour for each window"), 14, ha="left")
    return figure


def draw_receptive_field(say):
    """Draw what the pixel in the middle of a picture sees by the network of exercises 2 to 6 and by unetlike."""
    answer = load_answer("unetlike_pytorch")
    size = answer.NUMBERS["size"][0]
    image, _ = read_newts("unetlike", size)[NEWT]
    figure, axes = new_card(476)
    side, top = 340, 50
    pixel = side / size
    for left, exercise, title in (
        (36, "semaseg_loss", say("{} convolutions").format(6)),
        (424, "unetlike", "unetlike"),
    ):
        field = find_receptive_field(exercise, size)
        height, width = measure_extent(field)
        heading(axes, left + side / 2, 26, title)
        show(axes, np.where(field[..., None], image, image // 4 + 150), left, top, side, side)
        row, column = np.argwhere(field)[0]
        corner = left + column * pixel, top + row * pixel
        box(axes, *corner, width * pixel, height * pixel, edge=YELLOW, line=3)
        box(axes, left + size // 2 * pixel, top + size // 2 * pixel, pixel, pixel, YELLOW, line=1.2)
        text, numbers = "{} × {} pixels", (height, width)
        if field.all():  # so the image is what limits it
            text += "; {} × {} of a larger image"
            numbers += measure_extent(find_receptive_field(exercise, 4 * size))
        write(axes, left + side / 2, 414, say(text).format(*numbers), 14)
    swatch(axes, 210, 450, say("one pixel of the output"), YELLOW)
    swatch(axes, 460, 450, say("its receptive field"), edge=YELLOW, line=3)
    return figure


def draw_loss_curves(say):
    """Draw the loss of unetlike in each framework, and how far the others are from PyTorch."""
    losses = {}
    for framework in FRAMEWORKS:
        path = RUNS / f"11_unetlike_{framework}/loss.csv"
        losses[framework] = np.array(read_table(path, "loss")[0], float)
        if len(losses[framework]) != len(losses["pytorch"]):
            stop(f"{path}: has another number of iterations than PyTorch's: remove it and run make lesson-figures")
    figure, _ = new_card(620)
    iterations = np.arange(1, len(losses["pytorch"]) + 1)
    upper = new_chart(figure, 92, 30, 680, 270, ylabel=say("loss"))
    difference = say("difference from\nPyTorch / loss")
    lower = new_chart(figure, 92, 340, 680, 210, xlabel=say("iteration"), ylabel=difference)
    for framework, (name, width, dashes, colour) in FRAMEWORKS.items():
        style = {"color": colour, "linestyle": dashes, "linewidth": width, "label": name}
        upper.plot(iterations, losses[framework], **style)
        difference = np.abs(losses[framework] / losses["pytorch"] - 1)
        if framework != "pytorch":
            lower.plot(iterations, np.where(difference > 0, difference, np.nan), **style | {"linewidth": 1.3})
    upper.legend(fontsize=0.75 * 15, frameon=False, handlelength=3.5, labelcolor=INK)
    lower.set_yscale("log")
    lower.minorticks_off()
    for chart in (upper, lower):
        chart.set_xlim(0, len(iterations))
    return figure


def draw_augmentation(say):
    """Draw the mIoU on training and on test pictures over the iterations, for each kind of augmentation."""
    rows = list(zip(*read_table(RUNS / "augmentation.csv", "kind", "part", "iteration", "miou"), strict=True))
    figure, axes = new_card(364)
    for i, kind in enumerate(dict.fromkeys(row[0] for row in rows)):
        left = 76 + 242 * i
        chart = new_chart(figure, left, 62, 206, 240, xlabel=say("iteration"), ylabel="" if i else "mIoU")
        heading(axes, left + 103, 30, f"--augment {kind}")
        curves = {}
        for part in ("train", "test"):
            points = [(int(iteration), float(miou)) for *at, iteration, miou in rows if at == [kind, part]]
            iterations, curves[part] = zip(*points, strict=True)
        chart.fill_between(iterations, curves["train"], curves["test"], color=GREY)
        for part, other, colour, dashes in (("train", "test", ORANGE, (0, (5, 2))), ("test", "train", BLUE, "-")):
            curve = curves[part]
            chart.plot(iterations, curve, color=colour, linestyle=dashes, linewidth=2.5)
            above = curve[-1] > curves[other][-1]
            y = max(curve[-5:]) + 0.03 if above else min(curve[-5:]) - 0.03  # clear of the end of the curve
            style = {"ha": "right", "va": "bottom" if above else "top", "fontsize": 0.75 * 15, "color": colour}
            chart.text(iterations[-1], y, say(f"{part} {{}}").format(f"{curve[-1]:.2f}"), **style)
        chart.set(xlim=(0, iterations[-1]), ylim=(0, 1))
        chart.tick_params(labelleft=i == 0)
    return figure


DRAWN = {
    "segmentation": draw_segmentation,
    "masks": draw_masks,
    "class_indices": draw_class_indices,
    "bin_loss": draw_bin_loss,
    "sigmoid": draw_sigmoid,
    "pixelwise_softmax": draw_pixelwise_softmax,
    "upsampling": draw_upsampling,
    "skip": draw_skip,
    "encoder_decoder": draw_encoder_decoder,
    "unet": draw_unet,
    "unet_margin": draw_unet_margin,
    "unpooling": draw_unpooling,
    "receptive_field": draw_receptive_field,
    "loss_curves": draw_loss_curves,
    "augmentation": draw_augmentation,
}
FIGURES = in_both(DRAWN, JAPANESE)


def write_figure(name, folder=ASSETS, figures=FIGURES):
    """Draw one of figures, {name: function}, write it to folder/<name>.svg and return that path."""
    path = folder / f"{name}.svg"
    with matplotlib.style.context(STYLE):
        figure = figures[name]()
        part = path.with_name(f".part-{path.name}")  # a figure is whole or absent
        figure.savefig(part, format="svg", metadata={"Date": None, "Creator": None})
        part.replace(path)
    return path


def main(text=__doc__, folder=ASSETS, figures=FIGURES):
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("names", nargs="*", help=f"figures to draw: {' '.join(figures)} (all)")
    options = parser.parse_args()
    for name in options.names:
        if name not in figures:
            stop(f"{name}: no such figure: give some of {' '.join(figures)}")
    try:
        for name in options.names or figures:
            print(f"wrote {write_figure(name, folder, figures)}")
    except OSError as error:
        stop(f"{error.filename}: {error.strerror}: fix that and run again")


if __name__ == "__main__":
    main()
