import copy
import math

import pytest
import torch
import torch.nn.functional as F

from course_lib.language_models.folding import fold_scale
from course_lib.language_models.quantized_inputs import quantized_inputs
from course_lib.language_models.rotation import random_hadamard, random_orthogonal, rotated
from course_lib.models.llama import Llama, LlamaConfig, generate, initialize
from course_lib.models.norms import fold_norms, untied
from course_lib.models.parts import DOWN, GATE_UP, QKV, record_inputs
from course_lib.models.pretrained import tiny
from course_lib.models.walk import treat_blocks

CONFIG = LlamaConfig(
    vocabulary=50, width=24, layers=2, heads=6, kv_heads=2, mlp_width=40, context=32
)
TOKENS = torch.randint(50, (2, 20), generator=torch.Generator().manual_seed(0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(**changed) -> Llama:
    torch.manual_seed(0)
    model = Llama(LlamaConfig(**{**vars(CONFIG), **changed})).requires_grad_(False)
    initialize(model)
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.uniform_(-1, 2)
    model.embedding.weight.mul_(50)
    return model


@pytest.mark.parametrize("draw", [random_hadamard, random_orthogonal])
@pytest.mark.parametrize("n", [1, 2, 12, 36])
def test_rotations_are_orthogonal_and_differ_from_seed_to_seed(draw, n):
    turn = draw(n, seeded())
    torch.testing.assert_close(turn @ turn.T, torch.eye(n, dtype=torch.float64))
    assert turn.equal(draw(n, seeded()))
    assert n == 1 or any(not turn.equal(draw(n, seeded(seed))) for seed in range(1, 9))


def test_random_orthogonal_matrices_are_spread_evenly():
    """Of an even draw the mean of q_ij is 0, that of q_ij² is 1/n; 4 standard errors of 2000."""
    draws = torch.stack([random_orthogonal(3, seeded(seed)) for seed in range(2000)])
    assert draws.mean(0).abs().max() < 4 * (1 / 3) ** 0.5 / 2000**0.5
    assert (draws.square().mean(0) - 1 / 3).abs().max() < 4 * 0.3 / 2000**0.5


@pytest.mark.parametrize("draw", [random_hadamard, random_orthogonal])
@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_the_logits_stay_the_same(draw, online, tied):
    model = small(tied=tied)
    turned = rotated(model, draw(24, seeded()), draw(40, seeded()) if online else None)
    exact = model(TOKENS)
    assert exact.abs().max() > 1
    torch.testing.assert_close(turned(TOKENS), exact, rtol=0, atol=1e-4)
    assert generate(turned, TOKENS, 5).equal(generate(model, TOKENS, 5))


def test_tinylm_keeps_its_logits():
    model, tokens = tiny()[0], torch.randint(2048, (1, 100), generator=seeded())
    turned = rotated(model, random_hadamard(192, seeded()), random_hadamard(512, seeded()))
    torch.testing.assert_close(turned(tokens), model(tokens), rtol=0, atol=1e-4)


def test_the_first_model_is_left_alone_and_the_second_has_plain_norms_and_a_head():
    model = small()
    before = copy.deepcopy(model.state_dict())
    turned = rotated(model, random_hadamard(24, seeded()))
    assert all(before[name].equal(weight) for name, weight in model.state_dict().items())
    assert model.config.tied and not turned.config.tied
    assert all(p.eq(1).all() for name, p in turned.named_parameters() if "norm" in name)
    again = Llama(turned.config)  # what a loader does
    again.load_state_dict(turned.state_dict())
    assert again(TOKENS).equal(turned(TOKENS))


def test_the_residual_stream_is_the_old_one_turned():
    model, turn = small(), random_orthogonal(24, seeded())
    turned = rotated(model, turn)
    (x,), (y,) = (record_inputs(m, TOKENS, [m.blocks[1]]) for m in (model, turned))
    torch.testing.assert_close(y, (x.double() @ turn).float(), rtol=1e-4, atol=1e-4)


def test_what_down_is_given_is_turned_online():
    model, turn = small(), random_orthogonal(40, seeded())
    turned = rotated(model, random_hadamard(24, seeded()), turn)
    (x,) = record_inputs(model, TOKENS, [model.blocks[1].mlp.down])
    (y,) = record_inputs(turned, TOKENS, [turned.blocks[1].mlp.down])
    torch.testing.assert_close(y, (x.double() @ turn).float(), rtol=1e-4, atol=1e-5)


def test_a_rotation_spreads_an_outlier_and_4_bits_then_lose_less():
    """One channel of the stream is 10 times the others; spread, it is 2 times (√24 < 5)."""
    model = small()
    model.embedding.weight[:, 5] *= 10
    model.norm.weight[5] /= 10
    for block in model.blocks:  # it is read but little
        for norm, names in ((block.attention_norm, QKV), (block.mlp_norm, GATE_UP)):
            norm.weight.fill_(2)
            for name in names:
                block.get_submodule(name).weight[:, 5] /= 10
    turned = rotated(model, random_hadamard(24, seeded()))
    torch.testing.assert_close(turned(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-2)
    errors = [(quantized_inputs(m, 4)(TOKENS) - m(TOKENS)).norm() for m in (model, turned)]
    assert errors[1] < 0.8 * errors[0]  # 0.64; what output and down are given is as it was


def test_online_rotation_and_quantized_inputs_go_together():
    """Rounded is what the product is taken of: the turned numbers."""
    turned = rotated(small(), random_hadamard(24, seeded()), random_hadamard(40, seeded()))
    mlp, x = quantized_inputs(turned, 2).blocks[0].mlp, torch.randn(1, 24)
    mlp.up.weight[:3] = mlp.up.weight[4:] = 0  # one product; turned, 40 numbers of one size
    torch.testing.assert_close(
        mlp.down(mlp.products(x)), F.linear(mlp.products(x), mlp.down.weight)
    )


def test_a_walk_records_what_is_turned_online_and_no_scale_is_folded_behind_it():
    turn = random_hadamard(40, seeded())
    turned = rotated(small(), random_hadamard(24, seeded()), turn)
    grams = []
    for model in (small(), turned):
        treat_blocks(model, TOKENS, lambda stage: grams.append(stage.moments.gram.double()))
    before, after = grams[7], grams[15]  # of the last stage, `down` of the second block
    torch.testing.assert_close(after, turn.T @ before @ turn, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="turned before down sees it"):
        fold_scale(turned.blocks[0], DOWN, torch.ones(40))


def test_a_second_rotation_of_the_stream_is_fine_but_not_of_what_down_is_given():
    hidden = random_hadamard(40, seeded())
    turned = rotated(small(), random_hadamard(24, seeded()), hidden)
    again = rotated(turned, random_orthogonal(24, seeded()))
    torch.testing.assert_close(again(TOKENS), small()(TOKENS), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="turns those inputs already"):
        rotated(turned, torch.eye(24), hidden)


def test_half_precision_stays_what_it_was():
    model = small().half()
    turned = rotated(model, random_hadamard(24, seeded()), random_hadamard(40, seeded()))
    assert {p.dtype for p in turned.parameters()} == {torch.float16}
    exact = small()(TOKENS)
    assert (turned(TOKENS).float() - exact).abs().max() < 0.02 * exact.abs().max()


def test_a_zero_norm_weight_is_folded_like_any_other():
    model = small()
    model.norm.weight[3] = 0
    model.blocks[0].mlp_norm.weight.zero_()
    turned = rotated(model, random_orthogonal(24, seeded()))
    torch.testing.assert_close(turned(TOKENS), model(TOKENS), rtol=0, atol=1e-4)


def test_norms_do_not_fold_into_a_tied_head():
    with pytest.raises(ValueError, match="its head is tied"):
        fold_norms(small())
    model = untied(small())
    fold_norms(model)
    torch.testing.assert_close(model(TOKENS), small()(TOKENS), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("matrix", "says"),
    [
        (torch.eye(23), r"residual must have shape \(24, 24\); got \(23, 23\)"),
        (2 * torch.eye(24), "residual must be orthogonal"),
        (torch.full((24, 24), math.nan), "residual must be finite"),
    ],
)
def test_what_is_no_rotation_is_refused(matrix, says):
    with pytest.raises(ValueError, match=says):
        rotated(small(), matrix)


def test_a_broken_model_is_refused():
    model = small()
    model.blocks[1].mlp.up.weight[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"blocks.1.mlp.up.weight must be finite"):
        rotated(model, torch.eye(24))
    with pytest.raises(ValueError, match="hidden must have shape"):
        rotated(small(), torch.eye(24), torch.eye(24))
