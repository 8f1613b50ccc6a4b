"""Speed beside llama.cpp, gguf-py and transformers: `python -m benchmarks` in a checkout. README.md says how, and why it is fair."""
