import pytest

from course_lib.plots.explore import explore
from course_lib.plots.figure import COLOURS, Picture, new_figure
from course_lib.plots.parameters import draw_shares


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.1."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_neighbouring_colours_differ_in_brightness_too():
    """So that they can be told apart with no colour vision at all (the first four, used most)."""
    brightness = [luminance(colour) for colour in COLOURS[:4]]
    assert all(abs(a - b) > 0.03 for a, b in zip(brightness, brightness[1:], strict=False))
    assert len(set(COLOURS)) == len(COLOURS)


def test_a_picture_carries_its_alternative_text_and_is_800_pixels_wide():
    figure, _ = new_figure()
    bundle = Picture(figure, 'a "line" & more')._repr_mimebundle_()
    assert 'alt="a &quot;line&quot; &amp; more"' in bundle["text/html"]
    assert bundle["text/plain"] == '[Figure: a "line" & more]'
    assert int.from_bytes(Picture(figure, "").png[16:20], "big") == 800  # PNG header: width


def test_shares_of_each_model_add_up_to_100():
    figure, (axes,) = new_figure()
    draw_shares(axes, {"a": {"x": 1, "y": 3}, "b": {"x": 2, "y": 2}})
    ends = [bar.get_x() + bar.get_width() for bar in axes.patches[-2:]]
    assert ends == pytest.approx([100, 100])


def test_moving_a_slider_redraws_the_same_place(monkeypatch):
    shown, updates, sliders = [], [], []

    class Handle:
        def update(self, item):
            updates.append(item)

    def display(item, **options):
        shown.append((item, options))
        return Handle() if options.get("display_id") else None

    module = __import__("course_lib.plots.explore", fromlist=["explore"])
    slider = module._slider
    monkeypatch.setattr(module, "display", display)
    monkeypatch.setattr(module, "_slider", lambda *a: sliders.append(slider(*a)) or sliders[-1])
    explore(lambda bits, kind: f"{bits} {kind}", bits=([2, 4, 8], 4), kind=(["a", "b"], "a"))
    assert shown[0][0]["text/plain"] == "slider: bits = 2, 4, 8"
    assert shown[2] == ("4 a", {"display_id": True})
    sliders[0].value = 8
    sliders[1].value = "b"
    assert updates == ["8 a", "8 b"]
