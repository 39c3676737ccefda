"""The root logger's handler that functions on AWS find in place.

Functions rely on it: `logging.getLogger().info(...)` appears in the log without
any set-up, with level, time and request id. It is installed at the moment at
which user code imports `logging`: who does not, saves the module, and every
photon the module's work after a fork. It writes to whatever `sys.stdout` is.
"""

import sys

from .imports import when_imported

_request = ["", None]  # request id and tenant id of the invocation in hand


def install(log_format, log_level):
    """`log_format` is "JSON" or "TEXT", `log_level` a level's name or ""."""
    when_imported("logging", lambda module: _install(module, log_format, log_level))


def set_request(request_id, tenant_id):
    """The invocation that this process works on from now on."""
    _request[:] = request_id, tenant_id


def _install(logging, log_format, log_level):
    import time

    class StdoutHandler(logging.Handler):
        """Writes one formatted record, which ends its line itself."""

        def emit(self, record):
            """See `logging.Handler`."""
            try:
                sys.stdout.write(self.format(record))
            except Exception:
                self.handleError(record)

    logging.Formatter.converter = time.gmtime
    handler = StdoutHandler()
    if log_format == "JSON":
        handler.setFormatter(_json_formatter(logging))
    else:
        handler.setFormatter(logging.Formatter(
            "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n", "%Y-%m-%dT%H:%M:%S"))
    handler.addFilter(_add_request)
    root = logging.getLogger()
    root.addHandler(handler)
    if isinstance(logging.getLevelName(log_level), int):
        root.setLevel(log_level)


def _add_request(record):
    record.aws_request_id, record.tenant_id = _request
    return True


def _json_formatter(logging):
    import json

    standard = set(logging.LogRecord("", 0, "", 0, "", None, None).__dict__)
    standard |= {"message", "asctime", "aws_request_id", "tenant_id", "taskName"}

    class JsonFormatter(logging.Formatter):
        """One line of JSON with the fields that AWS documents."""

        def format(self, record):
            """See `logging.Formatter`."""
            fields = {
                "timestamp": self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ"),
                "level": record.levelname,
                "message": record.msg if isinstance(record.msg, dict) and not record.args else record.getMessage(),
                "logger": record.name,
                "requestId": record.aws_request_id,
                "tenantId": record.tenant_id,
                **_exception_fields(record),
            }
            for name, value in record.__dict__.items():
                if name not in standard:
                    fields.setdefault(name, value)
            shown = {name: value for name, value in fields.items() if value is not None}
            return json.dumps(shown, ensure_ascii=False, default=str) + "\n"

    return JsonFormatter()


def _exception_fields(record):
    info = record.exc_info
    if not info or info[0] is None:
        return {}
    import traceback

    return {
        "stackTrace": traceback.format_tb(info[2]),
        "errorType": info[0].__name__,
        "errorMessage": str(info[1]),
        "location": "%s:%s:%s" % (record.pathname, record.funcName, record.lineno),
    }
