"""Fetch DeepLabV3's published weights: a dilated ResNet-101 or ResNet-50 with ASPP, as torchvision has it.

    python Dataset/download_deeplab.py               ResNet-101, 245 MB, into Dataset/deeplab
    python Dataset/download_deeplab.py --depth 50    ResNet-50, 168 MB

The file comes from PyTorch's own server, and takes its name only when its SHA-256 has been checked: it is there whole
or not at all. Of ResNet-101's file the whole sum is checked. Of ResNet-50's only the eight digits in the file's name
are, as by torch.hub: they tell a damaged file, but not one that was forged with care.

A download that broke off goes on where it stopped, if the server can send a part of a file; else it begins anew.
"""

import argparse
import contextlib
import hashlib
import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C ends it in one line, during the imports that follow, too
    signal.signal(signal.SIGINT, lambda *_: sys.exit(print("download_deeplab.py: interrupted", file=sys.stderr) or 130))

from download_newts import HERE, DownloadError, quote
from download_voc import KEPT, fetch

WEIGHTS = {  # by depth: the file, its SHA-256 or the first digits of it, its size in MB
    101: (
        "deeplabv3_resnet101_coco-586e9e4e.pth",
        "586e9e4e203fcbf17e1ad45533d8d33ab133fc762bf03101c5dd743995c08c0d",
        245,
    ),
    50: ("deeplabv3_resnet50_coco-cd0a2569.pth", "cd0a2569", 168),
}
BASE_URL = "https://download.pytorch.org/models/"
TERMS = "torchvision's code has a BSD licence; these weights were trained on COCO and may have terms of their own."


def compute_sha256(path):
    """Return the SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_file(out, depth, base_url=BASE_URL):
    """Bring the weights of a depth into the folder `out`, checked, unless they are there.

    Returns: the SHA-256 of the file, and whether it was fetched now
    Raises: DownloadError, and OSError where something cannot be read or written
    """
    name, known, size = WEIGHTS[depth]
    path, part = out / name, out / f"{name}.part"
    should = f"{'be' if len(known) == 64 else 'begin with'} {known}"
    if path.exists():
        sha256 = compute_sha256(path)
        if not sha256.startswith(known):
            raise DownloadError(
                f"{path} is there, but is damaged or another file: its SHA-256 is {sha256} and should {should}: "
                "move it away, and run again to fetch it anew"
            )
        return sha256, False
    if not out.parent.is_dir():
        raise DownloadError(f"there is no folder {out.parent}: make it, or check --out")
    print(TERMS, flush=True)
    is_new = not out.exists()
    out.mkdir(exist_ok=True)
    try:
        url = f"{base_url.rstrip('/')}/{name}"
        there = f", {part.stat().st_size / 1e6:.0f} MB of it there already" if part.exists() else ""
        print(f"fetching {url}: {size} MB{there}", flush=True)
        fetch(url, part)
        sha256 = compute_sha256(part)
        if not sha256.startswith(known):
            part.unlink()
            raise DownloadError(
                f"{url} came with a wrong SHA-256, {sha256}, which should {should}: it was thrown away; run again, "
                "on another network if it stays so"
            )
        os.replace(part, path)
    finally:
        if is_new:
            with contextlib.suppress(OSError):
                out.rmdir()  # refuses a folder that holds a file
    return sha256, True


def complain(message):
    """Print what went wrong in one line; return the exit status."""
    print(f"download_deeplab.py: {message}", file=sys.stderr)
    return 2


def main(arguments=None):
    """Read the command line, bring the file, and print where it is. Returns the exit status: 0, 2 or 130."""
    default_out = HERE / "deeplab"
    if default_out.is_relative_to(Path.cwd()):
        default_out = default_out.relative_to(Path.cwd())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: sys.exit(complain(message))  # without the usage, which would be further lines
    parser.add_argument("--depth", type=int, choices=WEIGHTS, default=101, help="layers of the ResNet (%(default)s)")
    parser.add_argument(
        "--out", type=Path, default=default_out, metavar="DIR", help="folder for the file (%(default)s)"
    )
    parser.add_argument("--mirror", default=BASE_URL, metavar="URL", help="another place that holds the file")
    options = parser.parse_args(arguments)
    name, known, _ = WEIGHTS[options.depth]
    path = options.out / name
    try:
        sha256, is_fetched = make_file(options.out, options.depth, options.mirror)
    except DownloadError as error:
        return complain(error)
    except OSError as error:
        where, reason = error.filename or options.out, error.strerror or error
        return complain(f"cannot read or write {where} ({reason}): fix that, or give --out another folder")
    except KeyboardInterrupt:
        print(f"download_deeplab.py: stopped: run it again to fetch the rest; {KEPT}", file=sys.stderr)
        return 130
    if len(known) == len(sha256):
        print(f"its SHA-256 is as it should be: {sha256}")
    else:
        print(f"its SHA-256 begins with {known}, as its name says, and no more of it is checked: {sha256}")
    print(f"{path} {'was fetched' if is_fetched else 'is there already, intact; nothing was fetched'}; next:")
    print(f"python Question_voc/answers/03_deeplab_pytorch.py --depth {options.depth} --weights {quote(path)}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names in letters that the terminal lacks
    sys.exit(main())
