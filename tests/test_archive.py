"""The files of one submission: folder, zip or file; limits before anything is unpacked."""

import os
import stat
import zipfile

import pytest

from course_lib.classroom.submissions import archive
from course_lib.classroom.submissions.archive import DIRECTORY, MOST_FILES, Rejected, files_in
from course_lib.classroom.submissions.cells import LARGEST

posix = pytest.mark.skipif(os.name != "posix", reason="Windows makes no such files")


def zipped(path, names, **attributes):
    """A zip with an entry for each name; `attributes` go to the last."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            info = zipfile.ZipInfo(name)
            for key, value in attributes.items() if name == names[-1] else ():
                setattr(info, key, value)
            file.writestr(info, b"x" * 10)
    return path


def names_in(path) -> list[str]:
    return sorted(str(file.path) for file in files_in(path))


def test_a_folder_a_zip_and_a_file_hold_the_same(tmp_path):
    (tmp_path / "ada" / "deep").mkdir(parents=True)
    (tmp_path / "ada" / "deep" / "a.ipynb").write_bytes(b"1")
    path = zipped(tmp_path / "ada.zip", ["deep/", "deep/a.ipynb"])
    assert names_in(tmp_path / "ada") == names_in(path) == ["deep/a.ipynb"]
    assert [file.read() for file in files_in(tmp_path / "ada")] == [b"1"]
    assert [file.read() for file in files_in(path)] == [b"x" * 10]
    assert names_in(tmp_path / "ada" / "deep" / "a.ipynb") == ["a.ipynb"]


def test_what_systems_leave_behind_is_ignored(tmp_path):
    left = ["__MACOSX/._a.ipynb", "._a.ipynb", ".DS_Store", "x/.DS_Store", "Thumbs.db",
            ".ipynb_checkpoints/a-checkpoint.ipynb"]  # fmt: skip
    assert names_in(zipped(tmp_path / "a.zip", [*left, "a.ipynb"])) == ["a.ipynb"]
    for name in left:
        (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / name).touch()
    assert names_in(tmp_path / "a") == []


OUT = [
    "../a.ipynb",
    "x/../../a.ipynb",
    "/etc/a",
    "\\a",
    "C:\\a",
    "c:a",
    "..\\a",
    "x\\..\\..\\a",
    ".",
]


@pytest.mark.parametrize("name", OUT)
def test_a_path_that_leads_out_is_refused(tmp_path, name):
    with pytest.raises(Rejected, match="leads out of it"):
        files_in(zipped(tmp_path / "a.zip", ["a.ipynb", name]))


SAME = ["a a", "A.ipynb a.ipynb", "\u00fc u\u0308", "x/a x//a", "x\\a x/a"]


@pytest.mark.parametrize("names", SAME)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_that_some_system_takes_for_one_are_refused(tmp_path, names):
    with pytest.raises(Rejected, match="two of its files are called"):
        files_in(zipped(tmp_path / "a.zip", names.split()))


KINDS = {
    "link": stat.S_IFLNK,
    "FIFO": stat.S_IFIFO,
    "device": stat.S_IFBLK,
    "socket": stat.S_IFSOCK,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("system", [0, 3])
def test_a_zip_with_something_else_than_files_is_refused(tmp_path, kind, system):
    mode = (KINDS[kind] | 0o777) << 16
    path = zipped(tmp_path / "a.zip", ["a.ipynb", "b"], external_attr=mode, create_system=system)
    with pytest.raises(Rejected, match=f"b is a.*{kind}"):
        files_in(path)


@posix
def test_a_folder_with_something_else_than_files_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Rejected, match="pipe is a FIFO"):
        files_in(tmp_path)
    with pytest.raises(Rejected, match="pipe is a FIFO"):
        files_in(tmp_path / "pipe")
    (tmp_path / "pipe").unlink()
    (tmp_path / "there").symlink_to("/etc/passwd")
    with pytest.raises(Rejected, match="there is a symbolic link"):
        files_in(tmp_path)


def test_limits_hold_before_anything_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_unpack", None)
    path = tmp_path / "a.zip"
    with pytest.raises(Rejected, match="more than 1,000 files"):
        files_in(zipped(path, [f"{n}.txt" for n in range(MOST_FILES + 1)]))
    with pytest.raises(Rejected, match="nested more than 20 deep"):
        files_in(zipped(path, ["a/" * 20 + "a.ipynb"]))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.ipynb", bytes(2_000_000))
    with pytest.raises(Rejected, match="grow more than 200 times"):
        files_in(path)
    monkeypatch.setattr(archive, "MOST_BYTES", 15)
    with pytest.raises(Rejected, match="takes more than"):
        files_in(zipped(path, ["a", "b"]))
    monkeypatch.setattr(archive, "LARGEST_ZIP", 100)
    with pytest.raises(Rejected, match="the zip is larger than"):
        files_in(path)


def test_a_folder_has_the_same_limits(tmp_path):
    deep = tmp_path / "deep" / "/".join("a" * 20)
    deep.mkdir(parents=True)
    (deep / "b").touch()
    with pytest.raises(Rejected, match="nested more than 20 deep"):
        files_in(tmp_path / "deep")
    (tmp_path / "many").mkdir()
    for number in range(MOST_FILES + 1):
        (tmp_path / "many" / str(number)).touch()
    with pytest.raises(Rejected, match="more than 1,000 files"):
        files_in(tmp_path / "many")


def test_a_long_list_of_files_is_not_even_read(tmp_path):
    path = zipped(tmp_path / "a.zip", [f"{'x' * 200}{n}" for n in range(20_000)])
    assert path.stat().st_size > DIRECTORY
    with pytest.raises(Rejected, match="its list of files is longer than 4 MB"):
        files_in(path)


def test_encrypted_and_odd_methods_are_refused(tmp_path):
    path = zipped(tmp_path / "a.zip", ["a.ipynb"])
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(Rejected, match="a.ipynb is encrypted"):
        files_in(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("a.ipynb", b"1")
    with pytest.raises(Rejected, match="packed in a way that is not read"):
        files_in(path)


BROKEN = {
    "empty": lambda data: b"",
    "text": lambda data: b"not a zip",
    "cut": lambda data: data[:-30],
    "no beginning": lambda data: data[40:],
}


@pytest.mark.parametrize("spoil", BROKEN.values(), ids=BROKEN)
def test_what_is_no_zip_is_named(tmp_path, spoil):
    path = zipped(tmp_path / "a.zip", ["a.ipynb"])
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(Rejected, match="cannot be (read|unpacked)"):
        [file.read() for file in files_in(path)]


def test_a_member_that_lies_about_its_contents_is_named(tmp_path):
    path = zipped(tmp_path / "a.zip", ["a.ipynb"])
    data = path.read_bytes()
    at = data.index(b"a.ipynb") + len("a.ipynb")
    path.write_bytes(data[:at] + b"\xff\xff\xff" + data[at + 3 :])
    (file,) = files_in(path)
    with pytest.raises(Rejected, match="cannot be unpacked"):
        file.read()


def test_of_a_large_file_no_more_is_read_than_can_be_a_notebook(tmp_path):
    data = os.urandom(LARGEST + 5_000_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.ipynb", data)
    (tmp_path / "a.ipynb").write_bytes(data)
    for path in (tmp_path / "a.zip", tmp_path / "a.ipynb"):
        (file,) = files_in(path)
        assert len(file.read()) == LARGEST + 1


@pytest.mark.skipif(getattr(os, "getuid", int)() == 0, reason="root, or Windows: reads everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path):
    (tmp_path / "a.ipynb").touch(mode=0)
    (file,) = files_in(tmp_path / "a.ipynb")
    with pytest.raises(Rejected, match="a.ipynb cannot be read"):
        file.read()


def test_reading_a_zip_writes_nothing_beside_it(tmp_path):
    path = zipped(tmp_path / "a.zip", ["x/a.ipynb", "b.txt"])
    assert [file.read() for file in files_in(path)] == [b"x" * 10] * 2
    assert list(tmp_path.rglob("*")) == [path]
