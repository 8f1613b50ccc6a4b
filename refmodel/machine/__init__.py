"""This machine: memory, threads, files, hashes, caches."""
