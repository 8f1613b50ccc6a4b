"""Changes of copies that leave every number alone: how files are laid out, what configurations spell out, what nothing reads."""

import json
import shutil

import folders
import numpy as np
from folders import config, dropped, edit, file
from gguf import GGUFValueType as V
from test_living import changed, floats, in_type

from refmodel.gguf.reader import read
from refmodel.gguf.writer import Limit, field, write
from refmodel.surgery.gguf import texts

# GGUF files: each function writes a changed copy.


def followed(raw):
    """Bytes after the last tensor, as some programs leave them."""

    def apply(copy, out):
        out.write_bytes(copy.read_bytes() + raw)
        return out

    return apply


def typed(kind, *types):
    """Numbers of these types in another type."""

    def apply(copy, out):
        fields = read(copy).metadata.fields
        return changed(copy, out, **{key: field(kind, value.value()) for key, value in fields.items() if value.type in types})

    return apply


def lists_typed(kind, *items):
    """Lists of numbers of these types in another type."""

    def apply(copy, out):
        fields = read(copy).metadata.fields
        wider = {key: field(V.ARRAY, value.value(), kind) for key, value in fields.items() if value.item in items}
        return changed(copy, out, **wider)

    return apply


def sorted_by(key, reverse=False):
    """The tensors in another order."""
    return lambda c, out: write(out, dict(read(c).metadata.fields), sorted(read(c).tensors.values(), key=key, reverse=reverse))


def keys_in_order(order):
    return lambda c, out: write(out, dict(order(read(c).metadata.fields.items())), read(c).tensors.values())


def said(**fields):
    return lambda c, out: changed(c, out, **fields)


def vectors_in(kind):
    """Vectors in another float type, where that is exact."""

    def apply(copy, out):
        held = {n: t for n, t in read(copy).tensors.items() if len(t.shape) == 1}
        exact = {n: t for n, t in held.items() if np.array_equal(floats(t).astype(np.float16).astype(np.float32), floats(t))}
        return changed(copy, out, {n: in_type(t, kind) for n, t in exact.items()})

    return apply


FILES = {
    "zeros after the end": followed(bytes(512)),
    "other bytes after the end": followed(b"end of file"),
    "tensors by name": sorted_by(lambda t: t.name),
    "tensors by size": sorted_by(lambda t: t.data.size, reverse=True),
    "vectors first": sorted_by(lambda t: len(t.shape)),
    "keys by name": keys_in_order(lambda items: sorted(items)),
    "keys backwards": keys_in_order(lambda items: reversed(list(items))),
    "a small alignment": said(**{"general.alignment": field(V.UINT32, 8)}),
    "parts of one tensor": lambda c, out: write(
        out, dict(read(c).metadata.fields), read(c).tensors.values(), limit=Limit(tensors=1)
    ),
    "parts of some bytes": lambda c, out: write(
        out, dict(read(c).metadata.fields), read(c).tensors.values(), limit=Limit(size=20000)
    ),
    "parts joined again": lambda c, out: write(
        out,
        dict(read(c).metadata.fields)
        | {"split.no": field(V.UINT16, 0), "split.count": field(V.UINT16, 0), "split.tensors.count": field(V.INT32, 7)},
        read(c).tensors.values(),
    ),
    "whole numbers with a sign": typed(V.INT32, V.UINT32),
    "whole numbers of 64 bits": typed(V.INT64, V.UINT32),
    "floats of 64 bits": typed(V.FLOAT64, V.FLOAT32),
    "lists of 64 bits": lists_typed(V.UINT64, V.UINT32),
    "lists with a sign": lists_typed(V.INT64, V.UINT32, V.INT32),
    "flags as numbers": lists_typed(V.UINT8, V.BOOL),
    "a license": said(**{"general.license": field(V.STRING, "mit")}),
    "tags": said(**{"general.tags": texts(["a", "b"]), "general.languages": texts(["en"])}),
    "a base model": said(**{"general.base_model.count": field(V.UINT32, 1), "general.base_model.0.name": field(V.STRING, "x")}),
    "a size in a word": said(**{"general.size_label": field(V.STRING, "1B"), "general.parameter_count": field(V.UINT64, 5)}),
    "an author": said(**{"general.author": field(V.STRING, "x"), "general.organization": field(V.STRING, "y")}),
    "an imatrix named": said(
        **{
            "quantize.imatrix.dataset": field(V.STRING, "x"),
            "quantize.imatrix.entries_count": field(V.INT32, 5),
            "quantize.imatrix.chunks_count": field(V.INT32, 5),
        }
    ),
    "who quantized it": said(
        **{"mradermacher.quantized_by": field(V.STRING, "x"), "mradermacher.quantize_version": field(V.UINT32, 2)}
    ),
    "how another program made it": said(
        **{"rys.spec": field(V.STRING, "7..9"), "rys.layers": texts(["7", "8", "7", "8", "9", "10", "11"])}
    ),
    "no word of ours": lambda c, out: changed(c, out, drop={k for k in read(c).metadata.fields if k.startswith("refmodel.")}),
    "no name": lambda c, out: changed(c, out, drop={"general.name"}),
}


# Folders: each function changes a copy.


