"""Doing something to a module at the moment at which user code imports it.

Modules that few functions use are not loaded for everybody: each costs memory,
and some (`logging`, `threading`) make every fork dirtier.
"""

import sys


def when_imported(name, then):
    """Calls `then(module)` once: now if the module is loaded, else right after it
    is executed for the first time."""
    if name in sys.modules:
        then(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Watcher(name, then))


class _Watcher:
    """A finder that finds nothing new, but wraps the loader of one module."""

    def __init__(self, name, then):
        self.name = name
        self.then = then

    def find_spec(self, name, path=None, target=None):
        """See `importlib.abc.MetaPathFinder`."""
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path, target)
        load = getattr(getattr(spec, "loader", None), "exec_module", None)
        if load is None:
            return spec

        def exec_module(module):
            load(module)
            self.then(module)

        spec.loader.exec_module = exec_module
        return spec
