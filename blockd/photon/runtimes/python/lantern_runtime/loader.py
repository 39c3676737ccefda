"""Finds and imports the handler, once, in the zygote.

Names are those of awslambdaric: `package/module.function` or
`package.module.function`. Whatever goes wrong is a `Fault` with the AWS name,
or the exception of the user's module as it is.
"""

import importlib
import sys

from .payload import Fault


def load(handler, task_root):
    """The handler function. Puts `task_root` first on `sys.path`."""
    if task_root not in sys.path[:1]:
        sys.path.insert(0, task_root)
    module_name, dot, function_name = handler.rpartition(".")
    if not dot:
        raise Fault(Fault.MALFORMED_HANDLER, "Bad handler '%s': not enough values to unpack (expected 2, got 1)" % handler)
    module = _import(module_name)
    try:
        return getattr(module, function_name)
    except AttributeError:
        raise Fault(Fault.HANDLER_NOT_FOUND, "Handler '%s' missing on module '%s'" % (function_name, module_name)) from None


def _import(name):
    if name.split(".")[0] in sys.builtin_module_names:
        raise Fault(Fault.BUILT_IN, "Cannot use built-in module %s as a handler module" % name)
    try:
        return importlib.import_module(name.replace("/", "."))
    except ImportError as error:
        raise Fault(Fault.IMPORT, "Unable to import module '%s': %s" % (name, error)) from error
    except SyntaxError as error:
        trace = ['  File "%s" Line %s\n    %s' % (error.filename, error.lineno, error.text)]
        raise Fault(Fault.SYNTAX, "Syntax error in module '%s': %s" % (name, error), trace) from error
