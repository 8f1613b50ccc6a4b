"""Chat templates: the texts that transformers makes, the limits of what a foreign template may do, turns and thinking."""

import pytest
import tiny
from gguf import GGUFValueType
from typer.testing import CliRunner

import refmodel
from refmodel.cli import app
from refmodel.errors import FileError, MemoryLimitError, RefmodelError, TokenError
from refmodel.gguf.metadata import Metadata
from refmodel.gguf.writer import field, write
from refmodel.numerics import REFERENCE
from refmodel.text.chat import Conversation, Dialogue, TemplateLimits, ThinkingBudget, render
from refmodel.text.generate import generate
from refmodel.text.templates import CHATML as OURS
from refmodel.text.templates import ChatError, Template, kwargs_of, template_of

CHATML = """{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\n' + message.content + '<|im_end|>' }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant' }}
{% endif %}"""
THINKING = """{%- set ns = namespace(last=messages|length - 1) -%}
{%- for message in messages %}
    {%- set content = message.content.split('</think>')[-1].lstrip('\n') if message.role == 'assistant' else message.content %}
    {{- '<|im_start|>' ~ message.role ~ '\n' ~ content ~ '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- else %}
        {{- '<think>\n' }}
    {%- endif %}
{%- endif %}"""
TURNS = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"""

SYSTEM, A, B, C = (
    {"role": role, "content": text} for role, text in (("system", "S"), ("user", "a"), ("assistant", "b"), ("user", " c "))
)
OLD = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nb"}
WRITTEN = [  # template, messages, further values, and the text that transformers 5.24 makes of them
    (CHATML, [SYSTEM, A], {}, "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"),
    (THINKING, [A, OLD, C], {}, "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
     "<|im_start|>user\n c <|im_end|>\n<|im_start|>assistant\n<think>\n"),
    (THINKING, [A], {"enable_thinking": False}, "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"),
    (TURNS, [A, B, C], {"bos_token": "<bos>"}, "<bos><start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n"
     "<start_of_turn>user\nc<end_of_turn>\n<start_of_turn>model\n"),
    ("{% generation %}x{% endgeneration %}{{ {'é': [1, '<']} | tojson }}", [A], {}, 'x{"é": [1, "<"]}'),
    ("{% for i in [1, 2, 3, 4] %}{% if i == 2 %}{% continue %}{% elif i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}", [], {},
     "13"),
    ("  {% if true %}\n  a\n  {% endif %}\n{{ strftime_now('%%') }}", [A], {}, "  a\n%"),
]  # fmt: skip


@pytest.mark.parametrize(("template", "messages", "values", "text"), WRITTEN)
def test_a_template_makes_the_text_that_transformers_makes(template, messages, values, text):
    assert render(template, {"messages": messages, "add_generation_prompt": True} | values) == text


HOSTILE = {
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}": "takes more than 1 seconds of the processor",
    "{% for i in range(10**9) %}x{% endfor %}": "Range too big",
    "{{ 'a' * 10**9 }}": "takes more than 200 MiB of memory",
    "{{ '%1000000000d' | format(1) }}": "takes more than 200 MiB of memory",
    "{% for i in range(99999) %}{{ 'a' * 10000 }}{% endfor %}": "writes more than 100,000 characters",
    "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}": "maximum recursion depth",
    "{" * 20000: "maximum recursion depth",
    "{{ ''.__class__.__mro__ }}": "attribute '__class__' of 'str' object is unsafe",
    "{{ cycler.__init__.__globals__.os }}": "attribute '__init__' of 'type' object is unsafe",
    "{{ messages.append(1) }}": "attribute 'append' of 'list' object is unsafe",
    "{% include '/etc/passwd' %}": "no loader",
    "a\n{{ raise_exception('no <system>\n here') }}": "says: no <system> here",
    "a\n{{ b c }}": "fails in line 2: expected token",
    "{{ 1 / 0 }}": "fails: division by zero",
    "{{ 'x' | nothing }}": "fails in line 1: No filter named 'nothing'",
}


@pytest.mark.parametrize("template", HOSTILE, ids=lambda text: text[:40])
def test_a_hostile_template_ends_in_one_line(template):
    with pytest.raises(ChatError, match=r"^the chat template ") as caught:
        render(template, {"messages": []}, TemplateLimits(seconds=1, memory=200 << 20, characters=100_000))
    assert HOSTILE[template] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "template", ["{{ (1).__class__ }}", "{{ namespace(__init__=1).__init__ }}", "{{ self._TemplateReference__context }}"]
)
def test_an_attribute_of_pythons_own_is_undefined(template):
    assert render(template, {}) == ""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return refmodel.load(chatting(tmp_path_factory.mktemp("chat") / "chat.gguf", CHATML))


def chatting(path, template):
    """A tiny model with a chat template."""
    plain = refmodel.load(tiny.build(path.with_suffix(".plain"), "qwen35", seed=9)).file
    fields = dict(plain.metadata.fields) | {"tokenizer.chat_template": field(GGUFValueType.STRING, template)}
    return write(path, fields, plain.tensors.values())


def test_the_template_is_the_files_own(model, tmp_path):
    assert template_of(model.file.metadata, "") == Template(CHATML, "")
    found = template_of(refmodel.load(tiny.build(tmp_path / "m.gguf", "qwen35")).file.metadata, "")
    assert found.text == OURS
    assert "no chat template (tokenizer.chat_template)" in found.note


def test_chatml_is_chatml():
    assert render(OURS, {"messages": [SYSTEM, A, B], "add_generation_prompt": True}) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>assistant\n"
    )


NAMED = {"tokenizer.chat_template.tool_use": "tools {{ messages }}", "tokenizer.chat_template.default": "plain {{ messages }}"}


def test_templates_by_name_by_file_and_as_they_are(model, tmp_path):
    plain = model.file.metadata.fields
    fields = {k: v for k, v in plain.items() if k != "tokenizer.chat_template"}
    named = {key: field(GGUFValueType.STRING, text) for key, text in NAMED.items()}
    md = Metadata(tmp_path / "m.gguf", fields | named)
    assert template_of(md, "").text == "plain {{ messages }}"
    assert "the chat template is tokenizer.chat_template.default" in template_of(md, "").note
    assert template_of(md, "tool_use") == Template("tools {{ messages }}", "")
    assert template_of(md, "chatml").text == OURS
    assert template_of(Metadata(md.path, plain | named), "default").text == CHATML
    (tmp_path / "t.jinja").write_text("from a file")
    assert template_of(md, str(tmp_path / "t.jinja")).text == "from a file"
    assert template_of(md, "{{ 1 }}").text == "{{ 1 }}"
    with pytest.raises(ChatError, match=r"--chat-template zephyr: expected one of .*default.*chatml, a file"):
        template_of(md, "zephyr")
    (tmp_path / "bad").write_bytes(b"\xff\xfe")
    with pytest.raises(FileError, match="bad: is not UTF-8"):
        template_of(md, str(tmp_path / "bad"))


def test_kwargs_are_a_json_object_that_the_template_sees(model):
    talk = Conversation(model.tokenizer, "{{ effort }} {{ messages[0].content }}", kwargs=kwargs_of('{"effort": "high"}'))
    assert talk.ask("hi") == "high hi"
    assert kwargs_of("") == {}
    for text, message in (("[1]", "a JSON object"), ("{", "is not JSON"), ('{"messages": []}', "messages is what")):
        with pytest.raises(ChatError, match=message):
            kwargs_of(text)


@pytest.mark.parametrize(
    ("template", "message", "lost"),
    [
        (CHATML, "a", False),
        (TURNS, "  spaces around  ", False),
        ("assistant", "a", True),  # it is there by chance
        ("{{ messages[0].text }}", "a question of some length", True),
        ("{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}", "hello there", True),
        ("{{ messages[-1].content[:5] }}", "a question of some length", True),
        ("{{ messages[-1].content | upper }}", "shout", True),
    ],
)
def test_a_message_that_does_not_reach_the_prompt_is_noticed(model, template, message, lost):
    talk = Conversation(model.tokenizer, template)
    assert talk.leaves_out(talk.ask(message)) is lost


TYPED = {  # as templates of models with an image part are written: the content is a list
    "any": "{% for m in messages %}<{{ m.role }}>{% for c in m.content %}{{ c.text }}{% endfor %}{% endfor %}",
    "by type": "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}",
    "the first": "{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}",
    "it fails for texts": "{% for m in messages %}{{ m.content[0]['text'] | trim }}{{ m.content[0].text.strip() }}{% endfor %}",
}


@pytest.mark.parametrize("name", TYPED)
def test_a_template_that_wants_a_list_gets_one(model, name):
    talk = Conversation(model.tokenizer, TYPED[name])
    prompt = talk.ask("how are you?")
    assert "how are you?" in prompt
    assert not talk.leaves_out(prompt)
    talk.answered("well")
    prompt = talk.ask("and now?")
    assert prompt.index("how are you?") < prompt.index("well") < prompt.index("and now?")


def test_a_template_that_takes_both_gets_a_text(model):
    both = (
        "{% for m in messages %}{% if m.content is string %}text {{ m.content }}{% else %}list {{ m.content[0].text }}{% endif %}"
    )
    assert Conversation(model.tokenizer, both + "{% endfor %}").ask("hi there") == "text hi there"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% if messages[0].role == 'human' %}{{ messages }}{% endif %}", "makes an empty prompt of your message; name another"),
        ("{{ raise_exception('System first') }}", "says: System first"),
        ("{{ messages[0].content.text.upper() }}", "fails"),
    ],
)
def test_a_template_of_which_nothing_comes_ends_in_one_line(model, template, words):
    assert not model.tokenizer.add_bos
    talk = Dialogue(model, None, REFERENCE, Conversation(model.tokenizer, template))
    with pytest.raises(ChatError, match=words):
        talk.turn("hello")


def test_there_is_one_begin_token(model):
    from dataclasses import replace

    begins = replace(model.tokenizer, add_bos=True)
    begin = begins.vocab.texts[begins.bos]
    for asked, prompt in ((begins, "hi"), (begins, begin + "hi"), (model.tokenizer, begin + "hi")):
        ids = Conversation(asked, CHATML).ids(prompt)
        assert ids == [begins.bos, *begins.encode("hi", add_special=False)]
    assert Conversation(model.tokenizer, CHATML).ids("hi")[0] != begins.bos


def test_words_in_a_message_switch_the_thinking(model):
    knows = Conversation(model.tokenizer, THINKING)
    assert knows.ask("why? /no_think").endswith("user\nwhy?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert knows.ask("so?").endswith("user\nso?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert knows.ask("/think and/no_think").endswith("user\nand/no_think<|im_end|>\n<|im_start|>assistant\n<think>\n")
    other = Conversation(model.tokenizer, CHATML)
    assert "why? /no_think" in other.ask("why? /no_think")


def dialogue(model, template=CHATML, **more):
    return Dialogue(model, "blocks:1,3", "reference", Conversation(model.tokenizer, template, "S"), count=5, **more)


def test_a_dialogue_feeds_only_what_is_new_and_says_the_same_as_a_new_session(model):
    talk, ids = dialogue(model), lambda text: model.tokenizer.encode(text, add_special=False)
    first = talk.turn("one")
    assert first.read == len(talk.fed)
    said = [*ids("yes"), next(iter(model.tokenizer.eog))]
    talk.session.forward([*talk.fed, *said[:-1]])  # as if the model had said so; the last token is never fed
    "".join(first.reply.read(said))
    talk.done(first.reply)
    past = len(talk.fed)
    second = talk.turn("two")
    assert second.read == len(talk.fed) - past < len(talk.fed)
    "".join(second.reply.read(second.tokens))
    assert second.reply.tokens == list(generate(model.session("blocks:1,3"), talk.fed, 5))[: len(second.reply.tokens)]
    assert [message["role"] for message in talk.conversation.messages] == ["system", "user", "assistant", "user"]


def test_a_template_that_rewrites_the_past_starts_the_session_over(model):
    talk = dialogue(model, THINKING)
    first = talk.turn("one")
    "".join(first.reply.read(first.tokens))
    talk.done(first.reply)
    second = talk.turn("two")  # the opened <think> of the first turn is gone from the text
    assert second.read == len(talk.fed)


def test_a_full_context_is_said(model):
    with pytest.raises(TokenError, match="--ctx 20 leaves no room"):
        dialogue(model, ctx=20).turn("one")
    turn = dialogue(model, ctx=55).turn("one")
    assert len(list(turn.tokens)) == min(5, 55 - turn.read)


def test_memory_that_is_not_there_is_said_before_it_is_taken(model, monkeypatch):
    from refmodel.machine import memory as module

    session = model.session("blocks:1,3")
    positions = [model.kinds[source] for source in model.route("blocks:1,3").layers].count("attention")
    each = positions * 2 * model.hp.n_head_kv * model.hp.head_dim * 4
    assert session.memory(1000) - session.memory(0) == 1000 * each
    monkeypatch.setattr(module, "available", lambda: session.memory(1000))
    session.reserve(1000)
    with pytest.raises(MemoryLimitError, match=r"keys and values of 1,001 tokens at 7 positions take .* are free"):
        session.reserve(1001)
    session.forward([1, 2, 3])
    monkeypatch.setattr(module, "available", lambda: 10)
    with pytest.raises(MemoryLimitError):
        model.session().forward([1, 2, 3])
    session.forward([4])  # there is room already


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("most", [0, 1, 4])
def test_a_budget_closes_the_thinking(model, opened, most):
    tokenizer = model.tokenizer
    ids = lambda text: tokenizer.encode(text, add_special=False, parse_special=True)
    budget, closing = ThinkingBudget(tokenizer, most, "x <think>\n" if opened else "x"), ids("\n</think>\n\n")
    if opened and most == 0:
        assert budget.first() == closing
        assert [budget(token) for token in ids("abc")] == [()] * 3
        return
    assert budget.first() == ()
    written = [] if opened else ids("ab<think>")
    given = [budget(token) for token in written]
    assert given == [()] * len(written) if most or opened else given[-1] == closing
    if most:
        given = [budget(token) for token in ids("hmmmm")[:most]]
        assert given == [()] * (most - 1) + [closing]
    assert [budget(token) for token in [*closing, *ids("done and done")]] == [()] * (len(closing) + len(ids("done and done")))


def test_a_thought_that_ends_by_itself_is_left_alone_and_no_character_is_cut(model, monkeypatch):
    ids = lambda text: model.tokenizer.encode(text, add_special=False, parse_special=True)
    budget = ThinkingBudget(model.tokenizer, 20, "<think>")
    assert not any(budget(token) for token in ids("hm</think>" + "long answer " * 5))
    by_letter = ThinkingBudget(model.tokenizer, 40, "<think>")  # tags over token borders, and text after them in one token
    monkeypatch.setattr(by_letter.stream, "feed", lambda text: text)
    assert not any(by_letter(part) for part in ["hm <", "/thin", "k>\n\nok", *"a long answer" * 4, "<think", ">", *"hm" * 20][:-1])
    assert by_letter("m") == by_letter.closing
    cut = ThinkingBudget(model.tokenizer, 1, "<think>")
    emoji = ids("\U0001fae0")
    assert [bool(cut(token)) for token in emoji] == [False] * (len(emoji) - 1) + [True]


def run(model, *words, lines=""):
    return CliRunner().invoke(app, ["run", str(model.path), "-n", "3", "--numerics", "reference", *words], input=lines)


def test_the_command_talks_line_by_line_until_the_input_ends(model):
    done = run(model, "--chat", "--system", "S", lines="one\n\n two \n")
    assert done.exit_code == 0, done.output
    assert done.stderr.count("after the first (reference)") == 2
    alone = run(model, "--chat", "--system", "S", "-p", "one")
    assert done.stdout.startswith(alone.stdout)
    assert len(done.stdout) > len(alone.stdout)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--chat", "--tokens", "1,2"], "--chat takes text"),
        (["-p", "a", "--system", "S"], "need --chat"),
        (["-p", "a", "--no-think"], "need --chat"),
        (["-p", "a", "--chat-template", "chatml"], "need --chat"),
        (["--chat", "--chat-template", "chatml", "--chat-template-file", "x"], "leave one out"),
        (["--chat", "--chat-template-file", "nowhere.jinja"], "nowhere.jinja: cannot be opened"),
        (["-p", "one two three four", "--ctx", "3"], "--ctx 3 leaves no room"),
    ],
)
def test_options_that_do_not_fit_are_said(model, words, message):
    with pytest.raises(RefmodelError, match=message):
        raise run(model, *words).exception


def test_the_command_says_what_it_does_with_templates(model):
    done = run(model, "--chat", "--chat-template", "{{ messages[0].text }}nothing", "-p", "one")
    assert done.exit_code == 0, done.output
    assert done.stderr.count("leaves your message out of the prompt") == 1
    kwargs = ["--chat-template-kwargs", '{"x": 1}']
    done = run(model, "--chat", "--chat-template", "{{ messages[0].content }}{{ x }}", *kwargs, "-p", "one")
    assert "leaves your message" not in done.stderr


def test_a_reply_stops_before_a_stop_string(model):
    whole = run(model, "-p", "a", "-n", "8").stdout.rstrip("\n")
    stop = whole[2:4]
    assert run(model, "-p", "a", "-n", "8", "--stop", stop, "--stop", "never").stdout == whole[: whole.index(stop)] + "\n"


@pytest.mark.live
def test_live_a_trained_model_answers_its_own_template_as_in_llama_cpp(smollm2):
    """llama.cpp's chat of the same file, greedily: a prompt of 37 tokens, then "L'Étoile, la Marseillaise,". It is small."""
    trained = refmodel.load(smollm2)
    talk = Dialogue(
        trained, None, "llamacpp", Conversation(trained.tokenizer, template_of(trained.file.metadata, "").text), count=4
    )
    first = talk.turn("What is the capital of France?")
    assert first.read == 37
    assert "".join(first.reply.read(first.tokens)).startswith("L'Éto")
    talk.done(first.reply)
    known = len(talk.fed)
    assert talk.turn("And of Italy?").read == len(talk.fed) - known
