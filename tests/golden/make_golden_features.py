"""Writes tiny random checkpoints with features of an architecture that its first golden leaves out, as make_golden.py does:
multipliers, groups of heads and scales that are not 1, heads that differ by layer, shared keys and values.
Usage: make_golden_features.py OUT SEED [NAME...], with transformers 5.24; the ones here have the seed 2."""
import os, sys, warnings
os.environ["TRANSFORMERS_VERBOSITY"] = "error"; warnings.filterwarnings("ignore")
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM
out, seed = sys.argv[1], int(sys.argv[2])
base = dict(vocab_size=320, hidden_size=64, num_attention_heads=4, max_position_embeddings=512, rms_norm_eps=1e-6, bos_token_id=0, eos_token_id=1, pad_token_id=None)
gemma = dict(base, head_dim=32, num_key_value_heads=2, global_head_dim=64, intermediate_size=96, sliding_window=16, final_logit_softcapping=30.0, vocab_size_per_layer_input=320)
MODELS = {
 "granite-4-dense": ("granitemoehybrid", dict(base, num_hidden_layers=4, num_key_value_heads=2, intermediate_size=96, shared_intermediate_size=96, num_local_experts=0, num_experts_per_tok=0, layer_types=["linear_attention", "full_attention"] * 2, position_embedding_type="rope", mamba_n_heads=8, mamba_d_head=16, mamba_d_state=24, mamba_n_groups=2, mamba_d_conv=3, mamba_expand=2, mamba_chunk_size=16, attention_multiplier=0.2, embedding_multiplier=3.0, residual_multiplier=0.6, logits_scaling=4.0, tie_word_embeddings=True)),
 "granite-3": ("granite", dict(base, num_hidden_layers=3, num_key_value_heads=2, intermediate_size=96, attention_multiplier=0.2, embedding_multiplier=3.0, residual_multiplier=0.6, logits_scaling=4.0, tie_word_embeddings=True)),
 "granite-3-moe": ("granitemoe", dict(base, num_hidden_layers=3, num_key_value_heads=2, intermediate_size=96, num_local_experts=8, num_experts_per_tok=3, attention_multiplier=0.2, embedding_multiplier=3.0, residual_multiplier=0.6, logits_scaling=4.0, tie_word_embeddings=False)),
 "granite-3-moe-shared": ("granitemoeshared", dict(base, num_hidden_layers=3, num_key_value_heads=2, intermediate_size=96, shared_intermediate_size=160, num_local_experts=8, num_experts_per_tok=3, attention_multiplier=0.2, embedding_multiplier=3.0, residual_multiplier=0.6, logits_scaling=4.0, tie_word_embeddings=True)),
 "gemma-4-26b": ("gemma4_text", dict(gemma, num_hidden_layers=6, layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2, attention_k_eq_v=True, num_global_key_value_heads=1, enable_moe_block=True, num_experts=12, top_k_experts=4, moe_intermediate_size=32, hidden_size_per_layer_input=0)),
 "gemma-4-e2b": ("gemma4_text", dict(gemma, num_hidden_layers=8, layer_types=["sliding_attention", "full_attention"] * 4, hidden_size_per_layer_input=16, num_kv_shared_layers=4, use_double_wide_mlp=True)),
}
for name, (kind, keys) in MODELS.items():
    if sys.argv[3:] and name not in sys.argv[3:]: continue
    torch.manual_seed(seed * 1000 + sum(map(ord, name)))
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **keys), attn_implementation="eager").float().eval()
    with torch.no_grad():
        for n, p in list(model.named_parameters()) + list(model.named_buffers()):
            if not p.is_floating_point() or "inv_freq" in n or "embed_scale" in n: continue
            if p.dim() >= 2: p.copy_(torch.randn_like(p) * (1.2 / p.shape[-1] ** .5 if "embed" not in n else 1.0))
            elif "A_log" in n: p.copy_(.5 * torch.randn_like(p))
            elif "dt_bias" in n: p.copy_(torch.randn_like(p) - 1)
            else: p.copy_((0 if "bias" in n else 1) + .2 * torch.randn_like(p))
            p.copy_(p.to(torch.bfloat16).float())  # exactly representable in the bf16 that is saved
        ids = torch.randint(2, 320, (2, 64)); logits = model(ids).logits
    folder = f"{out}/{name}"; os.makedirs(folder, exist_ok=True); model.to(torch.bfloat16).save_pretrained(folder)
    save_file({"input_ids": ids, "logits": logits.contiguous()}, f"{folder}/golden.safetensors")
    again = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad(): error = (again(ids).logits - logits).abs().max().item()
    print(f"{name:16} logits' std {logits.std():.2f}, reloaded {error:.1e}", flush=True)
