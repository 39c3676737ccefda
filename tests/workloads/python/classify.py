"""Classifies a picture with a convolutional network that is loaded once, at import."""
import base64
import os
import time

import numpy
import onnxruntime

import gate

SIDE = 64

# One thread for one invocation: a pool of threads would not outlive a fork.
_options = onnxruntime.SessionOptions()
_options.intra_op_num_threads = 1
_options.inter_op_num_threads = 1
_session = onnxruntime.InferenceSession(
    os.environ.get("MODEL", "/var/task/model.onnx"), _options, providers=["CPUExecutionProvider"]
)


def handler(event, _context):
    """`image`: 64 x 64 grey bytes in base64."""
    started = time.monotonic()
    grey = numpy.frombuffer(base64.b64decode(event["image"]), numpy.uint8)
    picture = grey.reshape(1, 1, SIDE, SIDE).astype(numpy.float32) / 255
    (scores,) = _session.run(None, {"picture": picture})
    best = numpy.argsort(scores[0])[::-1][:5]
    gate.wait(event)
    return {
        "classes": [int(one) for one in best],
        "scores": [round(float(scores[0][one]), 4) for one in best],
        "ms": (time.monotonic() - started) * 1e3,
    }
