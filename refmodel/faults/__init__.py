"""Named faults, and the demonstration that finds two of them."""
