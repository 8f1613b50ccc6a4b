"""`refmodel version`."""

from ..report.console import out


def version() -> None:
    """Print the version."""
    from .. import __version__

    out.print(__version__)
