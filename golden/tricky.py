"""Text on which tokenizers disagree, put together from parts: `texts` by a seeded generator, tests draw from PARTS as well."""

import random
from collections.abc import Iterator

MARKERS = [  # control tokens of many models, whole and nearly so
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|fim_pad|>"),
    *("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<unused7>", "<unused0>", "<mask>", "<pad>", "<unk>", "<s>", "</s>"),
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool>", "</tool>", "<|file_sep|>", "<repo_name>", "[INST]", "<h1>"),
    *("<|im_start", "im_end|>", "<| im_end |>", "<|IM_END|>", "<|im_end|", "<|<|im_end|>|>", "<0x0A>", "<0xFF>", "<0x41", "[PAD]"),
    *("<|reserved_special_token_0|>", "<start_of_turn", "_turn>", "< bos>", "<Bos>", "<|vision_pad|>", "[multimodal]", "<td>"),
]
WORDS = {  # parts without white space
    "words": "the The THE hello Zürich naïve isn't I'M we'RE They'Ve he'Ll o'clock 's 'S 't it'S x's' ''re \u2019ll a I of",
    "longer": "antidisestablishmentarianism Donaudampfschifffahrt internationalization supercalifragilistic aaaaaaaaaaaa",
    "digits": "0 7 12 123 1234 12345 1234567 3.14 1,000 1_000 0x1F 1e-9 ²³ ½ Ⅷ ١٢٣ १२३ ๑๒ 〇 ① 𝟙𝟚 ੧ x86_64 2nd 50% $9.99",
    "brahmic": "नमस्ते क्षत्रिय தமிழ் ക്ഷ สวัสดี กำ ກຳ ស្រី မြန်မာ བོད་ বাংলা ತಾಯಿ ଓଡ଼ିଆ",
    "cjk": "你好 世界！ 我有3只猫 日本語 カタカナ ｶﾀｶﾅ ひらがな 漢字かな 々 ー 𠀀𠀁 㐀 ，。「」 中文English混合",
    "right to left": "שלום עִבְרִית مرحبا العَرَبِيَّة \u200fRTL\u200e \u202eabc\u202c ﷺ پارسی ـــ ؟ عربي123abc",
    "cases": "ſ ß ẞ ĳ Ǆ ǅ ʰ ª º İ ı ΑΒΓ αβγς Привет Ａｂｃ ﬁ ﬀ Å Ω ℌ 𝓐𝓫 Ⓐ ა Ა Ꭰ ꭰ",
    "signs": "! ?! ... … -- — – _ __ * ** # ## / // \\ \\n | || & && @ ^ ~ ` ``` $ € ₹ © ™ № § "
    "« » “ ” ‘ ( ) [ ] {{ }} <= => -> == += :: ;",
}
PARTS: dict[str, list[str]] = {
    **{name: line.split() for name, line in WORDS.items()},
    "white": [
        *(" " * n for n in (1, 2, 3, 7, 33)),
        *("\n" * n for n in (1, 2, 3, 9)),
        "\r\n",
        "\r",
        "\t",
        "\t\t",
        " \t ",
        " \n",
        "\n ",
    ],
    "rare white": ["\u00a0", "\u2003", "\u3000", "\u0085", "\u2028", "\u2029", "\u1680", "\u200b", "\ufeff", "\v", "\f", "\u202f"],
    "emoji": ["😀", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "🇩🇪🇫🇷", "❤️", "❤", "1️⃣", "🧑🏿‍🚀", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "👩‍", "‍", "️", "🫠", "🏻"],
    "marks": ["e\u0301", "a\u0300\u0301\u0302", "\u0301", " \u0301", "n\u0303", "q\u0307\u0323", "\u0489", "Z\u0336a\u0337l\u0338"],
    "hangul": ["안녕하세요", "\u1112\u1161\u11ab", "\u1112\u1161", "\u3131\u314f", "가"],
    "code": [
        "def f(x):\n    return x**2  # 1\n",
        "for (int i=0;i<n;++i){a[i]^=b;}",
        "\tif x:\n\t\tpass",
        "    }\n\n\n  else {\n",
        'printf("%5.2f\\n", x);//é',
        "https://ex.org/a?b=c&d=%20#e",
        "foo_bar.BazQux<T>::qux()",
        "SELECT * FROM t WHERE a='b''c';",
        '{"k": [1, 2.5e3, null]}',
        "\\frac{a}{b}$$",
        "C:\\dir\\x.py",
        "x\u2260y\u2229\u2205",
    ],
    "odd": ["\x1b[0m", *"\x00\x01\x7f\x80\ue000\uffff\ufffd\u0378\U0010ffff\U0002ebf0\U000105c0"],
    "sentencepiece": ["\u2581", "\u2581\u2581", "\u2581a", " \u2581", "\u0120", "\u0120the", "\u010a", "\u0100", "\u0142"],
    "repeated": [*("a" * 40, "ab" * 20, "1" * 20, "!" * 17, "é" * 9, "😀" * 6, "-" * 80, "=" * 5, "一" * 8, "the" * 7)],
    "markers": MARKERS,
}
POOL = [part for parts in PARTS.values() for part in parts]


def texts(count: int, seed: int, most: int = 8) -> Iterator[str]:
    """`count` strings of one to `most` parts, now and then with a space between, a letter lost, or a code point of any kind."""
    draw = random.Random(seed)
    kinds = list(PARTS.values())
    for _ in range(count):
        chosen = [draw.choice(draw.choice(kinds)) for _ in range(draw.randint(1, most))]
        text = draw.choice(["", "", " ", " ", "\n", "  "]).join(chosen)
        if draw.random() < 0.2:
            at = draw.randrange(len(text))
            text = text[:at] + text[at + 1 :]
        if draw.random() < 0.2:
            at = draw.randrange(len(text) + 1)
            code = draw.choice([draw.randrange(0x80, 0xD800), draw.randrange(0xE000, 0x110000), draw.randrange(0x10000, 0x20000)])
            text = text[:at] + chr(code) + text[at:]
        yield text
