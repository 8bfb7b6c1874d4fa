"""Values' gradients are sums over their cells, zeros stay, and training values helps."""

import pytest
import torch
from torch import nn

from course_lib.quantization.shared_values import SharedValues, share


def small_model(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    model[0].weight.data[torch.rand(8, 6) < 0.5] = 0
    return model


def test_the_gradient_of_a_value_is_the_sum_over_its_cell():
    model = small_model()
    shared = SharedValues(model, {"0.weight": 4, "2.weight": 2})
    x = torch.randn(20, 6)
    shared(x).square().sum().backward()
    twin = shared.model()  # the same network with weights of its own
    for name, tensor in shared.tensors().items():
        twin.get_parameter(name).data.copy_(tensor.detach())
    twin(x).square().sum().backward()
    for (name, mask), values, cells in zip(
        shared.masks.items(), shared.values, shared.cells, strict=True
    ):
        gradient = twin.get_parameter(name).grad[mask]
        for j in range(len(values)):
            assert values.grad[j] == pytest.approx(gradient[cells == j].sum().item(), rel=1e-3)


def test_zeros_stay_and_values_are_few_and_in_float16():
    model = small_model()
    shared = SharedValues(model, dict.fromkeys(dict(model.named_parameters()), 4))
    optimizer = torch.optim.Adam(shared.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        shared(torch.randn(10, 6)).square().mean().backward()
        optimizer.step()
    trained = shared.model()
    for name, before in model.named_parameters():
        after = trained.get_parameter(name).detach()
        assert after[before == 0].eq(0).all()
        assert len(after[before != 0].unique()) <= 4
        assert after.half().float().equal(after)
    assert not trained[0].weight.equal(model[0].weight)


def test_other_parameters_do_not_learn():
    model = small_model()
    shared = SharedValues(model, {"2.weight": 4})
    assert [parameter.shape for parameter in shared.parameters()] == [(4,)]
    assert shared.model()[0].weight.equal(model[0].weight)


def test_fewer_different_weights_than_values():
    values, cells = share(torch.tensor([2.0, 1.0, 2.0]), 8)
    assert values.tolist() == [1.0, 2.0] and cells.tolist() == [1, 0, 1]
    values, cells = share(torch.empty(0), 4)
    assert len(values) == len(cells) == 0


def test_a_tensor_of_zeros():
    model = small_model()
    nn.init.zeros_(model[0].weight)
    shared = SharedValues(model, {"0.weight": 4})
    assert shared.model()[0].weight.eq(0).all()
    assert shared(torch.ones(1, 6)).shape == (1, 3)


def test_sharing_is_as_good_as_scikit_learns():
    from sklearn.cluster import KMeans

    weights = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    values, cells = share(weights, 8)
    ours = (values[cells] - weights).square().sum().item()
    start = torch.linspace(float(weights.min()), float(weights.max()), 8)[:, None].numpy()
    peer = KMeans(8, init=start, n_init=1).fit(weights[:, None].numpy()).inertia_
    assert ours < 1.05 * peer


@pytest.mark.parametrize(
    ("k", "message"), [({"3.weight": 2}, "got \\['3.weight'\\]"), ({"0.weight": 0}, "k must be at")]
)
def test_what_is_refused(k, message):
    with pytest.raises(ValueError, match=message):
        SharedValues(small_model(), k)
