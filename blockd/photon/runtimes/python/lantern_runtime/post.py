"""Posting the answer of one invocation: response, stream or error.

Invariant: the function's children and log are settled before the last byte of
the answer leaves (`photon.settle`). Nothing that the Runtime API does is raised,
but a photon whose answer it did not take (202) takes no further invocation: the
old one may be over its deadline, and the kill that is on its way for it would
hit the next.
"""

import sys

from . import payload

API = "/2018-06-01/runtime/"

ERROR_TYPE = "Lambda-Runtime-Function-Error-Type"
ERROR_BODY = "Lambda-Runtime-Function-Error-Body"
ERROR_CONTENT = "application/vnd.aws.lambda.error+json"

MOST_TRAILER_BYTES = 8 * 1024
"""JSON of an error in trailers, where it is a third longer. HTTP servers bound
trailers as they bound headers (hyper: 16 KiB) and drop the whole body beyond."""


class Post:
    """The answer to `request_id`, posted through the photon's connection."""

    __slots__ = ("photon", "path")

    def __init__(self, photon, request_id):
        self.photon = photon
        self.path = API + "invocation/" + request_id

    def response(self, body, content_type):
        """Posts the handler's result."""
        self.photon.settle()
        self._call("/response", [("Content-Type", content_type)], body)

    def error(self, fields):
        """Logs and posts an error."""
        _log(payload.log_line(fields, self.photon.world.config.log_format), sys.stdout)
        self.photon.settle()
        headers = [("Content-Type", ERROR_CONTENT), (ERROR_TYPE, header_value(fields["errorType"]))]
        self._call("/error", headers, payload.encode_error(fields))

    def _call(self, kind, headers, body):
        try:
            answer = self.photon.connection.call("POST", self.path + kind, headers, body)
        except OSError as error:
            return self._not_taken(kind, error)
        self._judge(kind, answer.status)

    def _judge(self, kind, status):
        """What the Runtime API's answer means for the photon."""
        if status == 202:
            return
        if status == 410 or (status == 413 and kind == "/response"):
            # The caller has an answer: of a deadline, or of a response that is too
            # large. Which of the two came first is not known here.
            self.photon.last = True
        else:
            self._not_taken(kind, "status %d" % status)

    def _not_taken(self, kind, problem):
        """Leaves the answer to the zygote: who else could try again later?"""
        self.photon.last = self.photon.unanswered = True
        _log("lantern: an answer was not taken: POST %s%s: %s" % (self.path, kind, problem), sys.stderr)

    def stream(self, result, content_type):
        """Posts what the iterable `result` yields while it yields. An error before
        the first piece is sent is raised, a later one travels in the trailers."""
        pieces = iter(result)
        first = _bytes(next(pieces, b""))
        photon = self.photon
        photon.stop_if_copy(0)
        headers = [("Content-Type", content_type), ("Lambda-Runtime-Function-Response-Mode", "streaming"),
                   ("Trailer", "%s, %s" % (ERROR_TYPE, ERROR_BODY))]
        photon.connection.refresh()
        try:
            photon.connection.begin_chunks("POST", self.path + "/response", headers)
            trailers = self._pieces(first, pieces)
            photon.settle()
            photon.connection.end_chunks(trailers)
            self._judge("/response", photon.connection.receive().status)
        except OSError as error:
            # The server stopped reading: the invocation is over for it, perhaps.
            photon.connection.close()
            photon.settle()
            self._not_taken("/response", error)

    def _pieces(self, first, pieces):
        """Sends all pieces that the server takes; returns the trailers: empty, or those
        of an error."""
        connection = self.photon.connection
        connection.send_chunk(first)
        while not connection.cut:
            try:
                piece = _bytes(next(pieces))
            except StopIteration:
                self.photon.stop_if_copy(0)
                return ()
            except Exception as error:
                self.photon.stop_if_copy(1)
                return self._late(error)
            self.photon.stop_if_copy(0)
            connection.send_chunk(piece)
        return ()  # refused: nobody would hear of more, and it may never end

    def _late(self, error):
        import base64

        fields = payload.error_of(error, self.path.rpartition("/")[2])
        _log(payload.log_line(fields, self.photon.world.config.log_format), sys.stdout)
        body = base64.b64encode(payload.encode_small_error(fields, MOST_TRAILER_BYTES)).decode("ascii")
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


def _log(text, stream):
    """A line of the log. User code may have closed or replaced the stream, which is
    no reason not to answer."""
    try:
        print(text, file=stream)
    except Exception:
        pass
