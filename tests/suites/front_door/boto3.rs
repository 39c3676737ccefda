//! boto3: its own exception classes for every refusal, and requests that somebody changed.

use super::double::{DoorUnderTest, boto3_python};
use std::time::Duration;

/// What every program begins with.
const BEGIN: &str = r#"
import base64, boto3, concurrent.futures, datetime, json, os, urllib.error, urllib.request
import botocore.auth, botocore.exceptions
from botocore.config import Config
from unittest import mock

ONCE = Config(retries={"max_attempts": 0, "mode": "standard"}, max_pool_connections=200)
client = boto3.client("lambda", config=ONCE)
E = client.exceptions

def refused(kind, call, **arguments):
    try:
        call(**arguments)
    except kind as error:
        return error.response
    raise AssertionError(f"{arguments} was not refused with {kind}")

def code(call, **arguments):
    response = refused(botocore.exceptions.ClientError, call, **arguments)
    assert response["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"]
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]

def create(name, **more):
    more.setdefault("Code", {"ImageUri": "app"})
    return client.create_function(FunctionName=name, Role="arn:aws:iam::000000000000:role/any", PackageType="Image", **more)

def invoke(name, payload, **more):
    return client.invoke(FunctionName=name, Payload=json.dumps(payload), **more)
"#;

async fn run(door: &DoorUnderTest, program: &str) {
    door.python(&format!("{BEGIN}\n{program}")).await;
}

