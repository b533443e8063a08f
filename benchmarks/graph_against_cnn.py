"""Graph convolutions against the CNN, on the digits: accuracy, parameters, time and memory, over several seeds.

    python benchmarks/graph_against_cnn.py [--seeds 3] [--framework pytorch] [--names ...] [--out FILE]

Each run is an answer of its own, digits_cnn or graph_conv, in a process of its own, one after another: at its defaults,
and with as many layers as see as far as the CNN does, of as many channels as give nearest its number of parameters.
The seconds, and so the ms per step, hold the looks at the test pictures too. Runs that --out already tells are not
run again while the answer's code is the same, so a long comparison can be made in parts.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tools"))
import convert_weights  # noqa: E402
import fingerprints  # noqa: E402
from exercises import FRAMEWORKS, answer_path, load_answer  # noqa: E402
from results import run_measured  # noqa: E402

CNN_CHANNELS, KERNEL = (10, 12, 8), 5  # of digits_cnn
MEASURES = ("mean_digit_iou", "parameters", "milliseconds_per_iteration", "peak_memory_mb", "final_loss")


def stop(message):
    """End with one line and status 2."""
    print(f"graph_against_cnn.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def count_cnn(channels):
    """Return the parameters of digits_cnn: each kernel of 5 x 5 and its bias, down to one channel."""
    return sum(o * (KERNEL**2 * i + 1) for i, o in zip((3, *channels), (*channels, 1), strict=True))


def count_graph(channels, order):
    """Return the parameters of graph_conv: a matrix of order x in to out, and its bias; then one to a logit."""
    return sum(o * (order * i + 1) for i, o in zip((3, *channels), channels, strict=False)) + channels[-1] + 1


def match_cnn(order):
    """Return the channels of a graph network that sees as far as digits_cnn with about as many parameters."""
    rings = max(order - 1, 1)  # that a layer sees
    layers = (len(CNN_CHANNELS) + 1) * (KERNEL // 2) // rings
    wanted = count_cnn(CNN_CHANNELS)
    return layers * [min(range(1, 200), key=lambda width: abs(count_graph(layers * [width], order) - wanted))]


def list_contests():
    """Return {name: (exercise, options, how many pixels it sees to each side)}."""
    deep = {order: match_cnn(order) for order in (1, 3)}
    sees = (len(CNN_CHANNELS) + 1) * (KERNEL // 2)
    return {
        "CNN as given": ("digits_cnn", [], sees),
        "CNN without dropout": ("digits_cnn", ["--keep", 1], sees),
        "Kipf and Welling, 5 x 32": ("graph_conv", [], 5),
        "Chebyshev of order 3, 5 x 32": ("graph_conv", ["--order", 3], 10),
        f"Kipf and Welling, {len(deep[1])} x {deep[1][0]}": ("graph_conv", ["--channels", *deep[1]], len(deep[1])),
        f"Chebyshev of order 3, {len(deep[3])} x {deep[3][0]}": (
            "graph_conv",
            ["--order", 3, "--channels", *deep[3]],
            2 * len(deep[3]),
        ),
    }


# The answer's own main, with its train timed.
RUN = """
import json, sys, time
sys.path.insert(0, sys.argv.pop(1))
import exercises
sys.argv.pop(0)
answer = exercises.load_answer(sys.argv[0])
train, seconds = answer.train, []


def timed(*arguments):
    start = time.perf_counter()
    result = train(*arguments)
    seconds.append(time.perf_counter() - start)
    return result


answer.train = timed
answer.main()
print(json.dumps(seconds[0]))
"""


def run(exercise, framework, arguments, seed):
    """Run an answer and return its measures: the time is that of the training, the memory that of the process."""
    script = answer_path(exercise, framework)
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-c", RUN, Path(fingerprints.__file__).parent, script, *arguments]
        command += ["--seed", seed, "--device", "cpu", "--out", out]
        with tempfile.TemporaryFile("w+") as printed:
            status, errors, _, memory = run_measured(list(map(str, command)), stdout=printed)
            if status:
                stop(f"{script.name}: {errors.strip().splitlines()[-1]}")
            printed.seek(0)
            seconds = json.loads(printed.read().splitlines()[-1])
        metrics = json.loads((Path(out) / "metrics.json").read_text(encoding="utf-8"))
    metrics["milliseconds_per_iteration"] = 1000 * seconds / int(metrics["options"]["iterations"])
    metrics |= {"peak_memory_mb": memory, "parameters": count_parameters(exercise, framework, arguments)}
    return {name: metrics[name] for name in MEASURES}


def count_parameters(exercise, framework, arguments):
    """Return how many numbers training sets in the network of an answer with these options."""
    answer = load_answer(answer_path(exercise, framework))
    sys.argv = [answer.__file__, *map(str, arguments), "--device", "cpu"]
    network = answer.build_network(np.random.default_rng(0), answer.read_options())
    return sum(array.size for array in convert_weights.get_weights(framework, network).values())


def main():
    contests = list_contests()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    own_out = REPOSITORY / "Question_digits/assets/graph_against_cnn.json"
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... (%(default)s of them)")
    parser.add_argument("--framework", default="pytorch", help="(%(default)s)")
    parser.add_argument("--iterations", type=int, help="steps of training (the answer's default)")
    parser.add_argument("--names", nargs="+", default=list(contests), help=f"some of {', '.join(contests)} (all)")
    parser.add_argument("--out", type=Path, default=own_out, help="(%(default)s)")
    options = parser.parse_args()
    if options.seeds < 1:
        stop(f"--seeds {options.seeds}: give a whole number from 1 up")
    if options.framework not in FRAMEWORKS:
        stop(f"--framework {options.framework}: give one of {', '.join(FRAMEWORKS)}")
    for name in options.names:
        if name not in contests:
            stop(f"--names {name!r}: no such contest: give some of {', '.join(map(repr, contests))}")
    kept = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    described = {}
    for name in options.names:
        exercise, arguments, sees = contests[name]
        arguments = arguments + (["--iterations", options.iterations] if options.iterations else [])
        if exercise not in described:
            described[exercise] = fingerprints.describe(exercise, options.framework)
        facts = described[exercise] | {"options": arguments, "sees": sees}
        old = kept.get(name, {})
        is_same = all(old.get(key) == facts[key] for key in ("answer", "options", "sees"))
        is_same = is_same and not fingerprints.differ(old["fingerprint"], facts["fingerprint"])
        runs = old["runs"] if is_same else {}
        kept[name] = facts | {"runs": runs}
        for seed in map(str, range(options.seeds)):
            if seed not in runs:
                print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
                runs[seed] = run(exercise, options.framework, arguments, seed)
                aside = options.out.with_name(f".part-{options.out.name}")
                aside.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
                aside.replace(options.out)
    print("| network | sees to each side | parameters | mean IoU of the digit | ms a step | memory, MB |")
    print("|---|---|---|---|---|---|")
    for name in options.names:
        runs = [kept[name]["runs"][str(seed)] for seed in range(options.seeds)]
        each = {measure: [each[measure] for each in runs] for measure in MEASURES}
        spread = f" ± {stdev(each['mean_digit_iou']):.3f}" if len(runs) > 1 else ""
        cells = [f"{kept[name]['sees']}", f"{runs[0]['parameters']:,}", f"{mean(each['mean_digit_iou']):.3f}{spread}"]
        cells += [f"{mean(each['milliseconds_per_iteration']):.0f}", f"{max(each['peak_memory_mb']):.0f}"]
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"{options.framework}, {options.seeds} seed(s)")


if __name__ == "__main__":
    main()
