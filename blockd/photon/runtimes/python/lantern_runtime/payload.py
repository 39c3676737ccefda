"""Events and responses as JSON, and the shapes of errors, as awslambdaric has them.

`Fault` is an error of the runtime's own, with its AWS name; every other
exception is the function's and keeps the name of its class.
"""

import importlib
import json
import os

JSON = "application/json"
BYTES = "application/unknown"

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep

MOST_MESSAGE_CHARS = 32 * 1024
MOST_NAME_CHARS = 256
MOST_TRACE_ENTRIES = 64
MOST_ENTRY_CHARS = 1024
"""What an error may hold. The Runtime API takes 6 MiB and gives no answer to its
caller for more. A character needs up to 12 bytes in JSON, so an error of all
that is allowed here stays below 1.5 MiB."""

_NATIVE_UNICODE = {"AWS_Lambda_python3.%d" % minor for minor in range(12, 20)}


class Fault(Exception):
    """An error with an AWS name: Runtime.MarshalError and its like."""

    MARSHAL = "Runtime.MarshalError"
    UNMARSHAL = "Runtime.UnmarshalError"
    SYNTAX = "Runtime.UserCodeSyntaxError"
    HANDLER_NOT_FOUND = "Runtime.HandlerNotFound"
    IMPORT = "Runtime.ImportModuleError"
    BUILT_IN = "Runtime.BuiltInModuleConflict"
    MALFORMED_HANDLER = "Runtime.MalformedHandlerName"
    CONTEXT = "Runtime.LambdaContextUnmarshalError"
    EXIT = "Runtime.ExitError"
    BEFORE_SNAPSHOT = "Runtime.BeforeSnapshotError"

    def __init__(self, name, message, trace=None):
        """`trace` is a list of text lines, or None."""
        super().__init__(message)
        self.name = name
        self.message = message
        self.trace = trace


def decode_event(body, content_type):
    """The event: parsed JSON, or the bytes if they are declared something else."""
    if content_type is not None and content_type.partition(";")[0].strip().lower() != JSON:
        return body
    try:
        return json.loads(body)
    except Exception as error:
        raise Fault(Fault.UNMARSHAL, "Unable to unmarshal input: %s" % error) from None


def decode_header(text, what):
    """A JSON header such as the client context; None if it is absent."""
    if not text:
        return None
    try:
        return json.loads(text)
    except Exception as error:
        raise Fault(Fault.CONTEXT, "Unable to parse %s JSON: %s" % (what, error)) from None


class Encoder:
    """Turns responses into JSON: `Decimal` becomes a number of all its digits,
    `bytes` inside of a response become text."""

    def __init__(self, environ):
        """AWS writes non-ASCII as it is from Python 3.12 on, and as escapes before."""
        self._ascii = environ.get("AWS_EXECUTION_ENV") not in _NATIVE_UNICODE
        self._encode = json.JSONEncoder(ensure_ascii=self._ascii, default=_default).encode

    def response(self, value):
        """(body, content type) of a handler's result."""
        if isinstance(value, bytes):
            return value, BYTES
        try:
            return self._text(value).encode("utf-8"), JSON
        except Exception as error:
            raise Fault(Fault.MARSHAL, "Unable to marshal response: %s" % error) from None

    def _text(self, value):
        try:
            return self._encode(value)
        except _HasDecimal:
            return self._text_with_decimals(value)

    def _text_with_decimals(self, value):
        """The standard encoder can write no number that is not its own, so each
        `Decimal` goes through as a string behind a random mark, which no data of
        the function can contain, and then loses its quotes."""
        mark = os.urandom(16).hex() + ":"

        def default(item):
            if not _is_decimal(item):
                return _default(item)
            return float("nan") if item.is_nan() else mark + str(item)

        first, *rest = json.JSONEncoder(ensure_ascii=self._ascii, default=default).encode(value).split('"' + mark)
        return first + "".join(part.replace('"', "", 1) for part in rest)


class _HasDecimal(Exception):
    pass


def _is_decimal(item):
    # Without importing `decimal`: who has one has the module.
    return any(base.__name__ == "Decimal" and base.__module__ in ("decimal", "_pydecimal") for base in type(item).__mro__)


def _default(item):
    if _is_decimal(item):
        raise _HasDecimal
    if isinstance(item, bytes):
        return item.decode("utf-8")
    raise TypeError("Object of type %s is not JSON serializable" % type(item).__name__)


def error(message, name, trace, request_id):
    """The JSON object of an error, as a dict, cut to what the Runtime API takes."""
    return {"errorMessage": _cut(message or "", MOST_MESSAGE_CHARS), "errorType": _cut(name or "", MOST_NAME_CHARS),
            "requestId": request_id or "", "stackTrace": _cut_trace(trace or [])}


def _cut(text, most):
    """`text`, or its beginning and how much is left out."""
    return text if len(text) <= most else "%s... (%d more characters)" % (text[:most], len(text) - most)


def _cut_trace(trace):
    """The outermost and the innermost entries; those between them are counted."""
    left_out = len(trace) - MOST_TRACE_ENTRIES
    if left_out > 0:
        half = MOST_TRACE_ENTRIES // 2
        trace = [*trace[:half], "  ... (%d more entries)\n" % left_out, *trace[-half:]]
    return [_cut(entry, MOST_ENTRY_CHARS) for entry in trace]


def error_of(exception, request_id):
    """The error for what a handler or an import raised: without the runtime's own frames."""
    if isinstance(exception, Fault):
        return error(exception.message, exception.name, exception.trace, request_id)
    import traceback

    frames = traceback.extract_tb(exception.__traceback__)
    first = next((i for i, frame in enumerate(frames) if not _ours(frame.filename)), 0)
    trace = traceback.format_list(frames[first:])
    return error(_message(exception), type(exception).__name__, trace, request_id)


def init_error_of(exception, who):
    """As `error_of`, for what `who` raised when no invocation was in hand."""
    fields = error_of(exception, "")
    if isinstance(exception, SystemExit):
        return error("%s ended the process: exit status %s" % (who, exception.code), Fault.EXIT, fields["stackTrace"], "")
    return fields


def _ours(filename):
    return filename.startswith((_PACKAGE, "<frozen importlib")) or filename == importlib.__file__


def _message(exception):
    try:
        return str(exception)
    except Exception:
        return "<unprintable %s>" % type(exception).__name__


def encode_error(fields):
    """Bytes of an error's JSON. Never fails."""
    return json.dumps(fields, ensure_ascii=True, default=str).encode("ascii")


def encode_small_error(fields, most_bytes):
    """As `encode_error`, in at most `most_bytes`, which are 8 KiB or more: without
    the trace, and with less of the message, if need be."""
    body = encode_error(fields)
    for chars in (2048, 256):
        if len(body) <= most_bytes:
            break
        body = encode_error(dict(fields, stackTrace=[], errorMessage=fields["errorMessage"][:chars]))
    return body


def log_line(fields, log_format):
    """What the log says of an error."""
    if log_format == "JSON":
        import time

        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return json.dumps({"timestamp": now, "level": "ERROR", **fields})
    text = "[ERROR] %s: %s" % (fields["errorType"], fields["errorMessage"])
    if fields["stackTrace"]:
        text += "\nTraceback (most recent call last):\n" + "".join(
            line if line.endswith("\n") else line + "\n" for line in fields["stackTrace"])
    return text.rstrip("\n")
