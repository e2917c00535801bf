"""The strategies: one small file per idea. Every module in this folder is loaded by the registry."""
