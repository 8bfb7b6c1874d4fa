import torch

from course_lib.data.images import digits


def test_digits_have_the_sizes_and_values_that_are_stated():
    data = digits()
    assert data.train_images.shape == (1257, 64) and data.test_images.shape == (540, 64)
    assert data.train_labels.shape == (1257,) and data.test_labels.shape == (540,)
    assert data.train_images.dtype == data.test_images.dtype == torch.float32
    assert data.train_images.aminmax() == (0, 1)


def test_no_test_image_is_a_training_image():
    data = digits()
    train = {tuple(image) for image in data.train_images.tolist()}
    assert not train & {tuple(image) for image in data.test_images.tolist()}


def test_each_class_has_its_share_of_both_parts():
    data = digits()
    train, test = data.train_labels.bincount(), data.test_labels.bincount()
    torch.testing.assert_close(test / 540, train / 1257, rtol=0, atol=1 / 540)


def test_the_seed_decides_the_split():
    assert torch.equal(digits(3).test_images, digits(3).test_images)
    assert not torch.equal(digits(3).test_images, digits(4).test_images)
