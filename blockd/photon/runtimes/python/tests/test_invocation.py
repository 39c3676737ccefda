"""Events, responses, errors, context, handler names and init errors, end to end."""

import base64
import json
import time
import unittest

from harness import RuntimeCase

ECHO = "def handler(event, context):\n    return event\n"


class Responses(RuntimeCase):
    def test_json_goes_in_and_out(self):
        self.start(ECHO)
        for event in (None, 0, 1.5, "é\u2028", [1, {"a": None}], {"deep": [[[]]]}, "x" * 100000):
            self.assertEqual(self.call(event), event)

    def test_bytes_are_returned_as_they_are(self):
        self.start("def handler(event, context):\n    return bytes(range(256)) * 100\n")
        result = self.api.invoke({}).result()
        self.assertEqual((result.kind, result.body), ("response", bytes(range(256)) * 100))
        self.assertEqual(result.headers["content-type"], "application/unknown")

    def test_decimals_are_numbers_with_all_digits(self):
        self.start("""
            from decimal import Decimal as D
            def handler(event, context):
                return {"a": D("1.10"), "b": [D("12345678901234567890.123456789")], "c": D("NaN"), "d": b"x", "e": D("1E+3")}
            """)
        result = self.api.invoke({}).result()
        self.assertEqual(result.body.decode(), '{"a": 1.10, "b": [12345678901234567890.123456789], "c": NaN, "d": "x", "e": 1E+3}')

    def test_other_content_is_passed_as_bytes(self):
        self.start("def handler(event, context):\n    return repr(event)\n")
        self.assertEqual(self.call(body=b"\xff\x00", Content_Type="application/octet-stream"), repr(b"\xff\x00"))

    def test_large_bodies(self):
        self.start(ECHO)
        event = {"data": "y" * (6 << 20)}
        self.assertEqual(self.call(event), event)

    def test_unicode_is_escaped_before_python_3_12_only(self):
        for environment, body in (("AWS_Lambda_python3.12", '"é"'), ("", '"\\u00e9"')):
            with self.subTest(environment):
                runtime = self.start(ECHO, AWS_EXECUTION_ENV=environment)
                self.assertEqual(self.api.invoke("é").result().body.decode(), body)
                runtime.stop()


class Errors(RuntimeCase):
    def test_what_cannot_be_json_is_a_marshal_error(self):
        self.start("""
            def handler(event, context):
                return {"object": object(), "generator": (i for i in ()), "set": {1}}[event]
            """)
        for event in ("object", "generator", "set"):
            error = self.error(event)
            self.assertEqual(error["errorType"], "Runtime.MarshalError")
            self.assertIn("Unable to marshal response", error["errorMessage"])

    def test_what_is_no_json_is_an_unmarshal_error(self):
        self.start(ECHO)
        self.assertEqual(self.error(body=b"{")["errorType"], "Runtime.UnmarshalError")
        self.assertEqual(self.call(1), 1)

    def test_exceptions_have_type_message_request_and_trace(self):
        self.start("""
            class Odd(Exception):
                pass
            def inner():
                raise Odd("no\u00e9")
            def handler(event, context):
                inner()
            """)
        invocation = self.api.invoke({})
        result = invocation.result()
        error = result.json()
        self.assertEqual((error["errorType"], error["errorMessage"]), ("Odd", "no\u00e9"))
        self.assertEqual(error["requestId"], invocation.request_id)
        self.assertEqual(len(error["stackTrace"]), 2, error["stackTrace"])
        self.assertIn("in handler", error["stackTrace"][0])
        self.assertIn("in inner", error["stackTrace"][1])
        self.assertEqual(result.headers["lambda-runtime-function-error-type"], "Odd")
        self.assertIn(b"[ERROR] Odd: no", result.log)
        self.assertIn(b"in inner", result.log)

    def test_an_exception_that_cannot_be_printed(self):
        self.start("""
            class Bad(Exception):
                def __str__(self):
                    raise ValueError
            def handler(event, context):
                raise Bad
            """)
        self.assertEqual(self.error({})["errorType"], "Bad")

    def test_a_late_answer_is_refused_and_the_photon_goes_on(self):
        self.start("""
            import os
            def handler(event, context):
                if event: open(event).read()
                return os.getpid()
            """)
        import os
        fifo = os.path.join(self.root, "fifo")
        os.mkfifo(fifo)
        invocation = self.api.invoke(fifo)
        pid = invocation.wait_taken()
        self.api.expire(invocation)
        with open(fifo, "w"):
            pass
        self.assertEqual(self.call(None), pid)
        self.assertEqual(self.api.late, 1)


