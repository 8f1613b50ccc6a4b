"""One command a file: the words become values, one function does the work, a report shows it."""
