"""Time and memory of one product with a grid's Laplacian, dense and sparse, as the side of the picture grows.

    python benchmarks/sparse.py [--sides 32 64 128 256] [--columns 64] [--out Question_digits/assets/sparse.json]

The grid has 8 neighbours, the matrix multiplies a picture's features, (side x side, columns) float32, by PyTorch in one
thread. Memory is what the matrix's own arrays hold. A dense matrix that would take more than --most bytes is not made:
its memory is told by arithmetic, 4 bytes for each of (side x side)^2 entries, and its time is not told. The exponent is
that of the side, by least squares over the logarithms of what was measured.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tools"))
from exercises import answer_path, load_answer  # noqa: E402


def stop(message):
    """End with one line and status 2."""
    print(f"sparse.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def count_bytes(matrix):
    """Return how many bytes the arrays of a tensor hold, sparse by compressed rows or dense."""
    parts = [matrix]
    if matrix.layout == torch.sparse_csr:
        parts = [matrix.crow_indices(), matrix.col_indices(), matrix.values()]
    return sum(part.numel() * part.element_size() for part in parts)


def time_product(answer, matrix, features, seconds):
    """Return the median of milliseconds of a product, over at least three and about that many seconds of them."""
    answer.multiply(matrix, features)
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        answer.multiply(matrix, features)
        times.append(1000 * (time.perf_counter() - start))
    return median(times)


def measure(answer, side, options):
    """Return {"dense": {"bytes": ..., "milliseconds": ... or None}, "sparse": the same} for one side."""
    edges = answer.connect(side, side, 8)
    adjacency = answer.make_adjacency(edges, np.ones(len(edges)), side * side)
    laplacian = answer.make_laplacian(adjacency, "normalised").astype(np.float32)
    features = np.random.default_rng(0).standard_normal((side * side, 1, options.columns)).astype(np.float32)
    features, found = torch.from_numpy(features), {}
    sparse = answer.to_sparse(laplacian, "cpu")
    expected = answer.multiply(sparse, features)
    milliseconds = time_product(answer, sparse, features, options.seconds)
    found["sparse"] = {"bytes": count_bytes(sparse), "milliseconds": milliseconds}
    dense_bytes = 4 * side**4
    if dense_bytes > options.most:
        found["dense"] = {"bytes": dense_bytes, "milliseconds": None}
        return found
    dense = answer.to_dense(laplacian, "cpu")
    torch.testing.assert_close(answer.multiply(dense, features), expected, atol=1e-4, rtol=1e-4)
    milliseconds = time_product(answer, dense, features, options.seconds)
    found["dense"] = {"bytes": count_bytes(dense), "milliseconds": milliseconds}
    return found


def fit_exponent(sides, values):
    """Return e of value = c x side^e, by least squares over the logarithms; values that are None are left out."""
    points = [(side, value) for side, value in zip(sides, values, strict=True) if value is not None]
    return float(np.polyfit(*np.log(points).T, 1)[0]) if len(points) > 1 else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    own_out = REPOSITORY / "Question_digits/assets/sparse.json"
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 64, 128, 256], help="(%(default)s)")
    parser.add_argument("--columns", type=int, default=64, help="features of a node (%(default)s)")
    parser.add_argument("--seconds", type=float, default=1, help="to spend on each product (%(default)s)")
    parser.add_argument("--most", type=float, default=2e9, help="bytes of a matrix that is still made (%(default)s)")
    parser.add_argument("--out", type=Path, default=own_out, help="(%(default)s)")
    options = parser.parse_args()
    for name, least in (("sides", 2), ("columns", 1)):
        if min(np.atleast_1d(vars(options)[name])) < least:
            stop(f"--{name}: give whole numbers from {least} up")
    torch.set_num_threads(1)
    answer = load_answer(answer_path("grid_graph", "pytorch"))
    found = {}
    print("| side | nodes | dense, MB | sparse, MB | dense, ms | sparse, ms |\n|---|---|---|---|---|---|")
    for side in options.sides:
        found[side] = measure(answer, side, options)
        cells = [f"{found[side][way]['bytes'] / 1e6:,.2f}" for way in ("dense", "sparse")]
        times = [found[side][way]["milliseconds"] for way in ("dense", "sparse")]
        cells += ["not made" if value is None else f"{value:,.2f}" for value in times]
        print(f"| {side} | {side * side:,} | {' | '.join(cells)} |", flush=True)
    exponents = {}
    for way in ("dense", "sparse"):
        for what in ("bytes", "milliseconds"):
            exponent = fit_exponent(found, [each[way][what] for each in found.values()])
            exponents[f"{way} {what}"] = exponent
            if exponent is not None:
                print(f"{way}, {what}: side to the power of {exponent:.2f}")
    written = {
        "answer": "grid_graph_pytorch",
        "versions": {"pytorch": torch.__version__, "numpy": np.__version__},
        "processor": platform.machine(),
        "threads": 1,
    }
    written |= {"columns": options.columns, "sides": found, "exponents": exponents}
    try:
        answer.write_whole(options.out, lambda part: part.write_text(json.dumps(written, indent=1) + "\n"))
    except OSError as error:
        stop(f"{error}: name another file with --out")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
