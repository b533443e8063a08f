"""Measure what an answer gets right of its training pictures and of the test pictures while it trains, by --augment.

    python tools/measure_augmentation.py [--exercise unetlike] [--iterations N] [--out outputs/lesson/augmentation.csv]

The PyTorch answer trains as it stands, once with each --augment. Every 50 iterations it predicts all pictures of both
parts, unchanged by augmentation; that draws no random number, so the training is the one of an ordinary run. The CSV
file has the columns kind, iteration, part (train or test) and miou; tools/schematics.py draws it. With the defaults it
takes some minutes on two cores.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
from exercises import answer_path, find_exercise, load_answer
from results import REPOSITORY

KINDS = ("none", "flips", "affine")
EVERY = 50  # iterations


def stop(message):
    """End with one line and status 2."""
    print(f"measure_augmentation.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def read_answer_options(answer, *arguments):
    """Return the options that the answer would read from this command line; it stops at a wrong one."""
    with mock.patch.object(sys, "argv", [answer.__file__, *map(str, arguments)]):
        return answer.read_options()


def measure_part(answer, network, images, targets, options):
    """Return the mIoU of a network on images (pictures, height, width, 3)."""
    logits = answer.predict(network, images, options)  # (pictures, height, width, outputs)
    predictions = logits.argmax(axis=3) if logits.shape[3] > 1 else logits[..., 0] >= 0  # probability 0.5 and up
    return answer.measure(predictions.astype(np.uint8), targets)["miou"]


def train_and_measure(answer, newts, options, every=EVERY):
    """Train as the answer's main does; newts are what load_newts returned, by part.

    Return the losses and the measures [(iteration, part, mIoU), ...].
    """
    rng = np.random.default_rng(options.seed)
    network = answer.build_network(rng, options)
    measures, draw_batches = [], answer.draw_batches

    def measure(iteration):
        for part, (_, images, targets) in newts.items():
            measures.append((iteration, part, measure_part(answer, network, images, targets, options)))
        network.train()  # as it was before predict

    def measure_between(*arguments):
        for iteration, batch in enumerate(draw_batches(*arguments)):
            if iteration and iteration % every == 0:  # as many steps have been taken
                measure(iteration)
            yield batch

    with mock.patch.object(answer, "draw_batches", measure_between):
        losses = answer.train(network, *newts["train"][1:], options, rng)
    measure(options.iterations)
    return losses, measures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    out = REPOSITORY / "outputs/lesson/augmentation.csv"
    parser.add_argument("--exercise", default="unetlike", help="one that predicts newts (%(default)s)")
    parser.add_argument("--iterations", type=int, help="steps of each training (the answer's default)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (%(default)s)")
    parser.add_argument("--out", type=Path, default=out, help="the CSV file to write (%(default)s)")
    options = parser.parse_args()
    try:
        exercise = find_exercise(options.exercise)
    except (KeyError, ValueError) as error:
        stop(f"--exercise: {error.args[0]}")
    if not exercise.predicts or exercise.subject != "semaseg":
        stop(f"--exercise {options.exercise}: does not predict newts: give another, such as unetlike")
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=options.out.parent).close()  # fails now, not after training
    except OSError as error:
        stop(f"--out {options.out}: {error.strerror}: name another file")
    answer = load_answer(answer_path(exercise, "pytorch"))
    arguments = ["--seed", options.seed, "--device", options.device]
    arguments += ["--iterations", options.iterations] if options.iterations is not None else []
    rows, newts = ["kind,iteration,part,miou\n"], None
    for kind in KINDS:
        answer_options = read_answer_options(answer, "--augment", kind, *arguments)
        newts = newts or {
            part: answer.load_newts(answer_options.data / part, answer_options.size) for part in ("train", "test")
        }
        _, measures = train_and_measure(answer, newts, answer_options)
        rows += [f"{kind},{iteration},{part},{miou}\n" for iteration, part, miou in measures]
        last = ", ".join(f"{part} {miou:.3f}" for _, part, miou in measures[-2:])
        print(f"--augment {kind}: mIoU after {measures[-1][0]} iterations: {last}")
    answer.write_whole(options.out, lambda part: part.write_text("".join(rows), encoding="utf-8"))
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
