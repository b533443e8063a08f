"""Fetch Pascal VOC 2012, what semantic segmentation needs of it: pictures, masks and lists.

    python Dataset/download_voc.py                     fetch 2 GB, and write Dataset/voc2012/VOCdevkit/VOC2012
    python Dataset/download_voc.py --archive FILE      take the archive that you have, and fetch nothing

The archive, VOCtrainval_11-May-2012.tar, comes from the challenge's own server and is checked against its MD5 before it
is unpacked. Of VOC2012 the folders JPEGImages, SegmentationClass and ImageSets/Segmentation are taken; annotations of
other tasks are left out. The pictures come from Flickr and stay under its terms of use: do not pass them on.

A download that broke off goes on where it stopped, if the server can send a part of a file; else it begins anew.
Pictures to try programs on without it: draw_voc.py.
"""

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import signal
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path, PurePosixPath

if __name__ == "__main__":  # Ctrl-C ends it in one line, during the imports that follow, too
    signal.signal(signal.SIGINT, lambda *_: sys.exit(print("download_voc.py: interrupted", file=sys.stderr) or 130))

import requests
from download_newts import CONNECT_SECONDS, HERE, READ_SECONDS, RETRIES, DownloadError, describe
from draw_voc import FOLDER, LISTS, MARK
from tqdm import tqdm

ARCHIVE = "VOCtrainval_11-May-2012.tar"
BASE_URL = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
MD5 = "6cd6e144f989b92b3379bac3b3de84fd"
PARTS = ("JPEGImages", "SegmentationClass", LISTS.as_posix())  # the lists last: with them the set is complete
TERMS = "The pictures come from Flickr and stay under its terms of use: do not pass them on."
KEPT = "what has come is kept"
CHUNK = 1 << 16  # bytes; of a download that breaks off, up to so many are lost


def is_complete(folder):
    """Whether the folder VOC2012 holds the lists of pictures, and every picture and mask that they name."""
    for split in ("train", "val", "trainval"):
        path = folder / LISTS / f"{split}.txt"
        names = path.read_text("utf-8").split() if path.is_file() else []
        pictures = [folder / "JPEGImages" / f"{name}.jpg" for name in names]
        masks = [folder / "SegmentationClass" / f"{name}.png" for name in names]
        if not names or not all(path.is_file() for path in pictures + masks):
            return False
    return True


