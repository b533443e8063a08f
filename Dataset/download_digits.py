"""Make one file of MNIST's handwritten digits and CIFAR-10's small photographs, for the exercises in Question_digits.

    python Dataset/download_digits.py                           fetch both, 180 MB, and write Dataset/digits/digits.npz
    python Dataset/download_digits.py --mnist DIR --cifar DIR   take the files that you have, and fetch nothing

The file holds two arrays, digits (70000, 28, 28) and photographs (60000, 32, 32, 3), both uint8: 240 MB. MNIST, by Yann
LeCun, Corinna Cortes and Christopher Burges, comes from the copy that TensorFlow Datasets takes; CIFAR-10, by Alex
Krizhevsky, Vinod Nair and Geoffrey Hinton, from its own page, in its binary version, which holds no pickles. Each is
checked against the SHA-256 that TensorFlow Datasets publishes for it. A run that was cut short keeps what came whole.

Your own files of MNIST may be packed (.gz) or not, those of CIFAR-10 of the binary or of the Python version, which are
pickles. A pickle may name any function, to be called while it is read; here none is called.
"""

import argparse
import gzip
import io
import os
import pickle
import shutil
import signal
import sys
import tarfile
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C ends it in one line, during the imports that follow, too
    signal.signal(signal.SIGINT, lambda *_: sys.exit(print("download_digits.py: interrupted", file=sys.stderr) or 130))

import numpy as np
import pooch
import requests
from download_newts import HERE, DownloadError, describe, fetch_url, quote

# From tensorflow_datasets/url_checksums/mnist.txt and cifar10.txt, github.com/tensorflow/datasets
MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"
CIFAR = "https://www.cs.toronto.edu/~kriz/"
SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
}
BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")  # the binary version adds .bin


def fetch(base_url, name, folder):
    """Bring a file that SHA256 names into the folder, whole and checked, unless it is there; return its path.

    Raises DownloadError where it cannot be fetched, or is not what was published.
    """
    fetcher = pooch.create(path=folder, base_url=base_url, registry={name: SHA256[name]}, retry_if_failed=2)
    if not (folder / name).exists():
        print(f"fetching {name}", flush=True)
    try:
        return Path(fetcher.fetch(name, downloader=fetch_url))
    except (requests.RequestException, ValueError) as error:
        raise DownloadError(describe(error, fetcher.get_url(name))) from error


def find_files(option, folder, spellings):
    """Return the path below folder of the first spelling of each file that is there; of some files it may be none."""
    there = {path.name: path for path in sorted(folder.rglob("*"), reverse=True) if path.is_file()}
    paths = [there[name] for names in spellings if (name := next(filter(there.get, names), None))]
    if not paths:
        wrong = f"no {spellings[0][0]} in it" if folder.is_dir() else "no such folder"
        raise DownloadError(f"{option} {folder}: {wrong}: name the folder of its files, or leave {option} out")
    return paths


def read_idx(path):
    """Return the digits (N, height, width) uint8 of a file in MNIST's format, packed (.gz) or not."""
    # https://yann.lecun.com/exdb/mnist: four numbers, each four bytes with the highest first, then the pixels
    data = path.read_bytes()
    try:
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except Exception as error:  # damage shows at whatever its first wrong byte leads to
        raise DownloadError(f"{path}: not a whole .gz file ({error}): fetch it again") from error
    magic, *shape = np.frombuffer(data[:16].ljust(16, b"\0"), ">u4").tolist()
    if magic != 0x803:
        raise DownloadError(f"{path}: begins with {magic:#x} where MNIST's digits have 0x803: fetch it again")
    if len(data) != 16 + np.prod(shape, dtype=object) or not len(data) > 16:
        raise DownloadError(
            f"{path}: has {len(data)} bytes, and by its head should have another number: fetch it again"
        )
    return np.frombuffer(data, np.uint8, offset=16).reshape(shape)


def parse_batch(data, is_binary):
    """Return the photographs (N, 32, 32, 3) uint8 in the bytes of a batch of CIFAR-10; any error if it is damaged."""
    # https://www.cs.toronto.edu/~kriz/cifar.html: in binary a label from 0 to 9, then 32 x 32 red, green, blue each
    if is_binary:
        labels, pixels = np.split(np.frombuffer(data, np.uint8).reshape(-1, 3073), [1], axis=1)
        if labels.max() > 9:
            raise ValueError(f"a label is {labels.max()}, and the last is 9")
    else:
        pixels = unpickle(data)
    return pixels.reshape(len(pixels), 3, 32, 32).transpose(0, 2, 3, 1)


