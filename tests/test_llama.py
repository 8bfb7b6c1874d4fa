import math

import pytest
import torch
from transformers import LlamaConfig as PeerConfig
from transformers import LlamaForCausalLM

from course_lib.models.llama import Llama, LlamaConfig, RMSNorm, generate

SMALL = LlamaConfig(
    vocabulary=50, width=24, layers=2, heads=6, kv_heads=2, mlp_width=40, context=32
)
PEER_NAMES = {
    "embedding.": "model.embed_tokens.",
    "blocks.": "model.layers.",
    "attention_norm.": "input_layernorm.",
    "attention.query.": "self_attn.q_proj.",
    "attention.key.": "self_attn.k_proj.",
    "attention.value.": "self_attn.v_proj.",
    "attention.output.": "self_attn.o_proj.",
    "mlp_norm.": "post_attention_layernorm.",
    "mlp.gate.": "mlp.gate_proj.",
    "mlp.up.": "mlp.up_proj.",
    "mlp.down.": "mlp.down_proj.",
}


def peer_of(model: Llama) -> LlamaForCausalLM:
    """The Llama of the library transformers with the same weights: an independent peer."""
    config = model.config
    peer = LlamaForCausalLM(
        PeerConfig(
            vocab_size=config.vocabulary,
            hidden_size=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            intermediate_size=config.mlp_width,
            max_position_embeddings=config.context,
            rms_norm_eps=config.norm_epsilon,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_base},
            tie_word_embeddings=True,
        )
    )
    weights = {}
    for name, weight in model.state_dict().items():
        for ours, theirs in PEER_NAMES.items():
            name = name.replace(ours, theirs)
        weights["model.norm.weight" if name == "norm.weight" else name] = weight
    weights["lm_head.weight"] = model.embedding.weight
    peer.load_state_dict(weights)
    return peer.eval()


@torch.no_grad()
def largest_difference(model: Llama, tokens: torch.Tensor) -> float:
    return (model(tokens) - peer_of(model)(tokens).logits).abs().max().item()


def small(config: LlamaConfig = SMALL) -> Llama:
    """With weights large enough for every part to matter."""
    model = Llama(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 2), (6, 6), (2, 1), (1, 1)])
def test_logits_agree_with_another_implementation(heads, kv_heads):
    config = LlamaConfig(50, 24, 2, heads, kv_heads, 40, 32, rope_base=100.0, norm_epsilon=0.01)
    assert largest_difference(small(config), torch.randint(50, (3, 32))) < 1e-3


def test_tinylm_agrees_with_another_implementation(tiny):
    assert largest_difference(tiny[0], torch.randint(2048, (2, 100))) < 1e-3


def test_smollm2_agrees_with_another_implementation(smollm2):
    model, tokenizer = smollm2
    tokens = tokenizer.encode("A kettle boils when 100 degrees are reached. " * 4).ids
    assert largest_difference(model, torch.tensor([tokens])) < 1e-3


def test_generation_with_and_without_cache_agree(tiny):
    for model, vocabulary in ((small(), 50), (tiny[0], 2048)):
        tokens = torch.randint(vocabulary, (3, 5))
        cached = generate(model, tokens, 12)
        assert cached.shape == (3, 17) and torch.equal(cached[:, :5], tokens)
        assert torch.equal(cached, generate(model, tokens, 12, cached=False))


def test_smollm2_generates_alike_with_and_without_cache(smollm2):
    model, tokenizer = smollm2
    tokens = torch.tensor([tokenizer.encode("The sun").ids])
    assert torch.equal(generate(model, tokens, 5), generate(model, tokens, 5, cached=False))


