"""tools/convert_weights.py carries what was trained in one framework to the three others, and back."""

import itertools
import json
import os
import shlex
import shutil

import convert_weights
import numpy as np
import pytest
from conftest import ROOT, run_python
from exercises import answer_path, find_exercise

CONVERT = ROOT / "tools" / "convert_weights.py"
# A conversion is an export from one framework and an import to another: in a round each does both once.
ROUND = "pytorch tensorflow keras chainer pytorch".split()
NETWORK = {"concat": [], "graph_conv": ["--order", 2, "--neighbours", 4, "--channels", 4, 3]}  # what shapes the network
SHORT = {"concat": ["--size", 32], "graph_conv": ["--pictures", 2]}
LOGITS = f"""
import sys
sys.path.insert(0, {str(ROOT / "tools")!r})
import exercises
import numpy as np
from pathlib import Path
answer, folder = exercises.load_answer(sys.argv.pop(1)), Path(sys.argv.pop(1))
options = answer.read_options()
network = answer.build_network(np.random.default_rng(1), options)
answer.load_weights(network, folder)
images = np.random.default_rng(2).standard_normal((2, 32, 32, 3)).astype(np.float32)
np.save(folder / "logits.npy", answer.predict(network, images, options))
"""


def assert_one_line(result, *named):
    """The tool refused: status 2, and one line that names all of these."""
    assert result.returncode == 2 and result.stdout == ""
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("convert_weights.py: ")
    assert all(name in result.stderr for name in named), result.stderr


@pytest.fixture(scope="module", params=NETWORK)
def walk(request, tmp_path_factory, newts, fork):
    """The folders of a network trained in PyTorch and converted from framework to framework, at last to PyTorch.

    In each lie the logits that the answer predicts with the weights there.
    """
    top, network = tmp_path_factory.mktemp("重み の 旅"), NETWORK[request.param]
    folders = [top / f"{place}_{framework}" for place, framework in enumerate(ROUND)]
    short = [*SHORT[request.param], "--batch", 2, "--device", "cpu"]
    if request.param == "concat":
        hidden = shutil.ignore_patterns(".*")  # another test's matter
        short += ["--data", shutil.copytree(newts, top / "data", ignore=hidden)]
    train = ["--iterations", 3, *short, *network, "--out", folders[0]]
    result = fork(answer_path(request.param, "pytorch"), *train, cwd=top)
    assert result.returncode == 0, result.stderr
    for source, target in itertools.pairwise(folders):
        given = network if source == folders[0] else []  # they may be given too
        result = run_python(CONVERT, source, target, *given, cwd=top)
        assert result.returncode == 0, result.stderr
        assert "Warning" not in result.stderr
        if target == folders[2]:
            words = shlex.split(result.stdout.split("try it: ")[1], posix=os.name != "nt")
            command = [word.strip('"') for word in words[1:]]  # which are left there on Windows alone
            result = fork(*command, *short, cwd=top)
            assert result.returncode == 0, result.stderr
    for folder, framework in zip(folders[:4], ROUND, strict=False):
        script = top / f"00_logits_{framework}.py"
        script.write_text(LOGITS)
        answer = answer_path(request.param, framework)
        result = fork(script, answer, folder, "--device", "cpu", *network, cwd=top)
        assert result.returncode == 0, result.stderr
    return folders


def test_logits_are_the_same(walk):
    first, *others = (np.load(folder / "logits.npy") for folder in walk[:4])
    scale = np.abs(first).max()
    assert np.ptp(first) > 1e-3
    assert all(np.abs(other - first).max() < 1e-4 * scale for other in others)


def test_a_folder_that_was_written_can_be_tested(walk):
    trained, tested = (json.loads((walk[place] / "metrics.json").read_text("utf-8")) for place in (0, 2))
    name = "miou" if "miou" in trained else "mean_digit_iou"
    assert tested[name] == pytest.approx(trained[name], abs=1e-3)
    assert tested["answer"] == trained["answer"].replace("pytorch", "keras")
    if "order" in trained["options"]:
        assert tested["options"] == {name: trained["options"][name] for name in ("order", "neighbours", "channels")}


def test_back_where_they_came_from_the_weights_are_equal_bit_for_bit(walk):
    import torch

    before, after = (torch.load(folder / "weights.pt", weights_only=True) for folder in (walk[0], walk[-1]))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before if "num_batches" not in name)


def write_metrics(folder, answer, **more):
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"answer": answer} | more))
    return folder


