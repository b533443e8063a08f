"""tools/convert_weights.py carries what was trained in one framework to the three others, and back."""

import json

import cv2
import numpy as np
import pytest
from conftest import FRAMEWORKS, ROOT, SCRIPTS, run_python

CONVERT = ROOT / "tools" / "convert_weights.py"
RING = [*FRAMEWORKS, "pytorch"]


def run_answer(framework, newts, out, *arguments):
    script = next(script for script in SCRIPTS if script.stem == f"concat_{framework}")
    numbers = ["--size", 32, "--batch", 2, "--device", "cpu", "--iterations", 3]
    result = run_python(script, "--data", newts, "--out", out, *numbers, *arguments, cwd=out.parent)
    assert result.returncode == 0, result.stderr


def read_predictions(out):
    paths = sorted((out / "predictions").rglob("*.png"))
    return {path.relative_to(out).as_posix(): cv2.imdecode(np.fromfile(path, np.uint8), 1) for path in paths}


@pytest.fixture(scope="module")
def ring(tmp_path_factory, newts):
    """The folders of a network trained in PyTorch and converted to each framework in turn, and back to PyTorch."""
    top = tmp_path_factory.mktemp("重み の 旅")
    folders = [top / f"{place}_{framework}" for place, framework in enumerate(RING)]
    run_answer("pytorch", newts, folders[0])
    for source, target in zip(folders, folders[1:], strict=False):
        result = run_python(CONVERT, source, target, cwd=top)
        assert result.returncode == 0, result.stderr
        assert "Warning" not in result.stderr
        run_answer(target.name.rpartition("_")[2], newts, target, "--test")
    return folders


def test_every_pixel_is_predicted_the_same(ring):
    first = read_predictions(ring[0])
    assert len(first) == 3 and len(np.unique(np.concatenate([array.ravel() for array in first.values()]))) > 1
    for folder in ring[1:]:
        other = read_predictions(folder)
        assert other.keys() == first.keys()
        assert all(np.array_equal(other[name], first[name]) for name in first), folder


def test_measures_are_the_same(ring):
    measures = [json.loads((folder / "metrics.json").read_text("utf-8"))["miou"] for folder in ring]
    assert len(set(measures)) == 1


def test_back_where_they_came_from_the_weights_are_equal_bit_for_bit(ring):
    torch = pytest.importorskip("torch")
    before, after = (torch.load(folder / "weights.pt", weights_only=True) for folder in (ring[0], ring[-1]))
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
