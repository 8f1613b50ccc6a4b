"""transformers in float32 on the CPU: the child that benchmarks/model.py asks for turns.

Its model has the sizes of the file and random weights: speed does not depend on their values.
"""

import time
from typing import Any

from .child import answer, requests


class Runner:
    """One Qwen3.5 text model with random weights, and one sequence. ImportError without torch and transformers."""

    def __init__(self, sizes: dict[str, Any], threads: int) -> None:
        import torch
        import transformers
        from transformers.models.qwen3_5 import Qwen3_5ForCausalLM, Qwen3_5TextConfig

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.torch = torch
        self.versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        self.model = Qwen3_5ForCausalLM(Qwen3_5TextConfig(**sizes)).to(torch.float32).eval()
        self.cache: Any = None

    def run(self, tokens: list[int]) -> float:
        """Feed token ids to the sequence. Returns the seconds."""
        ids = self.torch.tensor([tokens])
        start = time.perf_counter()
        with self.torch.inference_mode():
            out = self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        seconds = time.perf_counter() - start
        self.cache = out.past_key_values
        return seconds


def main() -> None:
    """Answer requests: open a model, prefill, decode."""
    runner: Runner | None = None
    for request, channel in requests():
        if "open" in request:
            try:
                runner = Runner(request["sizes"], request["threads"])
                answer(channel, versions=runner.versions)
            except ImportError as error:
                answer(channel, missing=f"transformers is not installed here ({error})")
            continue
        assert runner
        if "prefill" in request:
            runner.cache = None
        passes = [request["prefill"]] if "prefill" in request else [[token] for token in request["decode"]]
        answer(channel, seconds=sum(map(runner.run, passes)))


if __name__ == "__main__":
    main()
