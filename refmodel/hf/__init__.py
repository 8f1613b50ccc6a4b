"""Hugging Face folders: reading them, and what they are in the words of a GGUF."""
