"""Runtime hooks of AWS's package `snapshot_restore_py`, with a fork as the snapshot.

Hooks before the snapshot run once, in the zygote: what they make, all photons
share. Hooks after the restore run in every photon before it takes an invocation.
The package is the image's; it is never imported from here: who has registered
something has imported it. Order and meaning are those of awslambdaric.
"""

import sys


def _registered(getter):
    """The list of (function, args, kwargs); empty for a module of user code that
    only has the same name."""
    get = getattr(sys.modules.get("snapshot_restore_py"), getter, None)
    return get() if get is not None else []


def run_before_snapshot():
    """The last that was registered runs first. An exception ends it and is raised."""
    hooks = _registered("get_before_snapshot")
    while hooks:
        function, args, kwargs = hooks.pop()
        function(*args, **kwargs)


def any_after_restore():
    """Whether photons have hooks to run: asked once, in the zygote."""
    return bool(_registered("get_after_restore"))


def run_after_restore():
    """The first that was registered runs first. An exception ends it and is raised."""
    for function, args, kwargs in _registered("get_after_restore"):
        function(*args, **kwargs)
