"""Where things lie: with a home and without one, in a checkout and installed."""

from pathlib import Path

import pytest

from course_lib import places


def test_here_the_course_is_a_checkout():
    assert places.is_checkout()
    assert (places.course_root() / "data.lock").is_file()


def test_an_installed_course_is_found_by_what_pip_recorded(tmp_path, monkeypatch):
    class Recorded:
        name = "data.lock"

        def locate(self) -> Path:
            return tmp_path / "share" / "removing-redundancy" / "data.lock"

    monkeypatch.setattr(places, "CHECKOUT", tmp_path)
    monkeypatch.setattr(places, "files", lambda name: [Recorded()])
    places.course_root.cache_clear()
    try:
        assert places.course_root() == Recorded().locate().parent
        assert not places.is_checkout()
    finally:
        places.course_root.cache_clear()


@pytest.mark.parametrize("name, setting", [("data", "XDG_DATA_HOME"), ("cache", "XDG_CACHE_HOME")])
def test_who_has_no_home_gets_a_temporary_folder(name, setting, tmp_path, monkeypatch):
    def no_home(_):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(places.tempfile, "tempdir", str(tmp_path))
    for answer in (no_home, lambda name: Path("~") / name):  # platformdirs of today, of yesterday
        monkeypatch.setattr(places, f"user_{name}_path", answer)
        assert getattr(places, f"{name}_folder")() == tmp_path / "removing-redundancy"
    monkeypatch.setattr(places, f"user_{name}_path", lambda name: tmp_path / "home" / name)
    assert getattr(places, f"{name}_folder")() == tmp_path / "home" / "removing-redundancy"
