"""A real llama.cpp in a child process: how it runs, its nodes, its builds."""
