"""Copies under a route, and their proof."""
