"""Small sets of questions that are generated here, so that a sweep works out of the box. A set has a half that is held out.

Every set is a function of its size and of which half it is; nothing is drawn from any public collection.
"""

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from random import Random
from typing import Any

HALVES = ("seen", "held out")
NAMES = ("Ada", "Ben", "Cleo", "Dan", "Edith", "Femi", "Greta", "Hugo", "Ines", "Jon", "Kira", "Luis")
SHORT = "Answer with the number only."


def generator(kind: str, half: str) -> Random:
    """The random numbers of one half of one set."""
    return Random(f"refmodel {kind} {half}")


def math(size: int, half: str) -> list[dict[str, Any]]:
    """Hard sums in turns: products, square roots, cube roots, and quotients that come out even. {question, answer}"""
    r, made = generator("math", half), []
    for number in range(size):
        a, b = r.randint(1_000, 99_999), r.randint(1_000, 99_999)
        root, cube = r.randint(10_000, 99_999), r.randint(1_000, 9_999)
        words, answer = [
            (f"What is {a} times {b}?", a * b),
            (f"What is the square root of {root**2}?", root),
            (f"What is the cube root of {cube**3}?", cube),
            (f"What is {a * b} divided by {b}?", a),
        ][number % 4]
        made.append({"question": f"{words} {SHORT}", "answer": answer})
    return made


def causal(r: Random) -> tuple[str, str]:
    """A question of whether one thing brought another about."""
    who, other = r.sample(NAMES, 2)
    hour, needs = r.randint(6, 22), r.choice([1, 2])
    thing = r.choice(["a bell", "an alarm", "a lamp", "a fan"])
    words = f"{thing.capitalize()} starts when at least {needs} of two buttons {'is' if needs == 1 else 'are'} held down. "
    only = r.random() < 0.5
    words += f"At {hour} o'clock {who} holds one button down. "
    words += f"{other} does not touch the other one. " if only else f"{other} holds the other one down, too. "
    starts = needs == 1 or not only
    words += "Does it start?"
    return words, "yes" if starts else "no"


def dated(r: Random) -> tuple[str, str]:
    """A question about a date, with four letters to choose from."""
    day, away = date(r.randint(1951, 2049), r.randint(1, 12), r.randint(1, 28)), r.randint(2, 40)
    right = day + timedelta(days=away)
    wrong = [right + timedelta(days=shift) for shift in r.sample([-31, -10, -1, 1, 10, 30, 365], 3)]
    options = [right, *wrong]
    r.shuffle(options)
    listed = " ".join(f"({letter}) {option:%m/%d/%Y}" for letter, option in zip("ABCD", options))
    return f"Today is {day:%m/%d/%Y}. What is the date {away} days from now? {listed}", "abcd"[options.index(right)]


def logical(r: Random) -> tuple[str, str]:
    """A question about an order of three, with three letters to choose from."""
    first, second, third = order = r.sample(NAMES, 3)
    facts = [f"{first} finished before {second}.", f"{second} finished before {third}."]
    r.shuffle(facts)
    asked, options = r.choice([0, 2]), list(order)
    r.shuffle(options)
    listed = " ".join(f"({letter}) {name}" for letter, name in zip("ABC", options))
    words = f"{' '.join(facts)} Who finished {'first' if asked == 0 else 'last'}? {listed}"
    return words, "abc"[options.index(order[asked])]


def walked(r: Random) -> tuple[str, str]:
    """A question of whether one ends where one began."""
    forth, right = r.randint(2, 9), r.randint(2, 9)
    home = r.random() < 0.5
    back = forth if home else forth + r.choice([-1, 1, 2])
    steps = [f"{forth} steps north", f"{right} steps east", f"{back} steps south", f"{right} steps west"]
    return f"You walk {', then '.join(steps)}. Are you where you began?", "yes" if home else "no"


