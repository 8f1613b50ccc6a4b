"""The same harness, local tasks and trained weights in transformers and refmodel. Prints JSON for test_live_lm_eval.py.

    python tests/lm_eval_scores.py COUNT [ROUTE]

Needs lm_eval, torch and transformers. Without a ROUTE both compute the model in its own order; with one only refmodel does.
"""

import json
import random
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "golden"), str(ROOT / "golden" / "train")]
AUSTEN = ROOT / "golden" / "models" / "austen-BF16.gguf"
CUTS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TASKS = {
    "sums": 'output_type: multiple_choice\ndoc_to_text: "{{shots}}{{a}} + {{b}} ="\ndoc_to_choice: choices\ndoc_to_target: 0\n'
    "metric_list: [{metric: acc}]",
    "prose": 'output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: "{{text}}"\n'
    "metric_list: [{metric: word_perplexity}]",
    "written": 'output_type: generate_until\ndoc_to_text: "{{shots}}{{a}} + {{b}} ="\ndoc_to_target: "{{choices[0]}}"\n'
    'generation_kwargs: {until: ["\\n"], max_gen_toks: 8, do_sample: false}\nmetric_list: [{metric: exact_match}]',
}


def make_tasks(folder: Path, count: int) -> None:
    """Items from a seed: a few sums as shots, one to be completed with four choices, and a piece of a held-out text."""
    draw, text = random.Random(24), (ROOT / "golden" / "austen" / "held-out.txt").read_text()
    items = []
    for _ in range(count):
        shots = "".join(f"{a} + {b} = {a + b}\n" for a, b in ((draw.randrange(10), draw.randrange(10)) for _ in range(5)))
        a, b, at = draw.randrange(20), draw.randrange(20), draw.randrange(len(text) - 400)
        wrong = draw.sample([a + b + d for d in (-3, -2, -1, 1, 2, 3) if a + b + d >= 0], 3)
        items.append({"shots": shots, "a": a, "b": b, "choices": [f" {n}" for n in (a + b, *wrong)], "text": text[at : at + 300]})
    data = folder / "items.jsonl"
    data.write_text("".join(json.dumps(item) + "\n" for item in items))
    for name, words in TASKS.items():
        head = f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n"
        (folder / f"{name}.yaml").write_text(head + words + "\n")


def transformers_model():
    """The shipped model in transformers, in float32, with its own tokenizer."""
    import tokenizers
    from lm_eval.models.huggingface import HFLM
    from make_hf import loaded
    from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    import refmodel

    md = refmodel.load(AUSTEN).file.metadata
    texts, merges = list(md.strings("tokenizer.ggml.tokens")), [tuple(m.split(" ")) for m in md.strings("tokenizer.ggml.merges")]
    plain = tokenizers.Tokenizer(models.BPE({text: i for i, text in enumerate(texts)}, merges))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    plain.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CUTS), "isolated"), level])
    plain.decoder = decoders.ByteLevel()
    plain.add_special_tokens([AddedToken(text, special=True) for text in texts[:3]])
    eos = texts[md.int("tokenizer.ggml.eos_token_id")]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token=eos, pad_token=eos)
    return HFLM(pretrained=loaded(AUSTEN)[0], tokenizer=tokenizer, batch_size=32, max_length=512, device="cpu", dtype="float32")


def evaluated(model, folder: Path, tasks, **arguments):
    """Per task: the answers to all items, the metrics, and the seconds."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager, found = TaskManager(include_path=str(folder), include_defaults=False), {}
    for task in tasks:
        start = time.perf_counter()
        done = simple_evaluate(model, tasks=[task], task_manager=manager, bootstrap_iters=0, log_samples=True, **arguments)
        samples = sorted(done["samples"][task], key=lambda sample: sample["doc_id"])
        metrics = {name: value for name, value in done["results"][task].items() if isinstance(value, float)}
        found[task] = {"answers": [s["resps"] for s in samples], "metrics": metrics, "seconds": time.perf_counter() - start}
    return found


def main() -> None:
    import torch

    from refmodel.lm_eval import Harnessed

    count, route = int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
    ours = Harnessed.create_from_arg_string(f"path={AUSTEN},route={route},numerics=reference,max_length=512")
    fast = Harnessed.create_from_arg_string(f"path={AUSTEN},route={route},numerics=fast,max_length=512")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tasks(folder, count)
        for model in (ours, fast):
            evaluated(model, folder, TASKS, limit=2)  # kernels are loaded
        found = {"refmodel": evaluated(ours, folder, TASKS), "fast": evaluated(fast, folder, TASKS)}
        if not route:
            theirs = transformers_model()
            with torch.inference_mode():
                evaluated(theirs, folder, TASKS, limit=2)
                found["transformers"] = evaluated(theirs, folder, TASKS)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