def is_published(path):
    """Whether a file is the archive that was published, by its MD5."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == MD5


def receive(url, part):
    """Fetch what the file `part`, NAME.part, lacks of `url`, in one answer of the server.

    Raises requests' errors where the server cannot be reached, refuses or breaks off; what came till then is in part.
    Raises: DownloadError where the answer is shorter than what part has already
    """
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)) as response:
        status, span = response.status_code, response.headers.get("Content-Range", "")
        if status == 416 and span == f"bytes */{have}":
            return  # nothing is left to send
        if status == 416 or (status == 206 and not span.startswith(f"bytes {have}-")):
            part.unlink(missing_ok=True)  # it is no part of this file
            raise requests.ConnectionError(f"not the part that was asked for: {span}")
        response.raise_for_status()
        length = int(response.headers.get("Content-Length", 0))
        if have and status != 206:
            if length < have:  # such as the page of a network that wants a password first
                raise DownloadError(f"{url} answered with another file: log in to your network, or remove {part}")
            print("the server cannot send a part of the file: it begins anew", flush=True)
            have = 0
        size = length + have if length else None
        settings = {"unit": "B", "unit_scale": True, "desc": part.stem, "disable": None}
        with part.open("ab" if have else "wb") as file, tqdm(total=size, initial=have, **settings) as progress:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                progress.update(len(chunk))


def fetch(url, part):
    """Fetch `url` to the file `part`, going on with what is there; after a break, try again from there.

    Raises: DownloadError
    """
    for attempt in range(RETRIES + 1):
        had = part.stat().st_size if part.exists() else 0
        try:
            return receive(url, part)
        except requests.RequestException as error:
            came = (part.stat().st_size if part.exists() else 0) != had
            if not came or attempt == RETRIES:
                raise DownloadError(describe(error, url).replace("files that came whole are kept", KEPT)) from error
            time.sleep(1)


def bring_archive(base_url, folder):
    """Return the path of the archive, fetched to the folder, unless it is there, and checked."""
    archive, part = folder / ARCHIVE, folder / f"{ARCHIVE}.part"
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        url = f"{base_url.rstrip('/')}/{ARCHIVE}"
        there = f", {part.stat().st_size / 1e9:.2f} GB of it there already" if part.exists() else ""
        print(f"fetching {url}: 2 GB{there}", flush=True)
        fetch(url, part)
        os.replace(part, archive)
    print(f"checking {ARCHIVE}", flush=True)
    if not is_published(archive):
        archive.unlink()
        raise DownloadError(f"{ARCHIVE} came with a wrong MD5: run again, on another network if it stays so")
    return archive


def choose_members(tar, out):
    """Return [(member, path relative to `out`)] of what is taken from a tar, and a Counter of what is left out.

    Raises: DownloadError where anything in it would be written elsewhere, or is no plain file
    """
    taken, left_out = [], Counter()
    for member in tar:
        path = PurePosixPath(member.name)
        try:
            if path.is_absolute() or ".." in path.parts or re.search(r'[\\:*?"<>|\x00-\x1f]', member.name):
                raise DownloadError(f"a name that leads elsewhere: {member.name!r}")
            tarfile.data_filter(member, str(out))
            if not (member.isdir() or member.isreg()) or member.issparse():
                raise DownloadError(f"a link, a device or a file with holes: {member.name!r}")
        except (DownloadError, tarfile.FilterError) as error:
            raise DownloadError(f"the archive holds {error}: nothing was unpacked") from error
        if member.isdir():
            continue
        inside = path.relative_to(FOLDER.as_posix()) if path.is_relative_to(FOLDER.as_posix()) else path
        if inside is not path and inside.parent.as_posix() in PARTS:
            taken.append((member, Path(*path.parts)))
        else:
            left_out[inside.parent.as_posix()] += 1
    return taken, left_out


def unpack(archive, out, partial):
    """Unpack what is needed of an archive into `out`, by way of the folder `partial`; return the Counter of the rest.

    Files move into their places when all of them are there, the lists last.
    """
    staging = partial / "unpacked"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        with tarfile.open(archive, "r:") as tar:
            taken, left_out = choose_members(tar, out)
            for part in PARTS:
                if not any(path.is_relative_to(FOLDER / part) for _, path in taken):
                    raise DownloadError(f"{archive} holds no {(FOLDER / part).as_posix()}: nothing was unpacked")
                (staging / FOLDER / part).mkdir(parents=True)
            for member, path in tqdm(taken, desc="unpacking", unit="file", disable=None):
                with tar.extractfile(member) as source, (staging / path).open("wb") as target:
                    shutil.copyfileobj(source, target, CHUNK)
        for part in PARTS:
            (out / FOLDER / part).mkdir(parents=True, exist_ok=True)
            for path in sorted((staging / FOLDER / part).iterdir()):
                os.replace(path, out / FOLDER / part / path.name)
    except tarfile.TarError as error:
        raise DownloadError(f"{archive} is not a whole tar ({error}): fetch it again") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return left_out


def make_set(out, archive=None, base_url=BASE_URL):
    """Bring the pictures, masks and lists into the folder `out`, from an archive at hand or from a server.

    Returns: a Counter of what was left out, by folder; None where all was there already
    Raises: DownloadError, and OSError where something cannot be read or written
    """
    folder, partial = out / FOLDER, out / ".partial"
    if (folder / MARK).exists():
        raise DownloadError(f"{folder} holds drawn pictures: give another folder by --out")
    if is_complete(folder):
        return None
    if not out.parent.is_dir():
        raise DownloadError(f"there is no folder {out.parent}: make it, or check --out")
    print(TERMS, flush=True)
    own_folders = [partial] if out.exists() else [partial, out]
    try:
        if archive and not is_published(archive):
            raise DownloadError(f"--archive {archive}: its MD5 isn't that of {ARCHIVE}: fetch it again")
        at_hand = archive or bring_archive(base_url, partial)
        left_out = unpack(at_hand, out, partial)
        if not is_complete(folder):
            raise DownloadError(f"{folder} lacks a file that its lists name: the archive isn't that of VOC 2012")
        shutil.rmtree(partial, ignore_errors=True)
    finally:
        for path in own_folders:
            with contextlib.suppress(OSError):
                path.rmdir()  # refuses a folder that holds a file
    return left_out


def main(arguments=None):
    """Read the command line, make the set, and print where it is. Returns the exit status: 0, 2 or 130."""
    default_out = HERE / "voc2012"
    if default_out.is_relative_to(Path.cwd()):
        default_out = default_out.relative_to(Path.cwd())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=default_out, help="folder in which VOCdevkit/ goes (%(default)s)")
    parser.add_argument("--archive", type=Path, metavar="FILE", help=f"{ARCHIVE}, if you have it (fetched by default)")
    parser.add_argument("--mirror", default=BASE_URL, metavar="URL", help="another place that holds the archive")
    options = parser.parse_args(arguments)
    folder = options.out / FOLDER
    try:
        left_out = make_set(options.out, options.archive, options.mirror)
    except DownloadError as error:
        print(f"download_voc.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where, reason = error.filename or options.out, error.strerror or error
        print(
            f"download_voc.py: cannot read or write {where} ({reason}): fix that, or give --out another folder",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(f"download_voc.py: stopped: run it again to fetch the rest; {KEPT}", file=sys.stderr)
        return 130
    if left_out is None:
        print(f"{folder} is there already: use it, or move it away to have it made again")
        return 0
    if left_out:
        print(
            "left out, for other tasks: " + ", ".join(f"{name} ({count})" for name, count in sorted(left_out.items()))
        )
    counts = [len((folder / LISTS / f"{split}.txt").read_text("utf-8").split()) for split in ("train", "val")]
    print(f"{counts[0]} pictures to train on and {counts[1]} to validate, with their masks, are in {folder}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names in letters that the terminal lacks
    sys.exit(main())
