"""Draw the figures about pictures as graphs: Question_digits/assets/<name>.svg.

    python tools/schematics_graph.py [names]

As in schematics.py every number is computed here, by the answers to grid_graph and graph_conv in PyTorch; only sparse
shows what was measured, by benchmarks/sparse.py, and reads it from the assets. A second run writes the same bytes.
"""

import json
from types import SimpleNamespace

import numpy as np
from matplotlib import colormaps
from schematics import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALE_BLUE,
    PALE_ORANGE,
    RED,
    REPOSITORY,
    SOFT,
    WHITE,
    arrow,
    box,
    grid,
    heading,
    load_answer,
    main,
    new_card,
    new_chart,
    show,
    stop,
    to_grey,
    write,
)

ASSETS = REPOSITORY / "Question_digits/assets"


def to_colours(array, most=None):
    """Return numbers (height, width) as a picture: blue above 0, white 0, red below; most is what is darkest."""
    most = most or np.abs(array).max()
    return np.uint8(255 * colormaps["RdBu"](0.5 + 0.5 * array / most)[..., :3])


def label(value):
    """Return a number for a small cell: without what is 0."""
    return f"{value:.2g}".replace("0.", ".").replace("-", "\N{MINUS SIGN}")


def draw_grid_graph():
    """Draw a picture of 3 x 3 pixels, its graphs with 4 and 8 neighbours, and the matrices of the first."""
    answer, side, step = load_answer("grid_graph_pytorch"), 3, 58
    figure, axes = new_card(624)
    picture = np.uint8([[230, 215, 60], [225, 70, 55], [235, 80, 210]])
    heading(axes, 110, 26, "picture")
    show(axes, picture[..., None].repeat(3, axis=2), 30, 56, 160, 160)
    for i in range(side * side):
        row, column = divmod(i, side)
        x, y = 30 + 160 * (column + 0.5) / side, 56 + 160 * (row + 0.5) / side
        write(axes, x, y, f"{i}", 15, WHITE if picture[row, column] < 128 else INK)
    for neighbours, left in ((4, 330), (8, 600)):
        edges = answer.connect(side, side, neighbours)
        heading(axes, left + step, 26, f"{neighbours} neighbours: {len(edges)} edges")
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
        heading(axes, left + 4.5 * cell, 268, title)
        for (row, column), value in np.ndenumerate(matrix.toarray()):
            colour = PALE_ORANGE if value > 0 else PALE_BLUE if value < 0 else WHITE
            box(axes, left + cell * column, 292 + cell * row, cell, cell, colour, GREY, 0.8)
            if value:
                write(axes, left + cell * (column + 0.5), 292 + cell * (row + 0.5), label(value), 11)
        box(axes, left, 292, 9 * cell, 9 * cell)
        entries = f"{matrix.nnz} of {side**4} entries are not 0"
        write(axes, left + 4.5 * cell, 292 + 9 * cell + 20, entries, 13, SOFT)
        left += 9 * cell + 13
    return figure


