"""Fetch the original photographs of newts: 22 pictures and their masks, 44 files.

    python Dataset/download_newts.py

They are the work of Yoshito Nagaoka, under the MIT licence. Every file is checked against the SHA-256 in
photographs_registry.txt. Files wait in a folder `.partial` inside the target and move into their places only when all
of them are there: a data set is never seen half-done, and a run that was cut short goes on where it stopped.
"""

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C ends it in one line, during the imports that follow, too
    signal.signal(signal.SIGINT, lambda *_: sys.exit(print("download_newts.py: interrupted", file=sys.stderr) or 130))

import pooch
import requests
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
REGISTRY = HERE / "photographs_registry.txt"
LICENSE = HERE / "photographs_LICENSE.txt"
REPOSITORY = "https://github.com/yoyoyo-yo/DeepLearningMugenKnock"
COMMIT = "3eb593f942566b944372e9b9969f0b16ccbf9540"
BASE_URL = f"https://raw.githubusercontent.com/yoyoyo-yo/DeepLearningMugenKnock/{COMMIT}/Dataset/"

RETRIES = 2
CONNECT_SECONDS = 3
READ_SECONDS = 15


class DownloadError(Exception):
    """What went wrong and what fixes it, in one line for the user."""


def quote(path):
    """Return a path as the shell at hand takes it."""
    return subprocess.list2cmdline([path]) if os.name == "nt" else shlex.quote(str(path))


def describe(error, url):
    """One line: what went wrong with `url` and what fixes it. `error` is what requests or pooch raised."""
    kept = "files that came whole are kept"
    if isinstance(error, requests.HTTPError):
        return f"the server answered {error.response.status_code} for {url}: check --mirror, or run again later; {kept}"
    if isinstance(error, requests.RequestException):
        # Why it failed is the innermost error: NameResolutionError, SSLError, ProxyError; requests wraps it twice.
        cause = getattr(error.args[0], "reason", None) if error.args else None
        kind = type(cause or error).__name__
        return f"cannot fetch {url} ({kind}): check network, proxy (HTTPS_PROXY) and --mirror, then run again; {kept}"
    return f"{url} came with a wrong SHA-256: run again, on another network if it stays so; {kept}"


def fetch_url(url, output_file, fetcher):
    """Write the content of `url` to `output_file`; pooch calls this, and after a failure calls it again."""
    try:
        pooch.HTTPDownloader(timeout=(CONNECT_SECONDS, READ_SECONDS))(url, output_file, fetcher)
    except requests.ConnectTimeout as error:
        # Each of the server's addresses has had its seconds by now. pooch does not retry an error of this class, and
        # so the user without a network is told now, not after three rounds.
        raise DownloadError(describe(error, url)) from error


def download(base_url, registry_path, out):
    """Bring every file of the registry into the folder `out`, and the licence of the photographs with them.

    Arguments:
        base_url: where the files lie; the registry's names follow it
        registry_path: lines of "name SHA-256", the names relative to `base_url` and to `out`
        out: folder to fill; made where it does not exist, in a folder that does
    Returns:
        two ints: how many files the registry has, and how many of them were fetched now. With nothing missing, no
        server is asked for anything.
    Raises:
        DownloadError: a file in `out` differs from the original (it stays as it is, for it may be the user's own
            work), or a file could not be fetched or came with a wrong content
        OSError: `out` cannot be written
    """
    out = Path(out)
    partial = out / ".partial"
    fetcher = pooch.create(path=partial, base_url=base_url, retry_if_failed=RETRIES)
    fetcher.load_registry(registry_path)
    pooch.get_logger().setLevel("WARNING")

    missing = [name for name in fetcher.registry if not (out / name).exists()]
    for name, sha256 in fetcher.registry.items():
        if name not in missing and pooch.file_hash(out / name) != sha256:
            raise DownloadError(
                f"{out / name} is not the original: move it away and run again to have the original back, "
                "or give --out another folder to keep yours"
            )
    if not out.parent.is_dir():
        raise DownloadError(f"there is no folder {out.parent}: make it, or check --out")

    own_folders = [out] if partial.exists() or not out.exists() else []
    try:
        for leftover in partial.rglob("tmp*"):
            # pooch names its unfinished files so; only a run that was killed leaves one.
            leftover.unlink()
        if missing:
            partial.mkdir(parents=True, exist_ok=True)
        with tqdm(missing, desc="photographs", unit="file", disable=None if missing else True) as progress:
            for name in progress:
                try:
                    fetcher.fetch(name, downloader=fetch_url)
                except (requests.RequestException, ValueError) as error:
                    raise DownloadError(describe(error, fetcher.get_url(name))) from error
        if missing:
            shutil.copyfile(LICENSE, partial / "LICENSE")
            for name in ["LICENSE", *missing]:
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                # pooch leaves its files readable by their owner alone; a class shares them.
                (partial / name).chmod(0o644)
                os.replace(partial / name, out / name)
        shutil.rmtree(partial, ignore_errors=True)
    finally:
        for folder in [*(folder for folder, _, _ in os.walk(partial, topdown=False)), *own_folders]:
            with contextlib.suppress(OSError):
                os.rmdir(folder)  # refuses a folder that holds a file
    return len(fetcher.registry), len(missing)


def main(arguments=None):
    """Read the command line, fetch, and say where the photographs are. Returns the exit status: 0, 2 or 130."""
    default_out = HERE / "photographs"
    if default_out.is_relative_to(Path.cwd()):
        default_out = default_out.relative_to(Path.cwd())
    parser = argparse.ArgumentParser(description="Fetch the original photographs of newts, each file checked.")
    parser.add_argument("--out", type=Path, default=default_out, help=f"folder to fill (default {default_out})")
    parser.add_argument("--mirror", default=BASE_URL, metavar="URL", help="another place that holds the same files")
    options = parser.parse_args(arguments)
    try:
        total, fetched = download(options.mirror, REGISTRY, options.out)
    except DownloadError as error:
        print(f"download_newts.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        reason = error.strerror or error
        print(
            f"download_newts.py: cannot read or write {error.filename or options.out} ({reason}): "
            "give --out a folder that you may write to",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("download_newts.py: stopped: run it again to fetch the rest", file=sys.stderr)
        return 130
    print(f"Photographs by Yoshito Nagaoka, MIT licence ({options.out / 'LICENSE'}), from {REPOSITORY}")
    print(
        f"{total} files in {options.out}, {fetched} fetched now; next: "
        f"python Question_semaseg/answers/03_bin_test_pytorch.py --data {quote(options.out)}"
    )
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names in letters that the terminal lacks
    sys.exit(main())
