"""A readable reference interpreter for GGUF language models."""
