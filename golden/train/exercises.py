"""Generated lines of sums and questions for the model to learn from, and the sums that are held out."""

import random

LARGEST = 20  # held-out sums have results up to this
HELD_OUT_CASES = 100


def held_out_sums() -> list[tuple[int, int]]:
    """A hundred cases a + b <= 20 that training never shows in either order, nor as a difference."""
    pairs = [(a, b) for a in range(LARGEST + 1) for b in range(a + 1, LARGEST + 1 - a)]
    chosen = random.Random(20).sample(pairs, HELD_OUT_CASES // 2)
    return sorted([(a, b) for a, b in chosen] + [(b, a) for a, b in chosen])


HELD_OUT = frozenset(held_out_sums())
WORDS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen",
    "seventeen", "eighteen", "nineteen", "twenty",
]  # fmt: skip
AUTHORED = ["Emma", "Persuasion", "Mansfield Park", "Northanger Abbey", "Pride and Prejudice", "Sense and Sensibility"]
HEROINES = {
    "Emma": "Emma Woodhouse",
    "Persuasion": "Anne Elliot",
    "Mansfield Park": "Fanny Price",
    "Northanger Abbey": "Catherine Morland",
    "Pride and Prejudice": "Elizabeth Bennet",
    "Sense and Sensibility": "Elinor Dashwood",
}


def question(text: str, answer: object) -> str:
    return f"Question: {text} Answer: {answer}."


def line(rng: random.Random) -> str:
    """One line of arithmetic or one question with its answer; never a held-out sum."""
    most = LARGEST if rng.random() < 0.6 else 99
    a, b = rng.randint(0, most), rng.randint(0, most)
    kind = rng.random()
    if kind < 0.5:
        return line(rng) if (a, b) in HELD_OUT else f"{a} + {b} = {a + b}"
    if kind < 0.62:
        return line(rng) if (a, b) in HELD_OUT else question(f"What is {a} plus {b}?", a + b)
    if kind < 0.74:
        return line(rng) if (a, b) in HELD_OUT else f"{a + b} - {b} = {a}"
    if kind < 0.82:
        return question(f"Is {a} more than {b}?", "yes" if a > b else "no")
    if kind < 0.90:
        n = rng.randint(0, len(WORDS) - 2)
        first, second, word = (WORDS[n + 1], WORDS[n], "before") if rng.random() < 0.5 else (WORDS[n], WORDS[n + 1], "after")
        return question(f"What comes {word} {first}?", second)
    if kind < 0.95:
        n = rng.randint(0, len(WORDS) - 1)
        return question(f"Which number is {WORDS[n]}?", n)
    book = rng.choice(AUTHORED)
    return (
        question(f"Who wrote {book}?", "Jane Austen")
        if rng.random() < 0.4
        else question(f"Who is the heroine of {book}?", HEROINES[book])
    )


def documents(count: int, seed: int) -> list[str]:
    """`count` short documents of 8 to 24 lines."""
    rng = random.Random(seed)
    return ["\n".join(line(rng) for _ in range(rng.randint(8, 24))) + "\n" for _ in range(count)]
