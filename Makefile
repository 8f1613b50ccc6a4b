# Shortcuts for a checkout with a virtual environment in .venv.
.PHONY: install test live many lint golden

install:
	python3 -m venv .venv && .venv/bin/pip install -e '.[dev]'

test:
	.venv/bin/pytest

live:
	.venv/bin/pytest -m live

many:  # 200 random routes and models of each architecture instead of a few; needs a llama.cpp
	.venv/bin/pytest --hypothesis-profile=many tests/test_verify.py tests/test_hf.py tests/test_live_surgery.py tests/test_live.py -k random
	.venv/bin/pytest --hypothesis-profile=many tests/test_live_bits.py -k every_operation

lint:
	.venv/bin/ruff format --check . && .venv/bin/ruff check . && .venv/bin/mypy

golden:  # needs the extra [llamacpp]
	.venv/bin/python golden/make.py
