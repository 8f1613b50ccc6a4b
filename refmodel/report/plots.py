"""Pictures."""

from pathlib import Path

from ..compare.quantized import Trial
from ..errors import RefmodelError


def plot(done: Trial, path: Path, title: str) -> None:
    """Draw both errors by position, repeated blocks shaded, into a PNG file. RefmodelError without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise RefmodelError("--plot needs matplotlib: pip install 'refmodel[plots]'") from None

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    at = [step.position for step in done.steps]
    axes.semilogy(at, [step.accumulated for step in done.steps], "o-", label="accumulated", color="#b03a2e")
    axes.semilogy(at, [step.added for step in done.steps], "s-", label="added by the block", color="#1f618d")
    for i, (first, last) in enumerate(done.repeats):
        axes.axvspan(first - 0.5, last + 0.5, alpha=0.12, color="black", label="repeated blocks" if i == 0 else None)
    axes.set(xlabel="position", ylabel="NMSE of the block's output", title=title)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