@pytest.mark.parametrize(
    "text, target, named",
    [
        (None, "x_keras", "metrics.json"),
        ('{"answer": "09_concat_pytorch"', "x_keras", "metrics.json"),
        ('["09_concat_pytorch"]', "x_keras", "metrics.json"),
        ('{"exercise": "concat", "framework": "pytorch"}', "x_keras", "metrics.json"),
        ('{"answer": "09_concat_pytorch"}', "somewhere", "somewhere"),
        ('{"answer": "09_concat_pytorch"}', "x_keras", "weights.pt"),
        ('{"answer": "01_bin_dataset_pytorch"}', "x_keras", "trains no network of its own"),
    ],
)
def test_wrong_input_ends_in_one_line(tmp_path, text, target, named):
    source = tmp_path / "source"
    source.mkdir()
    if text:
        (source / "metrics.json").write_text(text)
    result = run_python(CONVERT, source, tmp_path / target, cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and named in result.stderr
    assert not (tmp_path / target).exists()


@pytest.mark.parametrize(
    "answer",
    [
        "{0}/evil_pytorch",
        "../../..{0}/evil_pytorch",
        "evil_pytorch",
        "09_concat_pytorch/../../../..{0}/evil_pytorch",
        "09_concat_evil",
        "9_concat_pytorch",
        "concat_pytorch",
        "09_concat_pytorch\n",
        "09_CONCAT_pytorch",
        ["09_concat_pytorch"],
        {"09_concat_pytorch": 1},
        None,
        "*_pytorch",
    ],
)
def test_a_crafted_folder_makes_it_run_no_other_file(tmp_path, answer):
    """A metrics.json may come from anyone: no file but the answers of the repository is ever imported."""
    evil = "from pathlib import Path\nPath(__file__).with_name('was_run').touch()\n"
    for name in ("evil_pytorch.py", "evil_keras.py", "evil.py"):
        (tmp_path / name).write_text(evil)
    answer = answer.format(tmp_path) if isinstance(answer, str) else answer
    source = write_metrics(tmp_path / "source", answer)
    (source / "evil_pytorch.py").write_text(evil)
    assert_one_line(run_python(CONVERT, source, tmp_path / "x_keras", cwd=tmp_path), "metrics.json", "answer")
    assert not list(tmp_path.rglob("was_run")) and not (tmp_path / "x_keras").exists()


@pytest.mark.parametrize(
    "exercise, options, named",
    [
        ("07_nearest", {"upsampling": "--out /tmp"}, "not a value"),
        ("07_nearest", {"upsampling": ""}, "not a value"),
        ("07_nearest", {"upsampling": "nearest\n"}, "weights.pt"),
        ("07_nearest", {"upsampling": "trilinear"}, "trilinear"),
        ("07_nearest", "upsampling", "metrics.json"),
        ("04_graph_conv", {"channels": "[4, -3]"}, "not a value"),
        ("07_nearest", {"out": "; touch was_run", "order": "--help"}, "weights.pt"),  # of no account
    ],
)
def test_crafted_options_end_in_one_line(tmp_path, exercise, options, named):
    source = write_metrics(tmp_path / "source", f"{exercise}_pytorch", options=options)
    result = run_python(CONVERT, source, tmp_path / "x_keras", cwd=tmp_path)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1 and named in result.stderr, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    "given, named",
    [
        (["--order", 3], ["--order 3", "--order 2"]),
        (["--channels", 4], ["--channels 4:", "--channels 4 3"]),
        (["--upsampling", "nearest"], ["--upsampling", "graph_conv"]),
        (["--ordre", 2], ["--ordre"]),
    ],
)
def test_options_must_be_those_of_the_training(tmp_path, given, named):
    options = {"order": "2", "channels": "[4, 3]", "neighbours": "8", "seed": "5"}
    source = write_metrics(tmp_path / "source", "04_graph_conv_pytorch", options=options)
    assert_one_line(run_python(CONVERT, source, tmp_path / "x_keras", *given, cwd=tmp_path), *named)
    assert not (tmp_path / "x_keras").exists()


def test_options_that_are_an_answers_defaults_are_left_out():
    exercise = find_exercise("graph_conv")
    defaults = {name: values[0].split() for name, values in exercise.network_options.items()}
    assert defaults["channels"] == ["32"] * 5
    assert convert_weights.list_arguments(exercise, defaults) == []
    assert convert_weights.list_arguments(exercise, {"order": ["2"], "channels": ["4", "3"], "neighbours": ["8"]}) == [
        *("--order", "2", "--channels", "4", "3")
    ]


def test_a_folder_is_not_converted_into_itself(tmp_path):
    source = write_metrics(tmp_path / "converted", "09_concat_pytorch")  # without a loss.csv: nothing tells of a run
    result = run_python(CONVERT, source, tmp_path / "x/../converted", "--framework", "keras", cwd=tmp_path)
    assert_one_line(result, "is FROM itself")
    assert [path.name for path in source.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize("there, named", [("10_unet_keras", "what unet gave"), ("my own", "something else")])
def test_what_is_not_of_the_exercise_is_not_written_over(tmp_path, there, named):
    source, target = write_metrics(tmp_path / "source", "09_concat_pytorch"), write_metrics(tmp_path / "x_keras", there)
    assert_one_line(run_python(CONVERT, source, target, cwd=tmp_path), "x_keras", named)
    assert [path.name for path in target.iterdir()] == ["metrics.json"]


def test_what_was_trained_is_not_written_over(walk, tmp_path):
    trained = walk[0]
    before = {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    assert_one_line(run_python(CONVERT, walk[1], trained, cwd=tmp_path), "holds a training's")
    assert {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()} == before
