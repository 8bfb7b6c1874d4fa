"""The files of one submission, be it a folder, a zip or one file; nothing is ever written to disk.

A zip is read in memory, one member at a time, after its directory has been looked at: so a path
that leads elsewhere leads nowhere. It is refused all the same, whole, for whoever unpacks it next.
"""

import io
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from course_lib.classroom.submissions.cells import LARGEST

MOST_FILES = 1_000
MOST_BYTES = 500_000_000  # of all files, unpacked
LARGEST_ZIP = 200_000_000
DIRECTORY = 4_000_000  # bytes that the list of files in a zip may take; a thousand take 100,000
RATIO = 200  # a text is packed to a twentieth at best; a bomb to a thousandth
SMALL = 1_000_000  # what is smaller may be packed to any ratio
DEEPEST = 20  # folders within folders
LEFT_BY_SYSTEMS = {"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints"}
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may ask for gigabytes to unpack
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


class Rejected(ValueError):
    """A submission that is not unpacked; the message says why."""


@dataclass(frozen=True)
class File:
    """A file of a submission: where it lies in it, and how to get its first `LARGEST` + 1 bytes."""

    path: PurePosixPath
    read: Callable[[], bytes]


def files_in(path: Path) -> list[File]:
    """The files of a submission, but for those that an operating system leaves behind.

    Raises:
        Rejected: it holds a link, a FIFO or a device, a path that leads out of it or two of one
            name; or it is a bomb, too large, too deep, encrypted or no zip at all.
    """
    try:
        kind = path.lstat().st_mode
        if stat.S_ISREG(kind) and path.suffix.lower() == ".zip":
            found = _zipped(path)
        elif stat.S_ISDIR(kind):
            found = list(_in_folder(path))
        else:
            _refuse_special(path.name, kind)
            found = [File(PurePosixPath(path.name), partial(_read, path))]
    except OSError as error:
        raise Rejected(f"{path.name} cannot be read: {error.strerror}") from None
    return [file for file in found if not _is_left_behind(file.path)]


def _is_left_behind(path: PurePosixPath) -> bool:
    return any(part in LEFT_BY_SYSTEMS or part.startswith("._") for part in path.parts)


def _in_folder(folder: Path) -> Iterator[File]:
    count, total, waiting = 0, 0, [(folder, PurePosixPath())]
    while waiting:
        place, inside = waiting.pop()
        for entry in os.scandir(place):
            info, path = entry.stat(follow_symlinks=False), inside / entry.name
            _refuse_special(str(path), info.st_mode)
            count, total = count + 1, total + info.st_size
            _refuse_size(count, total, len(path.parts))
            if stat.S_ISDIR(info.st_mode):
                waiting.append((Path(entry.path), path))
            else:
                yield File(path, partial(_read, Path(entry.path)))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST + 1)
    except OSError as error:
        raise Rejected(f"{path.name} cannot be read: {error.strerror}") from None


def _zipped(path: Path) -> list[File]:
    if path.stat().st_size > LARGEST_ZIP:
        raise Rejected(f"the zip is larger than {LARGEST_ZIP // 10**6} MB")
    try:
        with path.open("rb") as file, zipfile.ZipFile(_InPieces(file)) as archive:
            members = archive.infolist()
    except BROKEN as error:
        raise Rejected(f"the zip cannot be read: {error}") from None
    names, total = set(), 0
    for count, member in enumerate(members, 1):
        _refuse_path(member.filename)
        _refuse_special(member.filename, member.external_attr >> 16)
        total += member.file_size
        _refuse_size(count, total, len(_parts(member.filename)))
        _refuse_member(member)
        name = normalize("NFC", "/".join(_parts(member.filename))).casefold()
        if name in names:
            raise Rejected(f"two of its files are called {member.filename}")
        names.add(name)
    return [
        File(PurePosixPath(*_parts(member.filename)), partial(_unpack, path, member))
        for member in members
        if not member.is_dir()
    ]


def _unpack(path: Path, member: zipfile.ZipInfo) -> bytes:
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            return archive.open(member).read(LARGEST + 1)
    except (*BROKEN, OSError) as error:
        raise Rejected(f"{member.filename} cannot be unpacked: {error}") from None


class _InPieces(io.BufferedReader):
    """A file of which nobody reads much at once: zipfile takes the list of files in one go."""

    def __init__(self, file: io.BufferedReader):
        super().__init__(file.raw)

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(DIRECTORY + 1 if size is None or size < 0 else size)
        if len(data) > DIRECTORY:
            raise Rejected(f"its list of files is longer than {DIRECTORY // 10**6} MB")
        return data


def _parts(name: str) -> list[str]:
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]


def _refuse_path(name: str) -> None:
    flat = name.replace("\\", "/")
    if flat.startswith("/") or flat[1:2] == ":" or ".." in flat.split("/") or not _parts(name):
        raise Rejected(f"the path {name!r} leads out of it")


def _refuse_special(name: str, mode: int) -> None:
    kind = stat.S_IFMT(mode)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        words = {stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a FIFO"}
        raise Rejected(f"{name} is {words.get(kind, 'a device or a socket')}")


def _refuse_size(count: int, total: int, depth: int) -> None:
    if count > MOST_FILES:
        raise Rejected(f"it holds more than {MOST_FILES:,} files")
    if total > MOST_BYTES:
        raise Rejected(f"unpacked it takes more than {MOST_BYTES // 10**6} MB")
    if depth > DEEPEST:
        raise Rejected(f"its folders are nested more than {DEEPEST} deep")


def _refuse_member(member: zipfile.ZipInfo) -> None:
    if member.flag_bits & 1:
        raise Rejected(f"{member.filename} is encrypted")
    if member.compress_type not in METHODS:
        raise Rejected(f"{member.filename} is packed in a way that is not read")
    if member.file_size > max(SMALL, RATIO * member.compress_size):
        raise Rejected(f"{member.filename} would grow more than {RATIO} times")
