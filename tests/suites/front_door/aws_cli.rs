//! The stock AWS CLI.

use super::double::{DoorUnderTest, aws_cli};
use serde_json::{Value, json};

const ROLE: &str = "arn:aws:iam::000000000000:role/any";

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_made_shown_invoked_changed_and_removed() {
    if aws_cli().is_none() {
        return;
    }
    let door = DoorUnderTest::open().await;
    let made = door
        .aws_json(&[
            "create-function",
            "--function-name",
            "hello",
            "--package-type",
            "Image",
            "--code",
            "ImageUri=app",
            "--role",
            ROLE,
            "--timeout",
            "30",
            "--environment",
            "Variables={LANTERN_RUNTIME=python,GREETING=hi}",
            "--image-config",
            r#"{"Command":["app.handler"]}"#,
            "--tags",
            "team=a",
        ])
        .await;
    assert_eq!(made["FunctionArn"], "arn:aws:lambda:us-east-1:000000000000:function:hello");
    assert_eq!(
        (&made["State"], &made["Timeout"], &made["Version"]),
        (&json!("Active"), &json!(30), &json!("$LATEST"))
    );
    assert_eq!(made["ImageConfigResponse"]["ImageConfig"]["Command"], json!(["app.handler"]));
    door.aws_json(&["wait", "function-active-v2", "--function-name", "hello"]).await;
    let shown = door.aws_json(&["get-function", "--function-name", "hello"]).await;
    assert_eq!(shown["Code"]["ResolvedImageUri"], format!("sha256:{}", "1".repeat(64)));
    assert_eq!(shown["Tags"], json!({"team": "a"}));

    // from a file: version 1 of the tool takes payloads as they are, version 2 as base64
    std::fs::write(door.directory.path().join("in.json"), r#"{"a":"ä"}"#).unwrap();
    let invoked = door
        .aws_json(&[
            "invoke",
            "--function-name",
            made["FunctionArn"].as_str().unwrap(),
            "--payload",
            "fileb://in.json",
            "--log-type",
            "Tail",
            "out.json",
        ])
        .await;
    assert_eq!((&invoked["StatusCode"], &invoked["ExecutedVersion"]), (&json!(200), &json!("$LATEST")));
    assert!(invoked["LogResult"].as_str().unwrap().len() > 8);
    let out = std::fs::read(door.directory.path().join("out.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), json!({"a": "ä"}));

    let changed =
        door.aws_json(&["update-function-code", "--function-name", "hello", "--image-uri", "app2"]).await;
    assert_eq!(changed["CodeSha256"], "2".repeat(64));
    assert_ne!(changed["RevisionId"], made["RevisionId"]);
    door.aws_json(&["wait", "function-updated-v2", "--function-name", "hello"]).await;
    let changed = door
        .aws_json(&["update-function-configuration", "--function-name", "hello", "--memory-size", "512"])
        .await;
    assert_eq!((&changed["MemorySize"], &changed["Timeout"]), (&json!(512), &json!(30)));
    let listed = door.aws_json(&["list-functions"]).await;
    assert_eq!(listed["Functions"].as_array().unwrap().len(), 1);
    door.aws_json(&["delete-function", "--function-name", "hello"]).await;
    let gone = door.aws(&["get-function", "--function-name", "hello"]).await;
    assert!(String::from_utf8_lossy(&gone.stderr).contains("ResourceNotFoundException"));
    let retired = door.double.retired.lock().unwrap().clone();
    assert_eq!(retired.len(), 3, "two changes and a removal: {retired:?}");
    assert_eq!(retired[1].1.as_deref(), changed["RevisionId"].as_str());
    assert_eq!(retired[2].1, None, "a removal keeps nothing");
}