def counted(r: Random) -> tuple[str, str]:
    """A word problem with a small number as its answer."""
    who, other = r.sample(NAMES, 2)
    has, more, gone = r.randint(10, 40), r.randint(3, 20), r.randint(2, 9)
    things = r.choice(["apples", "stamps", "pencils", "shells", "coins"])
    words = f"{who} has {has} {things} and gets {more} from {other}, then gives {gone} away. How many {things} has {who} now?"
    return words, str(has + more - gone)


CATEGORIES: Mapping[str, tuple[Callable[[Random], tuple[str, str]], str]] = {
    "causal": (causal, "Answer yes or no."),
    "date": (dated, "Answer with one letter."),
    "logic": (logical, "Answer with one letter."),
    "nav": (walked, "Answer yes or no."),
    "gsm": (counted, SHORT),
}


def reasoning(size: int, half: str) -> list[dict[str, Any]]:
    """Short questions of five categories in turns: {prompt, answer, type}."""
    r, made = generator("reasoning", half), []
    for number in range(size):
        kind = list(CATEGORIES)[number % len(CATEGORIES)]
        make, ending = CATEGORIES[kind]
        words, answer = make(r)
        made.append({"prompt": f"{words} {ending}", "answer": answer, "type": kind})
    return made


EVENTS = (
    (
        "finds that a letter with a contest's prize is for someone else",
        {"Disappointed": 8, "Embarrassed": 5, "Angry": 3, "Joyful": 1},
    ),
    ("hears that an operation on a sister went well", {"Relieved": 9, "Grateful": 8, "Worried": 2, "Jealous": 0}),
    ("sees a friend copy a school essay and win praise for it", {"Angry": 7, "Disappointed": 7, "Proud": 1, "Surprised": 5}),
    ("loses the keys of a house that is not their own", {"Worried": 8, "Ashamed": 6, "Calm": 1, "Amused": 1}),
    ("meets a teacher after twenty years, who still knows their name", {"Surprised": 7, "Joyful": 7, "Proud": 5, "Afraid": 1}),
    ("must tell a neighbour that the dog ran away in their care", {"Ashamed": 8, "Sad": 6, "Afraid": 5, "Proud": 0}),
    ("is laughed at during a speech and then applauded at its end", {"Embarrassed": 6, "Relieved": 7, "Proud": 6, "Bored": 0}),
    ("waits alone at a station for a train that does not come", {"Bored": 6, "Angry": 5, "Lonely": 5, "Grateful": 0}),
    ("finds an old photograph of a grandfather who died last year", {"Sad": 6, "Nostalgic": 8, "Grateful": 5, "Disgusted": 0}),
    ("is given a place in the team that a best friend had hoped for", {"Joyful": 6, "Guilty": 6, "Proud": 6, "Bored": 0}),
    ("hears steps in an empty house at night", {"Afraid": 9, "Curious": 4, "Calm": 1, "Joyful": 0}),
    ("learns that a gift that took weeks to make was given away", {"Hurt": 8, "Sad": 6, "Angry": 6, "Grateful": 0}),
)
TURNS = (("", 0), (" It happens for the second time this month.", -1), (" It happens on their birthday.", 1))


def eq(size: int, half: str) -> list[dict[str, Any]]:
    """Situations with four emotions to rate from 0 to 10: {situation, emotions, reference}. At most 36 are different."""
    r = Random("refmodel eq")  # the halves are parts of one order, so that they have nothing in common
    every = [(event, turn) for event in EVENTS for turn in TURNS]
    r.shuffle(every)
    middle = len(every) // 2
    chosen = (every[:middle] if half == HALVES[0] else every[middle:])[:size]
    made = []
    for (event, felt), (turn, shift) in chosen:
        # a turn makes what is felt already a little weaker or stronger
        values = {name: min(10, max(0, value + (shift if value > 2 else 0))) for name, value in felt.items()}
        who = r.choice(NAMES)
        made.append({"situation": f"{who} {event}.{turn}", "emotions": list(values), "reference": list(values.values())})
    return made
