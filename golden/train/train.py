"""Train the tiny Qwen3.5 of golden/: transformers' own Qwen3_5 text model, on two cores, in less than 90 minutes.

    pip install -e '.[train]'
    python golden/train/train.py OUT

OUT gets a checkpoint every hundred steps; an interrupted run goes on from the last one when it is started again. At the end
OUT holds a Hugging Face folder (config.json, model.safetensors, tokenizer.json), curve.json, the losses by step, and held-out.txt.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import corpus
import exercises
import numpy as np
import tokenizers
import torch
from shape import CONFIG, VOCAB
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

SEED = 35
SPECIAL = [corpus.END, "<|im_start|>", "<|im_end|>"]
# The pre-tokenizer that GGUF calls "qwen35"
CUTS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

STEPS, WARMUP, EVERY = 1600, 80, 100
WINDOW = 256  # tokens of a row
PROSE_ROWS, LINE_ROWS = 5, 3  # of a batch
RATES, DECAY = (4e-3, 3e-3), 0.1  # of matrices by Muon, of the embedding and vectors by AdamW
HELD_OUT_ROWS = 64


def learned_tokenizer(texts: list[str]) -> tokenizers.Tokenizer:
    """A byte-level BPE vocabulary in Qwen's cut; the special tokens come first."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CUTS), "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[AddedToken(text, special=True) for text in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def stream(tokenizer: tokenizers.Tokenizer, documents: list[str]) -> torch.Tensor:
    """All documents as one row of ids, each behind an end token."""
    ids = [[0, *encoding.ids] for encoding in tokenizer.encode_batch(documents, add_special_tokens=False)]
    return torch.tensor(np.concatenate(ids), dtype=torch.int64)


def rows(source: torch.Tensor, count: int, rng: torch.Generator) -> torch.Tensor:
    """Windows of WINDOW + 1 tokens from anywhere; int64 [count, WINDOW + 1]."""
    starts = torch.randint(0, len(source) - WINDOW - 1, (count,), generator=rng)
    return torch.stack([source[start : start + WINDOW + 1] for start in starts.tolist()])


def loss_of(model: Qwen3_5ForCausalLM, batch: torch.Tensor) -> torch.Tensor:
    logits = model(batch[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: Qwen3_5ForCausalLM, source: torch.Tensor) -> float:
    """Nats a token over the first HELD_OUT_ROWS windows of the held-out chapters."""
    batches = source[: HELD_OUT_ROWS * (WINDOW + 1)].view(-1, 8, WINDOW + 1)
    return sum(loss_of(model, batch).item() for batch in batches) / len(batches)


def unigram_loss(train: torch.Tensor, held: torch.Tensor) -> float:
    """Nats a token of a model that knows how often each token occurs in the text learned from, plus one."""
    counts = torch.bincount(train, minlength=VOCAB).double() + 1
    return float(-(counts / counts.sum()).log()[held[: HELD_OUT_ROWS * (WINDOW + 1)]].mean())


def share(step: int) -> float:
    """Of the full learning rate: linear warm-up, then a cosine down to a fiftieth."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def optimizers_of(model: Qwen3_5ForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon (orthogonalized momentum) for the matrices inside of the blocks, AdamW for everything else."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=RATES[0], weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=RATES[1], weight_decay=0.0, betas=(0.9, 0.95)),
    ]


def train(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    learned, held = corpus.read(out / "packages")
    lines = exercises.documents(12_000, SEED)
    tokenizer = learned_tokenizer([*learned, *lines[:600]])
    prose, sums, held_out = (stream(tokenizer, texts) for texts in (learned, lines, held))

    torch.manual_seed(SEED)
    model = Qwen3_5ForCausalLM(Qwen3_5TextConfig(**CONFIG)).float()
    optimizers = optimizers_of(model)
    rng = torch.Generator().manual_seed(SEED)
    curve: dict[str, Any] = {
        "unigram": unigram_loss(prose, held_out),
        "tokens": len(prose),
        "seconds": 0.0,
        "loss": [],
        "held_out": [],
    }

    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        rng.set_state(saved["rng"])
        curve = saved["curve"]
    size = sum(p.numel() for p in model.parameters())
    print(f"{size:,} weights, {len(prose):,} tokens of prose, unigram {curve['unigram']:.3f} nats")

    began = time.monotonic() - curve["seconds"]
    for step in range(len(curve["loss"]), STEPS):
        for optimizer, full in zip(optimizers, RATES, strict=True):
            optimizer.param_groups[0]["lr"] = full * share(step)
        loss = loss_of(model, torch.cat([rows(prose, PROSE_ROWS, rng), rows(sums, LINE_ROWS, rng)]))
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        curve["loss"].append(round(loss.item(), 4))
        if (step + 1) % EVERY == 0 or step + 1 == STEPS:
            curve["seconds"] = round(time.monotonic() - began, 1)
            curve["held_out"].append([step + 1, round(held_out_loss(model, held_out), 4)])
            states = [optimizer.state_dict() for optimizer in optimizers]
            saved = {"model": model.state_dict(), "optimizers": states, "rng": rng.get_state(), "curve": curve}
            torch.save(saved, checkpoint.with_suffix(".part"))
            os.replace(checkpoint.with_suffix(".part"), checkpoint)
            recent, held_out_now = np.mean(curve["loss"][-EVERY:]), curve["held_out"][-1][1]
            print(f"step {step + 1} of {STEPS}: {recent:.3f}, held out {held_out_now}, {curve['seconds']} s", flush=True)

    model.bfloat16().save_pretrained(out / "model")
    tokenizer.save(str(out / "model" / "tokenizer.json"))
    (out / "held-out.txt").write_text(corpus.excerpt(held))
    (out / "curve.json").write_text(json.dumps(curve) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=1, help="more than one hardly helps: the operations are small")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.out)
