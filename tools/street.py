"""Run the five exercises of Question_street one after another, from raw pictures to the report, as if by hand.

    python tools/street.py [--framework keras] [--data FOLDER] [--iterations 100] [--folder elsewhere]

By default streets are drawn first. Each answer writes to its own folder below outputs/, where the next one finds it;
with --folder, below outputs/ in another folder. The run ends at the first that fails, with its status.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C ends it in one line, during the imports that follow, too
    signal.signal(signal.SIGINT, lambda *_: sys.exit(print("street.py: interrupted", file=sys.stderr) or 130))

from exercises import FRAMEWORKS, answer_path, read_exercises

# Which exercises take an option of this script, and the name that they have for it.
TAKES = {
    "data": {"street_preprocess": "--data", "street_test": "--truth", "street_inference": "--truth"},
    "level": {"street_preprocess": "--level"},
    "iterations": {"street_train": "--iterations"},
    "network": {name: "--network" for name in ("street_train", "street_test", "street_inference")},
}


def stop(message):
    """End with one line and status 2."""
    print(f"street.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def read_options():
    """Return the options of the command line; stop at a wrong one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.error = stop
    parser.add_argument("--framework", choices=FRAMEWORKS, default="pytorch", help="(%(default)s)")
    parser.add_argument("--data", type=Path, help="folder with leftImg8bit/ and gtFine/ (drawn streets)")
    parser.add_argument("--folder", type=Path, default=Path(), help="where outputs/ is to be (%(default)s)")
    own = "(the answers' own)"
    parser.add_argument("--level", help=f"category or class {own}")
    parser.add_argument("--iterations", help=f"of training {own}")
    parser.add_argument("--network", help=f"unet or deeplab {own}")
    parser.add_argument("--device", help=f"auto, cpu or cuda {own}")
    parser.add_argument("--seed", help=f"of all random numbers {own}")
    options = parser.parse_args()
    for name in ("data", "folder"):
        folder = vars(options)[name]
        if folder and not folder.is_dir():
            stop(f"--{name} {folder}: no such folder")
    options.data = options.data and options.data.resolve()
    return options


def list_commands(options):
    """Return [(exercise, words after python), ...] in the order in which they run."""
    commands = []
    for exercise in read_exercises():
        if exercise.subject == "street" and exercise.name != "street_parallel":  # which trains as street_train does
            words = [str(answer_path(exercise, options.framework))]
            for name in ("data", "level", "iterations", "network", "device", "seed"):
                option = TAKES[name].get(exercise.name) if name in TAKES else f"--{name}"
                if option and vars(options)[name] is not None:
                    words += [option, str(vars(options)[name])]
            commands.append((exercise.name, words))
    return commands


def main():
    options = read_options()
    commands, start = list_commands(options), time.perf_counter()
    for number, (name, words) in enumerate(commands, start=1):
        shown = ["python", os.path.relpath(words[0]), *words[1:]]
        quoted = subprocess.list2cmdline(shown) if os.name == "nt" else shlex.join(shown)
        print(f"[{number}/{len(commands)}] {name}: {quoted}", flush=True)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the answer too, which says so and ends
        status = subprocess.run([sys.executable, *words], cwd=options.folder).returncode
        if status:
            raise SystemExit(status if status > 0 else 128 - status)
    report = options.folder / "outputs" / answer_path("street_test", options.framework).stem / "report.html"
    print(f"Done in {time.perf_counter() - start:.0f} s; the report is {report}")


if __name__ == "__main__":
    main()
