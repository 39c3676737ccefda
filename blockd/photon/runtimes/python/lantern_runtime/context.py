"""The handler's second argument, attribute for attribute that of awslambdaric.

Made anew for every invocation from the headers of `next` and the environment.
"""

import os
import sys
import time


class Context:
    """See https://docs.aws.amazon.com/lambda/latest/dg/python-context.html."""

    def __init__(self, request_id, deadline_ms, arn, client_context, identity, tenant_id):
        """`deadline_ms` in milliseconds since 1970, or None: no deadline."""
        self.aws_request_id = request_id
        self.log_group_name = os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME")
        self.log_stream_name = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME")
        self.function_name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME")
        self.memory_limit_in_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        self.function_version = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION")
        self.invoked_function_arn = arn
        self.tenant_id = tenant_id
        self._trace = _trace_fields(client_context)
        self.client_context = _client_context(client_context)
        self.identity = CognitoIdentity()
        identity = identity if isinstance(identity, dict) else {}
        self.identity.cognito_identity_id = identity.get("cognitoIdentityId")
        self.identity.cognito_identity_pool_id = identity.get("cognitoIdentityPoolId")
        self._deadline_ms = deadline_ms

    def get_remaining_time_in_millis(self):
        """Milliseconds until the invocation is stopped, at least 0."""
        if self._deadline_ms is None:
            return 0
        return max(0, self._deadline_ms - int(time.time() * 1000))

    def w3c(self):
        """The W3C trace context of the invocation."""
        return dict(self._trace)

    def log(self, message):
        """Writes to the invocation's log, with no line end added."""
        sys.stdout.write(str(message))

    def __repr__(self):
        names = ("aws_request_id", "log_group_name", "log_stream_name", "function_name", "memory_limit_in_mb",
                 "function_version", "invoked_function_arn", "client_context", "identity", "tenant_id")
        return "LambdaContext([%s])" % ",".join("%s=%s" % (name, getattr(self, name)) for name in names)


class _Fields:
    __slots__ = ()

    def __repr__(self):
        shown = ",".join("%s=%s" % (name, getattr(self, name, None)) for name in self.__slots__)
        return "%s([%s])" % (type(self).__name__, shown)


class CognitoIdentity(_Fields):
    """Who called, for mobile applications."""

    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")


class Client(_Fields):
    """The calling mobile application."""

    __slots__ = ("installation_id", "app_title", "app_version_name", "app_version_code", "app_package_name")


class ClientContext(_Fields):
    """What the caller sent as client context."""

    __slots__ = ("custom", "env", "client")


def _fill(target, values):
    values = values if isinstance(values, dict) else {}
    for name in target.__slots__:
        setattr(target, name, values.get(name))
    return target


def _client_context(values):
    if values is None:
        return None
    context = _fill(ClientContext(), values)
    if context.client is not None:
        context.client = _fill(Client(), context.client)
    return context


def _trace_fields(client_context):
    """Takes the trace context out of the client context, as awslambdaric does."""
    if not isinstance(client_context, dict):
        return {}
    fields = client_context.pop("w3c", None)
    fields = fields if isinstance(fields, dict) else {}
    return {name: fields[name] for name in ("traceparent", "tracestate", "baggage") if isinstance(fields.get(name), str)}
