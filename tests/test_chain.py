"""Units and channels removed for real: as another library does it, by hand, and without a trace."""

import copy

import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import nn

from course_lib.data.images import digits
from course_lib.measure.quality import accuracy
from course_lib.measure.size import count_parameters, size
from course_lib.models.digits_cnn import DigitsCNN
from course_lib.models.digits_mlp import DigitsMLP, train_digits
from course_lib.pruning.chain import shrink_chain
from course_lib.pruning.repair import refit
from course_lib.pruning.smaller import keep_inputs, keep_outputs


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture(scope="module")
def networks(data):
    """A little trained, so that BatchNorm has seen something."""
    torch.manual_seed(0)
    made = {"mlp": DigitsMLP(), "cnn": DigitsCNN()}
    for network in made.values():
        train_digits(network, data, epochs=3)
    return made


def some(count, share, seed=0):
    mask = torch.rand(count, generator=torch.Generator().manual_seed(seed)) < share
    mask[seed % count] = True
    return mask


MASKS = {
    "mlp": {"0": some(300, 0.4), "2": some(100, 0.5, 1)},
    "cnn": {"1": some(16, 0.5), "4": some(32, 0.6, 1), "8": some(32, 0.3, 2)},
}


AFTER = {"mlp": ("2", "4"), "cnn": ("4", "8", "13")}  # the layers that take what these give


@pytest.mark.parametrize("name", MASKS)
def test_shapes_and_outputs_are_those_of_torch_pruning(networks, data, name):
    model, theirs = networks[name], copy.deepcopy(networks[name])
    before = copy.deepcopy(model.state_dict())
    graph = tp.DependencyGraph().build_dependency(theirs, data.test_images[:2])
    for layer, mask in MASKS[name].items():
        module = theirs.get_submodule(layer)
        kind = tp.prune_linear_out_channels if name == "mlp" else tp.prune_conv_out_channels
        graph.get_pruning_group(module, kind, idxs=(~mask).nonzero().flatten().tolist()).prune()
    ours = shrink_chain(model, MASKS[name])
    shapes = [{n: t.shape for n, t in m.state_dict().items()} for m in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert count_parameters(ours) == count_parameters(theirs) < count_parameters(model)
    assert str(list(ours)) == str(list(theirs))  # sizes that the modules name
    torch.testing.assert_close(ours(data.test_images), theirs(data.test_images))
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_parameters_counted_by_hand(networks):
    a, b = (int(mask.sum()) for mask in MASKS["mlp"].values())
    small = shrink_chain(networks["mlp"], MASKS["mlp"])
    assert count_parameters(small) == 64 * a + a + a * b + b + b * 10 + 10
    a, b, c = (int(mask.sum()) for mask in MASKS["cnn"].values())
    small = shrink_chain(networks["cnn"], MASKS["cnn"])
    convolutions = 9 * (a + a * b + b * c)
    assert count_parameters(small) == convolutions + 2 * (a + b + c) + 4 * c * 10 + 10
    assert size(small.state_dict()).bytes < 0.4 * size(networks["cnn"].state_dict()).bytes


def test_a_plain_network_loads_what_was_saved(networks, data, tmp_path):
    small = shrink_chain(networks["mlp"], MASKS["mlp"])
    torch.save(small.state_dict(), tmp_path / "small")
    a, b = (int(mask.sum()) for mask in MASKS["mlp"].values())
    plain = nn.Sequential(nn.Linear(64, a), nn.ReLU(), nn.Linear(a, b), nn.ReLU(), nn.Linear(b, 10))
    plain.load_state_dict(torch.load(tmp_path / "small"))
    assert type(small) is nn.Sequential
    assert torch.equal(plain(data.test_images), small(data.test_images))


@pytest.mark.parametrize("name", MASKS)
def test_the_masked_network_gives_the_same_and_saves_nothing(networks, data, name):
    """Removing a unit is to set to 0 what the next layer makes of it."""
    model = networks[name]
    masked, following_of = copy.deepcopy(model), dict(zip(MASKS[name], AFTER[name], strict=True))
    for layer, mask in MASKS[name].items():
        following = masked.get_submodule(following_of[layer])
        each = following.weight.shape[1] // len(mask)
        with torch.no_grad():
            following.weight[:, ~mask.repeat_interleave(each)] = 0
    small = shrink_chain(model, MASKS[name])
    torch.testing.assert_close(small(data.test_images), masked(data.test_images))
    assert count_parameters(masked) == count_parameters(model)


@pytest.mark.parametrize("name", MASKS)
def test_where_nothing_goes_nothing_changes(networks, data, name):
    everything = {layer: torch.ones_like(mask) for layer, mask in MASKS[name].items()}
    for examples in (None, data.train_images[:50]):
        same = shrink_chain(networks[name], everything, examples)
        torch.testing.assert_close(same(data.test_images), networks[name](data.test_images))


def test_dead_units_go_without_a_trace_and_constant_ones_with_their_mean(data):
    model = nn.Sequential(nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 3)).double()
    with torch.no_grad():
        model[0].weight[:4] = 0
        model[0].bias[:4] = torch.tensor([-1.0, -2.0, 0.0, 1.5])  # the last gives 1.5 throughout
    images = data.test_images.double()
    exact = {"rtol": 0, "atol": 1e-14}
    dead = shrink_chain(model, {"0": torch.arange(9) > 2})
    torch.testing.assert_close(dead(images), model(images), **exact)
    keep = {"0": torch.arange(9) > 3}
    bare = shrink_chain(model, keep)
    torch.testing.assert_close(bare(images) + 1.5 * model[2].weight[:, 3], model(images), **exact)
    for mend in ({}, {"mend": refit}):
        folded = shrink_chain(model, keep, data.train_images.double(), **mend)
        torch.testing.assert_close(folded(images), model(images), **exact)


