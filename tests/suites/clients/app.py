"""A handler for tests/suites/clients.rs; app.mjs and tests/clients/rust do the same."""

import os
import time

if os.environ.get("FAIL_INIT"):
    raise RuntimeError("no such luck")


def names(directory):
    return len(os.listdir(directory))


def note(directory, name):
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, name)
    open(path, "w").close()
    return path


def meet(event, request_id):
    """Waits until `count` invocations are here, or `total` have been."""
    note("/tmp/came", request_id)
    here = note("/tmp/here", request_id)
    most = 0
    while True:
        most = max(most, names("/tmp/here"))
        if most >= event["count"] or names("/tmp/came") >= event["total"]:
            break
        time.sleep(0.005)
    os.remove(here)
    return {"most": most, "pid": os.getpid()}


def handler(event, context):
    what = event.get("do")
    if what == "fail":
        raise ValueError("sorry")
    if what == "exit":
        os._exit(3)
    if what == "told":
        client = context.client_context
        return {
            "request_id": context.aws_request_id,
            "arn": context.invoked_function_arn,
            "remaining_ms": context.get_remaining_time_in_millis(),
            "client": client.custom if client else None,
            "trace": os.environ.get("_X_AMZN_TRACE_ID"),
        }
    if what == "meet":
        return meet(event, context.aws_request_id)
    if what == "large":
        return "x" * (20 << 20)
    if what == "await":
        # over the deadline, until the test lets go; then late
        while not os.path.exists(event["file"]):
            time.sleep(0.005)
        return "late"
    return {"echo": event, "pid": os.getpid()}
