"""A GGUF against the folder that it was made of, or a folder against its GGUF: what no other pair of files needs."""

from ...gguf.reader import GgufFile
from ...hf.checkpoint import checkpoint
from ...hf.folder import read_folder
from ...model.model import Model
from ..conversions import Faults
from ..values import relation
from .common import Differences, related
from .report import Check


def converted(file: GgufFile, model: Model) -> Differences:
    """What is known of the tensors of a copy that differ from its source's: by name of the fault if one of them is a folder."""
    ours, theirs = file.tensors, model.file.tensors
    folder = next((path for path in (model.path, file.path) if path.is_dir()), None)
    if folder is None or (file.path.is_dir() and model.path.is_dir()):
        return related(ours, theirs)
    faults = Faults(checkpoint(read_folder(folder))[1], folder == model.path, theirs)

    def explain(name: str, source: str) -> str:
        return faults.named(ours[name], source) or relation(ours[name], theirs[source], source)

    return Differences(explain, lambda name, source: faults.rounded(ours[name], source))


def check_beyond(check: Check, file: GgufFile, model: Model) -> None:
    """Check what only a folder can say: a finding if the copy and the source do not compute the same for it."""
    ours, theirs = (set(one.remarks) for one in (file, model.file))
    for remark in sorted(ours ^ theirs):
        check.compared += 1
        check.found("config.json", remark if remark in theirs else f"{remark}; the source does not")
