"""What each framework reaches over several seeds: mean and spread of the mIoU on the test pictures of a data folder.

    python benchmarks/seeds.py [--exercise bin_test] [--data Dataset/photographs] [--seeds 3] [--frameworks "pytorch"]

Every run is the answer at its default options but for --data and --seed, in a process of its own. Beside it stands what
calling every pixel background would reach on the same pictures.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
FRAMEWORKS = "pytorch tensorflow keras chainer"


def background_miou(exercise, data):
    """Return the mIoU on the test pictures of calling every pixel background, measured by the PyTorch answer."""
    (path,) = REPOSITORY.glob(f"Question_*/answers/{exercise}_pytorch.py")
    specification = importlib.util.spec_from_file_location(path.stem, path)
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    _, _, targets = script.load_newts(data / "test", script.ON_CPU["size"])
    return script.measure(0 * targets, targets)["miou"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exercise", default="bin_test")
    parser.add_argument("--data", type=Path, default=REPOSITORY / "Dataset")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... (%(default)s of them)")
    parser.add_argument("--frameworks", default=FRAMEWORKS)
    options = parser.parse_args()
    for framework in ["pytorch", *options.frameworks.split()]:
        script = REPOSITORY / "Question_semaseg/answers" / f"{options.exercise}_{framework}.py"
        if not script.exists() or "def measure(" not in script.read_text(encoding="utf-8"):
            print(f"seeds.py: {script.name}: no such answer, or none that measures: see --help", file=sys.stderr)
            sys.exit(2)
    table = Table("framework", "mIoU of each seed", "mean", "spread (standard deviation)")
    for framework in options.frameworks.split():
        (script,) = REPOSITORY.glob(f"Question_*/answers/{options.exercise}_{framework}.py")
        mious = []
        for seed in track(range(options.seeds), description=framework):
            with tempfile.TemporaryDirectory() as out:
                command = [sys.executable, script, "--data", options.data, "--seed", str(seed), "--out", out]
                subprocess.run(command, check=True, capture_output=True)
                mious.append(json.loads((Path(out) / "metrics.json").read_text())["miou"])
        spread = statistics.stdev(mious) if len(mious) > 1 else 0.0
        row = (" ".join(f"{miou:.3f}" for miou in mious), f"{statistics.mean(mious):.3f}", f"{spread:.3f}")
        table.add_row(framework, *row)
    Console().print(table)
    print(f"all background: {background_miou(options.exercise, options.data):.3f}")


if __name__ == "__main__":
    main()