class Context(RuntimeCase):
    def test_fields(self):
        self.start("""
            def handler(event, context):
                return {"request": context.aws_request_id, "arn": context.invoked_function_arn,
                        "name": context.function_name, "memory": context.memory_limit_in_mb,
                        "version": context.function_version, "group": context.log_group_name,
                        "stream": context.log_stream_name, "left": context.get_remaining_time_in_millis(),
                        "client": [context.client_context.custom, context.client_context.client.app_title],
                        "identity": context.identity.cognito_identity_id, "tenant": context.tenant_id,
                        "repr": repr(context)[:14]}
            """)
        invocation = self.api.invoke({}, deadline_ms=int(time.time() * 1000) + 30000,
                                     Lambda_Runtime_Client_Context=json.dumps({"custom": {"k": "v"}, "client": {"app_title": "t"}}),
                                     Lambda_Runtime_Cognito_Identity=json.dumps({"cognitoIdentityId": "who"}),
                                     Lambda_Runtime_Aws_Tenant_Id="blue")
        got = invocation.result().json()
        left = got.pop("left")
        self.assertTrue(0 < left <= 30000, left)
        self.assertEqual(got, {"request": invocation.request_id, "arn": "arn:aws:lambda:local:0:function:f", "name": "f",
                               "memory": "128", "version": "7", "group": "/group", "stream": "stream",
                               "client": [{"k": "v"}, "t"], "identity": "who", "tenant": "blue", "repr": "LambdaContext("})

    def test_nothing_given(self):
        self.start("""
            def handler(event, context):
                return [context.client_context, context.identity.cognito_identity_id, context.tenant_id,
                        context.get_remaining_time_in_millis()]
            """)
        self.assertEqual(self.call({}, deadline_ms=1000), [None, None, None, 0])

    def test_a_bad_client_context_is_an_error_of_the_invocation(self):
        self.start(ECHO)
        self.assertEqual(self.error({}, Lambda_Runtime_Client_Context="{")["errorType"], "Runtime.LambdaContextUnmarshalError")

    def test_the_trace_id_is_in_the_environment(self):
        self.start("import os\ndef handler(event, context):\n    return os.environ.get('_X_AMZN_TRACE_ID')\n")
        for trace in ("Root=1-a-b", "Root=1-c-d"):
            self.assertEqual(self.call({}, Lambda_Runtime_Trace_Id=trace), trace)


class Names(RuntimeCase):
    def test_modules_in_packages(self):
        files = [("pkg/__init__.py", ""), ("pkg/sub/__init__.py", ""), ("pkg/sub/mod.py", "from pkg.sub import other\nrun = other.run\n"),
                 ("pkg/sub/other.py", "def run(event, context):\n    return __name__\n")]
        for handler in ("pkg/sub/mod.run", "pkg.sub.mod.run"):
            with self.subTest(handler):
                runtime = self.start("", handler=handler, files=files)
                self.assertEqual(self.call({}), "pkg.sub.other")
                runtime.stop()

    def test_user_modules_come_before_the_runtime_s(self):
        self.start("import lantern_store, lantern_zygote, sys\ndef handler(event, context):\n    return [lantern_store.mine, sys.path[0]]\n",
                   files=[("lantern_store.py", "mine = 1\n"), ("lantern_zygote.py", "")])
        self.assertEqual(self.call({})[0], 1)