/// A door that has served that program; none where there is no boto3.
async fn served(program: &str) -> Option<DoorUnderTest> {
    boto3_python()?;
    let door = DoorUnderTest::open().await;
    run(&door, program).await;
    Some(door)
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_and_refusals_have_the_shapes_of_aws() {
    served(
        r#"
made = create("f", EphemeralStorage={"Size": 1024}, Environment={"Variables": {"AB": "c"}})
assert made["ResponseMetadata"]["HTTPStatusCode"] == 201, made
assert made["EphemeralStorage"] == {"Size": 1024} and made["Architectures"] == ["x86_64"]
refused(E.ResourceConflictException, create, name="f")
refused(E.ResourceNotFoundException, client.get_function, FunctionName="g")
refused(E.ResourceNotFoundException, client.get_function, FunctionName="f", Qualifier="7")
refused(E.ResourceNotFoundException, client.invoke, FunctionName="g")
bad = refused(E.InvalidParameterValueException, create, name="g", Code={"ImageUri": "elsewhere/app:1"})
assert "flattener push" in bad["Error"]["Message"] and bad["Type"] == "User", bad
refused(E.InvalidParameterValueException, create, name="g", Timeout=901)
refused(E.InvalidParameterValueException, create, name="g", Environment={"Variables": {"AWS_REGION": "x"}})
refused(E.InvalidParameterValueException, create, name="g", Architectures=["arm64"])
sqs = "arn:aws:sqs:us-east-1:000000000000:q"
refused(E.InvalidParameterValueException, create, name="g", DeadLetterConfig={"TargetArn": sqs})
refused(E.ServiceException, create, name="g", Code={"ImageUri": "unavailable"})
refused(E.PreconditionFailedException, client.update_function_code, FunctionName="f", ImageUri="app2", RevisionId="x")
assert code(client.get_function, FunctionName="arn:aws:lambda:us-east-1:111111111111:function:f") == (403, "AccessDeniedException")
assert code(client.list_layers) == (404, "UnknownOperationException")

ok = invoke("f", {"a": 1}, LogType="Tail")
assert json.load(ok["Payload"]) == {"a": 1} and ok["ExecutedVersion"] == "$LATEST" and ok["StatusCode"] == 200
assert base64.b64decode(ok["LogResult"]).startswith(b"START") and "FunctionError" not in ok
assert ok["ResponseMetadata"]["HTTPHeaders"]["x-amzn-trace-id"].startswith("Root=1-")
failed = invoke("f", {"do": "fail"})
assert failed["FunctionError"] == "Unhandled" and json.load(failed["Payload"])["errorType"] == "Error"
assert invoke("f", 1, InvocationType="Event")["StatusCode"] == 202
assert invoke("f", 1, InvocationType="DryRun")["StatusCode"] == 204
context = base64.b64encode(b'{"custom":{"a":"b"}}').decode()
assert json.load(invoke("f", {"do": "context"}, ClientContext=context)["Payload"]) == {"custom": {"a": "b"}}
refused(E.InvalidRequestContentException, client.invoke, FunctionName="f", ClientContext="!")
refused(E.InvalidRequestContentException, client.invoke, FunctionName="f", Payload=b"nope")
throttled = refused(E.TooManyRequestsException, invoke, name="f", payload={"do": "throttle"})
assert throttled["Reason"] == "ConcurrentInvocationLimitExceeded", throttled
refused(E.ServiceException, invoke, name="f", payload={"do": "sandbox"})
assert code(invoke, name="f", payload={"do": "image"}) == (502, "InvalidImageException")
big = "x" * (6 << 20)
refused(E.RequestTooLargeException, invoke, name="f", payload=big)
refused(E.RequestTooLargeException, invoke, name="f", payload=big[: 1 << 20], InvocationType="Event")
assert len(json.load(invoke("f", big[:-2])["Payload"])) == (6 << 20) - 2
"#,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrency_events_tags_and_pages() {
    let Some(door) = served(
        r#"
for number in range(5):
    create(f"f{number}", Tags={"n": str(number)})
names = [f["FunctionName"] for page in client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2}) for f in page["Functions"]]
assert names == [f"f{number}" for number in range(5)], names
assert client.get_account_settings()["AccountUsage"]["FunctionCount"] == 5

assert "ReservedConcurrentExecutions" not in client.get_function_concurrency(FunctionName="f0")
client.put_function_concurrency(FunctionName="f0", ReservedConcurrentExecutions=0)
assert client.get_function_concurrency(FunctionName="f0")["ReservedConcurrentExecutions"] == 0
reserved = refused(E.TooManyRequestsException, invoke, name="f0", payload=1)
assert reserved["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded", reserved
client.delete_function_concurrency(FunctionName="f0")
assert invoke("f0", 1)["StatusCode"] == 200

arn = client.get_function(FunctionName="f1")["Configuration"]["FunctionArn"]
refused(E.ResourceNotFoundException, client.get_function_event_invoke_config, FunctionName="f0")
put = client.put_function_event_invoke_config(
    FunctionName="f0", MaximumRetryAttempts=1, DestinationConfig={"OnFailure": {"Destination": arn}})
assert put["FunctionArn"].endswith(":f0:$LATEST") and isinstance(put["LastModified"], datetime.datetime)
client.update_function_event_invoke_config(FunctionName="f0", MaximumEventAgeInSeconds=60)
got = client.get_function_event_invoke_config(FunctionName="f0", Qualifier="$LATEST")
assert (got["MaximumRetryAttempts"], got["MaximumEventAgeInSeconds"]) == (1, 60)
assert got["DestinationConfig"]["OnFailure"]["Destination"] == arn
refused(E.InvalidParameterValueException, client.put_function_event_invoke_config, FunctionName="f0", MaximumRetryAttempts=2, MaximumEventAgeInSeconds=60, DestinationConfig={"OnFailure": {"Destination": "arn:aws:sns:us-east-1:000000000000:t"}})
invoke("f0", {"do": "fail"}, InvocationType="Event")

client.tag_resource(Resource=arn, Tags={"a": "b", "c": "d"})
client.untag_resource(Resource=arn, TagKeys=["n", "c"])
assert client.list_tags(Resource=arn)["Tags"] == {"a": "b"}
"#,
    )
    .await
    else {
        return;
    };
    door.double.until("f1", 1).await;
    assert_eq!(door.double.count("f0"), 3, "one call, an event and its one retry");
    let told = door.double.invoked.lock().unwrap().last().unwrap().1.payload.clone();
    let record: serde_json::Value = serde_json::from_slice(&told).unwrap();
    assert_eq!(record["requestContext"]["approximateInvokeCount"], 2);
    run(&door, "client.delete_function_event_invoke_config(FunctionName='f0')").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_changed_requests_are_refused() {
    let Some(door) = served(
        r#"
create("f")

def other(**more):
    return boto3.client("lambda", config=ONCE, **more).get_function

assert code(other(aws_secret_access_key="wrong" * 8, aws_access_key_id="LANTERNTESTKEY"), FunctionName="f") == (403, "InvalidSignatureException")
assert code(other(aws_secret_access_key="wrong" * 8, aws_access_key_id="NOSUCHKEY"), FunctionName="f") == (403, "UnrecognizedClientException")
secret = os.environ["AWS_SECRET_ACCESS_KEY"]
token = other(aws_access_key_id="LANTERNTESTKEY", aws_secret_access_key=secret, aws_session_token="t")
assert code(token, FunctionName="f") == (403, "UnrecognizedClientException")
of_others = other(aws_access_key_id="OTHERKEY", aws_secret_access_key=secret + "-of-others")
assert code(of_others, FunctionName="f") == (404, "ResourceNotFoundException")

for hours in [-1, 1]:
    now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=hours)
    with mock.patch.object(botocore.auth, "get_current_datetime", lambda *a, **k: now):
        assert code(client.get_function, FunctionName="f") == (403, "InvalidSignatureException")

# whoever stands between
def changed(change):
    between = boto3.client("lambda", config=ONCE)
    between.meta.events.register("before-send.lambda.Invoke", change)
    return between.invoke

def body(request, **_):
    request.body = b'{"a":2}'

def kind(request, **_):
    request.headers["X-Amz-Invocation-Type"] = "DryRun"

def path(request, **_):
    request.url = request.url.replace("/f/", "/g/")

for change in [body, kind, path]:
    assert code(changed(change), FunctionName="f", Payload=b'{"a":1}') == (403, "InvalidSignatureException"), change

# replayed: the same goes, as on AWS; another body does not
seen = []
changed(lambda request, **_: seen.append(request))(FunctionName="f", Payload=b'{"a":1}')
headers = {name: value.decode() if isinstance(value, bytes) else value for name, value in seen[0].headers.items()}

def replay(body):
    headers["Content-Length"] = str(len(body))
    try:
        return urllib.request.urlopen(urllib.request.Request(seen[0].url, body, headers)).status
    except urllib.error.HTTPError as error:
        return error.code, error.headers["x-amzn-errortype"], json.load(error)["Type"]

assert replay(b'{"a":1}') == 200
assert replay(b'{"a":3}') == (403, "InvalidSignatureException", "User")
"#,
    )
    .await
    else {
        return;
    };
    let payloads: Vec<_> =
        door.double.invoked.lock().unwrap().iter().map(|(_, i)| i.payload.clone()).collect();
    assert_eq!(payloads, [r#"{"a":1}"#, r#"{"a":1}"#], "nothing else reached the function");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_at_once() {
    if boto3_python().is_none() {
        return;
    }
    let door = DoorUnderTest::with(|_, door| door.grace = Duration::from_secs(1)).await;
    run(
        &door,
        r#"
create("f")
with concurrent.futures.ThreadPoolExecutor(200) as pool:
    answers = list(pool.map(lambda n: json.load(invoke("f", {"n": n})["Payload"])["n"], range(400)))
assert answers == list(range(400))
"#,
    )
    .await;
}
