# Shortcuts for a checkout with a virtual environment in .venv.
.PHONY: install test live lint golden

install:
	python3 -m venv .venv && .venv/bin/pip install -e '.[dev]'

test:
	.venv/bin/pytest

live:
	.venv/bin/pytest -m live

lint:
	.venv/bin/ruff format --check . && .venv/bin/ruff check . && .venv/bin/mypy

golden:  # needs the extra [llamacpp]
	.venv/bin/python golden/make.py