class InitErrors(RuntimeCase):
    def check(self, kind, message, source=ECHO, **more):
        runtime = self.start(source, wait=False, **more)
        self.assertEqual(runtime.wait(), 1)
        (headers, error), = self.api.init_errors
        self.assertEqual(error["errorType"], kind)
        self.assertEqual(headers["lambda-runtime-function-error-type"], kind)
        self.assertIn(message, error["errorMessage"])
        self.assertIn(kind, runtime.log())
        return error

    def test_no_such_module(self):
        self.check("Runtime.ImportModuleError", "Unable to import module 'nothing'", handler="nothing.handler")

    def test_an_import_within_fails(self):
        self.check("Runtime.ImportModuleError", "No module named 'absent_module'", "import absent_module\n")

    def test_no_such_function(self):
        self.check("Runtime.HandlerNotFound", "Handler 'nothing' missing on module 'app'", handler="app.nothing")

    def test_no_dot(self):
        self.check("Runtime.MalformedHandlerName", "Bad handler 'app'", handler="app")

    def test_no_handler(self):
        self.check("Runtime.MalformedHandlerName", "Bad handler ''", handler="")

    def test_built_in_module(self):
        self.check("Runtime.BuiltInModuleConflict", "Cannot use built-in module sys", handler="sys.exit")

    def test_syntax_error(self):
        error = self.check("Runtime.UserCodeSyntaxError", "Syntax error in module 'app'", "def handler(:\n")
        self.assertIn("Line 1", error["stackTrace"][0])

    def test_exception(self):
        error = self.check("KeyError", "lost", "{}['lost']\n")
        self.assertIn("app.py", error["stackTrace"][0])

    def test_exit(self):
        self.check("Runtime.ExitError", "exit status 3", "import sys\nsys.exit(3)\n")

    def test_bad_environment_is_told(self):
        runtime = self.start(ECHO, wait=False, mode="sideways")
        self.assertEqual(runtime.wait(), 2)
        self.assertIn("LANTERN_PYTHON_FORK", runtime.log())


class Streams(RuntimeCase):
    SOURCE = """
        from lantern_stream import streaming
        @streaming(content_type="text/plain")
        def handler(event, context):
            print("before")
            if event == "early":
                raise ValueError("early")
            yield "one "
            yield b""
            yield b"two"
            if event == "late":
                raise ValueError("late")
            if event == "odd":
                yield 3
            print("after")
        """

    def test_pieces_and_no_trailers(self):
        self.start(self.SOURCE)
        for _ in range(2):
            result = self.api.invoke("").result()
            self.assertEqual((result.kind, result.body, result.trailers), ("response", b"one two", {}))
            self.assertEqual(result.headers["lambda-runtime-function-response-mode"], "streaming")
            self.assertEqual(result.headers["content-type"], "text/plain")
            self.assertEqual(result.log, b"before\nafter\n")

    def test_an_early_error_is_an_error(self):
        self.start(self.SOURCE)
        self.assertEqual(self.error("early")["errorMessage"], "early")

    def test_a_late_error_is_in_the_trailers(self):
        self.start(self.SOURCE)
        for event, kind in (("late", "ValueError"), ("odd", "Runtime.MarshalError")):
            result = self.api.invoke(event).result()
            self.assertEqual((result.kind, result.body), ("response", b"one two"))
            self.assertEqual(result.trailers["lambda-runtime-function-error-type"], kind)
            body = json.loads(base64.b64decode(result.trailers["lambda-runtime-function-error-body"]))
            self.assertEqual(body["errorType"], kind)
            self.assertIn(kind.encode(), result.log)


if __name__ == "__main__":
    unittest.main()
