"""The contract of the fault library on every architecture that a fault claims: python tests/many_faults.py [NAME ...]

tests/test_faults.py tries two architectures of each fault. Exit status 1 if a fault does not keep its contract.
"""

import sys
import tempfile
from pathlib import Path

import test_faults as contract
import tiny

from refmodel.faults import library


def main() -> int:
    names, wrong, done = sys.argv[1:] or list(library.FAULTS), 0, 0
    with tempfile.TemporaryDirectory(prefix="refmodel-") as folder:
        for sample in library.samples():
            arch = sample.architecture
            base = contract.engine_of(tiny.build(Path(folder) / f"{arch}.gguf", arch, n_layer=3, trained=True, tied=False))
            healthy, routed = (dict(contract.passes(base, {}, route)) for route in (None, contract.ROUTE))
            for name in names:
                if arch in library.architectures(name) and not library.FAULTS[name].types:
                    done += 1
                    try:
                        fault = library.FAULTS[name]
                        theirs = routed if fault.when in contract.UNDER_A_ROUTE else healthy
                        contract.keeps_its_contract(fault, base, theirs)
                    except AssertionError as error:
                        wrong += 1
                        print(f"{name} on {arch}: {str(error).splitlines()[0] if str(error) else 'nothing differs'}", flush=True)
    print(f"{done} pairs of a fault and an architecture, {wrong} do not keep the contract")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
