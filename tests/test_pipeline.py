"""Recipes on a small decoder: what steps promise, and that a run goes on where it was cut."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from course_lib.formats.model_file import unpack_model
from course_lib.models.llama import Llama, LlamaConfig, initialize
from course_lib.models.pretrained import tiny
from course_lib.pipeline import run as running
from course_lib.pipeline.compressed_file import load_compressed, save_compressed
from course_lib.pipeline.run import from_dicts, run, to_dicts
from course_lib.pipeline.state import State, load_state, packed, ranks_of, save_state
from course_lib.pipeline.steps import (
    CutUnits,
    DropLayers,
    Given,
    Heal,
    LowRank,
    Prune,
    Quantize,
    Restart,
    Round,
)
from course_lib.quantization.aware import settled

CONFIG = LlamaConfig(
    vocabulary=64, width=32, layers=3, heads=4, kv_heads=2, mlp_width=48, context=160
)
EMBEDDING = Quantize(4, part="embedding")
RECIPES = {
    "nothing": (),
    "every removal": (DropLayers(1), CutUnits(0.5), LowRank(0.9), Heal(2)),
    "the embedding first": (EMBEDDING, DropLayers(1), CutUnits(0.5), LowRank(0.9), Heal(2)),
    "sparse": (Prune(0.5), Heal(2)),
    "sparse, repaired": (Prune(0.5, "sparsegpt"), Heal(1, teacher=False)),
    "learned steps": (EMBEDDING, Prune(0.5), Round(3), Heal(2)),
    "even steps": (EMBEDDING, Round(2.5, coded=True), Heal(2)),
    "factors, then codes": (LowRank(0.8), Quantize(4)),
    "codes, then norms": (EMBEDDING, Quantize(3, 16, "gptq"), Heal(2)),
    "awq": (Quantize(4, 16, "awq"),),
    "from scratch": (DropLayers(1), Restart(), Heal(2, 1.0)),
}


@pytest.fixture(scope="module")
def given():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Llama(CONFIG)
        initialize(model)
    dice = torch.Generator().manual_seed(1)
    text = torch.randint(64, (2000,), generator=dice)
    return Given(model.eval().requires_grad_(False), tiny()[1], text, text[:512].view(8, 64))


def equal(parts, others):
    return parts.keys() == others.keys() and all(parts[n].equal(others[n]) for n in parts)


def logits(model, given):
    return model(given.calibration[:2])


@pytest.mark.parametrize("name", RECIPES)
def test_the_file_gives_back_the_model_of_the_last_step(name, given, tmp_path):
    before = copy.deepcopy(given.dense.state_dict())
    state = run(RECIPES[name], given)
    path = tmp_path / "model.safetensors"
    ranks, steps = ranks_of(state.model), to_dicts(RECIPES[name])
    save_compressed(path, packed(state), state.model.config, ranks, steps)
    back = load_compressed(path)
    # What is not on a grid was rounded to float16: 2⁻¹¹ of each weight, twelve layers deep.
    torch.testing.assert_close(
        logits(back.model, given), logits(state.model, given), rtol=0.02, atol=0.02
    )
    assert from_dicts(back.recipe) == RECIPES[name]
    assert equal(given.dense.state_dict(), before)


@pytest.mark.parametrize("name", RECIPES)
def test_a_state_is_read_as_it_was_written(name, given, tmp_path):
    state = run(RECIPES[name], given)
    save_state(state, tmp_path / "state.safetensors")
    again = load_state(tmp_path / "state.safetensors")
    assert equal(packed(state), packed(again)) and again.trained == state.trained
    assert again.model.config == state.model.config
    assert [*tmp_path.iterdir()] == [tmp_path / "state.safetensors"]
    more = [Heal(1)(one, given, 3).model for one in (state, again)]
    torch.testing.assert_close(*(logits(model, given) for model in more), rtol=1e-3, atol=1e-3)


def test_a_run_that_was_cut_goes_on_where_it_was(given, tmp_path, monkeypatch):
    recipe = (Prune(0.5), Heal(2), Round(3), Heal(3))
    whole = packed(run(recipe, given))
    healed = Heal.__call__

    def cut(self, *rest):
        if self.steps == 3:
            raise KeyboardInterrupt
        return healed(self, *rest)

    monkeypatch.setattr(Heal, "__call__", cut)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, given, folder=tmp_path)
    assert len([*tmp_path.iterdir()]) == 3

    def last(self, *rest):
        assert self.steps == 3, "what stands there is not done again"
        return healed(self, *rest)

    monkeypatch.setattr(Heal, "__call__", last)
    assert equal(packed(run(recipe, given, folder=tmp_path)), whole)
    monkeypatch.setattr(Heal, "__call__", None)
    assert equal(packed(run(recipe, given, folder=tmp_path)), whole)


def test_another_seed_setting_or_model_is_another_run(given, tmp_path):
    def count():
        return len([*tmp_path.iterdir()])

    recipe = (Prune(0.5), Heal(1))
    first = packed(run(recipe, given, 0, tmp_path))
    assert not equal(packed(run(recipe, given, 1, tmp_path)), first) and count() == 4
    assert not equal(packed(run((Prune(0.5), Heal(2)), given, 0, tmp_path)), first)
    assert count() == 5  # the beginning is shared
    other = copy.deepcopy(given.dense)
    other.norm.weight.mul_(1.5)
    changed = Given(other, given.tokenizer, given.text, given.calibration)
    run(recipe, changed, 0, tmp_path)
    assert count() == 7


def test_two_trainings_draw_different_windows_and_equal_seeds_equal_ones(given):
    once, again = (packed(run((Heal(2),), given, 7)) for _ in range(2))
    assert equal(once, again)
    assert not equal(once, packed(run((Heal(1), Heal(1)), given, 7)))


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_zeros_stay_zero_and_the_others_learn(given, method):
    pruned = run((Prune(0.4, method),), given)
    assert sum(int(gone.sum()) for gone in pruned.zeros.values()) == pytest.approx(
        0.6 * sum(gone.numel() for gone in pruned.zeros.values()), rel=0.01
    )
    healed = Heal(3)(pruned, given, 0)
    rounded = Heal(2)(Round(3)(healed, given, 0), given, 0)
    for name, gone in pruned.zeros.items():
        assert healed.model.get_parameter(name)[gone].eq(0).all()
        assert not healed.model.get_parameter(name).equal(pruned.model.get_parameter(name))
        assert settled(rounded.model).get_parameter(name)[gone].eq(0).all()


def test_what_is_stored_learns_no_more(given):
    state = run((EMBEDDING, Quantize(4, method="gptq")), given)
    healed = Heal(3, 1.0)(state, given, 0)
    assert equal(dict(healed.stored), dict(state.stored))
    back = unpack_model(packed(healed), healed.model)
    for name in state.stored_names:
        assert back.get_parameter(name).equal(healed.model.get_parameter(name))
        assert back.get_parameter(name).equal(state.model.get_parameter(name))
    assert not healed.model.norm.weight.equal(state.model.norm.weight)


def test_a_file_of_zeros_is_smaller_only_where_the_form_knows_zeros(given):
    def count(*recipe):
        return sum(part.nbytes for part in packed(run(recipe, given)).values())

    assert count(Prune(0.3)) < 0.7 * count()
    assert count(Prune(0.3), Round(3)) == count(Round(3))
    assert count(Prune(0.3), Quantize(3)) == count(Quantize(3))


def test_restart_keeps_the_shape_alone(given):
    small = (DropLayers(1), CutUnits(0.5))
    kept, fresh = run(small, given), run((*small, Restart()), given)
    assert kept.model.config == fresh.model.config
    assert not kept.model.embedding.weight.equal(fresh.model.embedding.weight)
    other = run((*small, Restart()), given, seed=1)
    assert not other.model.embedding.weight.equal(fresh.model.embedding.weight)


@pytest.mark.parametrize(
    "recipe",
    [
        (Round(3), CutUnits(0.5)),
        (LowRank(0.8), DropLayers(1)),
        (Quantize(4), Prune(0.5)),
        (Quantize(4), Round(3)),
        (Quantize(4), Quantize(3)),
        (Round(3), Round(3)),
        (EMBEDDING, Restart()),
        (LowRank(0.8), Quantize(4, 16, "gptq")),
        (Round(2.5),),
    ],
    ids=str,
)
def test_a_step_that_comes_where_it_cannot_says_so(recipe, given):
    with pytest.raises(ValueError, match=r"must (come|be)"):
        run(recipe, given)


@pytest.mark.parametrize(
    "wrong", [{}, {"do": "Explode"}, {"do": "Heal"}, {"do": "Heal", "steps": 1, "x": 2}, {"do": []}]
)
def test_a_recipe_that_is_none(wrong):
    with pytest.raises(ValueError, match="a step must be one of DropLayers"):
        from_dicts([wrong])


@pytest.mark.parametrize(
    "wrong",
    [
        {"do": "Prune", "density": 0.5, "method": "Wanda"},
        {"do": "Quantize", "bits": 4, "method": "gptq2"},
        {"do": "Quantize", "bits": 4, "part": "head"},
        {"do": "Quantize", "bits": 4, "method": "gptq", "part": "embedding"},
    ],
    ids=str,
)
def test_a_method_that_a_step_does_not_know(wrong):
    with pytest.raises(ValueError, match="must be .* got"):
        from_dicts([wrong])


def test_recipes_are_data():
    for recipe in RECIPES.values():
        assert from_dicts(to_dicts(recipe)) == recipe


def test_a_half_written_state_is_never_read(given, tmp_path, monkeypatch):
    def breaks(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr("course_lib.pipeline.state.save_file", breaks)
    with pytest.raises(OSError, match="full"):
        run((Prune(0.5),), given, folder=tmp_path)
    monkeypatch.undo()
    assert not [*tmp_path.glob("*.safetensors")]
    run((Prune(0.5),), given, folder=tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    with safe_open(path, "pt") as file:
        assert file.metadata()["trained"] == "0"


def test_the_names_of_steps_are_unique():
    assert len(running.STEPS) == 8 and running.STEPS["Heal"] is Heal
    assert State(Llama(CONFIG)).stored_names == set()
