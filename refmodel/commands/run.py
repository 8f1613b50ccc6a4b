"""`refmodel run`: generate text, or talk."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import RefmodelError
from ..machine.threads import use
from ..report.console import err, out
from .compiling import prepare
from .faulty import FaultName, with_faults
from .options import (
    MOST,
    AsJson,
    ModelPath,
    Mtp,
    MtpFile,
    NumericsName,
    RouteText,
    Special,
    Threads,
    TokenText,
    model_of,
    numerics_of,
    token_ids,
)
from .several import PromptFile, Prompts, prompts_of, write_several
from .writing import write

if TYPE_CHECKING:
    from ..forward.numerics import Numerics
    from ..model.draft_head import DraftHead
    from ..model.model import Model
    from ..model.route import Route
    from ..model.session import Session
    from ..speed.timing import Timing
    from ..text.chat import Conversation, Dialogue
    from ..text.sampling import Sampling

LOST = "warning: the chat template leaves your message out of the prompt; the model does not see it. See --chat-template"
COMMON_CALLS = [[0], [0] * 7, [0] * 8]  # calls of one token, of a few, of many: what a chat will have

MaxTokens = Annotated[
    int | None, typer.Option("-n", min=1, max=MOST, help="Write at most N tokens. Default: 64, in a chat 1024.", metavar="N")
]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")]
TopK = Annotated[int, typer.Option(min=0, max=MOST, help="Draw from the K likeliest tokens; 0 is all.", metavar="K")]
TopP = Annotated[float, typer.Option(min=0.0, help="... from the likeliest that together have this probability; 1 is all.")]
MinP = Annotated[float, typer.Option(min=0.0, max=1.0, help="... from those that have this share of the likeliest's probability.")]
RepeatPenalty = Annotated[float, typer.Option(min=0.01, help="Divides the logits of the last 64 tokens; 1 is none.")]
Seed = Annotated[int, typer.Option(min=0, max=(1 << 64) - 1, help="The same seed draws the same tokens.")]
Stop = Annotated[list[str] | None, typer.Option(help="End before this text; may be given again.")]
Ctx = Annotated[
    int,
    typer.Option(
        min=0, max=MOST, help="At most N tokens of prompt and reply together, in a chat of all turns; 0 is no bound.", metavar="N"
    ),
]
Chat = Annotated[bool, typer.Option("--chat", help="Chat: -p is your message; without it each line of standard input is one.")]
System = Annotated[str, typer.Option(help="With --chat: the system prompt.")]
ChatTemplate = Annotated[
    str, typer.Option(help="With --chat: a template's name in the file, chatml, a file, or Jinja itself.", metavar="NAME")
]
ChatTemplateFile = Annotated[str, typer.Option(help="With --chat: the chat template in a file.", metavar="FILE")]
ChatTemplateKwargs = Annotated[str, typer.Option(help="With --chat: values that the template may name.", metavar="JSON")]
Think = Annotated[bool | None, typer.Option("--think/--no-think", help="With --chat: the template's enable_thinking.")]
ThinkBudget = Annotated[
    int | None, typer.Option(min=0, max=MOST, help="With --chat: end the thinking after N tokens.", metavar="N")
]
ShowTiming = Annotated[bool, typer.Option("--timing", help="Show where the time went, next to the machine's limits.")]


def run(
    model: ModelPath,
    prompt: Prompts = None,
    file: PromptFile = None,
    tokens: TokenText = "",
    route: RouteText = "",
    numerics: NumericsName = "fast",
    n: MaxTokens = None,
    temperature: Temperature = 0.0,
    top_k: TopK = 40,
    top_p: TopP = 0.95,
    min_p: MinP = 0.05,
    repeat_penalty: RepeatPenalty = 1.0,
    seed: Seed = 0,
    stop: Stop = None,
    ctx: Ctx = 0,
    chat: Chat = False,
    system: System = "",
    think: Think = None,
    think_budget: ThinkBudget = None,
    chat_template: ChatTemplate = "",
    chat_template_file: ChatTemplateFile = "",
    chat_template_kwargs: ChatTemplateKwargs = "",
    special: Special = False,
    mtp: Mtp = False,
    mtp_file: MtpFile = None,
    timing: ShowTiming = False,
    fault: FaultName = "",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Generate text under any route, greedily or by seeded sampling, or chat with --chat."""
    use(threads)
    from ..text.sampling import Sampling

    engine = with_faults(model_of(model, mtp_file), numerics_of(numerics), fault)
    loaded, policy, stops, mtp = engine.model, engine.numerics, stop or (), mtp or mtp_file is not None
    how, prompts = Sampling(temperature, top_k, top_p, min_p, repeat_penalty, seed=seed), prompts_of(prompt, file)
    if chat:
        refuse_options_of_one_reply(tokens, timing, as_json, mtp, len(prompts))
        conversation = conversation_of(loaded, chat_template, chat_template_file, chat_template_kwargs, system, think)
        talk(dialogue_of(loaded, route, policy, how, n, ctx, stops, conversation, think_budget), *prompts)
        return
    refuse_chat_options(system, think, think_budget, chat_template, chat_template_file, chat_template_kwargs)
    if file is not None or len(prompts) > 1:
        refuse(bool(tokens) or timing or mtp, "--tokens, --timing and --mtp are for one reply; leave them out, or give one prompt")
        write_several(loaded, policy, loaded.route(route), prompts, special, how, n or 64, ctx, stops, as_json)
        return
    ids, chosen = engine.fed(token_ids(loaded, "".join(prompts), tokens, special)), engine.follow(loaded.route(route))
    write_one(loaded, policy, *session_of(loaded, chosen, policy, timing, mtp), ids, how, n or 64, ctx, stops, as_json)


