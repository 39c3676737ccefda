"""Posting the answer of one invocation: response, stream or error.

Invariant: the function's children and log are settled before the last byte of
the answer leaves (`photon.settle`), exactly once per invocation. A refusal of
the Runtime API (410: too late) is logged, never raised: the photon goes on.
"""

import sys

from . import payload

API = "/2018-06-01/runtime/"

ERROR_TYPE = "Lambda-Runtime-Function-Error-Type"
ERROR_BODY = "Lambda-Runtime-Function-Error-Body"
ERROR_CONTENT = "application/vnd.aws.lambda.error+json"


class Post:
    """The answer to `request_id`, posted through the photon's connection."""

    __slots__ = ("photon", "path")

    def __init__(self, photon, request_id):
        self.photon = photon
        self.path = API + "invocation/" + request_id

    def response(self, body, content_type):
        """Posts the handler's result."""
        self.photon.settle()
        status = self._call("/response", [("Content-Type", content_type)], body)
        if status == 413:
            self._error(payload.error("Response payload size (%d bytes) exceeded maximum allowed payload size" % len(body),
                                      "Function.ResponseSizeTooLarge", None, None))

    def error(self, fields):
        """Logs and posts an error."""
        print(payload.log_line(fields, self.photon.world.config.log_format))
        self.photon.settle()
        self._error(fields)

    def _error(self, fields):
        headers = [("Content-Type", ERROR_CONTENT), (ERROR_TYPE, header_value(fields["errorType"]))]
        self._call("/error", headers, payload.encode_error(fields))

    def _call(self, kind, headers, body):
        try:
            status = self.photon.connection.call("POST", self.path + kind, headers, body).status
        except OSError as error:
            _tell("%s%s: %s" % (self.path, kind, error))
            return 0
        if status not in (202, 410, 413):
            _tell("%s%s: status %d" % (self.path, kind, status))
        return status

    def stream(self, result, content_type):
        """Posts what the iterable `result` yields while it yields. An error before
        the first piece is raised, a later one travels in the trailers."""
        pieces = iter(result)
        first = next(pieces, b"")
        photon = self.photon
        headers = [("Content-Type", content_type), ("Lambda-Runtime-Function-Response-Mode", "streaming"),
                   ("Trailer", "%s, %s" % (ERROR_TYPE, ERROR_BODY))]
        try:
            photon.connection.begin_chunks("POST", self.path + "/response", headers)
            trailers = self._pieces(first, pieces)
            photon.settle()
            photon.connection.end_chunks(trailers)
            photon.connection.receive()
        except OSError as error:
            # The server stopped reading: the invocation is over for it.
            photon.connection.close()
            photon.settle()
            _tell("%s/response: %s" % (self.path, error))

    def _pieces(self, first, pieces):
        """Sends all pieces; returns the trailers: empty, or those of an error."""
        send = self.photon.connection.send_chunk
        send(_bytes(first))
        while True:
            try:
                piece = _bytes(next(pieces))
            except StopIteration:
                return ()
            except Exception as error:
                self.photon.stop_if_copy(1)
                return self._late(error)
            send(piece)

    def _late(self, error):
        import base64

        fields = payload.error_of(error, self.path.rpartition("/")[2])
        print(payload.log_line(fields, self.photon.world.config.log_format))
        body = base64.b64encode(payload.encode_error(fields)).decode("ascii")
        return ((ERROR_TYPE, header_value(fields["errorType"])), (ERROR_BODY, body))


def _bytes(piece):
    if isinstance(piece, str):
        return piece.encode("utf-8")
    if isinstance(piece, (bytes, bytearray, memoryview)):
        return bytes(piece)
    raise payload.Fault(payload.Fault.MARSHAL, "a stream yields bytes or str, not %s" % type(piece).__name__)


def header_value(text):
    """`text` as a header can carry it: printable ASCII, at most 256 bytes."""
    return "".join(c for c in text if 32 <= ord(c) < 127)[:256]


def _tell(what):
    print("lantern: an answer was not taken: POST %s" % what, file=sys.stderr)
