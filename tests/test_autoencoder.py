"""The sparse autoencoder: k positive codes, directions of length one, planted directions found."""

import pytest
import torch
import torch.nn.functional as F

from course_lib.pruning.autoencoder import (
    SparseAutoencoder,
    dead_share,
    train_autoencoder,
    variance_explained,
)


def planted(features=12, width=8, count=4000, seed=0):
    """Hidden states that are sums of two of a few directions, around a mean that is not zero."""
    generator = torch.Generator().manual_seed(seed)
    directions = F.normalize(torch.randn(features, width, generator=generator), dim=1)
    places = torch.rand(count, features, generator=generator).topk(2, dim=1).indices
    sizes = 1 + torch.rand(count, 2, generator=generator)
    codes = torch.zeros(count, features).scatter(1, places, sizes)
    return directions, codes @ directions + 3.0


def pca(x, components):
    mean = x.mean(0)
    axes = torch.linalg.svd(x - mean, full_matrices=False).Vh[:components]
    return mean + (x - mean) @ axes.T @ axes


def test_codes_are_at_most_k_and_positive_and_the_largest():
    autoencoder = SparseAutoencoder(6, features=20, k=4)
    x = torch.randn(50, 6)
    codes = autoencoder.encode(x)
    assert (codes >= 0).all()
    scores = (x - autoencoder.bias) @ autoencoder.encoder.T
    for row, code in zip(scores.tolist(), codes.tolist(), strict=True):
        kept = sorted(range(20), key=lambda j: -row[j])[:4]
        assert code == pytest.approx([max(row[j], 0) if j in kept else 0 for j in range(20)])


def test_the_reconstruction_is_the_sum_of_the_formula():
    autoencoder = SparseAutoencoder(3, features=5, k=2)
    with torch.no_grad():
        autoencoder.decoder.mul_(7)  # its lengths do not count
        autoencoder.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    x = torch.randn(3)
    z = autoencoder.encode(x)
    d = autoencoder.decoder / autoencoder.decoder.norm(dim=0)
    torch.testing.assert_close(
        autoencoder(x), autoencoder.bias + sum(z[j] * d[:, j] for j in range(5))
    )
    torch.testing.assert_close(autoencoder.directions().norm(dim=0), torch.ones(5))


def test_any_leading_shape():
    autoencoder = SparseAutoencoder(3, features=5, k=2)
    x = torch.randn(2, 4, 3)
    torch.testing.assert_close(autoencoder(x).view(8, 3), autoencoder(x.view(8, 3)))


def test_gradients_reach_the_k_features_alone():
    autoencoder = SparseAutoencoder(4, features=9, k=3)
    x = torch.randn(1, 4)
    autoencoder(x).square().sum().backward()
    on = autoencoder.encode(x)[0] > 0
    assert 0 < int(on.sum()) <= 3
    assert not autoencoder.encoder.grad[~on].any()
    assert not autoencoder.decoder.grad[:, ~on].any()


def test_planted_directions_are_found():
    directions, hidden = planted()
    autoencoder = SparseAutoencoder(8, features=24, k=2)
    losses = train_autoencoder(autoencoder, hidden, steps=800)
    with torch.no_grad():
        found = variance_explained(hidden, autoencoder(hidden), hidden.mean(0))
        nearest = (directions @ autoencoder.directions()).max(dim=1).values
    assert len(losses) == 800
    # Two components of PCA explain far less, for the directions are more than the dimensions.
    assert found > variance_explained(hidden, pca(hidden, 2), hidden.mean(0)) + 0.2
    assert nearest.median() > 0.9
    assert 0 <= dead_share(autoencoder, hidden) < 0.9


def test_the_scale_of_the_hidden_states_does_not_matter_to_the_share():
    torch.manual_seed(0)
    _, hidden = planted(count=600)
    ends = []
    for scale in (1.0, 1000.0):
        torch.manual_seed(0)
        autoencoder = SparseAutoencoder(8, features=24, k=2)
        ends.append(train_autoencoder(autoencoder, scale * hidden, steps=200)[-20:].mean())
    assert ends[1] == pytest.approx(float(ends[0]), abs=0.1)


def test_training_is_seeded_and_starts_at_the_mean():
    _, hidden = planted(count=600)
    ends = []
    for _ in range(2):
        torch.manual_seed(0)
        autoencoder = SparseAutoencoder(8, features=24, k=2)
        train_autoencoder(autoencoder, hidden, steps=5, seed=1)
        ends.append(autoencoder.encoder.detach().clone())
    assert ends[0].equal(ends[1])
    train_autoencoder(autoencoder, hidden, steps=0)
    torch.testing.assert_close(autoencoder.bias.detach(), hidden.mean(0))


def test_dead_features_are_those_that_nothing_turns_on():
    autoencoder = SparseAutoencoder(2, features=4, k=1)
    with torch.no_grad():
        autoencoder.encoder.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0.5, 0]]))
    assert dead_share(autoencoder, torch.tensor([[1.0, 0.0], [0.0, 1.0]])) == 0.5
    assert dead_share(autoencoder, torch.zeros(3, 2)) == 1.0


def test_variance_explained_is_that_of_scikit_learns_r2():
    from sklearn.metrics import r2_score

    x, guess = torch.randn(40, 3), torch.randn(40, 3)
    peer = r2_score(x.numpy(), guess.numpy(), multioutput="variance_weighted")
    assert variance_explained(x, guess, x.mean(0)) == pytest.approx(peer, abs=1e-5)


@pytest.mark.parametrize(
    ("hidden", "says"),
    [
        (torch.randn(5, 3), r"hidden must have shape \(N, 4\); got \(5, 3\)"),
        (torch.randn(4), r"hidden must have shape"),
        (torch.full((3, 4), float("nan")), "hidden must be finite"),
        (torch.ones(3, 4), "hidden must vary"),
        (torch.ones(0, 4), "hidden must not be empty"),
    ],
)
def test_bad_hidden_states_are_refused(hidden, says):
    with pytest.raises(ValueError, match=says):
        train_autoencoder(SparseAutoencoder(4, features=8, k=2), hidden, steps=1)


@pytest.mark.parametrize("k", [0, 9])
def test_a_bad_k_is_refused(k):
    with pytest.raises(ValueError, match=f"k must be from 1 to features=8; got {k}"):
        SparseAutoencoder(4, features=8, k=k)
