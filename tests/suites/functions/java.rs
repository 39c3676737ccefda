//! Java photons: our runtime in a JVM of the image, twenty invocations in it at once.

use super::{create, invoke, invoke_all, stats};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use tests::image::{self, Layer};
use tests::product::{World, run};

const COUNT: usize = 20;

const HANDLER: &str = r#"
package app;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import lantern.runtime.SharedStore;
import lantern.runtime.StoreClient;

public class Handler {
    /** A constant, so one for all photons: none goes on before twenty are here. */
    static final CountDownLatch ALL = new CountDownLatch(20);
    static int counter;
    static List<Object> seen = new ArrayList<>();

    public Map<String, Object> handle(Map<String, Object> event) throws Exception {
        counter++;
        seen.add(event.get("n"));
        ALL.countDown();
        if (!ALL.await(100, TimeUnit.SECONDS)) {
            throw new IllegalStateException("they did not meet");
        }
        counter++;
        String inProcess = SharedStore.instance().getOrInit("made", () -> "made by " + event.get("n"));
        try (StoreClient store = StoreClient.ofSandbox()) {
            byte[] made = store.getOrInit("made", () -> ("put by " + event.get("n")).getBytes(StandardCharsets.UTF_8), 60_000, 60_000);
            return Map.of("n", event.get("n"), "counter", counter, "seen", seen, "inProcess", inProcess,
                "stored", new String(made, StandardCharsets.UTF_8), "total", add(store), "pid", ProcessHandle.current().pid());
        }
    }

    private static int add(StoreClient store) throws Exception {
        while (true) {
            var now = store.get("total");
            int next = now.map(value -> Integer.parseInt(new String(value.bytes, StandardCharsets.UTF_8))).orElse(0) + 1;
            byte[] bytes = Integer.toString(next).getBytes(StandardCharsets.UTF_8);
            if (store.compareAndSwap("total", now.map(value -> value.version).orElse(null), bytes).isPresent()) {
                return next;
            }
        }
    }
}
"#;

/// A world with an image `f` of a small JRE and the handler, and our runtime's jars as they are
/// in this source tree; `None`, said loudly, where there is no JDK or no sandbox can run.
fn world() -> Option<World> {
    let jdk = ["javac", "jlink"].iter().all(|tool| Command::new(tool).arg("--version").output().is_ok());
    if !jdk || !Path::new("/usr/share/java/asm.jar").exists() {
        eprintln!("SKIPPED: needs a JDK and libasm-java");
        return None;
    }
    if !tests::sandboxes() {
        return None;
    }
    let world = World::new();
    let (root, jars) = (world.path("root"), world.path("jars"));
    // what our runtime needs of the JDK: a tenth of it
    let mut linking = Command::new("jlink")
        .args(["--add-modules", "java.base,java.instrument,java.logging,jdk.unsupported"])
        .args(["--strip-debug", "--no-man-pages", "--no-header-files", "--output"])
        .arg(root.join("jre"))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../blockd/photon/runtimes/java/build");
    run(Command::new(build).arg(&jars));
    let task = root.join("var/task");
    std::fs::create_dir_all(&task).unwrap();
    std::fs::write(world.path("Handler.java"), HANDLER).unwrap();
    let mut javac = Command::new("javac");
    javac.args(["--release", "17", "-cp"]).arg(jars.join("lantern-runtime.jar"));
    run(javac.arg("-d").arg(&task).arg(world.path("Handler.java")));
    assert!(linking.wait().unwrap().success());
    // the libraries of the JVM, where the loader looks for them
    let script = r#"cd "$1" && ldd jre/bin/java jre/lib/server/libjvm.so jre/lib/*.so | grep -o '[[:space:]]/[^ ]*' |
        grep -v "$1" | sort -u | xargs cp -L --parents -t ."#;
    run(Command::new("sh").args(["-ec", script, "sh"]).arg(&root));
    let config = json!({"Env": ["PATH=/jre/bin"], "Cmd": ["app.Handler::handle"], "WorkingDir": "/var/task"});
    image::layout(&world.path("image"), &[Layer::new().tree(&root).finish()], &config);
    world.push(&world.path("image"), "f");
    Some(world)
}

#[test]
fn privileged_java_photons_share_a_jvm_and_no_statics() {
    let Some(world) = world() else { return };
    let mut serve = world.command("blockd");
    serve.args(["serve", "--init-timeout", "120", "--java-runtime"]).arg(world.path("jars"));
    let _daemon = world.daemon_of(serve);
    let most = COUNT.to_string();
    create(&world, "f", &["--runtime", "java", "--max-concurrency", &most, "--timeout", "120"]);
    let events: Vec<Value> = (0..COUNT).map(|n| json!({"n": n})).collect();
    let answers = invoke_all(&world, "f", &events);
    let mut totals = std::collections::BTreeSet::new();
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!((&answer["n"], &answer["counter"]), (&json!(n), &json!(2)), "{answer}");
        assert_eq!(answer["seen"], json!([n]), "{answer}");
        for shared in ["inProcess", "stored", "pid"] {
            assert_eq!(answer[shared], answers[0][shared], "{shared} of all");
        }
        totals.insert(answer["total"].as_u64());
    }
    assert_eq!(totals, (1..=20).map(Some).collect(), "none is lost in the store");
    // and nothing of them is there for one that comes later
    let later = invoke(&world, "f", &json!({"n": 100}));
    assert_eq!((&later["counter"], &later["seen"]), (&json!(2), &json!([100])), "{later}");
    assert_eq!(later["pid"], answers[0]["pid"]);
    assert_eq!(stats(&world, "f")["starts"], 1);
}
