"""An independent second opinion on a LLaMA GGUF: gguf-py's dequantization, transformers' forward pass.

Nothing of qllm is used here. Needs: torch, transformers, tokenizers, gguf, numpy.
"""
from dataclasses import dataclass

import numpy as np
import torch
import transformers
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

CONTROL = 3  # tokenizer.ggml.token_type of control tokens

_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


@dataclass
class Oracle:
    net: transformers.LlamaForCausalLM  # fp32, eager attention
    tokenizer: Tokenizer
    control_ids: set
    add_bos: bool
    bos_id: int

    def encode(self, text):
        """Ids of `text`, control tokens recognised; bos in front where the vocabulary asks for it."""
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ([self.bos_id] if self.add_bos else []) + ids

    @torch.no_grad()
    def logits(self, ids):
        """float32 [len(ids), vocab]."""
        return self.net(torch.tensor([list(ids)])).logits[0].float().numpy()


def _contents(reader, key, default=None):
    field = reader.fields.get(key)
    return default if field is None else field.contents()


def _rotate_half_order(w, n_heads):
    """GGUF rows of Q and K pair neighbours (2i, 2i+1); transformers pairs (i, i + head_dim/2)."""
    half = w.shape[0] // n_heads // 2
    return w.reshape(n_heads, half, 2, -1).swapaxes(1, 2).reshape(w.shape)


def _hf_name(name):
    if not name.startswith("blk."):
        return _TOP_NAMES.get(name.removesuffix(".weight"))
    _, layer, rest = name.split(".", 2)
    rest = _LAYER_NAMES.get(rest.removesuffix(".weight"))
    return rest and f"model.layers.{layer}.{rest}"


def _config(reader, tied):
    get = lambda key, default=None: _contents(reader, "llama." + key, default)
    n_heads, d_model = get("attention.head_count"), get("embedding_length")
    return transformers.LlamaConfig(
        hidden_size=d_model,
        intermediate_size=get("feed_forward_length"),
        num_hidden_layers=get("block_count"),
        num_attention_heads=n_heads,
        num_key_value_heads=get("attention.head_count_kv", n_heads),
        head_dim=get("attention.key_length", d_model // n_heads),
        vocab_size=len(_contents(reader, "tokenizer.ggml.tokens")),
        rms_norm_eps=float(get("attention.layer_norm_rms_epsilon")),
        max_position_embeddings=get("context_length"),
        rope_parameters={"rope_type": "default", "rope_theta": float(get("rope.freq_base", 10000.0))},
        tie_word_embeddings=tied,
        attn_implementation="eager",
    )


def _state_dict(reader, config):
    state = {}
    for tensor in reader.tensors:
        name = _hf_name(tensor.name)
        if name is None:
            raise SystemExit(f"{tensor.name}: not a tensor of the llama architecture known here")
        shape = [int(x) for x in reversed(tensor.shape)]
        w = dequantize(tensor.data, tensor.tensor_type).reshape(shape).astype(np.float32)
        if name.endswith("q_proj"):
            w = _rotate_half_order(w, config.num_attention_heads)
        elif name.endswith("k_proj"):
            w = _rotate_half_order(w, config.num_key_value_heads)
        state[name + ".weight"] = torch.from_numpy(np.ascontiguousarray(w))
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    return state


def _tokenizer(reader):
    """Byte-level BPE of the SmolLM family: single digits, then GPT-2's expression."""
    pre = _contents(reader, "tokenizer.ggml.pre")
    if pre != "smollm":
        raise SystemExit(f"tokenizer.ggml.pre: expected smollm, found {pre}")
    tokens = _contents(reader, "tokenizer.ggml.tokens")
    merges = [tuple(m.split(" ", 1)) for m in _contents(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    types = _contents(reader, "tokenizer.ggml.token_type")
    control = [t for t, kind in zip(tokens, types) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    return tokenizer, {i for i, kind in enumerate(types) if kind == CONTROL}


def load(path):
    """Reads a llama GGUF of any type that gguf-py dequantizes; the model is fp32."""
    transformers.logging.set_verbosity_error()
    reader = GGUFReader(str(path))
    architecture = _contents(reader, "general.architecture")
    if architecture != "llama":
        raise SystemExit(f"{path}: expected architecture llama, found {architecture}")
    config = _config(reader, tied=all(t.name != "output.weight" for t in reader.tensors))
    state = _state_dict(reader, config)
    with torch.device("meta"):
        net = transformers.LlamaForCausalLM(config)
    net.load_state_dict(state, strict=True, assign=True)
    # The rotary table is no parameter: make it anew, off the meta device.
    net.model.rotary_emb = type(net.model.rotary_emb)(config)
    tokenizer, control = _tokenizer(reader)
    return Oracle(net.float().eval(), tokenizer, control,
                  bool(_contents(reader, "tokenizer.ggml.add_bos_token", False)),
                  _contents(reader, "tokenizer.ggml.bos_token_id", -1))