def test_a_channel_that_batch_norm_holds_constant(data):
    """Its filter is 0, so BatchNorm gives a constant: folded exactly where nothing is padded."""
    images = data.test_images.double().view(-1, 1, 8, 8)
    for padding in (0, 1):
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=padding)
        ).double().eval()  # fmt: skip
        with torch.no_grad():
            model[0].weight[2], model[0].bias[2], model[1].bias[2] = 0, 0, 0.7
            model[1].running_mean += 0.1
        keep = {"0": torch.arange(4) != 2}
        difference = (shrink_chain(model, keep, images)(images) - model(images)).abs()
        if padding:
            assert difference[..., 1:-1, 1:-1].max() > 1e-3  # the mean has seen the border's zeros
        else:
            assert difference.max() < 1e-14


@pytest.mark.parametrize(
    "how",
    [{"stride": 2}, {"dilation": 2}, {"padding": (0, 2)}, {"stride": 2, "padding": 1}],
    ids=str,
)
def test_a_repaired_convolution_keeps_its_mean_over_the_places_that_it_has(data, how):
    x = data.train_images[:40].double().view(-1, 1, 8, 8)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3, **how)).double()
    for mend in ({}, {"mend": refit}):
        small = shrink_chain(model, {"0": torch.arange(6) < 3}, x, **mend)
        assert small[2].weight.shape == (5, 3, 3, 3)
        means = small(x).mean(dim=(0, 2, 3)), model(x).mean(dim=(0, 2, 3))
        torch.testing.assert_close(*means)
        assert not torch.allclose(small(x), model(x), rtol=0.01)


def test_the_order_of_units_is_nothing(data):
    torch.manual_seed(1)
    model = DigitsMLP().double()
    order, keep = torch.randperm(300), some(300, 0.3)
    turned = copy.deepcopy(model)
    with torch.no_grad():
        turned[0].weight.copy_(model[0].weight[order])
        turned[0].bias.copy_(model[0].bias[order])
        turned[2].weight.copy_(model[2].weight[:, order])
    x = data.train_images.double()
    for mend in ({}, {"mend": refit}):
        one = shrink_chain(model, {"0": keep}, x, **mend)
        two = shrink_chain(turned, {"0": keep[order]}, x, **mend)
        torch.testing.assert_close(one(x), two(x))


