"""A file that somebody else made must not run code: each is read by what refuses to.

PyTorch's weights by torch.load with weights_only, Chainer's and the digits by np.load, which refuses pickles by
default. The formats of Keras's weights (HDF5) and of TensorFlow's checkpoints hold arrays, and have no place for code.
"""

import json
import os
import pickle
import zipfile

import numpy as np
import pytest
from conftest import ANSWERS, ROOT, run_python


class Hostile:
    """What a pickle of it does when it is read: makes a file, `was_run`."""

    def __reduce__(self):
        return open, ("was_run", "w")


def write_pickle(path):
    path.write_bytes(pickle.dumps({"blocks.0.weight": Hostile()}))


def write_zip(path):
    """As torch.save makes it: a zip with the pickle in it."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"blocks.0.weight": Hostile()}, protocol=2))
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")


def write_npz(path):
    np.savez(path, **{"0/0/W": np.array([Hostile()], dtype=object)})


FILES = {
    "legacy": ("pytorch", "weights.pt", write_pickle),
    "zip": ("pytorch", "weights.pt", write_zip),
    "npz": ("chainer", "weights.npz", write_npz),
}


@pytest.mark.parametrize("kind", FILES)
def test_weights_that_hold_code_are_refused(fork, newts, tmp_path, kind):
    framework, name, write = FILES[kind]
    (tmp_path / "out").mkdir()
    write(tmp_path / "out" / name)
    arguments = ["--test", "--size", 16, "--data", newts, "--out", "out"]
    result = fork(ANSWERS["bin_test", framework], *arguments, cwd=tmp_path)
    assert result.returncode == 2 and f"{name}: not the weights of this network" in result.stderr
    assert not (tmp_path / "was_run").exists()


def test_the_files_would_run_their_code_if_read_carelessly(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pickle(tmp_path / "weights.pt")
    pickle.loads((tmp_path / "weights.pt").read_bytes())["blocks.0.weight"].close()
    assert (tmp_path / "was_run").exists()
    (tmp_path / "was_run").unlink()
    write_npz(tmp_path / "weights.npz")
    with np.load(tmp_path / "weights.npz", allow_pickle=True) as file:
        file["0/0/W"][0].close()
    assert (tmp_path / "was_run").exists()


@pytest.mark.parametrize("answer", ["absolute", "relative", "name", ["03"], None])
def test_converting_takes_no_answer_that_a_folder_names(tmp_path, answer):
    """What metrics.json says is given by whoever made the folder: only the project's own answers are run."""
    evil = tmp_path / "evil_pytorch"  # a path that leads from the folder of the answers to it, and the name alone
    relative = os.path.relpath(evil, ANSWERS["bin_test", "pytorch"].parent)
    answer = {"absolute": str(evil), "relative": relative, "name": evil.name}.get(str(answer), answer)
    (tmp_path / "evil_pytorch.py").write_text("open('was_run', 'w')\n")
    (tmp_path / "run").mkdir()
    write_pickle(tmp_path / "run/weights.pt")
    (tmp_path / "run/metrics.json").write_text(json.dumps({"answer": answer, "final_loss": 1, "options": {}}))
    done = run_python(ROOT / "tools/convert_weights.py", tmp_path / "run", "keras", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith("convert_weights.py: ")
    assert not (tmp_path / "was_run").exists()
