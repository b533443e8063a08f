"""In double precision the four frameworks compute the same, and each computes what gave the results in the lessons.

The first losses are those of every exercise at its defaults, but at the full learning rate from the start, where the
weights move; nothing but a difference in arithmetic can part them by more than rounding does.
"""

import itertools
import json
import subprocess
import sys

import exercises
import fingerprints
import numpy as np
import pytest
from results import REPOSITORY, read_results

TRAINED = [exercise for exercise in exercises.read_exercises() if exercise.trains]
BOUND = 1e-9  # relative


@pytest.fixture(scope="module")
def prints(tmp_path_factory):
    """{framework: {exercise: fingerprint}}, each framework's in a process of its own."""
    found, records = {}, fingerprints.make_records(tmp_path_factory.mktemp("streets"))
    for framework in exercises.FRAMEWORKS:
        command = [sys.executable, fingerprints.__file__, framework, "--records", str(records)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found[framework] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", [exercise.name for exercise in TRAINED])
def test_losses_agree(prints, name):
    losses = {framework: np.array(prints[framework][name]["losses"]) for framework in prints}
    # Few steps: SegNet's deepest batch norms see 4 x 2 x 2 values of a channel, and a step at the full rate multiplies
    # what rounding leaves there until it flips a pooling index. Over five 6e-12 is measured, over ten 1.4e-8.
    assert all(len(each) == fingerprints.STEPS and np.isfinite(each).all() for each in losses.values())
    # The weights move: had they not, every program would agree.
    assert np.ptp(losses["pytorch"]) > 0.02
    apart = {
        f"{one} - {other}": float(np.max(np.abs(losses[one] / losses[other] - 1)))
        for one, other in itertools.combinations(losses, 2)
    }
    print(name, apart)
    assert max(apart.values()) < BOUND, apart


@pytest.mark.parametrize("name", [exercise.name for exercise in TRAINED])
def test_weights_logits_and_rates_agree(prints, name):
    first = prints["pytorch"][name]
    for framework in prints:
        assert fingerprints.differ(first, prints[framework][name]) == []


@pytest.mark.parametrize("exercise", TRAINED, ids=lambda exercise: exercise.name)
def test_parameters_are_those_of_exercises_toml(prints, exercise):
    assert prints["pytorch"][exercise.name]["parameters"] == exercise.parameters


@pytest.mark.parametrize("exercise", [each for each in TRAINED if each.predicts], ids=lambda exercise: exercise.name)
@pytest.mark.parametrize("framework", exercises.FRAMEWORKS)
def test_results_belong_to_these_answers(prints, exercise, framework):
    """What this says of an answer: its numbers would change, so run make lesson-figures."""
    folder = exercises.find_subject(exercise.subject).folder
    answers = read_results(REPOSITORY / folder / "assets/results.json")["answers"]
    kept = answers[f"{exercise.name}_{framework}"]
    assert fingerprints.differ(kept["fingerprint"], prints[framework][exercise.name]) == []


def find_described(numbers):
    """Yield each {"answer": ..., "fingerprint": ...} in what a benchmark wrote."""
    if isinstance(numbers, dict):
        if {"answer", "fingerprint"} <= numbers.keys():
            yield numbers
        for value in numbers.values():
            yield from find_described(value)


@pytest.mark.parametrize(
    "name",
    ["semaseg/assets/losses", "digits/assets/ways", "digits/assets/graph_against_cnn", "voc/assets/voc_finetune"],
)
def test_what_benchmarks_measured_is_of_the_answers_as_they_are(prints, name):
    described = list(find_described(json.loads((REPOSITORY / f"Question_{name}.json").read_text(encoding="utf-8"))))
    assert described, f"{name}.json does not say of which answer it is"
    for each in described:
        exercise, framework = each["answer"].rsplit("_", 1)
        assert fingerprints.differ(each["fingerprint"], prints[framework][exercise]) == [], (
            f"run the benchmark of {name}"
        )


def test_differ_tells_what_differs():
    one = {"weights": 1.0, "parameters": 5, "logits": 0.3, "rates": 2.0, "losses": [1.0, 0.9, 0.8, 0.7, 0.6]}
    assert fingerprints.differ(one, one | {"losses": [*one["losses"][:-1], 0.6 + 1e-12]}) == []
    assert fingerprints.differ(one, one | {"losses": one["losses"][:-1]}) == ["losses"]
    assert fingerprints.differ(one, one | {"losses": [1.0, 0.9, 0.8, 0.7, 0.6 + 1e-7]}) == ["losses"]
    assert fingerprints.differ(one, one | {"weights": 1 + 1e-6, "parameters": 6}) == ["weights", "parameters"]
    assert fingerprints.differ(one, one | {"logits": None}) == ["logits"]


def test_checksum_sees_order_and_values():
    array = np.random.default_rng(0).standard_normal((3, 4))
    assert abs(fingerprints.checksum([array]) - fingerprints.checksum([array.T.copy()])) > 1e-3
    assert abs(fingerprints.checksum([array]) - fingerprints.checksum([2 * array])) > 1e-3
    assert fingerprints.checksum([array]) == fingerprints.checksum([array[:1], array[1:]])