class Placeholder:
    """Stands in for whatever a pickle would make: it keeps what it is given, and does nothing."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __setstate__(self, state):
        self.state = state


class CifarUnpickler(pickle.Unpickler):
    """Reads a batch of CIFAR-10. A pickle may name any function to be called; here it may name few, and calls ours."""

    ADMITTED = {(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}
    ADMITTED |= {("numpy", "ndarray"), ("numpy", "dtype")}

    def find_class(self, module, name):
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return lambda text, encoding: text.encode("latin1")
        if (module, name) not in self.ADMITTED:
            raise ValueError(f"it asks for {module}.{name}, which no such batch holds")
        return Placeholder


def unpickle(data):
    """Return the pixels (N, 3072) uint8 of the bytes of a pickled batch; any error where they hold something else."""
    batch = CifarUnpickler(io.BytesIO(data), encoding="bytes").load()
    _, shape, dtype, is_fortran, pixels = batch[b"data"].state  # the state by which NumPy pickles an array
    if dtype.arguments[0] not in ("u1", b"u1"):
        raise ValueError("its pixels are not bytes")
    return np.frombuffer(pixels, np.uint8).reshape(shape, order="F" if is_fortran else "C")


def read_digits(folder):
    """Return the digits (N, height, width) uint8 of MNIST's files below a folder."""
    parts = ("train", "t10k")
    spellings = [[f"{part}-images{dot}idx3-ubyte{end}" for dot in "-." for end in ("", ".gz")] for part in parts]
    found = {path: read_idx(path) for path in find_files("--mnist", folder, spellings)}
    if len({digits.shape[1:] for digits in found.values()}) > 1:
        raise DownloadError(f"{' and '.join(map(str, found))}: differ in the size of the digits: fetch them again")
    return np.concatenate(list(found.values()))


def read_photographs(folder):
    """Return the photographs (N, 32, 32, 3) uint8 of CIFAR-10's batches below a folder, of either version."""
    batches = []
    for path in find_files("--cifar", folder, [[f"{name}.bin", name] for name in BATCHES]):
        data = path.read_bytes()
        try:
            batches.append(parse_batch(data, path.suffix == ".bin"))
        except Exception as error:  # damage shows at whatever its first wrong byte leads to
            raise DownloadError(f"{path}: not a whole batch of CIFAR-10 ({error}): fetch it again") from error
    return np.concatenate(batches)


def read_archive(archive):
    """Return the photographs (N, 32, 32, 3) uint8 in the archive of CIFAR-10's binary version."""
    with tarfile.open(archive) as tar:
        members = {Path(member.name).name: member for member in tar if member.isfile()}
        missing = [f"{name}.bin" for name in BATCHES if f"{name}.bin" not in members]
        if missing:
            raise DownloadError(f"{archive} holds no {missing[0]}: move it away and run again")
        return np.concatenate([parse_batch(tar.extractfile(members[f"{name}.bin"]).read(), True) for name in BATCHES])


def make_file(out, mnist, cifar, mnist_url=MNIST, cifar_url=CIFAR):
    """Write out, a .npz file, from the folders mnist and cifar; what is None is fetched.

    Returns: the arrays digits and photographs that are in it
    Raises: DownloadError, and OSError where something cannot be read or written
    """
    if out.is_dir():
        raise DownloadError(f"--out {out}: is a folder: give the name of the file to write, such as {out}/digits.npz")
    out.parent.mkdir(parents=True, exist_ok=True)
    downloads, part = out.parent / ".downloads", out.with_name(f".part-{out.name}")
    pooch.get_logger().setLevel("WARNING")
    *digit_files, archive = SHA256
    # What is at hand is read first: what is wrong with it should show before 170 MB are fetched.
    digits = read_digits(mnist) if mnist else None
    photographs = read_photographs(cifar) if cifar else None
    if digits is None:
        digits = np.concatenate([read_idx(fetch(mnist_url, name, downloads)) for name in digit_files])
    if photographs is None:
        photographs = read_archive(fetch(cifar_url, archive, downloads))
    for option, array in (("--mnist", digits), ("--cifar", photographs)):
        if len(array) < 2:
            raise DownloadError(f"{option}: {len(array)} in it: give more, some to train on and others to test on")
    try:
        with part.open("wb") as file:
            np.savez(file, digits=digits, photographs=photographs)
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    shutil.rmtree(downloads, ignore_errors=True)
    return digits, photographs


def main(arguments=None):
    """Read the command line, make the file, and print where it is. Returns the exit status: 0, 2 or 130."""
    default_out = HERE / "digits/digits.npz"
    if default_out.is_relative_to(Path.cwd()):
        default_out = default_out.relative_to(Path.cwd())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, metavar="DIR", help="folder with MNIST's files (fetched by default)")
    parser.add_argument("--cifar", type=Path, metavar="DIR", help="folder with CIFAR-10's files (fetched by default)")
    parser.add_argument("--out", type=Path, default=default_out, help="file to write (%(default)s)")
    parser.add_argument("--mnist-mirror", default=MNIST, metavar="URL", help="another place that holds MNIST's files")
    parser.add_argument("--cifar-mirror", default=CIFAR, metavar="URL", help="another place that holds CIFAR-10's")
    options = parser.parse_args(arguments)
    use = f"python Question_digits/answers/02_digits_cnn_pytorch.py --data {quote(options.out)}"
    if options.out.is_file() and not (options.mnist or options.cifar):
        print(f"{options.out} is there already: use it, or move it away to have it made again\n{use}")
        return 0
    try:
        mirrors = options.mnist_mirror, options.cifar_mirror
        digits, photographs = make_file(options.out, options.mnist, options.cifar, *mirrors)
    except DownloadError as error:
        message = str(error).replace("--mirror", "--mnist-mirror or --cifar-mirror")
        print(f"download_digits.py: {message}", file=sys.stderr)
        return 2
    except OSError as error:
        where, reason = error.filename or options.out, error.strerror or error
        print(
            f"download_digits.py: cannot read or write {where} ({reason}): fix that, or give --out another file",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("download_digits.py: stopped: run it again to fetch the rest", file=sys.stderr)
        return 130
    print(f"{len(digits)} digits and {len(photographs)} photographs are in {options.out}; next:\n{use}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names in letters that the terminal lacks
    sys.exit(main())
