//! Every limit of the Lambda API, at its edge.

use super::*;
use crate::functions::definition::tests::plain;
use serde_json::json;

fn apply(body: Value) -> Result<Definition, String> {
    let mut definition = plain("local", "own");
    let input: ConfigurationInput = serde_json::from_value(body).unwrap();
    input.apply(&mut definition).map_err(|error| error.message)?;
    Ok(definition)
}

#[test]
fn what_is_said_is_written() {
    let definition = apply(json!({
        "Role": "arn:aws:iam::000000000000:role/any", "Description": "d", "Timeout": 900, "MemorySize": 128,
        "EphemeralStorage": {"Size": 10240}, "Environment": {"Variables": {"AB": "c"}},
        "ImageConfig": {"EntryPoint": ["a"], "Command": ["b", "c"], "WorkingDirectory": "/d"},
        "DeadLetterConfig": {"TargetArn": "arn:aws:lantern:::dead-letters"},
        "CapacityProviderConfig": {"LambdaManagedInstancesCapacityProviderConfig":
            {"CapacityProviderArn": "x", "PerExecutionEnvironmentMaxConcurrency": 1024}},
        "TracingConfig": {"Mode": "Active"}, "VpcConfig": {"SubnetIds": [], "SecurityGroupIds": []},
        "Layers": [], "Unknown": 1,
    }))
    .unwrap();
    assert_eq!(
        (definition.timeout_seconds, definition.memory_mib, definition.tmp_mib),
        (900, Some(128), 10_240)
    );
    assert_eq!(definition.declared_concurrency, Some(1024));
    assert_eq!(definition.image_config.command, ["b", "c"]);
    assert_eq!(definition.dead_letter.as_deref(), Some("arn:aws:lantern:::dead-letters"));
}

#[test]
fn what_is_not_said_stays() {
    assert_eq!(apply(json!({})).unwrap(), plain("local", "own"));
    assert_eq!(apply(json!({"Timeout": null, "Environment": null})).unwrap(), plain("local", "own"));
}

#[test]
fn limits() {
    for (body, named) in [
        (json!({"Timeout": 0}), "timeout"),
        (json!({"Timeout": 901}), "timeout"),
        (json!({"Timeout": -1}), "timeout"),
        (json!({"Timeout": i64::MAX}), "timeout"),
        (json!({"MemorySize": 127}), "memorySize"),
        (json!({"MemorySize": 10_241}), "memorySize"),
        (json!({"EphemeralStorage": {"Size": 511}}), "ephemeralStorage"),
        (json!({"EphemeralStorage": {"Size": 10_241}}), "ephemeralStorage"),
        (json!({"Environment": {"Variables": {"AWS_REGION": "x"}}}), "AWS_REGION"),
        (json!({"ImageConfig": {"WorkingDirectory": "d"}}), "WorkingDirectory"),
        (json!({"ImageConfig": {"Command": vec!["x"; 1501]}}), "Command"),
        (json!({"ImageConfig": {"EntryPoint": ["a\0b"]}}), "EntryPoint"),
        (json!({"DeadLetterConfig": {"TargetArn": "arn:aws:sqs:us-east-1:000000000000:q"}}), "SQS"),
        (json!({"Runtime": "python3.12"}), "LANTERN_RUNTIME"),
        (json!({"Layers": ["x"]}), "Layers"),
        (json!({"VpcConfig": {"SubnetIds": ["x"]}}), "LANTERN_NETWORK"),
        (json!({"Description": "x".repeat(1025)}), "Description"),
    ] {
        let error = apply(body.clone()).unwrap_err();
        assert!(error.contains(named), "{body}: {error}");
    }
}

#[test]
fn code_is_an_image() {
    let create = |body: Value| {
        let input: CreateFunction = serde_json::from_value(body).unwrap();
        input.check().and_then(|()| input.code.image().map(String::from)).map_err(|error| error.message)
    };
    assert_eq!(create(json!({"FunctionName": "f", "Code": {"ImageUri": "app"}})), Ok("app".into()));
    for (body, named) in [
        (json!({"PackageType": "Zip", "Code": {"ImageUri": "app"}}), "PackageType"),
        (json!({"Code": {"ZipFile": "UEs="}}), "ImageUri"),
        (json!({"Code": {"ImageUri": ""}}), "ImageUri"),
        (json!({}), "ImageUri"),
        (json!({"Publish": true, "Code": {"ImageUri": "app"}}), "Publish"),
        (json!({"Tags": {"": "x"}, "Code": {"ImageUri": "app"}}), "tags"),
    ] {
        let error = create(body.clone()).unwrap_err();
        assert!(error.contains(named), "{body}: {error}");
    }
    assert!(check_architecture(Some(&["arm64".into()]), "x86_64").is_err());
    assert!(check_architecture(Some(&["x86_64".into()]), "x86_64").is_ok());
}

#[test]
fn event_configurations() {
    let own = plain("local", "own");
    let check = |body: Value, before: Option<&EventConfig>| {
        let input: EventConfigInput = serde_json::from_value(body).unwrap();
        input.check(&own, before, 5).map_err(|error| error.message)
    };
    let other = "arn:aws:lambda:us-east-1:000000000000:function:other";
    let first = check(
        json!({"MaximumRetryAttempts": 0, "DestinationConfig": {"OnFailure": {"Destination": other}}}),
        None,
    )
    .unwrap();
    assert_eq!((first.maximum_retry_attempts, first.maximum_event_age_seconds), (Some(0), None));
    let second = check(json!({"MaximumEventAgeInSeconds": 60}), Some(&first)).unwrap();
    assert_eq!(second.on_failure.as_deref(), Some(other));
    assert_eq!((second.maximum_retry_attempts, second.maximum_event_age_seconds), (Some(0), Some(60)));
    let third = check(json!({"DestinationConfig": {}}), Some(&second)).unwrap();
    assert_eq!(third.on_failure, None);
    for body in [
        json!({"MaximumRetryAttempts": 3}),
        json!({"MaximumEventAgeInSeconds": 59}),
        json!({"MaximumEventAgeInSeconds": 21_601}),
        json!({"DestinationConfig": {"OnSuccess": {"Destination": "arn:aws:sns:::t"}}}),
    ] {
        assert!(check(body.clone(), None).is_err(), "{body}");
    }
}
