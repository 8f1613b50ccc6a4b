"""How values look in a notebook: the one way from a low room up to `report`, taken only when a notebook asks.

A notebook calls `_repr_html_` of the last value of a cell. The classes that have it are in rooms below `report`, which knows how
anything looks; so their method asks here, and the module is found when it is needed.
"""

from importlib import import_module

CARDS = "refmodel.report.cards"


def html_of(value: object) -> str | None:
    """A value as HTML, escaped, without scripts and without a network. None without the extra [report]: then its text is shown."""
    try:
        module = import_module(CARDS)
        card: str = module.card(value)
    except ImportError:
        return None
    return card
