"""Speed against llama.cpp, gguf-py and transformers: `python -m benchmarks` in a checkout. README.md says why it is fair."""
