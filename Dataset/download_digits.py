"""Fetch MNIST's handwritten digits and CIFAR-10's small photographs, for the exercises in Question_digits.

    python Dataset/download_digits.py

Each file is checked against the SHA-256 that TensorFlow Datasets publishes for it. MNIST, by Yann LeCun, Corinna Cortes
and Christopher Burges, comes from the copy that TensorFlow Datasets takes; CIFAR-10, by Alex Krizhevsky, Vinod Nair and
Geoffrey Hinton, from its own page, in its binary version, which holds no pickles. A run that was cut short keeps the
files that came whole.
"""

import argparse
import os
import shlex
import shutil
import sys
import tarfile
from pathlib import Path

import pooch
import requests
from download_newts import HERE, DownloadError, describe, fetch_url

# From tensorflow_datasets/url_checksums/mnist.txt and cifar10.txt, github.com/tensorflow/datasets
MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"
CIFAR = "https://www.cs.toronto.edu/~kriz/"
SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
}
BATCHES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]


def fetch(base_url, name, out):
    """Bring a file that SHA256 names into the folder out, whole and checked, unless it is there; return its path.

    Raises DownloadError where it cannot be fetched or is not what was published.
    """
    path, partial = out / name, out / ".partial"
    if path.exists() and pooch.file_hash(path) != SHA256[name]:
        raise DownloadError(f"{path} is not the original: delete it and run again, or give --out another folder")
    if not path.exists():
        fetcher = pooch.create(path=partial, base_url=base_url, registry={name: SHA256[name]}, retry_if_failed=2)
        try:
            os.replace(fetcher.fetch(name, downloader=fetch_url), path)
            path.chmod(0o644)  # pooch leaves its files readable by their owner alone; a class shares them
        except (requests.RequestException, ValueError) as error:
            raise DownloadError(describe(error, fetcher.get_url(name))) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # what pooch has left there of a file that did not come whole
    return path


def unpack(archive, out):
    """Write the batches in CIFAR-10's archive to out, each whole or not at all, whatever else the archive holds."""
    with tarfile.open(archive) as tar:
        members = {Path(member.name).name: member for member in tar if member.isfile()}
        for name in BATCHES:
            if name not in members:
                raise DownloadError(f"{archive} holds no {name}: delete it and run again")
            aside = out / f".part-{name}"
            with tar.extractfile(members[name]) as source, aside.open("wb") as target:
                shutil.copyfileobj(source, target)
            os.replace(aside, out / name)


def download(out, mnist_url=MNIST, cifar_url=CIFAR):
    """Fill out/mnist and out/cifar-10; raises DownloadError, and OSError where out cannot be written."""
    mnist, cifar = out / "mnist", out / "cifar-10"
    for folder in (mnist, cifar):
        folder.mkdir(parents=True, exist_ok=True)
    pooch.get_logger().setLevel("WARNING")
    *digits, archive = SHA256
    for name in digits:
        print(f"fetching {name}", flush=True)
        fetch(mnist_url, name, mnist)
    if not all((cifar / name).exists() for name in BATCHES):
        print(f"fetching {archive}, 170 MB", flush=True)
        unpack(fetch(cifar_url, archive, cifar), cifar)
        (cifar / archive).unlink()


def main(arguments=None):
    """Read the command line, fetch, and say where all is. Returns the exit status: 0, 2 or 130."""
    default_out = HERE / "digits"
    if default_out.is_relative_to(Path.cwd()):
        default_out = default_out.relative_to(Path.cwd())
    parser = argparse.ArgumentParser(description="Fetch MNIST and CIFAR-10, each file checked.")
    parser.add_argument("--out", type=Path, default=default_out, help=f"folder to fill (default {default_out})")
    parser.add_argument("--mnist-mirror", default=MNIST, metavar="URL", help="another place that holds MNIST's files")
    parser.add_argument("--cifar-mirror", default=CIFAR, metavar="URL", help="another place that holds CIFAR-10's")
    options = parser.parse_args(arguments)
    try:
        download(options.out, options.mnist_mirror, options.cifar_mirror)
    except DownloadError as error:
        message = str(error).replace("--mirror", "--mnist-mirror or --cifar-mirror")
        print(f"download_digits.py: {message}", file=sys.stderr)
        return 2
    except OSError as error:
        where, reason = error.filename or options.out, error.strerror or error
        print(f"download_digits.py: cannot write {where} ({reason}): give --out another folder", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("download_digits.py: stopped: run it again to fetch the rest", file=sys.stderr)
        return 130
    mnist, cifar = (shlex.quote(str(options.out / name)) for name in ("mnist", "cifar-10"))
    print(f"MNIST is in {mnist}, CIFAR-10 in {cifar}; next:")
    print(f"python Question_digits/answers/digits_cnn_pytorch.py --mnist {mnist} --cifar {cifar}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
