"""What drives a gain: strategies that differ in one ingredient, compared. Never imports torch.

`contrasts.toml` says which; `estimates` compares, `rendering` and `figure` show it.
"""
