"""Draw the figures about digits and graphs: Question_digits/assets/<name>.svg, and <name>.ja.svg in Japanese.

    python tools/schematics_graph.py [names]

As in schematics.py every number is computed here, by the answers in PyTorch; only sparse
shows what was measured, by benchmarks/sparse.py, and reads it from the assets. A second run writes the same bytes.
"""

import json
from types import SimpleNamespace

import numpy as np
import torch
from matplotlib import colormaps
from schematics import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALE_BLUE,
    PALE_ORANGE,
    PALE_RED,
    RED,
    REPOSITORY,
    SOFT,
    WHITE,
    arrow,
    box,
    grid,
    heading,
    in_both,
    load_answer,
    main,
    new_card,
    new_chart,
    show,
    stop,
    swatch,
    to_grey,
    write,
)

ASSETS = REPOSITORY / "Question_digits/assets"
JAPANESE = {
    "photograph": "写真",
    "digit": "数字",
    "image": "画像",
    "mask": "マスク",
    "at most 255": "255 まで",
    "above {}": "{} より大きい",
    "logits": "ロジット",
    "{} channels": "{} チャンネル",
    "{} channel": "{} チャンネル",
    "{} parameters": "パラメーター {} 個",
    "sees {} × {}": "受容野 {} × {}",
    "ReLU, dropout": "ReLU、ドロップアウト",
    "{} neighbours: {} edges": "{} 近傍：辺 {} 本",
    "adjacency": "隣接行列",
    "combinatorial Laplacian": "非正規化ラプラシアン",
    "normalised Laplacian": "正規化ラプラシアン",
    "{} of {} entries are not 0": "0 でない要素は {} 個（全 {} 個）",
    "eight smallest eigenvalues of the grid, and their eigenvectors": "格子の最小の八つの固有値と固有ベクトル",
    "edges weighted by colour: what the second one cuts out of a test image": (
        "色で辺に重みを付けて、二つ目の固有ベクトルで切り出したもの"
    ),
    "Fiedler vector": "Fiedler ベクトル",
    "what one filter is: its weights around a pixel": "フィルターの中身：画素のまわりの重み",
    "kernel of a convolution": "畳み込みのカーネル",
    "Chebyshev term {}": "Chebyshev の項 {}",
    "what it makes of strokes and edges": "線とエッジに対する応答",
    "kernel": "カーネル",
    "graph filter": "グラフ",
    "upright": "縦の線",
    "level": "横の線",
    "spot": "点",
    "edge": "エッジ",
    "edge, mirrored": "裏返したエッジ",
    "side of the image, pixels": "画像の一辺（画素）",
    "memory, MB": "メモリー（MB）",
    "one product, ms": "積一回（ミリ秒）",
    "dense: power {}": "密行列：{} 乗",
    "sparse: power {}": "疎行列：{} 乗",
    "negative": "負",
    "positive": "正",
    "cut": "切ったところ",
}


def to_colours(array, most=None):
    """Return numbers (height, width) as a picture: blue above 0, white 0, red below; most is what is darkest."""
    most = most or np.abs(array).max()
    return np.uint8(255 * colormaps["RdBu"](0.5 + 0.5 * array / most)[..., :3])


def draw_scale(axes, say, x, y):
    """Explain the colours of to_colours around (x, y)."""
    show(axes, to_colours(np.linspace(-1, 1, 65)[None]), x - 80, y - 8, 160, 16)
    for side, text, place in (
        (x - 90, say("negative"), "right"),
        (x, "0", "center"),
        (x + 90, say("positive"), "left"),
    ):
        write(axes, side, y, text, 14, ha=place)


def label(value):
    """Return a number for a small cell: without what is 0."""
    return f"{value:.2g}".replace("0.", ".").replace("-", "\N{MINUS SIGN}")


