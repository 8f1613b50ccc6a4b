r"""Pre-tokenizers: where a byte-pair vocabulary may not merge. One table row per `tokenizer.ggml.pre`.

A pre-tokenizer is a sequence of regular expressions (Oniguruma). Each cuts every piece it is given into its matches and
what lies between them. llama.cpp runs hand-written splitters, or std::regex over text whose characters are replaced by
their category (Unicode 15.1); these expressions have the same meaning. Three things follow from that:
- characters that Oniguruma knows and Unicode 15.1 does not are taken out of \p{L}, \p{N}, \p{M}, \p{P} and \p{S};
- a white character outside ASCII is white and nothing else: no range of characters contains it (`&&[^\s]`);
- \d is 0 to 9, and $ is the end of the piece.
Source: llama.cpp src/llama-vocab.cpp (the names, their flags and expressions) and src/unicode.cpp (the splitters).
"""

from dataclasses import dataclass, replace

NEWER = (  # assigned by Unicode 16
    r"\x{897}\x{1B4E}\x{1B4F}\x{1B7F}\x{1C89}\x{1C8A}\x{A7CB}-\x{A7CD}\x{A7DA}-\x{A7DC}\x{105C0}-\x{105FF}"
    r"\x{10D40}-\x{10D8F}\x{10EC2}-\x{10EC4}\x{10EFC}\x{11380}-\x{113FF}\x{116D0}-\x{116FF}\x{11BC0}-\x{11BFF}"
    r"\x{11F5A}\x{13460}-\x{143FF}\x{16100}-\x{1613F}\x{16D40}-\x{16D7F}\x{18CFF}\x{1CC00}-\x{1CEB3}\x{1E5D0}-\x{1E5FF}"
    r"\x{2427}-\x{2429}\x{31E4}\x{31E5}\x{1F8B2}-\x{1F8BB}\x{1F8C0}\x{1F8C1}\x{1FA89}\x{1FA8F}\x{1FABE}\x{1FAC6}\x{1FADC}"
    r"\x{1FADF}\x{1FAE9}\x{1FBCB}-\x{1FBEF}"
)
L, N, M, P, S = (rf"[\p{{{category}}}&&[^{NEWER}]]" for category in "LNMPS")
UPPER, LOWER = f"[{L}&&[^a-z]]", f"[{L}&&[^A-Z]]"  # any letter but the other case of ASCII
UPPER_MARKED, LOWER_MARKED = f"[{L}{M}&&[^a-z]]", f"[{L}{M}&&[^A-Z]]"
HAN = (  # the blocks, assigned or not
    r"\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2EBEF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}"
)
KANJI_KANA = r"[\x{4E00}-\x{9FA5}\x{3040}-\x{30FF}]+"
HIGH_TO_KANJI = r"[\x{800}-\x{9FA5}\x{AC00}-\x{D7FF}&&[^\s]]+"
ASIAN = (  # blocks of Chinese, Japanese, Korean, Thai, Lao, Khmer and Burmese
    r"[\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}\x{8C48}-\x{FAFF}\x{3040}-\x{30FF}\x{FF65}-\x{FF9F}\x{2F00}-\x{2FDF}\x{E40}-\x{EFF}"
    r"\x{1780}-\x{17FF}\x{1000}-\x{109F}\x{AA60}-\x{AA7F}\x{A9E0}-\x{A9FF}\x{1100}-\x{11FF}]+"
)
CASED = (  # the letters with case that the DeepSeek LLM vocabulary lists
    r"A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}\x{370}-\x{373}\x{376}"
    r"\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}"
    r"\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}"
    r"\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}"
    r"\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}"
    r"\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}"
    r"\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}"
    r"\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}"
    r"\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}"
    r"\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}"
    r"\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}"
)