@torch.no_grad()
def test_a_cache_filled_in_pieces_gives_the_same_logits():
    model, tokens = small(), torch.randint(50, (2, 20))
    cache = model.empty_cache()
    pieces = [model(piece, cache) for piece in tokens.split([7, 1, 12], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), model(tokens), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_no_token_sees_the_future():
    model, tokens = small(), torch.randint(50, (1, 20))
    changed = tokens.clone()
    changed[0, 12:] = (changed[0, 12:] + 1) % 50
    torch.testing.assert_close(model(tokens)[:, :12], model(changed)[:, :12])
    assert not torch.allclose(model(tokens)[:, 12:], model(changed)[:, 12:])


@torch.no_grad()
def test_one_block_agrees_with_the_formulas_written_out():
    """Attention as loops over heads and positions, for a model with one block."""
    config = LlamaConfig(
        vocabulary=9, width=8, layers=1, heads=2, kv_heads=1, mlp_width=6, context=8
    )
    model = small(config)
    block, tokens = model.blocks[0], torch.tensor([[3, 1, 4, 1]])
    x = model.embedding(tokens)[0]
    h = block.attention_norm(x)
    q, k, v = (getattr(block.attention, n)(h) for n in ("query", "key", "value"))

    def turn(vector, position):
        """Pairs (x_i, x_{i + 2}) as complex numbers, turned by their angle."""
        pairs = torch.complex(vector[:2], vector[2:])
        angles = position * torch.tensor([1.0, 0.01])
        turned = pairs * torch.polar(torch.ones(2), angles)
        return torch.cat([turned.real, turned.imag])

    rows = []
    for t in range(4):
        heads = []
        for head in range(2):
            query = turn(q[t, 4 * head : 4 * head + 4], t)
            scores = torch.stack([query @ turn(k[s], s) / 2 for s in range(t + 1)]).softmax(0)
            heads.append(sum(score * v[s] for s, score in enumerate(scores)))
        rows.append(torch.cat(heads))
    x = x + block.attention.output(torch.stack(rows))
    x = x + block.mlp(block.mlp_norm(x))
    torch.testing.assert_close(model(tokens)[0], model.norm(x) @ model.embedding.weight.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_norm_makes_the_mean_square_one(dtype):
    x = (500 * torch.randn(4, 16)).to(dtype)  # whose squares do not fit into float16
    mean_square = RMSNorm(16, 0.0)(x).float().square().mean(-1)
    torch.testing.assert_close(mean_square, torch.ones(4), rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (torch.zeros(3).long(), r"\(B, T\); got \(3,\)"),
        (torch.zeros(1, 33).long(), "32 tokens; got 33"),
    ],
)
def test_bad_tokens_are_refused(tokens, says):
    with pytest.raises(ValueError, match=says):
        small()(tokens)


def test_a_cache_that_is_full_says_so():
    with pytest.raises(ValueError, match="32 tokens; got 33"):
        generate(small(), torch.zeros(1, 30).long(), 4)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"heads": 5}, "width must be an even multiple of heads; got 24 and 5"),
        ({"heads": 24, "kv_heads": 24}, "got 24 and 24"),
        ({"kv_heads": 4}, "kv_heads must divide heads; got 4 and 6"),
    ],
)
def test_impossible_shapes_are_refused(changed, says):
    with pytest.raises(ValueError, match=says):
        LlamaConfig(**{**vars(SMALL), **changed})


def test_an_untrained_model_knows_nothing():
    """Small logits: every next token is about equally likely."""
    model = Llama(SMALL)
    torch.nn.init.normal_(model.embedding.weight, std=0.02)
    loss = -model(torch.randint(50, (1, 32))).log_softmax(-1).mean()
    assert loss.item() == pytest.approx(math.log(50), abs=0.05)


@torch.no_grad()
def test_a_model_that_is_not_tied_has_a_head_of_its_own():
    torch.manual_seed(0)
    model, tokens = Llama(LlamaConfig(**{**vars(SMALL), "tied": False})), torch.ones(1, 5).long()
    own = model(tokens)
    assert model.state_dict().keys() - Llama(SMALL).state_dict().keys() == {"head.weight"}
    model.head.weight.copy_(model.embedding.weight)
    tied = Llama(SMALL)
    tied.load_state_dict({k: w for k, w in model.state_dict().items() if k != "head.weight"})
    assert model(tokens).equal(tied(tokens)) and not own.equal(tied(tokens))
