"""Laws of the gated delta rule, for any engine: `pytest --pyargs refmodel.laws --engine my_adapter.py`."""
