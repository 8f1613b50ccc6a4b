"""llama.cpp decoding many sequences at once, by llama-cpp-python's low-level interface: a script for a Python that has it.

Its arguments: file, how many sequences, tokens of each one's prompt, threads, and the clock (`wall` or `processor`). Each line
that it reads asks for one step, one token of each sequence with the logits of all; it answers with the seconds as JSON.
"""

import json
import sys
import time

import llama_cpp  # type: ignore[import-not-found]


def fill(batch: llama_cpp.llama_batch, tokens: list[tuple[int, int, int, bool]]) -> None:
    """Put (token, position, sequence, whether its logits are wanted) into a batch."""
    batch.n_tokens = len(tokens)
    for i, (token, pos, sequence, wanted) in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, pos, 1, wanted
        batch.seq_id[i][0] = sequence


def main() -> None:
    """Open the file, read the prompts, then answer."""
    path, sequences, prompt, threads = sys.argv[1], *map(int, sys.argv[2:5])
    clock = time.process_time if sys.argv[5] == "processor" else time.perf_counter
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = 256 * sequences, 512, 512, sequences
    params.n_threads = params.n_threads_batch = threads
    context = llama_cpp.llama_init_from_model(model, params)
    batch = llama_cpp.llama_batch_init(max(sequences, prompt), 0, 1)
    for sequence in range(sequences):
        fill(batch, [(10 + i, i, sequence, i == prompt - 1) for i in range(prompt)])
        assert llama_cpp.llama_decode(context, batch) == 0
    for step, _ in enumerate(sys.stdin):
        fill(batch, [(20 + sequence, prompt + step, sequence, True) for sequence in range(sequences)])
        start = clock()
        assert llama_cpp.llama_decode(context, batch) == 0
        llama_cpp.llama_get_logits_ith(context, sequences - 1)
        print(json.dumps({"seconds": clock() - start}), flush=True)


if __name__ == "__main__":
    main()