SHORT = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"  # what an apostrophe shortens in English
RUNS = r"\s+(?!\S)|\s+"
SPACES = rf"\s*[\r\n]+|{RUNS}"
SIGNS = rf" ?[^\s{L}{N}]+[\r\n]*|{SPACES}"
PATHS = rf" ?[^\s{L}{N}]+[\r\n/]*|{SPACES}"
WORD = rf"[^\r\n{L}{N}]?{L}+"
BEFORE = rf"[^\r\n{L}{N}]?"  # one character that a word takes with it
THREES = rf"\G(?:(?<={N}){N}{{3}}|[^{N}]*+{N}{{1,3}}(?=(?:{N}{{3}})*+(?!{N})))"  # \G: at the end of the last match
# THREES: digits in threes, counted from the right; llama.cpp leaves what precedes a number with its first digits
ASCII_WORD = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
MARKED_WORD = rf"{ASCII_WORD}|[^\r\n{L}{P}{S}]?[{L}{M}]+"
LINES = r"[^\n]+|\n+"

GPT2 = rf"'s|'t|'re|'ve|'m|'ll|'d| ?{L}+| ?{N}+| ?[^\s{L}{N}]+|{RUNS}"
LLAMA3 = rf"{SHORT}|{WORD}|{N}{{1,3}}|{SIGNS}"
QWEN2 = rf"{SHORT}|{WORD}|{N}|{SIGNS}"
QWEN35 = rf"{SHORT}|{BEFORE}[{L}{M}]+|{N}| ?[^\s{L}{M}{N}]+[\r\n]*|{SPACES}"
HALVING = "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4))
JAIS2 = rf"{SHORT}|{WORD}|{N}{{1,3}}| ?[^\s{L}{N}]+[\r\n]*|\s*[\r\n]+|{HALVING}|\s{{1,2}}(?!\S)|\s"
DEEPSEEK3 = rf"{MARKED_WORD}| ?[{P}{S}]+[\r\n]*|{SPACES}"
SPARK = rf"{MARKED_WORD}| ?[{P}{S}]+|[\r\n]|{RUNS}"
TEKKEN = rf"{BEFORE}{UPPER}*{LOWER}+|{BEFORE}{UPPER}+{LOWER}*|{N}|{PATHS}"
GPT4O = rf"{BEFORE}{UPPER}*{LOWER}+(?:{SHORT})?|{BEFORE}{UPPER}+{LOWER}*(?:{SHORT})?|{N}{{1,3}}|{PATHS}"
GRANITE = (
    rf"{BEFORE}{UPPER_MARKED}*{LOWER_MARKED}+(?:{SHORT})?|{BEFORE}{UPPER_MARKED}+{LOWER_MARKED}*(?:{SHORT})?|{N}{{1,3}}|{PATHS}"
)
AYA = rf"{BEFORE}[{L}{M}]+(?:{SHORT})?|{N}{{1,3}}|{PATHS}"
YOUTU = rf"{BEFORE}[{L}{M}]+(?:{SHORT})?|{N}|{PATHS}"
YOUTU_ASIAN = (
    r"[\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+|[\x{FF01}\x{2026}\x{201C}\x{201D}\x{2018}\x{2019}\x{2014}\x{FF1A}\x{FF1B}\x{FF0C}"
    rf"\x{{3001}}-\x{{303F}}\x{{FE30}}-\x{{FE4F}}]+|[\x{{3105}}-\x{{312F}}]+|{KANJI_KANA}"
)
KIMI = rf"[{HAN}]+|{BEFORE}[{L}&&[^{HAN}]]+(?:{SHORT})?|{N}{{1,3}}|{SIGNS}"
BLOOM = r" ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+"
BAILING = rf"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|{WORD}|{N}| ?[^\s{L}{N}]+[\r\n]*|\s*[\r\n]|{RUNS}"
SEED = rf"{SHORT}|{WORD}|{N}| ?[^\s{L}{N}\r\n]+|{SPACES}"
EXAONE_MOE = rf"{SHORT}|{BEFORE}(?:{L}{M}*(?: {L}{M}*)*)+|{N}| ?[^\s{L}{N}]+[\r\n/]?|\s*[\r\n]|{RUNS}"
MINICPM5 = rf"{SHORT}|{WORD}|{N}+|{SIGNS}"
CHAMELEON = ("<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", r"[\t\n]|    |  ", N, rf"[{P}!-/:-@\[-`{{-~]", GPT2)
WIDE_SIGNS = r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3001}\x{3002}]+"
DEEPSEEK = (r"[\r\n]", rf"\s?[{CASED}]+", WIDE_SIGNS, r"(?<!\s)\s++\z", HIGH_TO_KANJI, f"{N}+")
DEEPSEEK_CODER = (r"[\r\n]", rf"\s?{L}+", rf"\s?{P}+", HIGH_TO_KANJI, N)


