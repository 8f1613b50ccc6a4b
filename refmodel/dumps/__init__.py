"""Dumps of other programs: one reader for each format, their names, and what is written for them."""
