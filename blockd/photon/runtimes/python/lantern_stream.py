"""Streaming responses: for handlers, `from lantern_stream import streaming`.

    @streaming(content_type="text/plain")
    def handler(event, context):
        yield "one "
        yield b"two"

What the handler yields (str or bytes) is sent as it comes. An error before the
first piece is an ordinary error; a later one ends the stream and travels in its
trailers. A generator from an unmarked handler is `Runtime.MarshalError`, as it
is with awslambdaric.
"""


def streaming(function=None, content_type="application/octet-stream"):
    """Marks a handler. Usable with and without arguments."""

    def mark(handler):
        handler.lantern_streaming = content_type
        return handler

    return mark if function is None else mark(function)
