"""Warm-up, and where the time goes."""
