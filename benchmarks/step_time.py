"""Milliseconds per training step of each answer against a bare loop of the same network, and what starting takes.

    python benchmarks/step_time.py [--exercises "bin_test unet"] [--frameworks "pytorch"] [--steps 15] [--rounds 5]

The answer's own `train` draws its batches, turns them into tensors, shows its bar and keeps its losses. The bare loop
steps on one batch that lies in memory as tensors, and does nothing else. The two take turns in one process, so that
whatever else the machine is doing falls on both; what counts is their ratio. The first steps of each turn, in which a
framework compiles and warms up, are left out; what starting costs is measured by itself: a run of one step, in a
process of its own. The table is Markdown.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tools"))
from exercises import FRAMEWORKS, answer_path, find_exercise, load_answer, read_exercises  # noqa: E402

WARM_UP = 4  # steps of each turn that do not count


def stop(message):
    """End with one line and status 2."""
    print(f"step_time.py: {message}", file=sys.stderr)
    raise SystemExit(2)


# Each of these returns a function that takes one step on tensors and waits for its loss.
def bare_pytorch(script, network, images, targets):
    optimizer = script.torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    network.train()

    def step():
        loss = script.compute_loss(network(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def bare_tensorflow(script, network, images, targets):
    tf = script.tf
    weights = network.trainable_variables
    velocities = [tf.Variable(tf.zeros_like(weight)) for weight in weights]

    @tf.function
    def graph():
        with tf.GradientTape() as tape:
            loss = script.compute_loss(network(images, training=True), targets)
        for weight, velocity, gradient in zip(weights, velocities, tape.gradient(loss, weights), strict=True):
            velocity.assign(0.9 * velocity - 1e-4 * gradient)
            weight.assign_add(velocity)
        return loss

    return lambda: float(graph())


def bare_keras(script, network, images, targets):
    optimizer = script.keras.optimizers.SGD(1e-4, momentum=0.9)
    network.compile(optimizer, loss=lambda truth, logits: script.compute_loss(logits, truth), jit_compile=False)
    return lambda: float(network.train_on_batch(images, targets))


def bare_chainer(script, network, images, targets):
    optimizer = script.chainer.optimizers.MomentumSGD(lr=1e-4, momentum=0.9).setup(network)

    def step():
        loss = script.compute_loss(network(images), targets)
        network.cleargrads()
        loss.backward()
        optimizer.update()
        return float(loss.array)

    return step


def measure(path, steps, rounds):
    """Return {"script": [ms of each step], "bare": [...]} of one answer, the two taking turns."""
    script = load_answer(path)
    framework = path.stem.rpartition("_")[2]
    sys.argv = [str(path), "--device", "cpu", "--lr", "1e-4", "--iterations", str(WARM_UP + steps)]
    options, rng = script.read_options(), np.random.default_rng(0)
    _, images, targets = script.load_newts(REPOSITORY / "Dataset" / "train", options.size)
    network = script.build_network(rng, options)
    draw_batches, stamps = script.draw_batches, []

    def stamped_batches(*arguments):
        for batch in draw_batches(*arguments):
            yield batch
            stamps.append(time.perf_counter())  # the answer has come back for the next batch: its step is done

    script.draw_batches = stamped_batches
    batch = next(draw_batches(images, targets, options, rng))
    # Keras makes tensors of arrays by itself.
    tensors = batch if framework == "keras" else [script.to_tensor(array, options.device) for array in batch]
    step = globals()[f"bare_{framework}"](script, network, *tensors)
    times = {"script": [], "bare": []}
    for _ in range(rounds):
        stamps.clear()
        script.train(network, images, targets, options, rng)
        times["script"] += np.diff(stamps)[WARM_UP - 1 :].tolist()
        if framework == "keras":  # train has compiled the network anew
            step = bare_keras(script, network, *tensors)
        stamps.clear()
        for _ in range(options.iterations):
            step()
            stamps.append(time.perf_counter())
        times["bare"] += np.diff(stamps)[WARM_UP - 1 :].tolist()
    return {name: [1000 * seconds for seconds in values] for name, values in times.items()}


def run_child(command):
    """Return what a command prints; stop with the last line of its errors where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.splitlines() or [f"{Path(command[1]).name} ended with status {done.returncode}"])[-1]
        stop(last.removeprefix("step_time.py: "))  # a child of this script has put its name there already
    return done.stdout


def seconds_to_first_step(path):
    """Return the seconds that `--iterations 1` takes from the start of Python to its end, the test included."""
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        command = [sys.executable, str(path), "--iterations", "1", "--device", "cpu", "--out", out]
        run_child(command)
        return time.perf_counter() - start


def find_exercises():
    """Return the names of the exercises that train and are tested on newts; others train like these."""
    found = [exercise for exercise in read_exercises() if exercise.subject == "semaseg" and exercise.predicts]
    return [exercise.name for exercise in found]


def measure_apart(path, options):
    """Return what measure does, measured in a process of its own, since two frameworks in one disturb each other."""
    command = [sys.executable, __file__, "--child", str(path)]
    command += ["--steps", str(options.steps), "--rounds", str(options.rounds)]
    return json.loads(run_child(command).splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("--exercises", default=" ".join(find_exercises()), help="(%(default)s)")
    parser.add_argument("--frameworks", default=" ".join(FRAMEWORKS))
    parser.add_argument("--steps", type=int, default=15, help="steps that count in each turn (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (%(default)s)")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name in ("steps", "rounds"):
        if vars(options)[name] < 1:
            stop(f"--{name} {vars(options)[name]}: give a whole number from 1 up")
    if options.child:
        print(json.dumps(measure(options.child, options.steps, options.rounds)))
        return
    paths = {}
    for exercise, framework in itertools.product(options.exercises.split(), options.frameworks.split()):
        try:
            exercise = find_exercise(exercise)
            path = answer_path(exercise.name, framework)
        except ValueError as error:
            stop(str(error))
        if exercise.subject != "semaseg" or not exercise.trains:
            stop(f"--exercises: {exercise.name} does not train on newts: leave it out")
        paths[exercise.name, framework] = path
    if not paths:
        stop("--exercises and --frameworks: name at least one of each")
    header = ("exercise", "framework", "script, ms a step", "bare loop, ms a step", "ratio", "a run of one step, s")
    table = Table(*header, box=MARKDOWN)
    for (exercise, framework), path in track(paths.items(), description="measuring"):
        first, times = seconds_to_first_step(path), measure_apart(path, options)
        script, bare = median(times["script"]), median(times["bare"])
        ratio = f"{script / bare:.3f}"
        table.add_row(f"`{exercise}`", framework, f"{script:.1f}", f"{bare:.1f}", ratio, f"{first:.1f}")
    Console(width=120).print(table)
    print(f"medians of {options.rounds} x {options.steps} steps, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
