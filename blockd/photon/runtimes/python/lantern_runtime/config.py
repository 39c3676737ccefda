"""What the environment says to the runtime, parsed once into checked values.

Nothing else in the package reads the runtime's own variables. A wrong value is
a `ConfigError` whose text names the variable and what it may be.
"""

import os

MOST_PHOTONS = 1024
"""Most photons of one sandbox: one state byte each in the shared table, and
one process each; a larger declared concurrency is cut to this."""

FORK_MODES = ("slot", "invocation")


class ConfigError(Exception):
    """A variable of the environment is missing or makes no sense."""


class Config:
    """The checked settings; see `read`."""

    __slots__ = (
        "api", "log_address", "handler", "task_root", "most_photons", "per_invocation",
        "log_format", "log_level", "readable_memory", "immortal", "merge",
    )

    def for_rehearsal(self):
        """A copy that answers to nobody and reads its log from a given socket."""
        copy = Config()
        for name in self.__slots__:
            setattr(copy, name, getattr(self, name))
        copy.per_invocation = False
        copy.log_address = ("127.0.0.1", 0)
        return copy


def read(environ):
    """Builds a `Config` from a mapping such as `os.environ`."""
    config = Config()
    config.api = _address(environ, "AWS_LAMBDA_RUNTIME_API", required=True)
    config.log_address = _address(environ, "LANTERN_LOG_ADDRESS", required=False)
    config.handler = environ.get("_HANDLER", "")
    config.task_root = environ.get("LAMBDA_TASK_ROOT") or os.getcwd()
    config.most_photons = _count(environ, "AWS_LAMBDA_MAX_CONCURRENCY")
    mode = environ.get("LANTERN_PYTHON_FORK", "slot")
    if mode not in FORK_MODES:
        raise ConfigError("LANTERN_PYTHON_FORK is %r, must be one of %s" % (mode, ", ".join(FORK_MODES)))
    config.per_invocation = mode == "invocation"
    config.log_format = environ.get("AWS_LAMBDA_LOG_FORMAT", "Text").upper()
    config.log_level = _log_level(environ.get("AWS_LAMBDA_LOG_LEVEL", ""))
    config.readable_memory = environ.get("LANTERN_PYTHON_DUMPABLE") == "1"
    config.immortal = environ.get("LANTERN_PYTHON_IMMORTAL") != "0"
    config.merge = environ.get("LANTERN_PYTHON_MERGE") == "1"
    return config


def _address(environ, name, required):
    text = environ.get(name, "")
    if not text and not required:
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError("%s is %r, must be host:port" % (name, text))
    return (host, int(port))


def _count(environ, name):
    text = environ.get(name, "1")
    if not text.isdigit() or int(text) < 1:
        raise ConfigError("%s is %r, must be a count of at least 1" % (name, text))
    return min(int(text), MOST_PHOTONS)


def _log_level(text):
    level = text.upper()
    return "DEBUG" if level == "TRACE" else level