def draw_spectral():
    """Draw the first eigenvectors of the plain grid, and of four test pictures what their Fiedler vectors cut out."""
    answer = load_answer("grid_graph_pytorch")
    options = SimpleNamespace(neighbours="8", laplacian="normalised", data=None)  # what the answer reads of them
    side = answer.SIDE
    edges = answer.connect(side, side, 8)
    weights = 1 + 0.001 * (edges[:, 1] - edges[:, 0] == side)  # as the answer does, so that pairs of values part
    adjacency = answer.make_adjacency(edges, weights, side * side)
    values, vectors = answer.find_eigenvectors(answer.make_laplacian(adjacency, options.laplacian), 8)
    figure, axes = new_card(690)
    heading(axes, 400, 24, "eight smallest eigenvalues of the grid, and their eigenvectors")
    for i, (value, vector) in enumerate(zip(values, vectors.T, strict=True)):
        x, y = 122 + 142 * (i % 4), 62 + 146 * (i // 4)
        show(axes, to_colours(vector.reshape(side, side)), x, y, 116, 116)
        write(axes, x + 58, y - 12, f"{abs(value):.4f}", 14, SOFT)
    heading(axes, 400, 362, "edges weighted by colour: what the second one cuts out of a test picture")
    images, masks = answer.make_pictures(*answer.load_data(options)["test"], 16, np.random.default_rng(1))
    cuts = [answer.segment(image, options) for image in images]
    shares = [answer.mean_digit_iou(cut[1][None, ..., None], mask[None]) for cut, mask in zip(cuts, masks, strict=True)]
    ranked = np.argsort(shares)[::-1]
    chosen = [ranked[0], ranked[5], ranked[10], ranked[15]]  # the best, the worst, and two between
    for row, name in enumerate(("picture", "Fiedler vector")):
        write(axes, 24, 446 + 140 * row, name, 14, SOFT, rotation=90, va="center")
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
    return figure


def filter_picture(picture, kernel):
    """Return a picture (height, width) convolved with a kernel of odd sides, 0 beyond the picture's edge."""
    margin = [(length // 2, length // 2) for length in kernel.shape]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(picture, margin), kernel.shape)
    return np.einsum("ijkl,kl->ij", windows, kernel)


def draw_isotropic():
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
    figure, axes = new_card(704)
    heading(axes, 400, 24, "what one filter is: its weights around a pixel")
    centre = (side // 2) * side + side // 2
    weights = {"kernel of a convolution": np.pad(kernel, 1)}
    for i, term in enumerate(terms[1:], start=1):
        weights[f"Chebyshev term {i}"] = term[centre].reshape(side, side)[5:10, 5:10]
    for i, (title, array) in enumerate(weights.items()):
        x, cell = 54 + 246 * i, 40
        most = np.abs(array).max()

        def shade(value, row, column, most=most):
            return tuple(to_colours(np.array([[0.7 * value]]), most)[0, 0] / 255)

        rounded = np.where(np.abs(array) < 0.005, 0, array)
        grid(axes, rounded, x, 50, cell, shade, 11, "{:.2g}")
        write(axes, x + 2.5 * cell, 270, title, 14, SOFT)
    heading(axes, 400, 316, "what it makes of strokes and edges")
    rows = {"picture": None, "kernel": lambda p: filter_picture(p, kernel)}
    rows["graph filter"] = lambda p: (graph_filter @ p.ravel()).reshape(side, side)
    for row, (name, apply) in enumerate(rows.items()):
        write(axes, 70, 396 + 112 * row, name, 14, SOFT)
        results = [picture if apply is None else apply(picture) for picture in strokes.values()]
        inner = [result[2:-2, 2:-2] for result in results]  # without the picture's own edge
        most = max(np.abs(result).max() for result in inner)
        for i, result in enumerate(inner):
            shown = to_grey(result) if apply is None else to_colours(result, most)
            show(axes, shown, 140 + 130 * i, 346 + 112 * row, 100, 100)
    for i, name in enumerate(strokes):
        write(axes, 190 + 130 * i, 684, name, 14)
    return figure


def draw_sparse():
    """Draw memory and time of a product, dense and sparse, over the side of the picture."""
    path = ASSETS / "sparse.json"
    if not path.exists():
        stop(f"{path}: no such file: run benchmarks/sparse.py, which makes it")
    measured = json.loads(path.read_text(encoding="utf-8"))
    sides = [int(side) for side in measured["sides"]]
    figure, axes = new_card(380)
    for i, (what, unit, scale) in enumerate((("bytes", "memory, MB", 1e-6), ("milliseconds", "one product, ms", 1))):
        chart = new_chart(figure, 84 + 378 * i, 48, 300, 260, xlabel="side of the picture, pixels", ylabel=unit)
        for way, colour, marker in (("dense", RED, "s"), ("sparse", BLUE, "o")):
            points = [(side, measured["sides"][str(side)][way][what]) for side in sides]
            points = [(side, value * scale) for side, value in points if value is not None]
            text = f"{way}: side$^{{{measured['exponents'][f'{way} {what}']:.1f}}}$"
            style = {"color": colour, "marker": marker, "linewidth": 2.5, "markersize": 6, "label": text}
            chart.plot(*zip(*points, strict=True), **style)
        chart.legend(
            fontsize=0.75 * 15,
            frameon=False,
            labelcolor="linecolor",
            loc="lower center",
            bbox_to_anchor=(0.5, 1),
            ncols=2,
        )
        chart.set(xscale="log", yscale="log")
        chart.set_xticks(sides, [str(side) for side in sides])
        chart.minorticks_off()
    return figure


FIGURES = {
    "grid_graph": draw_grid_graph,
    "spectral": draw_spectral,
    "isotropic": draw_isotropic,
    "sparse": draw_sparse,
}


if __name__ == "__main__":
    main(__doc__, ASSETS, FIGURES)
