"""SHA-256 of an object in S3, as it arrives."""
import hashlib
import time

import gate
from s3 import client

PIECE = 64 * 1024


def handler(event, _context):
    """`bucket` and `key`."""
    started = time.monotonic()
    digest = hashlib.sha256()
    size = 0
    answer = client.get_object(Bucket=event["bucket"], Key=event["key"])
    for piece in answer["Body"].iter_chunks(PIECE):
        if size < answer["ContentLength"] // 2 <= size + len(piece):
            gate.wait(event)
        digest.update(piece)
        size += len(piece)
    return {"sha256": digest.hexdigest(), "bytes": size, "ms": (time.monotonic() - started) * 1e3}
