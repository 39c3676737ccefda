"""The S3 client of the workloads, made once, where the handler's module is imported."""
import os

import boto3
from botocore.config import Config
from snapshot_restore_py import register_before_snapshot

client = boto3.client(
    "s3",
    endpoint_url=os.environ.get("DATA_ENDPOINT"),
    aws_access_key_id=os.environ.get("DATA_KEY", "none"),
    aws_secret_access_key=os.environ.get("DATA_SECRET", "none"),
    region_name=os.environ.get("AWS_REGION", "us-east-1"),
    config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 2}),
)


@register_before_snapshot
def warm():
    """Reads an object as `hash` does, if there is one to read, thirty times.

    A client's first request imports modules, reads the rules of endpoints and makes parsers and
    pools: megabytes, which photons share if they are there before the first fork. CPython
    specialises code while it runs, and counts the first thirty instances of a class: it has done
    with both then, and photons need not write there. Clients of other runtimes never call this.
    """
    bucket, key = os.environ.get("WARM_BUCKET"), os.environ.get("WARM_KEY")
    for _ in range(30 if bucket and key else 0):
        body = client.get_object(Bucket=bucket, Key=key)["Body"]
        for _ in body.iter_chunks(64 * 1024):
            pass
        body.close()
