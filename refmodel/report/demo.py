"""What `refmodel demo` prints."""

from typing import TYPE_CHECKING

from rich.markup import escape

if TYPE_CHECKING:  # what only shows a file or a route starts without Numba
    from ..faults.demo import Case


def demo_title(title: str) -> str:
    """A heading in rich's markup."""
    return f"\n[bold]{escape(title)}[/bold]"


def demo_text(title: str, prompt: str, text: str) -> str:
    """A heading and a text in rich's markup; the prompt is dim."""
    return f"{demo_title(title)}\n[dim]{escape(prompt)}[/dim]{escape(text)}"


def demo_model(c: "Case") -> str:
    """One line about the model: its file, architecture, training and blocks."""
    kinds = ", ".join(c.model.kinds)
    return (
        f"{c.model.path.name}: {c.model.architecture}, trained on Jane Austen's novels and sums; {c.model.n_layer} blocks: {kinds}"
    )


def next_steps() -> str:
    """What to try after the demo."""
    return """
[bold]Three things to try next[/bold]
  refmodel run austen -p "Emma was" --route blocks:5,7       write under another route
  refmodel diff austen --against austen-trace --all          every tensor of that comparison
  refmodel info YOUR.gguf                                    what a file of yours holds"""
