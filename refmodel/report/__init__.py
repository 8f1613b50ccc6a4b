"""Rows to terminal, JSON and pictures. Nothing is computed here."""
