"""make verify-voc, with random weights in the published format and made images in place of what it is for."""

import hashlib

import numpy as np
import pytest
import torch
import verify_voc
from conftest import ROOT, pytorch, run_python

TOOL = ROOT / "tools/verify_voc.py"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A .pth file of a small network, as torch.save writes it."""
    answer, path = pytorch("deeplab"), tmp_path_factory.mktemp("重み の file") / "small.pth"
    options = type("Options", (), {"depth": "14", "device": "cpu"})
    torch.save(answer.build_network(np.random.default_rng(1), options).state_dict(), path)
    return path


def test_frameworks_agree_on_weights_and_images_at_hand(weights, voc, tmp_path):
    arguments = ["--weights", weights, "--data", voc, "--depth", 14, "--images", 2, "--device", "cpu"]
    done = run_python(TOOL, *arguments, "--frameworks", "pytorch chainer", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "the frameworks agree" and {"PyTorch", "Chainer"} <= set(lines)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "logit, classes, status",
    [(0.0, 0, 0), (2e-3, 0, 1), (0.0, 5, 1), (float("nan"), 0, 1)],
    ids=["equal", "a logit", "some classes", "nan"],
)
def test_what_differs_is_told(monkeypatch, capsys, tmp_path, logit, classes, status):
    """Of 100 logits the largest is 1, and of 100 classes so many are others."""
    reference = {"logits a": np.linspace(-1, 1, 100).reshape(10, 10), "classes a": np.zeros((10, 10), np.uint8)}
    other = {name: array.copy() for name, array in reference.items()}
    other["logits a"][3, 3] += logit
    other["classes a"].flat[:classes] = 7
    measures = {"miou": 0.5, "pixel_accuracy": 0.9, "seconds": 1.0, "memory": None}

    def segment(framework, number_type, out, options):
        return measures, reference if number_type == "float64" else other

    monkeypatch.setattr(verify_voc, "segment", segment)
    monkeypatch.setattr("sys.argv", ["verify_voc.py", "--weights", str(TOOL), "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        verify_voc.main()
    assert end.value.code == status
    assert capsys.readouterr().out.splitlines()[-1] == f"the frameworks {'DIFFER' if status else 'agree'}"


@pytest.mark.parametrize("name, miou, status", [("a-{}.pth", 0.4, 1), ("a-{}.pth", 0.6, 0), ("a-00000000.pth", 0.4, 0)])
def test_published_weights_must_find_something(monkeypatch, capsys, tmp_path, name, miou, status):
    """Published ones are those whose name has the first digits of their sum."""
    weights = tmp_path / name.format(hashlib.sha256(b"weights").hexdigest()[:8])
    weights.write_bytes(b"weights")
    found = {"logits a": np.ones((2, 2)), "classes a": np.zeros((2, 2), np.uint8)}
    measures = {"miou": miou, "pixel_accuracy": 0.9, "seconds": 1.0, "memory": None}
    monkeypatch.setattr(verify_voc, "segment", lambda *arguments: (measures, found))
    monkeypatch.setattr("sys.argv", ["verify_voc.py", "--weights", str(weights), "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        verify_voc.main()
    assert end.value.code == status
    assert ("mIoU is BELOW 0.5" in capsys.readouterr().out) == bool(status)


@pytest.mark.parametrize(
    "arguments, told",
    [
        (
            ["--weights", "none.pth"],
            "--weights none.pth: no such file or folder: fetch it by Dataset/download_deeplab.py",
        ),
        (
            ["--weights", str(TOOL), "--data", "none"],
            "--data none: no such file or folder: fetch it by Dataset/download_voc.py",
        ),
        (["--frameworks", "torch"], "--frameworks torch: give one or more of pytorch"),
        (["--images", "-1"], "--images -1: give a number from 0 up"),
    ],
)
def test_wrong_options_are_told_in_one_line(monkeypatch, capsys, arguments, told):
    monkeypatch.setattr("sys.argv", ["verify_voc.py", *arguments])
    with pytest.raises(SystemExit) as end:
        verify_voc.main()
    printed = capsys.readouterr().err
    assert end.value.code == 2 and printed.count("\n") == 1 and told in printed
