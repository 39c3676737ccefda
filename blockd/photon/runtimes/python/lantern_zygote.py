"""First process of a Python photon sandbox: `python3 /opt/lantern/python/lantern_zygote.py`.

Only the start lives here, because a script is compiled anew at every start
while the modules of the package `lantern_runtime` may come from a byte-code
cache. Python puts this folder first on `sys.path`; user code must never find
our modules before its own, so the folder moves to the end, where the helpers
`lantern_store` and `lantern_stream` stay importable.
"""

import os
import sys


def main():
    """Runs the zygote; returns the exit status of the sandbox's first process."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [here] + [path for path in sys.path if path != here]
    from lantern_runtime import zygote

    sys.path.append(sys.path.pop(0))
    return zygote.main()


if __name__ == "__main__":
    sys.exit(main())
