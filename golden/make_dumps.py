"""Make golden/dumps/: what llama.cpp's own tools write of the trained model, which tests read as dumps.

    python golden/make_dumps.py BIN     # the folder with llama-debug, llama-results and llama-perplexity, of the build in make.py

They run with one thread. The log has some of the nodes only.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from make import HERE, write_manifest

MODEL, PROMPT = HERE / "models" / "austen-Q4_K_M.gguf", "Emma was very glad to"
NODES = "(model.input_embed|Qcur-3|Kcur-3|gate-0|new_state-5|l_out-[0-9]+|result_norm|result_output)$"
SAVED = ("llamacpp-austen-Q4_K_M.bin", "llamacpp-austen-Q4_K_M-tokens.bin", "llamacpp-austen-Q4_K_M-prompt.txt")


def main(tools: Path) -> None:
    out = HERE / "dumps"
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(MODEL, folder)  # llama-results writes the model's path down: this one is of no machine

        def run(name: str, *words: str) -> str:
            command = [str(tools / name), "-m", MODEL.name, "-t", "1", *words]
            return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout

        log = run("llama-debug", "-p", PROMPT, "--verbose", "--no-warmup", "--tensor-filter", NODES)
        (out / "llama-debug.log").write_text(log)
        run("llama-debug", "-p", PROMPT, "--save-logits")
        run("llama-results", "-p", PROMPT, "-o", "results.gguf")
        text = Path(folder) / "text.txt"
        text.write_bytes((HERE / "austen" / "held-out.txt").read_bytes()[:1500])
        run("llama-perplexity", "-f", str(text), "-c", "16", "-b", "16", "--chunks", "2", "--kl-divergence-base", "kld.bin")
        for name in ("results.gguf", "kld.bin", *(f"data/{name}" for name in SAVED)):
            shutil.copy(Path(folder) / name, out / Path(name).name)
    producer = "llama-debug, llama-results, llama-perplexity, golden/make_dumps.py"
    notes = {f"dumps/{path.name}": {"producer": producer} for path in out.glob("*")}
    write_manifest(notes, keep=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
