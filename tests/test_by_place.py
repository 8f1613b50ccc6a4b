"""Facts that hang on a block's place or on their number: a copy says them, or it is refused before anything is written."""