@dataclass(frozen=True)
class Pre:
    """How one kind of pre-tokenizer cuts text, and the switches and defaults that llama.cpp ties to its name.

    cuts  regular expressions, applied in order
    """

    cuts: tuple[str, ...]
    ignore_merges: bool = False  # a whole piece that is a token is taken without looking at the merges
    add_bos: bool = False  # where the file has no tokenizer.ggml.add_bos_token
    always_bos: bool = False  # whatever the file says
    bos: int | None = 11  # when the file names none
    letters: bool = True  # merges are over byte letters, one a byte; otherwise over characters, and <0xXX> are the bytes
    spaces: bool = False  # a space is written U+2581, as in SentencePiece vocabularies
    whole_newlines: bool = False  # a run of line ends that is a token is taken without looking at the merges
    needs_merges: bool = True


def _bare(*cuts: str) -> Pre:
    return Pre(cuts, letters=False)


_LINES = replace(_bare(LINES), spaces=True)
_GEMMA4 = replace(_LINES, always_bos=True, whole_newlines=True)
_LLAMA3 = Pre((LLAMA3,))
_NAMES = {
    # also what a file without tokenizer.ggml.pre gets
    "default": Pre((rf"[{P}$+<=>^~|]+", GPT2, rf"{N}+", "[0-9][0-9][0-9]")),
    "gpt-2 phi-2 gigachat a.x-4.0 mellum exaone4 mpt olmo jais trillion granite-docling": Pre((GPT2,)),
    "jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe modern-bert": Pre((GPT2,)),
    "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2": Pre((N, GPT2)),
    "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano": replace(
        _LLAMA3, ignore_merges=True, add_bos=True
    ),
    "dbrx smaug-bpe": _LLAMA3,
    "chatglm-bpe": replace(_LLAMA3, bos=None),
    "glm4 glm5": replace(_LLAMA3, bos=None, ignore_merges=True),
    "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2": Pre((QWEN2,)),
    "qwen35": Pre((QWEN35,)),
    "ufakzeka": Pre((f"{WORD}|{N}|{SIGNS}",)),
    "laguna": Pre((LINES, QWEN2)),
    "jais-2": Pre((JAIS2,)),
    "minicpm5": Pre((f"{N}{{1,3}}", MINICPM5), ignore_merges=True),
    "falcon": Pre((rf"[{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]")),
    "deepseek-llm": Pre(DEEPSEEK),
    "deepseek-coder": Pre(DEEPSEEK_CODER),
    "deepseek-v3 hunyuan-dense joyai-llm hy_v4": Pre((f"{N}{{1,3}}", KANJI_KANA, DEEPSEEK3)),
    "spark2_5": Pre((f"{N}{{1,3}}", KANJI_KANA, SPARK, N)),
    "youtu": Pre((YOUTU_ASIAN, YOUTU), ignore_merges=True),
    "tekken": Pre((TEKKEN,), ignore_merges=True, add_bos=True),
    "gpt-4o llama4 kanana2 talkie minimax-m2": Pre((GPT4O,)),
    "granite-embed-multi-97m": Pre((GRANITE,), ignore_merges=True),
    "tiny_aya cohere2moe": Pre((THREES, AYA)),
    "afmoe": Pre((THREES, ASIAN, DEEPSEEK3)),
    "kimi-k2": Pre((KIMI,), needs_merges=False),
    "superbpe": Pre((f"{N}+", "(?=(?:[0-9]{3})++(?![0-9]))")),
    "bailingmoe bailingmoe2 llada-moe": Pre((BAILING,)),
    "seed-coder": Pre((SEED,)),
    "exaone-moe": Pre((EXAONE_MOE,)),
    "chameleon": Pre(CHAMELEON, add_bos=True),
    "poro-chat bloom gpt3-finnish": Pre((BLOOM,)),
    "viking": Pre((BLOOM, N)),
    "gemma4 granite-embed-multi-311m": _GEMMA4,
    "sarvam-moe": _LINES,
    "whitespace": _bare(r"\S+"),
}
PRE: dict[str, Pre] = {name: pre for names, pre in _NAMES.items() for name in names.split()}
