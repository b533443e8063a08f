"""Take the fingerprints of answers: numbers by which one knows that an answer computes what it computed before.

    python tools/fingerprints.py FRAMEWORK [EXERCISE ...]     prints them as JSON, of all that train by default

Where an answer reads records of streets, a few are drawn and made first, unless --records names a folder of such.

An answer's results, which take minutes to make, are stale when the numbers would change, and not when a message does.
So beside each result in a subject's assets/results.json lies its answer's fingerprint, taken in double precision:

    weights     checksum of the weights that are drawn, in the common layout of tools/convert_weights.py
    parameters  how many numbers training sets
    logits      checksum of what the network, untrained, predicts of a few inputs in test mode
    rates       checksum of the learning rates of the whole default run
    losses      of the first iterations at the full learning rate, on the first batches; where a run consists of several
                trainings, of those that begin with random and with trained weights in turn
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import convert_weights
import numpy as np
from exercises import (
    FRAMEWORKS,
    REPOSITORY,
    answer_path,
    build_network,
    find_exercise,
    list_earlier,
    load_answer,
    read_exercises,
)
from results import run_in_turn

STEPS = 5  # whose losses are taken
RUN = 10  # iterations of a training whose samples depend on how many there are
CLOSE = 1e-9  # relative difference up to which two fingerprints are one


def checksum(arrays):
    """Return one number for the values and the order of all numbers in arrays, in double precision."""
    numbers = np.concatenate([np.ravel(array) for array in arrays]).astype(np.float64)
    return float(numbers @ np.cos(np.arange(len(numbers))) / np.sqrt(len(numbers)))


def start_semaseg(answer, options, rng):
    """Return inputs to predict, the learning rates of a default run, and what trains a network for STEPS iterations."""
    data = answer.load_newts(options.data / "train", options.size)[1:]
    has_rates = hasattr(answer, "learning_rate")
    rates = [answer.learning_rate(i, options) for i in range(options.iterations)] if has_rates else [options.lr]
    options.iterations = STEPS
    return data[0][:1], rates, lambda network: answer.train(network, *data, options, rng)


def start_digits(answer, options, rng):
    """Return the same as start_semaseg."""
    data, options.iterations = answer.load_data(options), STEPS
    exam = answer.make_pictures(*data["test"], 10, np.random.default_rng(0))
    inputs = answer.normalise(np.random.default_rng(1).random((2, 32, 32, 3)))
    return inputs, [options.lr], lambda network: answer.train(network, data["train"], exam, options, rng)[0]


def start_voc(answer, options, rng):
    """Return the same as start_semaseg."""
    rates = [answer.learning_rate(i, options.iterations, options.lr) for i in range(options.iterations)]
    voc, options.workers = answer.find_voc(options.data), 0
    names = answer.read_names(voc, "train")
    inputs = answer.normalise(answer.centre_crop(*answer.read_pair(voc, names[0]), options.size)[0])[None]
    if not hasattr(answer, "PHASES"):
        options.iterations = STEPS
        return inputs, rates, lambda network: answer.train(network, answer.Samples(voc, names, options, rng), options)
    number = options.batch * RUN // 2

    def train(network):
        losses = []
        with tempfile.TemporaryDirectory() as folder:  # for checkpoints
            options.out = Path(folder)
            for phase in ("scratch", "finetuned"):
                samples = answer.Samples(voc, names, range(1, 11), number, options, rng)
                losses.append(answer.train(network, samples, phase, options))
                answer.draw_heads(network, rng)
        return [loss for pair in zip(*losses, strict=True) for loss in pair][:STEPS]

    return inputs, rates, train


def make_records(folder):
    """Draw a few streets into folder/streets, and make records of them; return the folder that has the records."""
    draw = [sys.executable, str(REPOSITORY / "Dataset/draw_streets.py"), "--out", str(folder / "streets")]
    numbers = ["--train", "16", "--val", "4", "--width", "256"]
    subprocess.run([*draw, *numbers], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return run_in_turn(list_earlier("street_train", "pytorch"), folder, folder / "streets")


def start_street(answer, options, rng):
    """Return the same as start_semaseg."""
    rates = [answer.learning_rate(i, options) for i in range(options.iterations)]
    metrics, options.iterations, options.workers = answer.read_metrics(options.data / "metrics.json"), RUN, 0
    options.batch = 2  # less than by default, which takes longer
    records = {
        split: answer.Records([options.data / shard["name"] for shard in shards])
        for split, shards in metrics["shards"].items()
    }
    # Nothing depends on what validating finds: it only chooses the weights to keep.
    answer.validate = lambda *_: ({"miou": 0, "pixel_accuracy": 0}, {})

    def train(network):
        with tempfile.TemporaryDirectory() as folder:  # for checkpoints
            options.out = Path(folder)
            return answer.train(network, records, metrics, options)[0][:STEPS]

    image = np.random.default_rng(1).integers(0, 256, (128, 256, 3), np.uint8)
    return answer.normalise(image)[None], rates, train


STARTS = {"semaseg": start_semaseg, "digits": start_digits, "voc": start_voc, "street": start_street}


def take_fingerprint(exercise, framework, records=None):
    """Return {"weights": ..., "parameters": ..., "logits": ..., "rates": ..., "losses": [STEPS numbers]} of an answer.

    records is the folder that make_records returned, for an answer that reads such. The framework computes in double
    precision from then on. Raises what the answer raises.
    """
    path = answer_path(exercise, framework)
    answer = load_answer(path)
    answer.FLOAT = "float64"
    sys.argv = [str(path), "--device", "cpu", *(["--data", str(records)] if exercise.reads else [])]
    options = answer.read_options()
    rng = np.random.default_rng(options.seed)
    network = build_network(answer, rng, options)
    weights = convert_weights.list_weights(answer, framework, network)
    drawn = checksum(weights[name] for name in sorted(weights))  # now: some frameworks' arrays change while they train
    trained = [array for name, array in weights.items() if not name.endswith(("mean", "variance", "running_var"))]
    inputs, rates, train = STARTS[exercise.subject](answer, options, rng)
    if hasattr(answer, "predict"):
        logits = [answer.predict(network, inputs.astype(np.float64), options)]
    if hasattr(answer, "learning_rate"):
        answer.learning_rate = lambda *_: options.lr
    losses = train(network)
    return {
        "weights": drawn,
        "parameters": sum(array.size for array in trained),
        "logits": checksum(logits) if hasattr(answer, "predict") else None,
        "rates": checksum([np.array(rates)]),
        "losses": losses,
    }


def take_in_child(framework, names, *more):
    """Return {exercise: fingerprint} of the answers to exercises in a framework, taken in a process of its own.

    Raises RuntimeError, with the last line that the process wrote, where it fails.
    """
    done = subprocess.run(
        [sys.executable, __file__, framework, *names, *more], capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        raise RuntimeError(f"fingerprints.py {framework}: {(done.stderr.splitlines() or [''])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def describe(exercise, framework="pytorch"):
    """Return {"answer": ..., "fingerprint": ...}, by which a file of measurements says of what they are."""
    fingerprint = take_in_child(framework, [exercise])[exercise]
    return {"answer": f"{exercise}_{framework}", "fingerprint": fingerprint}


def differ(one, other):
    """Return the names of what differs by more than CLOSE in two fingerprints."""
    names = []
    for name in ("weights", "parameters", "logits", "rates", "losses"):
        a, b = (np.array(np.atleast_1d(each.get(name)), dtype=np.float64) for each in (one, other))
        if a.shape != b.shape or not np.allclose(a, b, rtol=CLOSE, atol=1e-12, equal_nan=True):
            names.append(name)
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("framework", choices=FRAMEWORKS)
    parser.add_argument("exercises", nargs="*", type=find_exercise, help="names (all that train)")
    parser.add_argument("--records", type=Path, metavar="FOLDER", help="of streets (a few are made)")
    options = parser.parse_args()
    exercises = options.exercises or [exercise for exercise in read_exercises() if exercise.trains]
    with tempfile.TemporaryDirectory() as folder:
        records = options.records
        if records is None and any(exercise.reads for exercise in exercises):
            records = make_records(Path(folder))
        print(json.dumps({each.name: take_fingerprint(each, options.framework, records) for each in exercises}))


if __name__ == "__main__":
    main()
