"""What `refmodel demo` prints."""

from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:  # what only shows a file or a route starts without Numba
    from ..faults.demo import Case


def demo_title(title: str) -> Text:
    """A heading."""
    return Text.assemble("\n", (title, "bold"))


def demo_text(title: str, prompt: str, text: str) -> Text:
    """A heading and a text; the prompt is dim."""
    return Text.assemble(demo_title(title), "\n", (prompt, "dim"), text)


def demo_model(c: "Case") -> str:
    """One line about the model: its file, architecture, training and blocks."""
    kinds = ", ".join(c.model.kinds)
    return (
        f"{c.model.path.name}: {c.model.architecture}, trained on Jane Austen's novels and sums; {c.model.n_layer} blocks: {kinds}"
    )


def next_steps() -> Text:
    """What to try after the demo."""
    return Text.assemble(
        demo_title("Three things to try next"),
        """
  refmodel run austen -p "Emma was" --route blocks:5,7       write under another route
  refmodel diff austen --against austen-trace --all          every tensor of that comparison
  refmodel info YOUR.gguf                                    what a file of yours holds""",
    )
