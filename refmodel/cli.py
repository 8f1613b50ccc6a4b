"""Arguments -> one call -> exit status: 0 done and within tolerance, 1 out of tolerance, 2 could not do it."""

import gc
import json
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from . import check_links
from .errors import RefmodelError, TokenError
from .threads import use, used

if TYPE_CHECKING:
    from .chat import Dialogue
    from .draft import DraftHead
    from .generate import Reply
    from .model import Model, Session
    from .timing import Profile
    from .warmup import Work

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)  # a pipe has no width of its own
err = Console(stderr=True, highlight=False)

ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="A GGUF, or the first part of a split one.")]
RouteText = Annotated[str, typer.Option("--route", help="blocks:i,j · layers:0..14,12,13 · (i,j); the file's own order if absent.")]
Prompt = Annotated[str, typer.Option("-p", "--prompt", help="Text to run.")]
TokenText = Annotated[str, typer.Option("--tokens", help="Token ids instead of text: 1,2,3")]
NumericsName = Annotated[
    str, typer.Option("--numerics", help="fast (8-bit activations), reference (float32), oracle (float64), llamacpp[:fa=off,...].")
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, envvar="REFMODEL_THREADS", help="All cores by default; any number gives the same bits."),
]
Mtp = Annotated[bool, typer.Option("--mtp", help="Run the file's prediction block (MTP, nextn), too, as the draft head.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


COMMON_CALLS = [[0], [0] * 7, [0] * 8]  # calls of one token, of a few, of many: what a chat will have


@app.command()
def version() -> None:
    """Print the version."""
    from . import __version__

    out.print(__version__)


@app.command()
def demo(threads: Threads = None) -> None:
    """A small trained model writes, is routed, agrees with llama.cpp's record of that, and is broken on purpose. Offline."""
    use(threads)
    from . import show
    from .demo import FAULTS, NUMERICS, case

    c = case()
    prepare(c.model, NUMERICS, [c.prompt, [0]])
    out.print(show.demo_model(c), markup=False)
    out.print(show.demo_text("It writes, from the file's own blocks", c.prompt_text, c.writes(None)))
    out.print(show.demo_text(f"Under the route {c.route.canonical}, untrained", c.prompt_text, c.writes(c.route)))
    with show.watching(err, "comparing") as seen:
        agreed = c.beside("", seen)
    out.print(show.demo_title("Every tensor of that route's pass beside llama.cpp's record of it"))
    out.print(show.diff_table(agreed, every=False))
    out.print(show.diff_headline(agreed, c.other, NUMERICS), markup=False, soft_wrap=True)
    right = agreed.first_wrong is None
    for title, broken in ((title, fault(c)) for title, fault in FAULTS.items()):
        with show.watching(err, "comparing") as seen:
            found = broken.beside("node", seen)
        out.print(show.demo_text(title, c.prompt_text, broken.writes(c.route)))
        out.print(show.faults(found, c.other), markup=False)
        right &= found.first_wrong is not None
    raise typer.Exit(0 if right else 1)


@app.command()
def info(
    model: ModelPath, as_json: AsJson = False, tensors: Annotated[bool, typer.Option(help="List every tensor.")] = False
) -> None:
    """Show what a file holds: architecture, what its tensors are, layer table, tokenizer, and every inconsistency."""
    from . import inspect, show
    from .model import load

    loaded = load(model)
    summary, rows, findings = inspect.summary(loaded), inspect.layer_table(loaded), inspect.inconsistencies(loaded)
    kinds = inspect.kind_table(loaded)
    if as_json:
        tables = {"tensors": [vars(row) for row in kinds], "layers": [vars(row) for row in rows]}
        print(json.dumps({"summary": summary, **tables, "inconsistencies": findings}, indent=1))
        return
    out.print(show.pairs(summary))
    out.print(show.kinds(kinds))
    out.print(show.layers(rows, tensors))
    out.print("\n".join(f"! {line}" for line in findings) or "no inconsistencies found", markup=False)


@app.command()
def run(
    model: ModelPath,
    prompt: Prompt = "",
    tokens: TokenText = "",
    route: RouteText = "",
    numerics: NumericsName = "fast",
    threads: Threads = None,
    n: Annotated[int | None, typer.Option("-n", min=1, help="Tokens to write at most: 64, in a chat 1024.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    top_k: Annotated[int, typer.Option(min=0, help="Draw from the likeliest so many; 0 is all.")] = 40,
    top_p: Annotated[float, typer.Option(min=0.0, help="... that together have this probability; 1 is all.")] = 0.95,
    min_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="... that have this part of the likeliest's probability.")] = 0.05,
    repeat_penalty: Annotated[float, typer.Option(min=0.01, help="Divides the logits of the last 64 tokens; 1 is none.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be given again.")] = None,
    ctx: Annotated[int, typer.Option(min=0, help="Most tokens of prompt and reply, in a chat of all turns; 0: no bound.")] = 0,
    chat: Annotated[bool, typer.Option("--chat", help="Talk: -p is your message, or each line of the input is one.")] = False,
    system: Annotated[str, typer.Option(help="With --chat: the system prompt.")] = "",
    think: Annotated[
        bool | None, typer.Option("--think/--no-think", help="With --chat: as the template's enable_thinking.")
    ] = None,
    think_budget: Annotated[int | None, typer.Option(min=0, help="With --chat: end the thinking after so many tokens.")] = None,
    special: Annotated[bool, typer.Option("--special", help="Read special tokens such as <|im_start|> in the prompt.")] = False,
    mtp: Mtp = False,
    profile: Annotated[bool, typer.Option("--profile", help="Show where the time went, beside the machine's limits.")] = False,
    as_json: AsJson = False,
) -> None:
    """Generate text, greedily or by seeded sampling; token ids where the file has no tokenizer."""
    use(threads)
    from .generate import Reply, generate, room
    from .model import load
    from .sampling import Sampling

    loaded, how = load(model), Sampling(temperature, top_k, top_p, min_p, repeat_penalty, seed=seed)
    if chat:
        from .chat import Conversation, Dialogue, template_of

        if tokens:
            raise RefmodelError("--chat takes text, by -p or line by line; --tokens does not go with it")
        if profile or as_json or mtp:
            raise RefmodelError("--profile, --json and --mtp are for one reply; --chat does not go with them")
        conversation = Conversation(loaded.tokenizer, template_of(loaded.file.metadata), system, think)
        prepare(loaded, numerics, COMMON_CALLS)
        talk(Dialogue(loaded, route, numerics, conversation, how, n or 1024, ctx, stop or (), think_budget), prompt)
        return
    if profile and mtp:
        raise RefmodelError("--profile is about the trunk; --mtp does not go with it")
    if system or think is not None or think_budget is not None:
        raise RefmodelError("--system, --think, --no-think and --think-budget belong to --chat")
    ids = token_ids(loaded, prompt, tokens, special)
    session, timed = profiled(loaded, route, numerics) if profile else (loaded.session(route, numerics, mtp=mtp), None)
    count = room(ctx, len(ids), n or 64)
    session.reserve(len(ids) + count)
    prepare(loaded, numerics, [ids])
    figures = write(Reply(loaded.tokenizer, stop or ()), generate(session, ids, count, how), len(ids), numerics, as_json, timed)
    if session.draft:
        figures |= {"drafted": session.draft.guessed, "accepted": session.draft.right}
        err.print(show_draft(session.draft), style="dim")
    if as_json:
        from .show import profile_json

        print(json.dumps(figures | ({"profile": profile_json(timed)} if timed else {}), indent=1))
    elif timed:
        from .show import profile_tables

        for table in profile_tables(timed):
            out.print(table)


@app.command()
def warmup(
    model: Annotated[
        Path | None, typer.Argument(metavar="[MODEL]", help="A GGUF; without one, what a usual K-quant needs.")
    ] = None,
    numerics: NumericsName = "fast",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Processes; one for each core by default.")] = None,
) -> None:
    """Compile the kernels that a model needs, with a process for each core, and keep them for every later run."""
    use(threads)
    from . import kernel_cache
    from . import warmup as warming
    from .model import load

    with ExitStack() as files:
        paths = [model] if model else files.enter_context(warming.typical_models())
        works = [one for path in paths for one in warming.work(load(path), numerics)]
        compiled, seconds = compile_missing(works)
    out.print(
        f"{len(works)} pieces of work, {compiled} compiled in {seconds:.1f} s, {len(works) - compiled} were there; "
        f"kept in {kernel_cache.folder()}",
        markup=False,
        soft_wrap=True,
    )


@app.command()
def route(
    text: Annotated[str, typer.Argument(metavar="[ROUTE]", help="blocks:i,j · layers:0..14,12,13 · (i,j)")] = "",
    layers: Annotated[int, typer.Option("--layers", min=0, help="Blocks of the source model.")] = 0,
    model: Annotated[Path | None, typer.Option(help="The source model: who could run a copy, and what it would cost.")] = None,
    recover: Annotated[Path | None, typer.Option(help="A copy whose route is to be found from the hashes of its tensors.")] = None,
    source: Annotated[Path | None, typer.Option(help="With --recover: the model it was made from.")] = None,
    as_json: AsJson = False,
) -> None:
    """Explain a route: the map, the seams, the cost, who can run it; or find the route of a file."""
    from . import show
    from .route import Route

    if recover:
        if not source or text or layers or model:
            raise RefmodelError("--recover COPY needs --source MODEL, and neither a route nor --layers nor --model")
        from .verify import recovered

        with err.status("hashing"):
            found = recovered(recover, source)
        if as_json:
            print(json.dumps(found.as_json(), indent=1))
        else:
            show.recovery(out, found)
        raise typer.Exit(found.status)
    if not text or bool(layers) == bool(model):
        raise RefmodelError("give a route and either --layers N or --model MODEL; or --recover COPY --source MODEL")
    if model:
        from .verify import foreseen

        described = foreseen(model, text)
    else:
        described = Route.parse(text, layers).describe()
    if as_json:
        print(json.dumps(described, indent=1))
    else:
        show.route(out, described)
        show.foreseen(out, described)


@app.command()
def trace(
    model: ModelPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="Trace file: .safetensors or .npz")],
    prompt: Prompt = "",
    tokens: TokenText = "",
    route: RouteText = "",
    numerics: NumericsName = "reference",
    threads: Threads = None,
    keep: Annotated[str, typer.Option("--filter", help="Keep only names in which this regular expression is found.")] = "",
    decode: Annotated[int, typer.Option(min=0, help="Feed the last so many tokens one at a time.")] = 0,
    special: Annotated[bool, typer.Option("--special", help="Read special tokens in the prompt.")] = False,
    mtp: Mtp = False,
) -> None:
    """Record every intermediate under llama.cpp's names."""
    use(threads)
    from . import __version__
    from .model import load
    from .show import watching
    from .trace import Recorder, Spool

    loaded = load(model)
    calls = split(token_ids(loaded, prompt, tokens, special), decode)
    chosen = loaded.route(route)
    with err.status("reading the file for its sha256"):
        digest = loaded.file.sha256()
    provenance = {
        "producer": f"refmodel {__version__}",
        "sha256": digest,
        "calls": calls,
        "route": chosen.canonical,
        "numerics": numerics,
    }
    with Spool(output, {"provenance": json.dumps(provenance)}) as writer:
        recorder = Recorder(writer, keep)
        session = loaded.session(chosen, numerics, recorder, mtp)
        prepare(loaded, numerics, calls)
        with watching(err, "tracing") as recorder.seen:
            for call, ids in enumerate(calls):
                recorder.call = call
                session.forward(ids)
                if session.draft:
                    session.draft.logits()
    out.print(f"{output}: {len(writer)} tensors, {output.stat().st_size:,} bytes", markup=False)