def test_each_repair_pays_on_held_out_images(networks, data):
    """A mean over seeds, as one choice of units may be lucky."""
    for name, layer in (("mlp", "0"), ("cnn", "4")):
        model, x = networks[name], data.train_images
        count, wrong = len(MASKS[name][layer]), []
        for mended in ((), (x,), (x, refit)):
            small = [shrink_chain(model, {layer: some(count, 0.3, s)}, *mended) for s in range(5)]
            wrong.append(
                sum(F.mse_loss(m(data.test_images), model(data.test_images)) for m in small)
            )
        assert wrong[2] < 0.7 * wrong[1] and wrong[1] < 0.95 * wrong[0], (name, wrong)
    assert accuracy(small[0], data.test_images, data.test_labels) > 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(networks, data, dtype):
    small = shrink_chain(networks["mlp"].to(torch.float32), MASKS["mlp"], data.train_images)
    half_model = copy.deepcopy(networks["mlp"]).to(dtype)
    half = shrink_chain(half_model, MASKS["mlp"], data.train_images.to(dtype))
    assert all(p.dtype == dtype for p in half.parameters())
    outputs = half(data.test_images.to(dtype)).float()
    torch.testing.assert_close(outputs, small(data.test_images), rtol=0.05, atol=0.25)


def test_one_unit_is_enough_and_none_is_not(networks, data):
    one = shrink_chain(networks["mlp"], {"0": torch.arange(300) == 7}, data.train_images)
    assert one(data.test_images).isfinite().all() and one[0].weight.shape == (1, 64)
    with pytest.raises(ValueError, match="keep must keep at least 1 of 300; it keeps none"):
        shrink_chain(networks["mlp"], {"0": torch.zeros(300).bool()})


def test_what_a_module_remembers_stays(networks):
    model = copy.deepcopy(networks["cnn"]).train()
    model[1].weight.requires_grad_(False)
    small = shrink_chain(model, MASKS["cnn"])
    assert small.training and small[2].training and small[1].padding == (1, 1)
    assert not small[1].weight.requires_grad and small[4].weight.requires_grad
    assert small[2].num_batches_tracked == model[2].num_batches_tracked > 0


LINEAR = [nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)]
SIX = torch.ones(6, dtype=torch.bool)
BAD = [
    (lambda: shrink_chain(nn.Sequential(*LINEAR), {"2": SIX[:2]}), r"of \['0'\]; got '2'"),
    (lambda: shrink_chain(nn.Sequential(*LINEAR), {"1": SIX}), r"of \['0'\]; got '1'"),
    (lambda: shrink_chain(nn.Sequential(*LINEAR), {"0": SIX[:5]}), r"bool of shape \(6,\)"),
    (lambda: shrink_chain(nn.Sequential(*LINEAR), {"0": SIX}, torch.full((2, 4), torch.nan)),
     "inputs must be finite"),
    (lambda: shrink_chain(nn.Sequential(LINEAR[0], nn.Softmax(1), LINEAR[2]), {"0": SIX}),
     "must treat each unit by itself; got Softmax"),
    (lambda: keep_outputs(nn.Conv2d(4, 4, 3, groups=2), SIX[:4]), "whose groups are 1"),
    (lambda: keep_outputs(nn.Embedding(4, 4), SIX[:4]), "must be linear or a convolution"),
    (lambda: keep_inputs(LINEAR[2], SIX[:4]), "the 6 inputs can be divided among"),
    (lambda: keep_outputs(nn.utils.parametrizations.weight_norm(nn.Linear(4, 6)), SIX),
     "must be a parameter"),
    (lambda: keep_inputs(nn.Conv2d(6, 2, 3, padding="same"), SIX, torch.ones(1, 6, 8, 8), refit),
     "padded by a number of zeros"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "says"), BAD)
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
