"""What common mistakes look like: nearest trained with each of them, at other learning rates, and on one batch.

    python benchmarks/debugging.py           measure, write Question_semaseg/assets/debugging.json and stripes.png, draw
    python benchmarks/debugging.py --draw    only draw assets/learning_rates.svg, and .ja.svg, of what was measured

Each run is the PyTorch answer's own functions at its defaults, seed 0, but shorter, and with one thing changed. It
takes some five minutes on one core.
"""

import argparse
import functools
import json
import math
import statistics
import sys
from pathlib import Path

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tools"))
import fingerprints  # noqa: E402
from exercises import answer_path  # noqa: E402
from exercises import load_answer as load_from  # noqa: E402
from schematics import BLUE, RED, in_both, new_card, new_chart, write_figure  # noqa: E402

ASSETS = REPOSITORY / "Question_semaseg/assets"
ITERATIONS = 100  # of each short run
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
HIGHEST = 2  # loss that the chart shows; above it training has failed
SEEN = (20, 40, 60, 80, 100, 200)  # after how many iterations of a default run it is tested
SHOWN = "akahara/akahara_0011"  # the test image with stripes
JAPANESE = {
    "learning rate": "学習率",
    "loss after {} iterations": "{} イテレーション後の損失",
    "the shares of the classes everywhere": "どこでもクラスの割合を答える",
    "explodes": "発散",
}


