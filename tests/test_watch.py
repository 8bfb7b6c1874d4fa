import pytest

from course_lib.plots import watch as module


@pytest.fixture
def lines(monkeypatch):
    """What stood in the output, one after the other."""
    shown = []

    class Handle:
        def update(self, bundle, raw):
            shown.append(bundle["text/plain"])

    monkeypatch.setattr(module, "display", lambda bundle, raw, display_id: Handle())
    return shown


def test_the_items_come_through_and_the_bar_is_gone_in_the_end(lines):
    assert list(module.watch(range(3), "models")) == [0, 1, 2]
    assert lines[0].startswith("models:   0%") and lines[-1] == ""


def test_an_interrupt_leaves_no_bar_behind(lines):
    work = module.watch(range(3), "models")
    next(work)
    with pytest.raises(KeyboardInterrupt):
        work.throw(KeyboardInterrupt)
    assert lines[-1] == ""


def test_nothing_is_written_to_the_error_stream(lines, capsys):
    list(module.watch("ab", "letters"))
    assert capsys.readouterr().err == ""
