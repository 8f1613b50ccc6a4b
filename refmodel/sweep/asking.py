"""How a model is asked a question in its own way: its chat template, with the thinking switched off, or the words as they are."""

from collections.abc import Callable, Sequence

from ..model.model import Model
from ..text.chat import CLOSE, OPEN, Conversation
from ..text.templates import KEY

HERE = "the words of one question, 5f0c9e"


def asker(model: Model) -> Callable[[Sequence[str]], list[tuple[int, ...]]]:
    """Texts -> token ids up to the answer. Without a chat template in the file the words are read as they are.

    The template is rendered once, with words in place of the question; only if it changes them it is rendered for each question.
    A template that opens the thinking itself has it closed at once. ChatError for a template that fails.
    """
    tokenizer, template = model.tokenizer, model.file.metadata.str(KEY, "")

    def rendered(words: str) -> str:
        text = Conversation(tokenizer, template, thinking=False).ask(words)
        return f"{text}\n{CLOSE}\n\n" if text.rstrip().endswith(OPEN) else text

    def ask(questions: Sequence[str]) -> list[tuple[int, ...]]:
        if not template:
            return [tuple(tokenizer.encode(words, add_special=True, parse_special=False)) for words in questions]
        frame = rendered(HERE)
        faithful = frame.count(HERE) == 1 and rendered(questions[0]) == frame.replace(HERE, questions[0])
        conversation = Conversation(tokenizer, template)
        return [tuple(conversation.ids(frame.replace(HERE, words) if faithful else rendered(words))) for words in questions]

    return ask