def saved(order=lambda items: items, metadata=None, padding=0):
    """The weights saved again in another order, with another header."""

    def apply(copy):
        path = copy / "model.safetensors"
        raw = path.read_bytes()
        size = int.from_bytes(raw[:8], "little")
        header, data, at, out = json.loads(raw[8 : 8 + size]), raw[8 + size :], 0, {}
        header.pop("__metadata__", None)
        body = b""
        for name, entry in order(list(header.items())):
            start, end = entry["data_offsets"]
            out[name] = entry | {"data_offsets": [at, at + end - start]}
            body, at = body + data[start:end], at + end - start
        text = json.dumps(({"__metadata__": metadata} if metadata else {}) | out).encode()
        text += b" " * (-len(text) % 8 + padding)
        path.write_bytes(len(text).to_bytes(8, "little") + text + body)

    return apply


def indexed(copy):
    """One file with an index."""
    header = folders.read_folder(copy).tensors
    text = {"metadata": {"total_size": 5, "total_parameters": 3}, "weight_map": dict.fromkeys(header, "model.safetensors")}
    (copy / "model.safetensors.index.json").write_text(json.dumps(text))


def sharded(count, names="model-{}.safetensors"):
    return lambda copy: folders.reshard(copy, count, names)


def as_text(**options):
    return lambda copy: edit(copy, lambda text: json.dumps(json.loads(text), **options))


OLD_DEFAULTS = {  # what versions 4 of transformers wrote into every configuration
    "return_dict": True, "output_hidden_states": False, "torchscript": False, "pruned_heads": {}, "is_encoder_decoder": False,
    "is_decoder": False, "cross_attention_hidden_size": None, "add_cross_attention": False, "tie_encoder_decoder": False,
    "chunk_size_feed_forward": 0, "finetuning_task": None,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "problem_type": None,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "tokenizer_class": None, "prefix": None, "sep_token_id": None,
    "task_specific_params": None,
    "decoder_start_token_id": None, "remove_invalid_values": False, "exponential_decay_length_penalty": None,
    "suppress_tokens": None,
}  # fmt: skip
SAMPLING = {
    "max_length": 20, "min_length": 0, "do_sample": False, "num_beams": 1, "temperature": 1.0, "top_k": 50, "top_p": 1.0,
    "typical_p": 1.0, "repetition_penalty": 1.0, "length_penalty": 1.0, "no_repeat_ngram_size": 0, "bad_words_ids": None,
    "num_return_sequences": 1, "output_scores": False, "forced_bos_token_id": None, "forced_eos_token_id": None,
    "begin_suppress_tokens": None,
}  # fmt: skip
FOLDERS = {
    "tensors backwards": saved(lambda items: items[::-1]),
    "tensors by name": saved(sorted),
    "a header of another length": saved(padding=800),
    "a header that says who wrote it": saved(metadata={"format": "pt", "mergekit_version": "0.1.5"}),
    "an index of one file": indexed,
    "a shard for each tensor": lambda copy: folders.reshard(copy, len(folders.read_folder(copy).tensors)),
    "five shards": sharded(5),
    "shards by their usual names": sharded(3, "model-0000{}-of-00003.safetensors"),
    "defaults of old versions": config(**OLD_DEFAULTS),
    "how old versions sampled": config(**SAMPLING),
    "both of these": lambda copy: (config(**OLD_DEFAULTS)(copy), config(**SAMPLING)(copy)),
    "indented": as_text(indent=2),
    "keys by name": as_text(sort_keys=True),
    "letters beyond ASCII": lambda copy: (config(_name_or_path="Größe")(copy), as_text(ensure_ascii=False)(copy)),
    "no type of numbers, by null": lambda copy: (dropped("torch_dtype")(copy), config(dtype=None)(copy)),
    "all of a head is rotated": config(partial_rotary_factor=1.0),
    "no quantization": config(quantization_config=None),
    "no scaling, by an empty object": config(rope_scaling={}),
    "the width of heads, which follows": config(head_dim=32),
    "as many keys as there are": config(num_key_value_heads=4),
    "a commit": config(_commit_hash="abc", transformers_version="4.51.3"),
    "a loader's choice of attention": config(_attn_implementation="eager", attn_implementation="flash_attention_2"),
    "torch's name of a type": config(torch_dtype="torch.bfloat16"),
    "both names of a type": config(dtype="bfloat16"),
    "no cache": config(use_cache=False),
    "no bias, twice": config(attention_bias=False, mlp_bias=False),
    "one process": config(pretraining_tp=1),
    "numbers with a point": config(rope_theta=1e6, attention_dropout=0),
    "an end token once": config(eos_token_id=2),
    "how it was merged": file("mergekit_config.yml", "slices:\n- sources:\n  - model: a\n    layer_range: [0, 3]\n"),
    "what another program says of it": config(surgery={"layers": [0, 1, 2, 3, 4, 5, 6], "tool": {"name": "x"}}),
    "architectures of nothing": config(architectures=None),
    "architectures of none": config(architectures=[]),
    "a map of sizes": file("configuration.json", "{}"),
    "a GGUF next to it": file("model-Q8_0.gguf", "GGUF"),
    "the state of a training": file("training_args.bin", "x"),
    "a special token's file": file("special_tokens_map.json", json.dumps({"eos_token": {"content": "</s>", "lstrip": False}})),
    "an added token's file": file("added_tokens.json", '{"<s>": 3}'),
    "a lock": file(".gitattributes", "*.safetensors filter=lfs"),
    "a folder of old weights": lambda copy: shutil.copytree(copy, copy / "checkpoint-1"),
    "no version": dropped("transformers_version"),
}
