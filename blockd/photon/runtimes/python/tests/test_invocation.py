"""Events, responses, errors, context, handler names and init errors, end to end."""

import base64
import json
import os
import time
import unittest

from harness import SHARED_TMP, RuntimeCase, state_of

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

    def test_errors_of_any_size_are_answered(self):
        self.api.most_bytes = 6 << 20
        self.start("""
            def deep(left):
                if left: return deep(left - 1)
                raise ValueError("deep")
            def again(left, other):
                return other(left - 1, again) if left else deep(0)
            def another(left, other):
                return other(left - 1, another) if left else deep(0)
            def handler(event, context):
                if event == "trace": again(600, another)
                if event == "line": exec("def f():\\n  raise ValueError(%s)" % ("1+" * 5000 + "1"))
                if event == "name": raise type("E" * (7 << 20), (Exception,), {})
                raise ValueError(event["with"] * event["times"])
            """)
        for event in [{"with": c, "times": n} for c, n in (("x", 7 << 20), ("\u00e9", 2 << 20), ("\U0001f600", 32 * 1024), ("\0", 7 << 20))]:
            error = self.error(event)
            self.assertEqual(error["errorMessage"][:32 * 1024], event["with"] * 32 * 1024)
            self.assertLess(len(error["errorMessage"]), 33 * 1024)
        self.assertIn("E" * 200, self.error("name")["errorType"])
        trace = self.error("trace")["stackTrace"]
        self.assertIn("in handler", trace[0])
        self.assertIn("in deep", trace[-1])
        self.assertIn("more entries", trace[32])
        self.assertEqual((self.api.late, self.api.unknown), (0, 0))

    def test_a_photon_whose_answer_is_late_takes_no_further_invocation(self):
        """The kill for the old one is on its way, and would hit the new one."""
        runtime = self.start("""
            import os
            def handler(event, context):
                if event: open(event).read()
                return os.getpid()
            """, concurrency=2)
        fifo = os.path.join(self.root, "fifo")
        os.mkfifo(fifo)
        invocation = self.api.invoke(fifo)
        pid = invocation.wait_taken()
        self.until_waiting(1)
        self.api.expire(invocation)
        with open(fifo, "w"):
            pass
        self.until(lambda: state_of(pid) in (None, "Z"), "the late photon ended")
        self.assertEqual(self.api.late, 1)
        self.assertNotIn(pid, [self.call(None) for _ in range(3)])
        self.assertEqual(self.api.unknown, 0)
        self.assertEqual(runtime.log(), SHARED_TMP)

    def test_a_response_that_is_too_large_is_answered_once(self):
        self.api.most_bytes = 1000
        runtime = self.start("import os\ndef handler(event, context):\n    return [os.getpid(), 'x' * event]\n")
        first = self.call(1)[0]
        self.assertEqual(self.error(1000)["errorType"], "Function.ResponseSizeTooLarge")
        self.assertNotEqual(self.call(1)[0], first)
        self.assertEqual((self.api.late, self.api.unknown), (0, 0))
        self.assertNotIn("not taken", runtime.log())

    def test_an_answer_that_is_not_taken_is_left_to_the_zygote(self):
        runtime = self.start("import os\ndef handler(event, context):\n    return os.getpid()\n")
        self.api.status = 500
        invocation = self.api.invoke({})
        pid = invocation.wait_taken()
        self.until(lambda: "signal" in runtime.log() or "exit status" in runtime.log(), "the zygote answered")
        self.assertIn("response: status 500", runtime.log())
        self.api.status = None
        self.assertNotEqual(self.call({}), pid)

    def test_an_error_is_answered_without_standard_streams(self):
        self.start("import sys\ndef handler(event, context):\n    sys.stdout.close()\n    sys.stderr = None\n    raise KeyError(event)\n")
        for _ in range(2):
            self.assertEqual(self.error({})["errorType"], "KeyError")


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
            if event == "odd first":
                yield 3
            if event == "copy":
                import os
                child = os.fork()
                if child:
                    os.waitpid(child, 0)
            yield "one "
            yield b""
            yield b"two"
            if event == "late":
                raise ValueError("late")
            if event == "large":
                raise ValueError("\\U0001f600" * 100000)
            if event == "odd":
                yield 3
            if event.startswith("fifo:"):
                open(event[5:]).read()
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

    def test_a_first_piece_that_is_none_is_an_error(self):
        self.start(self.SOURCE)
        self.assertEqual(self.error("odd first")["errorType"], "Runtime.MarshalError")
        self.assertEqual(self.api.problems, [])  # no request within the body of another
        self.assertEqual(self.api.invoke("").result().body, b"one two")

    def test_a_forked_copy_does_not_stream(self):
        self.start(self.SOURCE)
        self.assertEqual(self.api.invoke("copy").result().body, b"one two")
        self.assertEqual(self.api.invoke("").result().body, b"one two")
        self.assertEqual((self.api.late, self.api.unknown), (0, 0))

    def test_a_late_error_is_in_the_trailers(self):
        self.start(self.SOURCE)
        for event, kind in (("late", "ValueError"), ("odd", "Runtime.MarshalError")):
            result = self.api.invoke(event).result()
            self.assertEqual((result.kind, result.body), ("response", b"one two"))
            self.assertEqual(result.trailers["lambda-runtime-function-error-type"], kind)
            body = json.loads(base64.b64decode(result.trailers["lambda-runtime-function-error-body"]))
            self.assertEqual(body["errorType"], kind)
            self.assertIn(kind.encode(), result.log)

    def test_a_large_late_error_fits_into_trailers(self):
        self.start(self.SOURCE)
        trailers = self.api.invoke("large").result().trailers
        self.assertLess(sum(len(name) + len(value) for name, value in trailers.items()), 12 * 1024)
        error = json.loads(base64.b64decode(trailers["lambda-runtime-function-error-body"]))
        self.assertEqual(error["errorType"], "ValueError")
        self.assertIn("\U0001f600" * 200, error["errorMessage"])

    def test_a_photon_whose_stream_is_late_takes_no_further_invocation(self):
        self.start(self.SOURCE)
        invocation = self.api.invoke("fifo:" + self.fifo())
        pid = invocation.wait_taken()
        self.api.expire(invocation)
        with open(os.path.join(self.root, "fifo"), "w"):
            pass
        self.until(lambda: state_of(pid) in (None, "Z"), "the late photon ended")
        self.assertEqual((self.api.late, self.api.unknown), (1, 0))

    def fifo(self):
        path = os.path.join(self.root, "fifo")
        os.mkfifo(path)
        return path


if __name__ == "__main__":
    unittest.main()
