"""The logits of many GGUF files in one process of llama.cpp: `REFMODEL_LLAMA_LIB=LIB python llama_logits.py < requests`.

A request is a line {"model", "calls", "out"}; `out` gets the logits of all tokens of all calls as float32. The answer is a line: {}
or {"why"}. If llama.cpp aborts, so does this process.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from refmodel.errors import RefmodelError
from refmodel.llamacpp.library import locate
from refmodel.llamacpp.profile import PROFILES
from refmodel.llamacpp.running import Refused, decode, load_model, new_context
from refmodel.llamacpp.running import logits as logits_of
from refmodel.llamacpp.structures import CALLBACK, Api

PROFILE = asdict(PROFILES["exact"])


def logits(api: Api, request: dict) -> np.ndarray:
    """The logits of a file, [tokens, V]."""
    lib, calls, rows, past = api.lib, request["calls"], [], 0
    model = load_model(lib, request["model"], PROFILE)
    context = new_context(api, model, calls, PROFILE, CALLBACK())
    for k, tokens in enumerate(calls):
        decode(api, context, k, past, tokens, None)
        past += len(tokens)
        rows.append(logits_of(api, context, model, len(tokens)).copy())
    lib.llama_free(context)
    lib.llama_model_free(model)
    return np.concatenate(rows)


def main() -> None:
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what foreign code prints is no answer
    api = Api(locate().request)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            np.save(Path(request["out"]), logits(api, request))
            said = {}
        except (RefmodelError, Refused) as error:
            said = {"why": str(error)}
        print(json.dumps(said), file=channel, flush=True)


if __name__ == "__main__":
    main()
