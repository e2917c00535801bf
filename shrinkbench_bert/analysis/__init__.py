"""Numbers drawn from stored results: how masks agree, and how sure a difference is. Never imports torch."""
