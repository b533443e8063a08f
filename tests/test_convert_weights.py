"""tools/convert_weights.py carries what was trained in one framework to the three others, and back."""

import itertools
import json

import cv2
import numpy as np
import pytest
from conftest import FRAMEWORKS, ROOT, SCRIPTS, run_python

CONVERT = ROOT / "tools" / "convert_weights.py"
# The frameworks in turn and back to the first; for concat, whose runs are short, on until all twelve pairs have come.
WALKS = {"segnet": "pytorch tensorflow keras chainer pytorch".split()}
WALKS["concat"] = [*WALKS["segnet"], *"keras tensorflow chainer keras pytorch chainer tensorflow pytorch".split()]


def run_answer(exercise, framework, newts, out, *arguments):
    script = next(script for script in SCRIPTS if script.stem == f"{exercise}_{framework}")
    numbers = ["--size", 32, "--batch", 2, "--device", "cpu", "--iterations", 3]
    result = run_python(script, "--data", newts, "--out", out, *numbers, *arguments, cwd=out.parent)
    assert result.returncode == 0, result.stderr


def read_predictions(out):
    paths = sorted((out / "predictions").rglob("*.png"))
    return {path.relative_to(out).as_posix(): cv2.imdecode(np.fromfile(path, np.uint8), 1) for path in paths}


@pytest.fixture(scope="module", params=WALKS)
def walk(request, tmp_path_factory, newts):
    """The folders of a network trained in PyTorch and converted from framework to framework, at last to PyTorch."""
    top = tmp_path_factory.mktemp("重み の 旅")
    folders = [top / f"{place}_{framework}" for place, framework in enumerate(WALKS[request.param])]
    run_answer(request.param, "pytorch", newts, folders[0])
    for source, target in itertools.pairwise(folders):
        result = run_python(CONVERT, source, target, cwd=top)
        assert result.returncode == 0, result.stderr
        assert "Warning" not in result.stderr
        run_answer(request.param, target.name.rpartition("_")[2], newts, target, "--test")
    return folders


def test_every_pixel_is_predicted_the_same(walk):
    first = read_predictions(walk[0])
    assert len(first) == 3 and len(np.unique(np.concatenate([array.ravel() for array in first.values()]))) > 1
    for folder in walk[1:]:
        other = read_predictions(folder)
        assert other.keys() == first.keys()
        assert all(np.array_equal(other[name], first[name]) for name in first), folder


def test_all_twelve_pairs_are_walked(request, walk):
    if "concat" in request.node.name:
        frameworks = [folder.name.rpartition("_")[2] for folder in walk]
        assert set(itertools.pairwise(frameworks)) == set(itertools.permutations(FRAMEWORKS, 2))


def test_measures_are_the_same(walk):
    measures = [json.loads((folder / "metrics.json").read_text("utf-8"))["miou"] for folder in walk]
    assert len(set(measures)) == 1


def test_back_where_they_came_from_the_weights_are_equal_bit_for_bit(walk):
    torch = pytest.importorskip("torch")
    before, after = (torch.load(folder / "weights.pt", weights_only=True) for folder in (walk[0], walk[-1]))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before if "num_batches" not in name)


@pytest.mark.parametrize(
    "spoil, target, named",
    [
        (None, "x_keras", "metrics.json"),
        ({"framework": "pytorch"}, "x_keras", "metrics.json"),
        ({"exercise": "concat", "framework": "pytorch"}, "somewhere", "somewhere"),
        ({"exercise": "no_such", "framework": "pytorch"}, "x_keras", "no_such"),
        ({"exercise": "concat", "framework": "pytorch"}, "x_keras", "weights.pt"),
    ],
)
def test_wrong_input_ends_in_one_line(tmp_path, spoil, target, named):
    source = tmp_path / "source"
    source.mkdir()
    if spoil:
        (source / "metrics.json").write_text(json.dumps(spoil))
    result = run_python(CONVERT, source, tmp_path / target, cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and named in result.stderr
    assert not (tmp_path / target).exists()


def test_options_of_the_training_go_to_the_answers(tmp_path):
    script = next(script for script in SCRIPTS if script.stem == "graph_conv_pytorch")
    few = ["--order", 2, "--channels", 4, 3]
    shorter = ["--device", "cpu", "--iterations", 1, "--batch", 2, "--pictures", 2]
    trained, target = tmp_path / "a_pytorch", tmp_path / "b_pytorch"
    assert run_python(script, "--out", trained, *few, *shorter, cwd=tmp_path).returncode == 0
    refused = run_python(CONVERT, trained, target, cwd=tmp_path)
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1 and not target.exists()
    done = run_python(CONVERT, trained, target, *few, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.strip().endswith("--order 2 --channels 4 3")
    assert (target / "weights.pt").exists()
    wrong = run_python(CONVERT, trained, target, "--ordre", 2, cwd=tmp_path)
    assert wrong.returncode == 2 and "--ordre" in wrong.stderr and len(wrong.stderr.splitlines()) == 1


def test_a_folder_is_not_converted_into_itself(tmp_path):
    source = tmp_path / "converted"  # without a loss.csv, so that nothing tells of a training
    source.mkdir()
    (source / "metrics.json").write_text(json.dumps({"exercise": "concat", "framework": "pytorch"}))
    result = run_python(CONVERT, source, tmp_path / "x/../converted", "--framework", "keras", cwd=tmp_path)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1 and "is FROM itself" in result.stderr
    assert [path.name for path in source.iterdir()] == ["metrics.json"]


def test_a_run_of_another_exercise_is_not_written_over(tmp_path):
    for name, exercise in (("source", "concat"), ("x_keras", "unet")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps({"exercise": exercise, "framework": "pytorch"}))
    result = run_python(CONVERT, tmp_path / "source", tmp_path / "x_keras", cwd=tmp_path)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    assert "x_keras" in result.stderr and "unet" in result.stderr
    assert [path.name for path in (tmp_path / "x_keras").iterdir()] == ["metrics.json"]


def test_what_was_trained_is_not_written_over(walk, tmp_path):
    trained = walk[0]
    before = {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    result = run_python(CONVERT, walk[1], trained, cwd=tmp_path)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1 and "holds a training's" in result.stderr
    assert {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()} == before
