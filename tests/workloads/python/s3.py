"""The S3 client of the workloads, made once, where the handler's module is imported."""
import os

import boto3
from botocore.config import Config

client = boto3.client(
    "s3",
    endpoint_url=os.environ.get("DATA_ENDPOINT"),
    aws_access_key_id=os.environ.get("DATA_KEY", "none"),
    aws_secret_access_key=os.environ.get("DATA_SECRET", "none"),
    region_name=os.environ.get("AWS_REGION", "us-east-1"),
    config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 2}),
)