def stop(message):
    """End with one line and status 2."""
    print(f"debugging.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def load_answer(iterations=None):
    """Return a fresh copy of the answer as a module, whose functions can be replaced, and its options."""
    answer = load_from(answer_path("nearest", "pytorch"))
    sys.argv = [answer.__file__, "--device", "cpu", *(["--iterations", str(iterations)] if iterations else [])]
    answer.stop = lambda message: print(f"stopped: {message}", flush=True)
    return answer, answer.read_options()


def repeat_one_batch(answer):
    """Let every batch of an answer's training be the first."""
    draw = answer.draw_batches

    def draw_batches(images, targets, options, rng):
        batch = next(draw(images, targets, options, rng))
        yield from (batch for _ in range(options.iterations))

    answer.draw_batches = draw_batches


def add_softmax(answer, options):
    loss = answer.compute_loss
    answer.compute_loss = lambda logits, targets: loss(logits.softmax(dim=1), targets)


def reshape_logits(answer, options):
    """Let the loss take logits (batch, 3, height, width) for (batch, height, width, 3), as reshape alone does."""
    loss = answer.compute_loss
    answer.compute_loss = lambda logits, targets: loss(
        logits.contiguous().view(len(logits), *logits.shape[2:], 3).permute(0, 3, 1, 2), targets
    )


def keep_gradients(answer, options):
    class SGD(torch.optim.SGD):
        def zero_grad(self):
            pass

    answer.torch = type("torch", (), vars(torch) | {"optim": type("optim", (), {"SGD": SGD})})


def shuffle_masks(answer, options):
    draw = answer.draw_batches
    order = np.random.default_rng(0).permutation(144)
    answer.draw_batches = lambda images, targets, options, rng: draw(images, targets[order], options, rng)


def take_rate(rate, answer, options):
    options.lr = rate


FAULTS = {
    "as given": lambda answer, options: None,
    "learning rate 0.0002": functools.partial(take_rate, 0.0002),
    "softmax before the loss": add_softmax,
    "gradients not set to 0": keep_gradients,
    "masks of other images": shuffle_masks,
    "reshape for permute in the loss": reshape_logits,
}


def test(answer, network, options, images, targets):
    """Return measures of a network on images, and the share of pixels that it takes for newt."""
    predictions = answer.predict(network, images, options).argmax(axis=3)
    measures = answer.measure(predictions, targets)
    return {key: measures[key] for key in ("miou", "pixel_accuracy")} | {"newt_share": float(np.mean(predictions > 0))}


def run(data, iterations, change=None):
    """Train with a change; return answer, options, network and losses."""
    answer, options = load_answer(iterations)
    if change:
        change(answer, options)
    rng = np.random.default_rng(options.seed)
    network = answer.build_network(rng, options)
    return answer, options, network, answer.train(network, *data["train"], options, rng)


def watch(answer, data, seen):
    """Let a training put what its network, then answer.network, reaches after each number of SEEN into seen."""
    draw, build = answer.draw_batches, answer.build_network

    def build_network(rng, options):
        answer.network = build(rng, options)
        return answer.network

    def draw_batches(images, targets, options, rng):
        for done, batch in enumerate(draw(images, targets, options, rng)):
            if done in SEEN:
                seen[done] = test(answer, answer.network, options, *data["test"])
                answer.network.train()
            yield batch

    answer.build_network, answer.draw_batches = build_network, draw_batches


def save_stripes(answer, options, network, data, names):
    """Save image, truth, prediction, and the prediction from logits that were reshaped, not transposed."""
    number = names.index(SHOWN)
    image, target = (array[number] for array in data["test"])
    logits = answer.predict(network, image[None], options)[0]  # (height, width, 3)
    striped = logits.transpose(2, 0, 1).reshape(logits.shape)
    colours = 2 * np.uint8(list(answer.COLOURS.values()))
    classes = [target, logits.argmax(axis=2), striped.argmax(axis=2)]
    panels = [np.uint8(np.rint(127.5 * (image + 1))), *(colours[each] for each in classes)]
    answer.save_image(ASSETS / "stripes.png", np.hstack(panels).repeat(3, axis=0).repeat(3, axis=1))
    return {"right": float(np.mean(classes[1] == target)), "striped": float(np.mean(classes[2] == target))}


def measure():
    """Return all that is measured."""
    answer, options = load_answer()
    data, names = {}, {}
    for part in ("train", "test"):
        names[part], *data[part] = answer.load_newts(REPOSITORY / "Dataset" / part, options.size)
    shares = np.bincount(data["train"][1].ravel()) / data["train"][1].size
    found = {"iterations": ITERATIONS, "constant": float(-(shares * np.log(shares)).sum()), "runs": {}, "rates": {}}
    for name, change in FAULTS.items():
        print(name, flush=True)
        answer, options, network, losses = run(data, ITERATIONS, change)
        reached = test(answer, network, options, *data["test"])
        found["runs"][name] = [{"end_loss": statistics.mean(losses[-5:])} | reached]
    for rate in RATES:
        print(f"learning rate {rate}", flush=True)
        losses = run(data, ITERATIONS, functools.partial(take_rate, rate))[3]
        last = statistics.mean(losses[-5:])
        found["rates"][str(rate)] = last if math.isfinite(last) else None
    answer, options, network, losses = run(data, 200, lambda answer, options: repeat_one_batch(answer))
    found["one_batch"] = {str(number): losses[number - 1] for number in (1, 50, 100, 200)}
    seen = {}
    answer, options, network, losses = run(data, None, lambda answer, options: watch(answer, data, seen))
    seen[len(losses)] = test(answer, network, options, *data["test"])
    found["seen"] = {str(number): each | {"loss": losses[number - 1]} for number, each in seen.items()}
    found["stripes"] = save_stripes(answer, options, network, data, list(names["test"]))
    answer.write_whole(
        ASSETS / "debugging.json",
        lambda part: part.write_text(json.dumps(fingerprints.describe("nearest") | found, indent=1) + "\n"),
    )


def draw(say):
    """Draw the loss over the learning rate, and that of a network that gives every pixel the shares of the classes."""
    found = json.loads((ASSETS / "debugging.json").read_text(encoding="utf-8"))
    losses = {float(rate): loss for rate, loss in found["rates"].items()}
    shown = {rate: loss for rate, loss in losses.items() if loss is not None and loss < HIGHEST}
    failed = [rate for rate in losses if rate not in shown]
    figure, _ = new_card(330)
    label = say("loss after {} iterations").format(found["iterations"])
    chart = new_chart(figure, 90, 30, 660, 230, xlabel=say("learning rate"), ylabel=label)
    chart.axhline(found["constant"], color=RED, linewidth=1.5, linestyle="--")
    constant = say("the shares of the classes everywhere")
    chart.text(0.009, found["constant"] + 0.02, constant, fontsize=0.75 * 14, color=RED)
    chart.plot(shown.keys(), shown.values(), "o-", color=BLUE, linewidth=2.5)
    chart.plot(failed, [1] * len(failed), "x", color=RED, markersize=9, markeredgewidth=2.5)
    chart.text(min(failed), 0.9, say("explodes"), fontsize=0.75 * 14, color=RED)
    chart.set(xscale="log", ylim=(0, 1.05))
    chart.set_xticks(list(losses), [f"{rate:g}" for rate in losses])
    chart.minorticks_off()
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("--draw", action="store_true", help="only draw what was measured before")
    options = parser.parse_args()
    if not options.draw:
        measure()
    if not (ASSETS / "debugging.json").exists():
        stop(f"{ASSETS / 'debugging.json'}: no such file: leave --draw out, to measure")
    figures = in_both({"learning_rates": draw}, JAPANESE)
    for name in figures:
        print(f"wrote {write_figure(name, ASSETS, figures)}")


if __name__ == "__main__":
    main()
