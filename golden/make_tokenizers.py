"""Make golden/tokenizers/: small vocabularies as GGUF files, and what llama.cpp makes of tricky text with them.

The texts are the list below, by hand, and 150 that tricky.py puts together.

<name>.gguf is written with the gguf package; its merges are learned across words, digits and line ends on purpose, so that
every wrong cut of a pre-tokenizer changes the ids. <name>.json holds llama.cpp's answers, taken by ctypes:
begin_and_end  ids of the begin and end tokens (-1: none) and whether each is added
eog            the tokens that end a generation
pieces         each token's bytes, in hex
plain, parsed  the ids of each text of texts.json without and with special-token parsing (null: the same ids)
begun          the ids of texts[5] with begin and end tokens
"""

import ctypes
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import tokenizers
import tricky
from tokenizers import models, pre_tokenizers, trainers

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # tokenizer.ggml.token_type

TEXTS = [
    "",
    " ",
    "  ",
    "\n",
    "a",
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog. It isn't lazy; it's the dog's day off, we'd say.",
    "I'm I'M we'RE They'Ve he'LL she'd DON'T 'tis 's 'S ''s 'ſ it'",
    "\u2019s don\u2019t 'Re'vE'Ll'",
    "1 12 123 1234 12345 3.14159 1,000,000 ²³¹⁄₄ Ⅷ ½ ١٢٣ १२३ x86_64 2nd",
    "a1b22c333d4444 0x1F4A9 12abc34 é5é",
    "  leading and   inner    runs  \t of\t\twhite space   ",
    "tabs\t\tand\n\n\nlines\r\n\r\nCRLF \r\n  \n \n  indented\n\n    code\n",
    "\r\r\n\n\r \n\t\n  x",
    "a\u00a0b\u2003c\u2003\u2003d\u3000e\u0085f\u2028g\u1680h\u200bi\ufeffj",
    'if (a[i] != b->c && x <= 10) { return f(&y, "z\\n"); } // ok?\n',
    "def f(x):\n    return x**2  # square\n\n\nclass A:\n\tpass\n",
    "https://example.org/a?b=c&d=%20#e foo@bar.com $9.99 50% C++ -- ... !!! ?!\n\n...\n",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea \u2764\ufe0f x\U0001f600y",  # noqa: E501
    "e\u0301 e\u0301e\u0301 Ame\u0301lie a\u0300\u0301\u0302b \u0301x .\u0301. 1\u0301 \u0301 \u0301\u0301\n\u0301",
    "q\u0307\u0323 \u0e01\u0e33\u0e25\u0e31\u0e07 \u0928\u092e\u0938\u094d\u0924\u0947 \u0ba8\u0bbf \u1112\u1161\u11ab",
    "你好，世界！ 我有3只猫。日本語のテキスト、カタカナ。 한국어 텍스트입니다. 𠀀𠀁",
    "שלום עולם مرحبا بالعالم، كيف ١٢ \u200fRTL\u200e mixed עברית123abc",
    "Ünïcödé ßtraße ŁÓDŹ ĳ ǅ ʰ ª º ſtraſſe ΑΒΓ αβγς Привет, мир! Ｆｕｌｌ ｗｉｄｔｈ",
    "new letters \U000105c0\U00010d40\U00010d50 \ua7cb\u1c89 \U00016100\U0001611e old \U0002ebf0",
    "unassigned \u0378 private \ue000 noncharacter \uffff \U0010ffff control \x00\x01\x1b\x7f end",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|><|im_end|><|im_start| ><|im_start<|im_end|>|>  <|im_end|>  x",
    "<tool> <tool>x</tool><tool></tool> <too l> <tool>>",
    "<s>Hello</s> <s> </s>x <unk> <0x0A> <0x41> \u2581 \u2581a _a",
    "<unused0> <|endoftext|> <|fim_pad|> <|file_sep|> <|channel|>final",
    "[INST] Write [/INST] ok \n\n \n\n\n  \t\t",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbb abababababab \n",
    "x" * 40 + " " * 40 + "1" * 40 + "!" * 40 + "\n" * 10,
    "The the THE the\nthe\tthe  the1the,the the'the",
]

ALL_TEXTS = [*TEXTS, *tricky.texts(150, seed=1, most=4)]

