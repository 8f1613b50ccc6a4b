r"""Pre-tokenizers: where a byte-pair vocabulary may not merge. One table row per `tokenizer.ggml.pre`.

A pre-tokenizer is a sequence of regular expressions (Oniguruma). Each cuts every piece it is given into its matches and
what lies between them. llama.cpp runs hand-written splitters over Unicode 15.1 tables; these expressions have the same
meaning, with the later letters, numbers and marks, which Oniguruma may know, taken out of \p{L}, \p{N}, \p{M} and \p{P}.
Source: llama.cpp src/llama-vocab.cpp (the names and their flags) and src/unicode.cpp (the splitters).
"""

from dataclasses import dataclass, replace

NEWER = (  # assigned by Unicode 16
    r"\x{897}\x{1B4E}\x{1B4F}\x{1B7F}\x{1C89}\x{1C8A}\x{A7CB}-\x{A7CD}\x{A7DA}-\x{A7DC}\x{105C0}-\x{105FF}"
    r"\x{10D40}-\x{10D8F}\x{10EC2}-\x{10EC4}\x{10EFC}\x{11380}-\x{113FF}\x{116D0}-\x{116FF}\x{11BC0}-\x{11BFF}"
    r"\x{11F5A}\x{13460}-\x{143FF}\x{16100}-\x{1613F}\x{16D40}-\x{16D7F}\x{18CFF}\x{1CC00}-\x{1CCF9}\x{1E5D0}-\x{1E5FF}"
)
L, N, M, P = (rf"[\p{{{category}}}&&[^{NEWER}]]" for category in "LNMP")

ANY_CASE = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = rf"'s|'t|'re|'ve|'m|'ll|'d| ?{L}+| ?{N}+| ?[^\s{L}{N}]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{ANY_CASE}|[^\r\n{L}{N}]?{L}+|{N}{{1,3}}| ?[^\s{L}{N}]+[\r\n]*|{SPACES}"
QWEN2 = rf"{ANY_CASE}|[^\r\n{L}{N}]?{L}+|{N}| ?[^\s{L}{N}]+[\r\n]*|{SPACES}"
QWEN35 = rf"{ANY_CASE}|[^\r\n{L}{N}]?[{L}{M}]+|{N}| ?[^\s{L}{M}{N}]+[\r\n]*|{SPACES}"


@dataclass(frozen=True)
class Pre:
    """How one kind of pre-tokenizer cuts text, and the defaults that llama.cpp ties to its name."""

    cuts: tuple[str, ...]
    ignore_merges: bool = False  # a whole piece that is a token is taken without looking at the merges
    add_bos: bool = False
    bos: int | None = 11  # when the file names none


_GPT2, _DIGITS, _LLAMA3 = Pre((GPT2,)), Pre((N, GPT2)), Pre((LLAMA3,))
_QWEN2, _QWEN35 = Pre((QWEN2,)), Pre((QWEN35,))
_DEFAULT = Pre((rf"[{P}$+<=>^~|]+", GPT2, rf"{N}+", "[0-9][0-9][0-9]"))
_LLAMA_BPE = replace(_LLAMA3, ignore_merges=True, add_bos=True)
_NAMES = {
    "default": _DEFAULT,  # also what a file without tokenizer.ggml.pre gets
    "gpt-2 phi-2 gigachat a.x-4.0 mellum exaone4 mpt olmo jais trillion granite-docling": _GPT2,
    "jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe modern-bert": _GPT2,
    "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2": _DIGITS,
    "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano": _LLAMA_BPE,
    "dbrx smaug-bpe": _LLAMA3,
    "chatglm-bpe": replace(_LLAMA3, bos=None),
    "glm4 glm5": replace(_LLAMA3, bos=None, ignore_merges=True),
    "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2": _QWEN2,
    "qwen35": _QWEN35,
}
PRE: dict[str, Pre] = {name: pre for names, pre in _NAMES.items() for name in names.split()}
