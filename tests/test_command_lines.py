"""What the scripts that a user runs, beside the answers, have in common on the command line."""

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPTS = {  # and a library that each imports
    "Dataset/draw_newts.py": "cv2",
    "Dataset/download_newts.py": "pooch",
    "Dataset/download_digits.py": "pooch",
    "Dataset/labelme_to_masks.py": "cv2",
    "Dataset/draw_voc.py": "cv2",
    "Dataset/draw_streets.py": "cv2",
    "Dataset/download_voc.py": "requests",
    "Dataset/download_deeplab.py": "requests",
    "tools/compare.py": "cv2",
    "tools/convert_weights.py": "numpy",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_ctrl_c_during_the_imports_ends_in_one_line(tmp_path, script):
    """A stand-in for a library sends it while it is imported."""
    stand_in = "import signal, time\nsignal.raise_signal(signal.SIGINT)\ntime.sleep(20)\n"
    (tmp_path / f"{SCRIPTS[script]}.py").write_text(stand_in)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True, env=environment)
    assert done.returncode and done.stderr == f"{script.split('/')[1]}: interrupted\n"


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_printed(script):
    done = subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr
    assert len(done.stdout.splitlines()) > 5


@pytest.mark.parametrize("folder", ["Dataset", "tools", "benchmarks", "Question_semaseg/answers"])
def test_a_script_that_a_message_names_is_there(folder):
    """In the Python code of a folder, as in `python Question_semaseg/answers/03_bin_test_pytorch.py`."""
    named = {}
    for path in (ROOT / folder).glob("*.py"):
        for name in re.findall(r"(?:Dataset|tools|benchmarks|Question_\w+/answers)/\w+\.py", path.read_text("utf-8")):
            named[name] = path.name
    missing = {name: by for name, by in named.items() if not (ROOT / name).is_file()}
    assert not missing and (named or folder.endswith("answers"))