PROSE = """A reference is read before it is run. The reader follows one token through every block of the network, and asks at
each step what the numbers mean; the program answers with names. It's slow, it doesn't hide, and it'll say where another
program's numbers leave its own: in block 12, at row 7, by 3.5e-4. We're here to read, they've come to run, I'd do both.\n\n
    for block in range(32):\n        x = x + attention(norm(x))  # 1st half\n        x = x + feed_forward(norm(x))\r\n\r\n"""

BYTE_SPECIALS = [
    ("<|endoftext|>", CONTROL),
    ("<|im_start|>", CONTROL),
    ("<|im_end|>", CONTROL),
    ("<tool>", USER_DEFINED),
    ("</tool>", USER_DEFINED),
    ("<unused0>", UNUSED),
    ("<|file_sep|>", NORMAL),
    ("<|channel|>", CONTROL),
]


MERGED = 256 + 200  # byte letters and merges; the special tokens follow


def letters_of(corpus: Sequence[str], count: int, byte_letters: bool) -> tuple[list[str], list[tuple[str, str]]]:
    """Learn a byte-pair vocabulary of `count` tokens over whole lines: its tokens in order, and its merges."""
    learner = tokenizers.Tokenizer(models.BPE())
    letters = pre_tokenizers.ByteLevel.alphabet() if byte_letters else []
    if byte_letters:
        learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=count, initial_alphabet=sorted(letters), max_token_length=8, show_progress=False)
    learner.train_from_iterator(corpus, trainer)
    found = json.loads(learner.to_str())["model"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ", 1)) for m in found["merges"]]
    return sorted(found["vocab"], key=found["vocab"].__getitem__), merges


def write(path: Path, model: str, tokens: Sequence[tuple[str, int]], extra: dict[str, Any]) -> None:
    """Write a GGUF file that holds a vocabulary and no tensors. `extra`: further values by key."""
    out = gguf.GGUFWriter(path, "llama")
    out.add_tokenizer_model(model)
    out.add_token_list([text for text, _ in tokens])
    out.add_token_types([kind for _, kind in tokens])
    for key, value in extra.items():
        kinds = {bool: out.add_bool, int: out.add_uint32, str: out.add_string, list: out.add_array}
        kinds[type(value)](key, value)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.close()


def byte_pair(folder: Path, name: str, pre: str | None, **keys: Any) -> None:
    """A byte-level vocabulary: 256 bytes, merges learned across all boundaries, special tokens of every type."""
    tokens, merges = letters_of([*TEXTS, PROSE, PROSE], MERGED, True)
    extra: dict[str, Any] = {"tokenizer.ggml.merges": [f"{left} {right}" for left, right in merges]}
    extra |= {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    if pre is not None:
        extra["tokenizer.ggml.pre"] = pre
    write(folder / f"{name}.gguf", "gpt2", [*((t, NORMAL) for t in tokens), *BYTE_SPECIALS], extra)


def holed(folder: Path) -> None:
    """A byte-level vocabulary with holes: merged pieces and bytes that are no tokens, a merge twice, an empty token."""
    tokens, merges = letters_of([*TEXTS, PROSE, PROSE], MERGED, True)
    gone = {"o", "Ġ", "Ã", *(tokens[i] for i in range(256, len(tokens), 7))}
    kept = [(t, NORMAL) for t in tokens if t not in gone]
    lines = [f"{left} {right}" for left, right in [*merges, *merges[40:60][::-1]]]
    write(
        folder / "holed.gguf",
        "gpt2",
        [*kept, *BYTE_SPECIALS, ("", NORMAL)],
        {"tokenizer.ggml.merges": lines, "tokenizer.ggml.pre": "qwen2"},
    )


def sentence_pieces(folder: Path, name: str, holes: bool, **keys: Any) -> None:
    """A scored vocabulary with byte tokens; with `holes` some scores tie and merges skip steps."""
    corpus = [text.replace(" ", "▁") for text in [*TEXTS[:20], *TEXTS[-8:], PROSE, PROSE] if "\0" not in text]
    pieces, _ = letters_of(corpus, 380, False)
    pieces = [p for p in pieces if not (p.startswith("<") and len(p) > 1) and p != "\n\n"]
    if holes:
        pieces = [p for i, p in enumerate(pieces) if i % 9 or len(p) < 3]
    head = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL), *((f"<0x{b:02X}>", BYTE) for b in range(256))]
    tail = [("<tool>", USER_DEFINED), ("\n\n", USER_DEFINED), ("</tool>", UNUSED), ("<|im_start|>", CONTROL)]
    tail += [("<|im_end|>", NORMAL)]
    tokens = [*head, *((p, NORMAL) for p in pieces), *tail]
    rank = lambda i: -float(i // 3 * 3 if holes else i)
    scores = [0.0] * len(head) + [rank(i) for i in range(len(pieces))] + [0.0] * len(tail)
    extra = {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    write(folder / f"{name}.gguf", "llama", tokens, extra | {"tokenizer.ggml.scores": scores})


def gemma(folder: Path) -> None:
    """A scored vocabulary as Gemma has it: runs of blanks and of line ends are user-defined, control tokens by the hundred."""
    corpus = [text.replace(" ", "▁") for text in [*TEXTS[:20], *TEXTS[-8:], PROSE] if "\0" not in text]
    pieces = [p for p in letters_of(corpus, 300, False)[0] if not (p.startswith("<") and len(p) > 1) and set(p) != {"\n"}]
    head = [*(("<pad>", CONTROL), ("<eos>", CONTROL), ("<bos>", CONTROL), ("<unk>", CONTROL), ("[multimodal]", USER_DEFINED))]
    head += [*((f"<unused{i}>", CONTROL) for i in range(20)), ("<start_of_turn>", CONTROL), ("<end_of_turn>", CONTROL)]
    head += [*(("\n" * n, USER_DEFINED) for n in range(1, 12)), *((" " * n, USER_DEFINED) for n in range(2, 12))]
    head += [(tag, USER_DEFINED) for tag in ("<h1>", "<td>", "</h1>")] + [(f"<0x{b:02X}>", BYTE) for b in range(256)]
    scores = [0.0] * len(head) + [-float(i) for i in range(len(pieces))]
    keys = {"bos_token_id": 2, "eos_token_id": 1, "add_bos_token": True, "add_space_prefix": False, "scores": scores}
    tokens = [*head, *((p, NORMAL) for p in pieces)]
    write(folder / "gemma.gguf", "llama", tokens, {f"tokenizer.ggml.{key}": value for key, value in keys.items()})


def vocabularies(folder: Path) -> list[Path]:
    """Write every vocabulary, without answers."""
    folder.mkdir(parents=True, exist_ok=True)
    byte_pair(folder, "gpt-2", "gpt-2", bos_token_id=MERGED, eos_token_id=MERGED, add_bos_token=True, add_eos_token=True)
    byte_pair(folder, "smollm", "smollm", bos_token_id=MERGED + 1, eos_token_id=MERGED + 2)
    byte_pair(folder, "llama-bpe", "llama-bpe", bos_token_id=MERGED, eos_token_id=MERGED + 2)
    byte_pair(folder, "qwen2", "qwen2", eos_token_id=MERGED + 2, add_bos_token=False)
    byte_pair(folder, "qwen35", "qwen35", eos_token_id=MERGED + 2, fim_pad_token_id=3)
    byte_pair(folder, "default", None, add_eos_token=True)
    holed(folder)
    sentence_pieces(folder, "spm", False)
    sentence_pieces(folder, "spm-bare", True, add_space_prefix=False, add_eos_token=True)
    gemma(folder)
    return sorted(folder.glob("*.gguf"))


class ModelParams(ctypes.Structure):
    """llama_model_params of build 0c1e57098, 80 bytes."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("devices", "tensor_buft_overrides")),
        *((name, ctypes.c_int32) for name in ("n_gpu_layers", "split_mode", "load_mode", "lazy_mode", "main_gpu")),
        *((name, ctypes.c_void_p) for name in ("tensor_split", "progress", "progress_data", "kv_overrides")),
        *((name, ctypes.c_bool) for name in ("vocab_only", "check_tensors", "extra_bufts", "no_host", "no_alloc", "load_mtp")),
    ]


QUIET = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda level, text, data: None)


class LlamaVocab:
    """The vocabulary of one file in llama.cpp."""

    def __init__(self, lib: ctypes.CDLL, vocab: int) -> None:
        self.lib, self.vocab = lib, ctypes.c_void_p(vocab)
        self.n_vocab = lib.llama_vocab_n_tokens(self.vocab)

    def encode(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        """llama_tokenize."""
        data = text.encode()
        out = (ctypes.c_int32 * (len(data) + 8))()
        n = self.lib.llama_tokenize(self.vocab, data, len(data), out, len(out), add_special, parse_special)
        assert n >= 0, f"llama_tokenize wants room for {-n} tokens"
        return out[:n]

    def piece(self, token: int) -> bytes:
        """llama_token_to_piece, special tokens shown."""
        buffer = ctypes.create_string_buffer(512)
        n = self.lib.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, True)
        return buffer.raw[:n]

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        """llama_detokenize; it also tidies spaces before punctuation for some pre-tokenizers."""
        buffer = ctypes.create_string_buffer(64 * len(ids) + 64)
        row = (ctypes.c_int32 * len(ids))(*ids)
        n = self.lib.llama_detokenize(self.vocab, row, len(ids), buffer, len(buffer), False, not skip_special)
        return buffer.raw[:n].decode("utf-8", "replace")

    def eog(self) -> list[int]:
        """The tokens for which llama_vocab_is_eog holds."""
        return [i for i in range(self.n_vocab) if self.lib.llama_vocab_is_eog(self.vocab, i)]

    def begin_and_end(self) -> list[int]:
        """The ids of the begin and the end token, -1 for none, and whether each is added."""
        ask = ("llama_vocab_bos", "llama_vocab_eos", "llama_vocab_get_add_bos", "llama_vocab_get_add_eos")
        return [int(self.lib[name](self.vocab)) for name in ask]


@contextmanager
def llama_vocab(library: Path, path: Path) -> Iterator[LlamaVocab]:
    """Open the vocabulary of a GGUF file with the libllama at `library`."""
    lib = ctypes.CDLL(str(library))
    lib.llama_log_set(QUIET, None)
    lib.llama_model_default_params.restype = ModelParams
    for name in ("llama_vocab_get_add_bos", "llama_vocab_get_add_eos", "llama_vocab_is_eog"):
        lib[name].restype = ctypes.c_bool
    lib.llama_model_load_from_file.argtypes = [ctypes.c_char_p, ModelParams]
    lib.llama_model_load_from_file.restype = lib.llama_model_get_vocab.restype = ctypes.c_void_p
    lib.llama_model_get_vocab.argtypes = lib.llama_model_free.argtypes = [ctypes.c_void_p]
    lib.llama_tokenize.argtypes = [
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_int32,
        ctypes.c_void_p,
        ctypes.c_int32,
    ] + [ctypes.c_bool] * 2
    params = lib.llama_model_default_params()
    params.vocab_only = True
    model = lib.llama_model_load_from_file(str(path).encode(), params)
    assert model, f"llama.cpp does not load {path}"
    yield LlamaVocab(lib, lib.llama_model_get_vocab(model))
    lib.llama_model_free(model)


def answers(vocab: LlamaVocab) -> dict[str, Any]:
    """What llama.cpp makes of ALL_TEXTS."""
    plain = [vocab.encode(text, False, False) for text in ALL_TEXTS]
    parsed = [vocab.encode(text, False, True) for text in ALL_TEXTS]
    return {
        "begin_and_end": vocab.begin_and_end(),
        "eog": vocab.eog(),
        "pieces": [vocab.piece(i).hex() for i in range(vocab.n_vocab)],
        "plain": plain,
        "parsed": [None if p == q else p for p, q in zip(parsed, plain, strict=True)],
        "begun": vocab.encode(TEXTS[5], True, False),
    }


def make(folder: Path, library: Path) -> list[Path]:
    """Write every vocabulary and llama.cpp's answers into `folder` (golden/tokenizers); the paths of all files."""
    made = vocabularies(folder)
    for path in list(made):
        with llama_vocab(library, path) as vocab:
            lines = (f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in answers(vocab).items())
            path.with_suffix(".json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
        made.append(path.with_suffix(".json"))
    texts = folder / "texts.json"
    texts.write_text("[\n" + ",\n".join(map(json.dumps, ALL_TEXTS)) + "\n]\n")
    return [*made, texts]


if __name__ == "__main__":
    import sys

    make(Path(__file__).parent / "tokenizers", Path(sys.argv[1]))