def draw_digits_dataset(say):
    """Draw how an image of training comes about: a patch of a photograph, a digit, their sum, and the mask."""
    answer, seed = load_answer("digits_dataset_pytorch"), 0
    digits, photographs = answer.load_data(SimpleNamespace(data=None))["train"]
    images, masks = answer.make_pictures(digits, photographs, 1, np.random.default_rng(seed))
    plain, _ = answer.make_pictures(np.zeros_like(digits), photographs, 1, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    _, chosen = (rng.integers(len(array)) for array in (photographs, digits))  # as make_pictures draws them
    figure, axes = new_card(236)
    panels = {  # the digit is smaller than the others, as it is in the image
        "photograph": (24, 160, np.uint8(np.round(255 * plain[0]))),
        "digit": (258, 70, to_grey(digits[chosen])),
        "image": (444, 160, np.uint8(np.round(255 * images[0]))),
        "mask": (628, 160, to_grey(masks[0, ..., 0])),
    }
    for name, (x, size, panel) in panels.items():
        heading(axes, x + size / 2, 24, say(name))
        show(axes, panel, x, 126 - size / 2, size, size)
    write(axes, 221, 126, f"+ {answer.BRIGHTEST} ×", 15)
    arrow(axes, (340, 126), (432, 126))
    write(axes, 386, 106, say("at most 255"), 13, SOFT)
    write(axes, 708, 224, say("above {}").format(answer.INK), 13, SOFT)
    return figure


def draw_digits_cnn(say):
    """Draw the network as a row of features: their channels, the parameters before them, and what they see."""
    answer = load_answer("digits_cnn_pytorch")
    network = answer.build_network(np.random.default_rng(0), SimpleNamespace(channels=answer.CHANNELS, device="cpu"))
    image, seen = torch.zeros(1, 3, answer.SIDE, answer.SIDE), 1
    figure, axes = new_card(236)
    stages = [(say("image"), 3, None, seen)]
    for conv in network.convs:
        seen += conv.kernel_size[0] - 1
        image = conv(image)
        stages.append((None, image.shape[1], sum(each.numel() for each in conv.parameters()), seen))
    for i, (name, channels, parameters, seen) in enumerate(stages):
        x = 76 + 162 * i
        for each in reversed(range(channels)):  # as many sheets as channels
            box(axes, x - 30 + 2.5 * each, 92 - 2.5 * each, 60, 60, PALE_ORANGE if i in (0, 4) else PALE_BLUE, line=0.7)
        write(axes, x + 8, 30, name or (say("logits") if i == 4 else say("ReLU, dropout")))
        write(axes, x, 172, say("{} channel" if channels == 1 else "{} channels").format(channels), 14)
        write(axes, x, 194, say("sees {} × {}").format(seen, seen), 13, SOFT)
        if parameters:
            arrow(axes, (x - 98, 122), (x - 38, 122))
            kernel = "{} × {}".format(*network.convs[i - 1].kernel_size)
            write(axes, x - 68, 104, kernel, 13, SOFT)
            write(axes, x - 81, 222, say("{} parameters").format(f"{parameters:,}"), 13, SOFT)
    return figure


def draw_grid_graph(say):
    """Draw a picture of 3 x 3 pixels, its graphs with 4 and 8 neighbours, and the matrices of the first."""
    answer, side, step = load_answer("grid_graph_pytorch"), 3, 58
    figure, axes = new_card(624)
    picture = np.uint8([[230, 215, 60], [225, 70, 55], [235, 80, 210]])
    heading(axes, 110, 26, say("image"))
    show(axes, picture[..., None].repeat(3, axis=2), 30, 56, 160, 160)
    for i in range(side * side):
        row, column = divmod(i, side)
        x, y = 30 + 160 * (column + 0.5) / side, 56 + 160 * (row + 0.5) / side
        write(axes, x, y, f"{i}", 15, WHITE if picture[row, column] < 128 else INK)
    for neighbours, left in ((4, 330), (8, 600)):
        edges = answer.connect(side, side, neighbours)
        heading(axes, left + step, 26, say("{} neighbours: {} edges").format(neighbours, len(edges)))
        places = [(left + step * (i % side), 78 + step * (i // side)) for i in range(side * side)]
        for one, other in edges:
            axes.plot(*zip(places[one], places[other], strict=True), color=SOFT, linewidth=1.6, zorder=1)
        for i, (x, y) in enumerate(places):
            axes.plot(x, y, "o", markersize=20, color=PALE_BLUE, markeredgecolor=INK, markeredgewidth=1, zorder=2)
            write(axes, x, y, f"{i}", 14)
    arrow(axes, (204, 136), (296, 136))
    edges = answer.connect(side, side, 4)
    adjacency = answer.make_adjacency(edges, np.ones(len(edges)), side * side)
    laplacians = {
        f"{kind} Laplacian": answer.make_laplacian(adjacency, kind) for kind in ("combinatorial", "normalised")
    }
    left, cells = 13, (24, 26, 33)  # the longer the numbers in it, the larger a cell
    for cell, (title, matrix) in zip(cells, {"adjacency": adjacency, **laplacians}.items(), strict=True):
        heading(axes, left + 4.5 * cell, 268, say(title))
        for (row, column), value in np.ndenumerate(matrix.toarray()):
            colour = PALE_BLUE if value > 0 else PALE_RED if value < 0 else WHITE
            box(axes, left + cell * column, 292 + cell * row, cell, cell, colour, GREY, 0.8)
            if value:
                write(axes, left + cell * (column + 0.5), 292 + cell * (row + 0.5), label(value), 11)
        box(axes, left, 292, 9 * cell, 9 * cell)
        entries = say("{} of {} entries are not 0").format(matrix.nnz, side**4)
        write(axes, left + 4.5 * cell, 292 + 9 * cell + 20, entries, 13, SOFT)
        left += 9 * cell + 13
    return figure


def draw_spectral(say):
    """Draw the first eigenvectors of the plain grid, and of four test pictures what their Fiedler vectors cut out."""
    answer = load_answer("grid_graph_pytorch")
    options = SimpleNamespace(neighbours="8", laplacian="normalised", data=None)  # what the answer reads of them
    side = answer.SIDE
    edges = answer.connect(side, side, 8)
    weights = 1 + 0.001 * (edges[:, 1] - edges[:, 0] == side)  # as the answer does, so that pairs of values part
    adjacency = answer.make_adjacency(edges, weights, side * side)
    values, vectors = answer.find_eigenvectors(answer.make_laplacian(adjacency, options.laplacian), 8)
    figure, axes = new_card(724)
    heading(axes, 400, 24, say("eight smallest eigenvalues of the grid, and their eigenvectors"))
    for i, (value, vector) in enumerate(zip(values, vectors.T, strict=True)):
        x, y = 122 + 142 * (i % 4), 62 + 146 * (i // 4)
        show(axes, to_colours(vector.reshape(side, side)), x, y, 116, 116)
        write(axes, x + 58, y - 12, f"{abs(value):.4f}", 14, SOFT)
    heading(axes, 400, 362, say("edges weighted by colour: what the second one cuts out of a test image"))
    images, masks = answer.make_pictures(*answer.load_data(options)["test"], 16, np.random.default_rng(1))
    cuts = [answer.segment(image, options) for image in images]
    shares = [answer.mean_digit_iou(cut[1][None, ..., None], mask[None]) for cut, mask in zip(cuts, masks, strict=True)]
    ranked = np.argsort(shares)[::-1]
    chosen = [ranked[0], ranked[5], ranked[10], ranked[15]]  # the best, the worst, and two between
    for row, name in enumerate(("image", "Fiedler vector")):
        write(axes, 24, 446 + 140 * row, say(name), 14, SOFT, rotation=90, va="center")
    for i, number in enumerate(chosen):
        x = 60 + 186 * i
        vector, part = cuts[number]
        show(axes, np.uint8(np.round(255 * images[number])), x, 386, 124, 124)
        show(axes, to_colours(vector), x, 526, 124, 124)
        for (at_row, at_column), inside in np.ndenumerate(part):  # the line around what is cut out
            cell = 124 / side
            left, top = x + cell * at_column, 386 + cell * at_row
            style = {"color": ORANGE, "linewidth": 1.6, "solid_capstyle": "projecting"}
            if at_column + 1 < side and part[at_row, at_column + 1] != inside:
                axes.plot([left + cell, left + cell], [top, top + cell], **style)
            if at_row + 1 < side and part[at_row + 1, at_column] != inside:
                axes.plot([left, left + cell], [top + cell, top + cell], **style)
        write(axes, x + 62, 668, f"IoU {shares[number]:.2f}", 14)
    draw_scale(axes, say, 270, 704)
    swatch(axes, 540, 704, say("cut"), edge=ORANGE, line=1.6)
    return figure


def filter_picture(picture, kernel):
    """Return a picture (height, width) convolved with a kernel of odd sides, 0 beyond the picture's edge."""
    margin = [(length // 2, length // 2) for length in kernel.shape]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(picture, margin), kernel.shape)
    return np.einsum("ijkl,kl->ij", windows, kernel)


def draw_isotropic(say):
    """Draw what a kernel with a direction and a graph filter of order 3 make of the same strokes."""
    answer, side = load_answer("graph_conv_pytorch"), 15
    edges = answer.connect(side, side, 8)
    matrix = answer.make_propagation(answer.make_adjacency(edges, np.ones(len(edges)), side * side), 3).toarray()
    identity = np.eye(side * side)
    terms = [identity, matrix, 2 * matrix @ matrix - identity]
    graph_filter = terms[0] + terms[1]  # a pixel less a mean of its neighbours
    kernel = np.float32([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    strokes = {name: np.zeros((side, side)) for name in ("upright", "level", "spot", "edge", "edge, mirrored")}
    strokes["upright"][3:12, 7] = strokes["level"][7, 3:12] = strokes["spot"][7, 7] = 1
    strokes["edge"][:, 8:] = strokes["edge, mirrored"][:, :7] = 1
    figure, axes = new_card(740)
    heading(axes, 400, 24, say("what one filter is: its weights around a pixel"))
    centre = (side // 2) * side + side // 2
    weights = {say("kernel of a convolution"): np.pad(kernel, 1)}
    for i, term in enumerate(terms[1:], start=1):
        weights[say("Chebyshev term {}").format(i)] = term[centre].reshape(side, side)[5:10, 5:10]
    for i, (title, array) in enumerate(weights.items()):
        x, cell = 54 + 246 * i, 40
        most = np.abs(array).max()

        def shade(value, row, column, most=most):
            return tuple(to_colours(np.array([[0.5 * value]]), most)[0, 0] / 255)

        rounded = np.where(np.abs(array) < 0.005, 0, array)
        grid(axes, rounded, x, 50, cell, shade, 11, "{:.2g}")
        write(axes, x + 2.5 * cell, 270, title, 14, SOFT)
    heading(axes, 400, 316, say("what it makes of strokes and edges"))
    rows = {"image": None, "kernel": lambda p: filter_picture(p, kernel)}
    rows["graph filter"] = lambda p: (graph_filter @ p.ravel()).reshape(side, side)
    for row, (name, apply) in enumerate(rows.items()):
        write(axes, 70, 396 + 112 * row, say(name), 14, SOFT)
        results = [picture if apply is None else apply(picture) for picture in strokes.values()]
        inner = [result[2:-2, 2:-2] for result in results]  # without the picture's own edge
        most = max(np.abs(result).max() for result in inner)
        for i, result in enumerate(inner):
            shown = to_grey(result) if apply is None else to_colours(result, most)
            show(axes, shown, 140 + 130 * i, 346 + 112 * row, 100, 100)
    for i, name in enumerate(strokes):
        write(axes, 190 + 130 * i, 684, say(name), 14)
    write(axes, 190, 720, say("image"), 14, ha="right")
    swatch(axes, 204, 720, "0", "black")
    swatch(axes, 254, 720, "1", WHITE)
    draw_scale(axes, say, 520, 720)
    return figure


def draw_sparse(say):
    """Draw memory and time of a product, dense and sparse, over the side of the picture."""
    path = ASSETS / "sparse.json"
    if not path.exists():
        stop(f"{path}: no such file: run benchmarks/sparse.py, which makes it")
    measured = json.loads(path.read_text(encoding="utf-8"))
    sides = [int(side) for side in measured["sides"]]
    figure, axes = new_card(380)
    for i, (what, unit, scale) in enumerate((("bytes", "memory, MB", 1e-6), ("milliseconds", "one product, ms", 1))):
        chart = new_chart(figure, 84 + 378 * i, 48, 300, 260, xlabel=say("side of the image, pixels"), ylabel=say(unit))
        for way, colour, marker in (("dense", RED, "s"), ("sparse", BLUE, "o")):
            points = [(side, measured["sides"][str(side)][way][what]) for side in sides]
            points = [(side, value * scale) for side, value in points if value is not None]
            text = say(f"{way}: power {{}}").format(f"{measured['exponents'][f'{way} {what}']:.1f}")
            style = {"color": colour, "marker": marker, "linewidth": 2.5, "markersize": 6, "label": text}
            chart.plot(*zip(*points, strict=True), **style)
        chart.legend(
            fontsize=0.75 * 15,
            frameon=False,
            labelcolor="linecolor",
            loc="lower center",
            bbox_to_anchor=(0.5, 1),
            ncols=2,
            columnspacing=1,
            handlelength=1.6,
        )
        chart.set(xscale="log", yscale="log")
        chart.set_xticks(sides, [str(side) for side in sides])
        chart.minorticks_off()
    return figure


DRAWN = {
    "digits_dataset": draw_digits_dataset,
    "digits_cnn": draw_digits_cnn,
    "grid_graph": draw_grid_graph,
    "spectral": draw_spectral,
    "isotropic": draw_isotropic,
    "sparse": draw_sparse,
}
FIGURES = in_both(DRAWN, JAPANESE)


if __name__ == "__main__":
    main(__doc__, ASSETS, FIGURES)
