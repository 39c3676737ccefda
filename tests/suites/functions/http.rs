//! Functions of images that serve HTTP and know nothing of the Runtime API.

use super::{create, function, invoke, invoke_all, python_world, stats};
use serde_json::{Value, json};
use tests::product::text;

/// A server that is ready only when it was asked a third time.
const SERVER: &str = r#"
import http.server, json, os, threading, time

asked = 0
together = threading.Barrier(8, timeout=120)


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        global asked
        asked += 1
        right = self.path == "/ready" and asked > 2
        self.answer(200 if right else 503, b"")

    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        what = event.get("do")
        if asked < 3 or self.path != "/":
            return self.answer(500, b"not yet, or not here")
        if what == "fail":
            return self.answer(418, b"a teapot: " + b"t" * (64 << 10))
        if what == "hang":
            time.sleep(600)
        if what == "meet":
            together.wait()
        names = ["Content-Type", "Lambda-Runtime-Aws-Request-Id", "X-Amzn-Trace-Id"]
        told = {name: self.headers[name] for name in names}
        left = int(self.headers["Lambda-Runtime-Deadline-Ms"]) / 1000 - time.time()
        said = {"event": event, "told": told, "left": left, "asked": asked, "pid": os.getpid()}
        self.answer(201, json.dumps(said).encode())


http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Server).serve_forever()
"#;

#[test]
fn privileged_a_server_in_the_image_answers() {
    let Some(world) = python_world(SERVER) else { return };
    let _daemon = world.daemon();
    let options =
        ["--runtime", "http", "-e", "LANTERN_HTTP_READY_PATH=/ready", "-e", "LANTERN_HTTP_PORT=8123"];
    let entrypoint = ["--entrypoint", "python3", "--timeout", "120", "--", "app.py"];
    create(&world, "web", &[&options[..], &entrypoint].concat());
    // the first one already finds it ready
    let first = invoke(&world, "web", &json!({"n": 1}));
    assert_eq!((&first["event"], &first["asked"]), (&json!({"n": 1}), &json!(3)), "{first}");
    let told = &first["told"];
    assert_eq!(told["Content-Type"], "application/json");
    assert_eq!(told["Lambda-Runtime-Aws-Request-Id"].as_str().map(str::len), Some(36), "{told}");
    assert!(told["X-Amzn-Trace-Id"].as_str().is_some_and(|id| id.starts_with("Root=1-")), "{told}");
    assert!((1.0..=120.0).contains(&first["left"].as_f64().unwrap()), "{first}");
    // a status other than 2xx is a failure of that name, with as much of the body as is told
    let failed = invoke(&world, "web", &json!({"do": "fail"}));
    let message = failed["errorMessage"].as_str().unwrap();
    assert_eq!(failed["errorType"], "Http.418");
    assert!(message.starts_with("a teapot: ttt") && message.len() == 16 << 10, "{} bytes", message.len());
    // several at once in the one server: each waits for the others
    let events: Vec<Value> = (0..8).map(|n| json!({"do": "meet", "n": n})).collect();
    let answers = invoke_all(&world, "web", &events);
    for (event, answer) in events.iter().zip(&answers) {
        assert_eq!((&answer["event"], &answer["pid"]), (event, &first["pid"]), "{answer}");
    }
    let seen = stats(&world, "web");
    assert_eq!((&seen["starts"], &seen["errors"]), (&json!(1), &json!(1)), "{seen}");
}

#[test]
fn privileged_a_server_that_hangs_costs_one_invocation() {
    let Some(world) = python_world(SERVER) else { return };
    let _daemon = world.daemon();
    let options = ["--runtime", "http", "-e", "LANTERN_HTTP_READY_PATH=/ready", "--timeout", "4"];
    create(&world, "web", &[&options[..], &["--entrypoint", "python3", "--", "app.py"]].concat());
    let before = invoke(&world, "web", &json!({}));
    let hung = function(&world, &["invoke", "web", r#"{"do": "hang"}"#]);
    assert!(!hung.status.success() && text(&hung).contains("Sandbox.Timedout"), "{}", text(&hung));
    let after = invoke(&world, "web", &json!({}));
    assert_eq!(after["pid"], before["pid"], "the sandbox goes on: {after}");
    let seen = stats(&world, "web");
    let counts = (&seen["starts"], &seen["timeouts"], &seen["quarantined"]);
    assert_eq!(counts, (&json!(1), &json!(1), &json!(0)), "{seen}");
}
