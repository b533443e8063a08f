"""tools/convert_weights.py carries what was trained in one framework to the three others, and back."""

import itertools
import json

import cv2
import numpy as np
import pytest
from conftest import ROOT, run_python
from exercises import FRAMEWORKS, answer_path

CONVERT = ROOT / "tools" / "convert_weights.py"
# The frameworks in turn and back to the first; for concat, whose runs are short, on until all twelve pairs have come.
ROUND = "pytorch tensorflow keras chainer pytorch".split()
WALKS = {"segnet": ROUND, "graph_conv": ROUND}
WALKS["concat"] = [*ROUND, *"keras tensorflow chainer keras pytorch chainer tensorflow pytorch".split()]
NETWORK = {"graph_conv": ["--order", 2, "--neighbours", 4, "--channels", 4, 3]}  # options that change the network
SHORT = {"graph_conv": ["--batch", 2, "--pictures", 2]}


def run_answer(exercise, framework, newts, out, *arguments):
    short = SHORT.get(exercise, ["--data", newts, "--size", 32, "--batch", 2])
    short = [*short, *NETWORK.get(exercise, ()), "--device", "cpu", "--iterations", 3, "--out", out]
    result = run_python(answer_path(exercise, framework), *short, *arguments, cwd=out.parent)
    assert result.returncode == 0, result.stderr


def read_predictions(out):
    paths = sorted((out / "predictions").rglob("*.png"))
    return {path.relative_to(out).as_posix(): cv2.imdecode(np.fromfile(path, np.uint8), 1) for path in paths}


def assert_one_line(result, *named):
    """The tool refused: status 2, and one line that names all of these."""
    assert result.returncode == 2 and result.stdout == ""
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("convert_weights.py: ")
    assert all(name in result.stderr for name in named), result.stderr


@pytest.fixture(scope="module", params=WALKS)
def walk(request, tmp_path_factory, newts):
    """The folders of a network trained in PyTorch and converted from framework to framework, at last to PyTorch.

    The first four, a folder of each framework, have been tested with the answer to the exercise.
    """
    top = tmp_path_factory.mktemp("重み の 旅")
    folders = [top / f"{place}_{framework}" for place, framework in enumerate(WALKS[request.param])]
    run_answer(request.param, "pytorch", newts, folders[0])
    for source, target in itertools.pairwise(folders):
        given = NETWORK.get(request.param, ()) if source == folders[0] else ()  # they may be given too
        result = run_python(CONVERT, source, target, *given, cwd=top)
        assert result.returncode == 0, result.stderr
        assert "Warning" not in result.stderr
        tried = " ".join(map(str, NETWORK.get(request.param, ())))
        assert tried in result.stdout and f"--test --out {target}" in result.stdout.replace("'", "")
    for folder in folders[1:4]:
        run_answer(request.param, folder.name.rpartition("_")[2], newts, folder, "--test")
    return folders


def test_every_pixel_is_predicted_the_same(walk):
    first = read_predictions(walk[0])
    assert len(first) in (2, 3) and len(np.unique(np.concatenate([array.ravel() for array in first.values()]))) > 1
    for folder in walk[1:4]:
        other = read_predictions(folder)
        assert other.keys() == first.keys()
        assert all(np.array_equal(other[name], first[name]) for name in first), folder


def test_all_twelve_pairs_are_walked(request, walk):
    if "concat" in request.node.name:
        frameworks = [folder.name.rpartition("_")[2] for folder in walk]
        assert set(itertools.pairwise(frameworks)) == set(itertools.permutations(FRAMEWORKS, 2))


def test_measures_are_the_same(walk):
    metrics = [json.loads((folder / "metrics.json").read_text("utf-8")) for folder in walk[:4]]
    assert len({each.get("miou", each.get("mean_digit_iou")) for each in metrics} - {None}) == 1
    names = [folder.name.rpartition("_")[2] for folder in walk[:4]]
    assert [each["answer"].rpartition("_")[2] for each in metrics] == names
    if "order" in metrics[0]["options"]:
        options = [{name: each["options"][name] for name in ("order", "neighbours", "channels")} for each in metrics]
        assert options == [{"order": "2", "neighbours": "4", "channels": "[4, 3]"}] * 4


def test_back_where_they_came_from_the_weights_are_equal_bit_for_bit(walk):
    torch = pytest.importorskip("torch")
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
        ('{"answer": "01_bin_dataset_pytorch"}', "x_keras", "trains nothing"),
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
