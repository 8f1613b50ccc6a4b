"""`refmodel oracle`: which llama.cpp is this?"""

from ..machine.threads import use
from ..report.console import err, out
from .options import AsJson, LlamaLib, LlamaPython


def oracle(llama_lib: LlamaLib = None, llama_python: LlamaPython = "", as_json: AsJson = False) -> None:
    """Say what a llama.cpp is: its commit, what it uses of the processor, and whose bits it computes, operation by operation."""
    use(None)
    from ..compare.probes import known
    from ..llamacpp.library import locate
    from ..report.progress import watching
    from ..report.tables import pairs

    library = locate(llama_lib, llama_python)
    with watching(err, "trying") as seen:
        found = known(library, seen)
    if as_json:
        out.json({"library": str(library.path), **found.as_json()})
        return
    unknown = ", ".join(f"{name} (NMSE at most {nmse:.0e})" for name, nmse in sorted(found.unknown.items()))
    ended = {"not tried": f"rearranged weights (repack=off was): with them it {found.ended}"} if found.ended else {}
    out.print(
        pairs(
            {
                "library": str(library.path),
                "commit": found.commit,
                "features": found.features,
                "computes as": f"{found.build.commit} compiled for {found.build.instructions.name}",
                "other bits": unknown or "none: every operation that was tried has the same bits as ours",
                **ended,
                **{f"not run, {architecture}": reason for architecture, reason in found.not_run.items()},
            }
        )
    )