def write_one(
    model: "Model",
    policy: "Numerics",
    session: "Session",
    timed: "Timing | None",
    ids: Sequence[int],
    how: "Sampling",
    n: int,
    ctx: int,
    stops: Sequence[str],
    as_json: bool,
) -> None:
    """Write one reply of at most n tokens to a prompt of these ids, and what it took. Arguments as the options say them."""
    from ..text.generate import generate, room
    from ..text.reply import Reply

    count = room(ctx, len(ids), n)
    session.reserve(len(ids) + count)
    prepare(model, policy, [ids, [0] * policy.at_once(2)] if session.draft else [ids])
    figures = write(Reply(model.tokenizer, stops), generate(session, ids, count, how), len(ids), policy.name, as_json, timed)
    show(figures, timed, session.draft, as_json)


def refuse(condition: bool, why: str) -> None:
    """RefmodelError with the words `why`, if the condition holds."""
    if condition:
        raise RefmodelError(why)


def refuse_options_of_one_reply(tokens: str, timing: bool, as_json: bool, mtp: bool, prompts: int) -> None:
    """RefmodelError for options that a chat does not have."""
    refuse(prompts > 1, "--chat is one conversation; give one -p, or each message as a line of standard input")
    refuse(bool(tokens), "--chat takes text, by -p or line by line; leave out --tokens")
    refuse(timing or as_json or mtp, "--timing, --json and --mtp are for one reply; leave them out, or leave out --chat")


def refuse_chat_options(system: str, think: bool | None, budget: int | None, *templates: str) -> None:
    """RefmodelError for options that only a chat has."""
    refuse(
        bool(system) or think is not None or budget is not None,
        "--system, --think and --think-budget need --chat; add it, or leave them out",
    )
    refuse(any(templates), "--chat-template, its file and its kwargs need --chat; add it, or leave them out")


def session_of(model: "Model", route: "Route", policy: "Numerics", timing: bool, mtp: bool) -> "tuple[Session, Timing | None]":
    """A session under a route and numerics; with `timing` also the record of where its time goes."""
    from ..speed.timing import Timing

    if not timing:
        return model.session(route, policy, mtp=mtp), None
    timed = Timing([model.kinds[source] for source in route.layers])
    return model.session(route, timed.numerics(policy), timed, mtp), timed


def show(figures: dict[str, Any], timed: "Timing | None", draft: "DraftHead | None", as_json: bool) -> None:
    """Print what follows the text: how good the guesses were, the figures as JSON, or the tables of --timing."""
    from ..report.speed import timing_json, timing_tables

    if draft:
        figures = figures | {"drafted": draft.guessed, "accepted": draft.right, "passes_saved": draft.saved}
        (out if timed and not as_json else err).print(drafted(draft))
    if as_json:
        out.json(figures | ({"timing": timing_json(timed)} if timed else {}))
    elif timed:
        for table in timing_tables(timed):
            out.print(table)


def drafted(draft: "DraftHead") -> str:
    """How often the draft head guessed the token that the trunk then wrote, in words."""
    share = f"{100 * draft.right / max(draft.guessed, 1):.0f} %"
    return (
        f"the draft head guessed {draft.right} of {draft.guessed} tokens before the trunk computed them ({share} accepted); "
        f"that saved {draft.saved} passes of the trunk"
    )


def conversation_of(
    model: "Model", template: str, template_file: str, kwargs: str, system: str, think: bool | None
) -> "Conversation":
    """A conversation with the chat template that the options choose; stderr says so if it is not the file's own.

    RefmodelError for two templates; ChatError for one that is missing or cannot be read.
    """
    from ..text.chat import Conversation
    from ..text.templates import Template, from_file, kwargs_of, template_of

    refuse(bool(template and template_file), "--chat-template and --chat-template-file name two templates; leave one out")
    chosen = Template(from_file(Path(template_file)), "") if template_file else template_of(model.file.metadata, template)
    if chosen.note:
        err.print(chosen.note, style="dim")
    return Conversation(model.tokenizer, chosen.text, system, think, kwargs=kwargs_of(kwargs))


def dialogue_of(
    model: "Model",
    route: str,
    policy: "Numerics",
    how: "Sampling",
    n: int | None,
    ctx: int,
    stops: Sequence[str],
    conversation: "Conversation",
    budget: int | None,
) -> "Dialogue":
    """A conversation with the model, ready to begin.

    n       at most this many tokens in a reply; None: no bound of its own
    ctx     at most this many tokens in all; 0: no bound
    budget  at most this many tokens of thinking; None: no bound
    """
    from ..text.chat import Dialogue

    prepare(model, policy, COMMON_CALLS)
    return Dialogue(model, model.route(route), policy, conversation, how, n or 1024, ctx, stops, budget)


def talk(dialogue: "Dialogue", message: str = "") -> None:
    """One turn with the message; without one, a turn for each line of standard input."""
    lines = [message] if message else sys.stdin
    if sys.stdin.isatty() and not message:
        err.print("one message a line; /no_think and /think switch the thinking; Ctrl-D ends", style="dim")
    for text in filter(None, map(str.strip, lines)):
        turn = dialogue.turn(text)
        if turn.lost:
            err.print(LOST)
        write(turn.reply, turn.tokens, turn.read, dialogue.numerics.name)
        dialogue.done(turn.reply)