@app.command()
def diff(
    model: ModelPath,
    against: Annotated[str, typer.Option(help="llamacpp, a trace file, or another GGUF of the same model and route.")] = "llamacpp",
    prompt: Prompt = "",
    tokens: TokenText = "",
    route: RouteText = "",
    numerics: NumericsName = "reference",
    threads: Threads = None,
    profile: Annotated[
        str,
        typer.Option(
            help="How llama.cpp runs: exact (fa=off,kv=f32), default (its own settings), or options such as fa=on,threads=2. "
            "With numerics llamacpp it is theirs, else exact."
        ),
    ] = "",
    llama_lib: Annotated[Path | None, typer.Option(help="A libllama, or the folder that holds it.")] = None,
    decode: Annotated[int, typer.Option(min=0, help="Feed the last so many tokens one at a time.")] = 0,
    anchor: Annotated[bool, typer.Option("--anchor", help="Start every block from the other side's own input.")] = False,
    anchor_nodes: Annotated[bool, typer.Option("--anchor-nodes", help="Start every operation from their input.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say what each part of the distance to the truth is due to.")] = False,
    full: Annotated[Path | None, typer.Option(help="With --explain: the same model in a higher precision.")] = None,
    dequantized: Annotated[bool, typer.Option("--dequantized", help="Let llama.cpp run the file's weights as F32.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Show every row, not one for each block.")] = False,
    plot: Annotated[Path | None, typer.Option(help="With --against another GGUF: a picture of the errors, PNG.")] = None,
    mtp: Mtp = False,
    special: Annotated[bool, typer.Option("--special", help="Read special tokens in the prompt.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare with llama.cpp, with a recorded trace, or with another file of the same model, tensor by tensor."""
    use(threads)
    from . import against as other_side
    from . import explain as explaining
    from . import show
    from .model import load
    from .numerics import numerics_of
    from .profile import profile_of

    loaded = load(model)
    if against.endswith(".gguf"):
        if numerics != "reference" or any((profile, llama_lib, decode, anchor, anchor_nodes, explain, full, dequantized, mtp)):
            raise RefmodelError("--against another GGUF takes --route, -p or --tokens, --plot and --json")
        return second_trial(loaded, load(against), route, token_ids(loaded, prompt, tokens, special), plot, as_json)
    if plot:
        raise RefmodelError("--plot belongs to --against another GGUF")
    numerics_of(numerics)  # a wrong name is said before llama.cpp runs
    emulated = explain or numerics.startswith("llamacpp")
    if emulated and dequantized:
        raise RefmodelError("--dequantized: the quantized weights are multiplied here as llama.cpp multiplies them without it")
    if full and not explain:
        raise RefmodelError("--full belongs to --explain")
    if against != "llamacpp" and (profile or dequantized or llama_lib or mtp):
        raise RefmodelError(
            "--profile, --dequantized, --mtp and --llama-lib are for a live llama.cpp; a trace is as it was recorded"
        )
    if explain and mtp:
        raise RefmodelError("--explain is about the trunk; --mtp does not go with it")
    if mtp:
        _ = loaded.prediction  # what it lacks is said before llama.cpp runs
    chosen = loaded.route(route)
    with tempfile.TemporaryDirectory(prefix="refmodel-") as folder:
        if against == "llamacpp":
            calls = split(token_ids(loaded, prompt, tokens, special), decode)
            how = profile_of(profile or (numerics.partition(":")[2] or "default" if emulated else "exact"))
            with err.status(f"llama.cpp computes {sum(map(len, calls))} tokens"):
                other = other_side.live(loaded, chosen, calls, how, llama_lib, dequantized, Path(folder), mtp)
        else:
            given = split(token_ids(loaded, prompt, tokens, special), decode) if prompt or tokens else None
            with err.status("reading the file for its sha256"):
                other = other_side.recorded(loaded, Path(against), given, chosen if route else None)
            chosen = loaded.route(other.route)
        if not explain:
            prepare(loaded, numerics, other.calls)
        anchored = "node" if anchor_nodes else "block" if anchor else ""
        if explain:
            with show.watching(err, "computing") as seen:
                explanation = explaining.explain(loaded, chosen, other, Path(folder), load(full) if full else None, anchored, seen)
            if as_json:
                print(json.dumps(show.explanation_json(explanation, other), indent=1))
            else:
                out.print(show.explanation_table(explanation, every))
                out.print(show.explanation_headline(explanation, other), markup=False, soft_wrap=True)
            raise typer.Exit(0 if explanation.explained else 1)
        policy = other_side.numerics_beside(numerics, other)
        with show.watching(err, "comparing") as seen:
            result = other_side.compare(loaded, chosen, other, policy, anchored, seen)
    if as_json:
        print(json.dumps(show.diff_json(result, other, policy.name), indent=1))
    else:
        out.print(show.diff_table(result, every))
        out.print(show.diff_headline(result, other, policy.name), markup=False, soft_wrap=True)
    raise typer.Exit(1 if result.first_wrong else 0)


@app.command()
def surgery(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A GGUF, or a Hugging Face folder with safetensors files.")],
    route: Annotated[str, typer.Option("--route", help="blocks:i,j · layers:0..14,12,13 · (i,j)")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The copy: a GGUF, or a folder.")],
    layout: Annotated[
        str,
        typer.Option(help="list: a hybrid's kinds of blocks are listed; interval: for runtimes that know only an interval."),
    ] = "list",
    split_max_size: Annotated[str, typer.Option(help="Split into files of so many bytes of tensors at most: 500M, 4G.")] = "",
    split_max_tensors: Annotated[int, typer.Option(min=0, help="Split into files of so many tensors at most.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write the file that computes a route in runtimes without routes. Bytes are copied; metadata follows its block."""
    from . import show
    from .gguf.writer import Limit
    from .operate import operate

    limit = Limit.of(split_max_size, split_max_tensors)
    with show.copying(err) as seen:
        done = operate(model, route, output, layout, limit, seen)
    if as_json:
        print(json.dumps(done, indent=1))
    else:
        show.copied(out, done)


@app.command()
def verify(
    copy: Annotated[Path, typer.Argument(metavar="COPY", help="A routed GGUF or folder; of a split one the first part.")],
    source: Annotated[Path, typer.Option("--source", help="The model it was made from.")],
    route: Annotated[str, typer.Option("--route", help="The route it should be; recovered from the hashes if absent.")] = "",
    against: Annotated[str, typer.Option(help="llamacpp: let it run the copy, too. transformers: let it run two folders.")] = "",
    llama_lib: Annotated[Path | None, typer.Option(help="A libllama, or the folder that holds it.")] = None,
    tokens: TokenText = "",
    forward: Annotated[bool, typer.Option("--forward/--no-forward", help="Run both models and compare every bit.")] = True,
    as_json: AsJson = False,
) -> None:
    """Prove that a file is what its route says: structure, seams, bytes, metadata, and what it computes."""
    from . import show
    from .verify import Options
    from .verify import verify as prove

    if against not in ("", "llamacpp", "transformers"):
        raise RefmodelError(f"--against {against}: expected llamacpp, or for folders transformers")
    with show.watching(err, "proving") as seen:
        ids = whole_numbers(tokens) if tokens else []
        report = prove(
            copy, source, route, Options(ids, forward, against == "llamacpp", llama_lib, against == "transformers", seen)
        )
    if as_json:
        print(json.dumps(report.as_json(), indent=1))
    else:
        show.proof(out, report)
    raise typer.Exit(report.status)


def second_trial(loaded: "Model", full: "Model", route: str, ids: list[int], plot: Path | None, as_json: bool) -> None:
    """Two files of one model under one route: what quantization adds, and whether repeated blocks amplify it."""
    from . import show
    from . import trial as trials

    if plot and plot.suffix != ".png":
        raise RefmodelError(f"--plot {plot}: expected a name ending in .png")
    with show.watching(err, "comparing") as seen:
        done = trials.trial(loaded, full, route, ids, seen)
    if plot:
        trials.plot(done, plot, f"{loaded.path.name} beside {full.path.name}, {done.route.canonical}")
    if as_json:
        print(json.dumps(show.trial_json(done), indent=1))
    else:
        show.trial(out, done)


def prepare(loaded: "Model", numerics: str, calls: Sequence[Sequence[int]]) -> None:
    """Before the first run of a kind, its kernels are compiled in parallel; but what is wrong with its words is said first."""
    from . import warmup as warming
    from .model import checked_tokens
    from .numerics import numerics_of

    numerics_of(numerics)
    lengths = [len(checked_tokens(ids, loaded.n_vocab)) for ids in calls]
    compile_missing(warming.work(loaded, numerics, lengths))


def compile_missing(works: Sequence["Work"]) -> tuple[int, float]:
    """Compile what is not in the cache, with a progress bar. Returns how many pieces of work that was, and the seconds."""
    from . import warmup as warming

    start, left = time.perf_counter(), warming.missing(works)
    if left:
        from .show import counting

        with counting(err, "compiling kernels, once", len(left)) as seen:
            warming.compile_all(left, used(), lambda one: seen(one.title))
    return len(left), time.perf_counter() - start


def profiled(loaded: "Model", route: str, numerics: str) -> "tuple[Session, Profile]":
    """A session that books its time, and the book."""
    from .numerics import numerics_of
    from .timing import Profile

    chosen = loaded.route(route)
    timed = Profile([loaded.kinds[source] for source in chosen.layers])
    return loaded.session(chosen, timed.numerics(numerics_of(numerics)), timed), timed


def show_draft(draft: "DraftHead") -> str:
    """How often the draft head guessed the token that the trunk then wrote."""
    share = f"{100 * draft.right / max(draft.guessed, 1):.0f} %"
    return f"the draft head guessed {draft.right} of {draft.guessed} tokens before the trunk computed them ({share} accepted)"


def talk(dialogue: "Dialogue", message: str) -> None:
    """One turn with the message; without one, a turn for each line of the input until it ends."""
    lines = [message] if message else sys.stdin
    if sys.stdin.isatty() and not message:
        err.print("one message a line; /no_think and /think switch the thinking; Ctrl-D ends", style="dim")
    for text in filter(None, map(str.strip, lines)):
        turn = dialogue.turn(text)
        write(turn.reply, turn.tokens, turn.read, dialogue.numerics)
        dialogue.done(turn.reply)


def write(
    reply: "Reply", tokens: Iterable[int], read: int, numerics: str, silent: bool = False, timed: "Profile | None" = None
) -> dict[str, Any]:
    """Print a reply as its tokens come, then how fast they came and whether it turned in a circle. Returns the figures."""
    from .memory import Peak

    start, first = time.perf_counter(), 0.0
    with timed.whole() if timed else nullcontext(), Peak() as memory, err.status(f"reading {read} tokens") as status:
        for text in reply.read(tokens):
            if not first:
                first = time.perf_counter()
                status.stop()
            if not silent:
                print(text, end="", flush=True)
    seconds, written = time.perf_counter() - first, len(reply.tokens)
    figures = {"text": reply.text, "tokens": reply.tokens, "numerics": numerics, "read_seconds": first - start}
    figures |= {"write_seconds": seconds, "peak_anonymous_bytes": memory.bytes}
    if silent:
        return figures
    print()
    later = f"{(written - 1) / seconds:.1f} tokens/s" if written > 1 else "one token"
    peak = f"; at most {memory.bytes / 1e6:.0f} MB that no file backs" if memory.bytes else ""
    err.print(
        f"{read} tokens read in {first - start:.2f} s; {written} written, {later} after the first ({numerics}){peak}", style="dim"
    )
    if reply.loop:
        advice = "try --repeat-penalty 1.1, or a --temperature above 0"
        err.print(f"warning: the reply repeats a phrase of {reply.loop} tokens again and again; {advice}", style="yellow")
    return figures


def token_ids(loaded: "Model", prompt: str, tokens: str, special: bool) -> list[int]:
    """The ids that --tokens lists, or those of the prompt's text."""
    if bool(prompt) == bool(tokens):
        raise TokenError("give either a text with -p, or token ids with --tokens 1,2,3")
    if prompt:
        ids: list[int] = loaded.tokenizer.encode(prompt, add_special=True, parse_special=special)
        return ids
    return whole_numbers(tokens)


def whole_numbers(tokens: str) -> list[int]:
    try:
        return [int(word) for word in tokens.split(",")]
    except ValueError:
        raise TokenError(f"--tokens {tokens}: expected whole numbers between commas, such as 1,2,3") from None


def split(ids: list[int], decode: int) -> list[list[int]]:
    """The calls of a session: the prompt, then the last `decode` tokens one at a time."""
    if decode >= len(ids):
        raise TokenError(f"--decode {decode} leaves no prompt: there are {len(ids)} tokens")
    return [ids[: len(ids) - decode], *([token] for token in ids[len(ids) - decode :])]


def ended(number: int, frame: FrameType | None) -> NoReturn:
    """A request to end, as Ctrl-C is one: what was begun is removed."""
    sys.exit(128 + number)


def main() -> None:
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        if (number := getattr(signal, name, None)) and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, ended)
    gc.set_threshold(100_000, 50, 100)  # nothing that a start makes is garbage: looking for it took a quarter of the time
    try:
        check_links()
        app()
    except RefmodelError as error:
        err.print(f"refmodel: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        err.print(f"refmodel: {error.filename or ''}: {error.strerror or error}", style="red", markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:  # a fault of ours; 1 would say "out of tolerance" to a script
        traceback.print_exc()
        sys.exit(2)
    finally:
        gc.freeze()  # nor is it worth a last search


if __name__ == "__main__":
    main()
