import pytest
import torch

from course_lib.data.rendered_text import HEIGHT, MARGIN, WIDTH, rendered_lines
from course_lib.data.text import wikipedia_articles


def test_pictures_hold_ink_on_paper_and_nothing_is_cut_off():
    images, texts = rendered_lines(20)
    assert images.shape == (20, 3, HEIGHT, WIDTH) and images.dtype == torch.float32
    assert images.amin() == -1 and images.amax() == 1
    assert images[:, 0].equal(images[:, 1]) and images[:, 0].equal(images[:, 2])
    edges = images[..., : MARGIN - 2], images[..., 2 - MARGIN :], images[..., :4, :]
    assert all((edge == 1).all() for edge in edges)
    assert (images[:, 0].amin(dim=(1, 2)) < 0).all() and len(texts) == 20


def test_the_texts_are_runs_of_the_articles_words():
    words = " ".join(wikipedia_articles().values()).split()
    kept = " ".join(word for word in words if word.isascii() and len(word) <= 12)
    assert all(text in kept for text in rendered_lines(20).texts)


def test_a_seed_gives_the_same_lines_however_they_are_spoiled():
    clean, again = rendered_lines(3, seed=7), rendered_lines(3, seed=7)
    assert clean.images.equal(again.images) and clean.texts == again.texts
    assert rendered_lines(3, seed=7, spoiled=1.0).texts == clean.texts
    assert rendered_lines(3, seed=8).texts != clean.texts


def test_more_spoiled_is_farther_from_clean():
    pictures = [rendered_lines(4, 0, amount).images for amount in (0.0, 0.2, 0.5, 1.0)]
    distances = [(picture - pictures[0]).square().mean().item() for picture in pictures]
    assert distances == sorted(distances) and distances[1] > 0


@pytest.mark.parametrize(("count", "spoiled"), [(0, 0.0), (1, -0.1), (1, 1.5), (1, float("nan"))])
def test_bad_input(count, spoiled):
    with pytest.raises(ValueError, match=f"got {count} and {spoiled}"):
        rendered_lines(count, spoiled=spoiled)
