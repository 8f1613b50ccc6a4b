"""Rows of a difference: what is compared, how it is measured, what is allowed."""
