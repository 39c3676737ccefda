"""The root logger's handler that functions on AWS find in place.

Functions rely on it: `logging.getLogger().info(...)` appears in the log without
any set-up, with level, time and request id. Installed before the handler
module is imported. It writes to whatever `sys.stdout` is at that moment.
"""

import json
import logging
import sys
import time

_request = {"id": "", "tenant": None}

_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {
    "message", "asctime", "aws_request_id", "tenant_id", "taskName"}


def install(log_format, log_level):
    """`log_format` is "JSON" or "TEXT", `log_level` a level's name or ""."""
    logging.Formatter.converter = time.gmtime
    handler = _StdoutHandler()
    handler.setFormatter(_JsonFormatter() if log_format == "JSON" else logging.Formatter(
        "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n", "%Y-%m-%dT%H:%M:%S"))
    handler.addFilter(_add_request)
    root = logging.getLogger()
    root.addHandler(handler)
    if isinstance(logging.getLevelName(log_level), int):
        root.setLevel(log_level)


def set_request(request_id, tenant_id):
    """The invocation that this process works on from now on."""
    _request["id"] = request_id
    _request["tenant"] = tenant_id


def _add_request(record):
    record.aws_request_id = _request["id"]
    record.tenant_id = _request["tenant"]
    return True


class _StdoutHandler(logging.Handler):
    def emit(self, record):
        """Writes one formatted record, which ends its line itself."""
        try:
            sys.stdout.write(self.format(record))
        except Exception:
            self.handleError(record)


class _JsonFormatter(logging.Formatter):
    def format(self, record):
        """One line of JSON with the fields that AWS documents."""
        info = record.exc_info
        fields = {
            "timestamp": self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ"),
            "level": record.levelname,
            "message": record.msg if isinstance(record.msg, dict) and not record.args else record.getMessage(),
            "logger": record.name,
            "requestId": record.aws_request_id,
            "tenantId": record.tenant_id,
        }
        if info and info[0] is not None:
            import traceback

            fields["stackTrace"] = traceback.format_tb(info[2])
            fields["errorType"] = info[0].__name__
            fields["errorMessage"] = str(info[1])
            fields["location"] = "%s:%s:%s" % (record.pathname, record.funcName, record.lineno)
        for name, value in record.__dict__.items():
            if name not in _STANDARD:
                fields.setdefault(name, value)
        shown = {name: value for name, value in fields.items() if value is not None}
        return json.dumps(shown, ensure_ascii=False, default=str) + "\n"
