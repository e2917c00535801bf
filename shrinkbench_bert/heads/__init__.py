"""Attention heads: found, gated, removed for real, and stored without them. A library on its own."""

from shrinkbench_bert.heads.checkpoint import load_pruned, save_pruned
from shrinkbench_bert.heads.gates import gated_heads, masked_heads
from shrinkbench_bert.heads.layers import AttentionLayer, Heads, attention_layers
from shrinkbench_bert.heads.removal import remove_heads, removed_heads

__all__ = [
    "AttentionLayer",
    "Heads",
    "attention_layers",
    "gated_heads",
    "load_pruned",
    "masked_heads",
    "remove_heads",
    "removed_heads",
    "save_pruned",
]
