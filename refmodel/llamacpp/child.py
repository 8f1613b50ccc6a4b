"""The child process in which llama.cpp runs: everything foreign happens here, and a crash ends this process only.

`python -m refmodel.llamacpp.child` reads one request (JSON) from stdin and answers on stdout with one JSON object a line:
{"block": N} and {"call": k} as they are done, then one of done, error (ours) and refused (llama.cpp's). What llama.cpp
itself says goes to stderr.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ..arrays import F
from ..errors import RefmodelError
from ..forward.taps import in_call
from ..forward.trace import Spool
from ..gguf.reader import read
from .node_variants import as_stored
from .nodes import Aligner, UnknownNode, table
from .placing import Placed
from .rehearsal import rehearse
from .running import Refused, decode, load_model, logits, metadata, new_context, possible
from .structures import CALLBACK, Api
from .taker import Lister, Names, Taker, say, squeezed


def run(api: Api, request: Mapping[str, Any], channel: TextIO) -> dict[str, Any]:
    """Load the model, decode the calls in order as one sequence, and write the trace. Returns the answer for the parent.

    Nodes of a graph that is not the table's are placed by what they are.

    Refused if llama.cpp refuses; OracleError for an architecture that has no table.
    """
    profile = possible(request["profile"], api.layout, request["mtp"])
    model = load_model(api.lib, request["model"], profile, request["mtp"])
    asked = Asked(api, model, metadata(api.lib, model, "general.architecture"), {**request, "profile": profile}, channel)
    if not request["taps"]:
        return recorded(asked, None)
    try:
        return recorded(asked, aligner(asked.architecture, request["model"]))
    except UnknownNode:
        if request["mtp"]:
            raise
        return recorded(asked, Placed(listed(asked), table(asked.architecture)))


def listed(asked: "Asked") -> list[list[dict[str, Any]]]:
    """The nodes of every call, as a run at full speed shows them."""
    lister, past = Lister(asked.api.lib), 0
    callback = CALLBACK(lister.callback)
    context = new_context(asked.api, asked.model, asked.request["calls"], asked.request["profile"], callback)
    for k, tokens in enumerate(asked.request["calls"]):
        decode(asked.api, context, k, past, tokens, lister)
        past += len(tokens)
    asked.api.lib.llama_free(context)
    return lister.nodes


@dataclass(frozen=True)
class Asked:
    """A loaded model and what is asked of it.

    model    llama.cpp's pointer
    request  the parent's, with the profile as this version has it
    """

    api: Api
    model: int
    architecture: str
    request: Mapping[str, Any]
    channel: TextIO


def recorded(asked: Asked, names: Names | None) -> dict[str, Any]:
    """Decode the calls and write the trace; `names` says what becomes of each node, None takes no node."""
    api, request, past = asked.api, asked.request, 0
    provenance = request["provenance"] | {"build": api.build, "profile": request["profile"], "architecture": asked.architecture}
    with Spool(Path(request["out"]), {"provenance": json.dumps(provenance)}) as spool:
        taker = Taker(api.lib, names, spool, request["keep"], asked.channel) if names else None
        callback = CALLBACK(taker.callback) if taker else CALLBACK()
        context = new_context(api, asked.model, request["calls"], request["profile"], callback)
        head = DraftHead(asked, context, taker) if taker and request["mtp"] else None
        for k, tokens in enumerate(request["calls"]):
            decode(api, context, k, past, tokens, taker, last=request["last"])
            if head:
                head.decode(k, past, tokens)
            past += len(tokens)
            if (name := in_call("result_output", k)) not in spool.entries:
                spool.add(name, squeezed(logits(api, context, asked.model, 1 if request["last"] else len(tokens))))
            say(asked.channel, call=k)
        drafted = head.taker.nodes if head else []
        both = zip_longest(taker.nodes if taker else [], drafted, fillvalue=list[dict[str, Any]]())
        spool.metadata["nodes"] = json.dumps([[*nodes, *shifted(more, len(nodes))] for nodes, more in both])
    return {"build": api.build, "profile": request["profile"], "tensors": len(spool)}


def shifted(nodes: Sequence[dict[str, Any]], by: int) -> list[dict[str, Any]]:
    """Nodes that come after `by` others in one list, with the numbers of their sources there."""
    return [{**node, "src": [source + by if isinstance(source, int) else source for source in node["src"]]} for node in nodes]


def aligner(architecture: str, path: str) -> Aligner:
    """The walk along an architecture's table, for this file. OracleError if there is no table."""
    return Aligner(as_stored(table(architecture), read(Path(path)).tensors))


class DraftHead:
    """A second context over the same model, whose graph is the prediction block's, fed next to the trunk's as llama.cpp does.

    Each token comes with the trunk's hidden state of the token before it; the first one with zeros.
    Source: common/speculative.cpp, common_speculative_impl_draft_mtp::process.
    """

    def __init__(self, asked: Asked, context: int, trunk: Taker) -> None:
        api, request, keys = asked.api, asked.request, ("block_count", "nextn_predict_layers")
        blocks, predicting = (int(metadata(api.lib, asked.model, f"{asked.architecture}.{key}") or 0) for key in keys)
        self.api, self.trunk, self.first = api, trunk, blocks - predicting
        names = aligner(f"mtp/{asked.architecture}", request["model"])
        self.taker = Taker(api.lib, names, trunk.spool, request["keep"], trunk.channel)
        self.callback = CALLBACK(self.taker.callback)
        self.context = new_context(api, asked.model, request["calls"], request["profile"], self.callback, context)
        self.last: F | None = None  # the hidden state of the newest token, [1, E]

    def decode(self, call: int, past: int, tokens: Sequence[int]) -> None:
        """Decode the same call as the trunk just did: its number, the tokens before it, its own tokens."""
        hidden = self.trunk.hidden
        before = np.zeros_like(hidden[:1]) if self.last is None else self.last
        self.last = hidden[-1:]
        shifted = np.concatenate([before, hidden[:-1]])
        decode(self.api, self.context, call, past, tokens, self.taker, hidden=shifted, first=self.first)


def main() -> None:
    """Read the request, answer it, and end the process."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what foreign code prints is no answer
    request = json.load(sys.stdin)
    try:
        api = Api(request)
        rehearse(api)
        say(channel, done=run(api, request, channel) if "model" in request else {"build": api.build})
    except RefmodelError as error:
        say(channel, error=str(error))
    except Refused as error:
        say(channel, refused=str(error))
    channel.close()
    os._exit(0)  # the file is whole; unloading foreign code could only spoil that


if __name__ == "__main__":
    main()
