import pytest
import torch
from transformers import LlamaConfig as PeerConfig
from transformers import LlamaForCausalLM

from course_lib.models.llama import Llama, LlamaConfig, RMSNorm, generate

SMALL = LlamaConfig(
    vocabulary=50, width=24, layers=2, heads=6, kv_heads=2, mlp_width=40, context=32
)
PEER_NAMES = {
    "embedding": "model.embed_tokens",
    "blocks": "model.layers",
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
    "norm": "model.norm",
}


def peer_of(model: Llama) -> LlamaForCausalLM:
    """The transformers library's Llama with the same weights: an independent implementation."""
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
            rope_theta=config.rope_base,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_base},
            tie_word_embeddings=True,
        )
    )
    weights = {}
    for name, tensor in model.state_dict().items():
        for ours in sorted(PEER_NAMES, key=len, reverse=True):
            if name.startswith(f"{ours}.") or f".{ours}." in name:
                name = name.replace(ours, PEER_NAMES[ours], 1)
                if ours != "blocks" and not name.startswith("blocks"):
                    break
        weights[name] = tensor
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    peer.load_state_dict(weights)
    return peer.eval()


@torch.no_grad()
def largest_difference(model: Llama, tokens: torch.Tensor) -> float:
    return (model(tokens) - peer_of(model)(tokens).logits).abs().max().item()


def small() -> Llama:
    model = Llama(SMALL).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_logits_agree_with_another_implementation():
    assert largest_difference(small(), torch.randint(50, (3, 32))) < 1e-3


def test_tinylm_agrees_with_another_implementation(tiny):
    assert largest_difference(tiny[0], torch.randint(2048, (2, 100))) < 1e-3


def test_smollm2_agrees_with_another_implementation(smollm2):
    assert largest_difference(smollm2[0], torch.randint(49_152, (1, 40))) < 1e-3


def test_generation_with_and_without_cache_agree():
    tokens = torch.randint(50, (3, 5))
    model = small()
    assert torch.equal(generate(model, tokens, 12), generate(model, tokens, 12, cached=False))


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
    model = Llama(config)
    block, tokens = model.blocks[0], torch.tensor([[3, 1, 4, 1]])
    x = model.embedding(tokens)[0]
    h = block.attention_norm(x)
    q, k, v = (getattr(block.attention, n)(h) for n in ("query", "key", "value"))

    def turn(vector, position):
        first, second = vector[:2], vector[2:]
        angles = position * 10_000.0 ** -torch.tensor([0.0, 0.5])
        c, s = angles.cos(), angles.sin()
        return torch.cat([first * c - second * s, second * c + first * s])

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


def test_a_norm_makes_the_mean_square_one():
    x = 5 * torch.randn(4, 16)
    torch.testing.assert_close(RMSNorm(16, 0.0)(x).square().mean(-1), torch.ones(4))


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


@pytest.mark.parametrize(
    ("changed", "says"), [({"heads": 5}, "heads=5"), ({"kv_heads": 4}, "kv_heads=4")]
)
def test_impossible_shapes_are_refused(changed, says):
    with pytest.raises(ValueError, match=says):
        LlamaConfig(**{**SMALL.__dict__, **changed})
