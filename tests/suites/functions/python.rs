//! Python photons of one sandbox and the store that they share.

use super::{create, invoke_all, python_world, stats};
use serde_json::{Value, json};

const HANDLER: &str = r#"
import os, time
import lantern_store as store

imported_by = os.getpid()


def add(key):
    while True:
        value, version = store.get_versioned(key, b"0")
        if store.compare_and_swap(key, b"%d" % (int(value) + 1), version):
            return


def make():
    add("made")
    return os.urandom(8).hex().encode()


def put_too_much():
    try:
        store.put("huge", bytes(65 << 20))
    except store.TooLarge:
        return "refused"


def handler(event, context):
    value = store.get_or_init("value", make)
    with store.lease("turn"):
        # nobody comes between: without the lease some would be lost
        turns = int(store.get("turns", b"0"))
        time.sleep(0.01)
        store.put("turns", b"%d" % (turns + 1))
    add("here")
    while int(store.get("here")) < event["count"]:
        time.sleep(0.01)
    own = "own/%d ü" % event["n"]
    version = store.put(own, b"x", ttl_seconds=600)
    return {
        "n": event["n"],
        "huge": put_too_much() if event["n"] == 0 else "refused",
        "pid": os.getpid(),
        "parent": imported_by,
        "value": value.decode(),
        "counts": [int(store.get(key)) for key in ("made", "turns", "here")],
        "stale": store.compare_and_swap(own, b"y", '"0"'),
        "deleted": [store.delete(own, version), store.delete(own), store.get(own)],
    }
"#;

#[test]
fn privileged_python_photons_share_what_they_store() {
    let Some(world) = python_world(HANDLER) else { return };
    let _daemon = world.daemon();
    create(&world, "f", &["--runtime", "python", "--max-concurrency", "8", "--timeout", "120"]);
    let events: Vec<Value> = (0..8).map(|n| json!({"n": n, "count": 8})).collect();
    let answers = invoke_all(&world, "f", &events);
    let mut pids = std::collections::BTreeSet::new();
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!((&answer["n"], &answer["huge"]), (&json!(n), &json!("refused")), "{answer}");
        assert_eq!(answer["value"], answers[0]["value"], "one value for all");
        assert_eq!(answer["counts"], json!([1, 8, 8]), "made once, nothing lost: {answer}");
        assert_eq!(answer["stale"], Value::Null, "{answer}");
        assert_eq!(answer["deleted"], json!([true, false, null]), "{answer}");
        assert_eq!(answer["parent"], answers[0]["parent"], "imported once");
        pids.insert(answer["pid"].as_u64());
    }
    assert_eq!(pids.len(), 8, "a process each");
    assert_eq!(stats(&world, "f")["starts"], 1);
}
