//! `Invoke`.

use super::extract::Target;
use super::{Answer, Door};
use crate::functions::name::LATEST;
use crate::functions::{ErrorCode, ServiceError};
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use photon::invocation::{Invocation, Reply, RequestId};

/// Longest client context, in bytes of base64, as on AWS.
const MAX_CLIENT_CONTEXT: usize = 3583;
/// Longest trace id that is passed on, in bytes.
const MAX_TRACE_ID: usize = 256;

const EXECUTED_VERSION: HeaderName = HeaderName::from_static("x-amz-executed-version");
const FUNCTION_ERROR: HeaderName = HeaderName::from_static("x-amz-function-error");
const LOG_RESULT: HeaderName = HeaderName::from_static("x-amz-log-result");
const TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");

fn client_context(headers: &HeaderMap) -> Result<Option<String>, ServiceError> {
    let refused = |what: &str| {
        let message = format!("Client context must be a valid Base64-encoded JSON object: {what}");
        ServiceError::new(ErrorCode::InvalidRequestContent, message)
    };
    let Some(value) = headers.get("x-amz-client-context").filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    if value.len() > MAX_CLIENT_CONTEXT {
        return Err(refused("it is longer than 3583 bytes"));
    }
    let bytes = STANDARD.decode(value).map_err(|_| refused("it is no base64"))?;
    let text = String::from_utf8(bytes).map_err(|_| refused("it is no text"))?;
    let parsed: serde_json::Value = serde_json::from_str(&text).map_err(|_| refused("it is no JSON"))?;
    // it becomes a header again, for the function
    let line = parsed.is_object().then(|| parsed.to_string()).ok_or_else(|| refused("it is no object"))?;
    HeaderValue::from_str(&line).map_err(|_| refused("it has control characters"))?;
    Ok(Some(line))
}

/// The caller's trace id, or a new one that says not to sample.
fn trace_id(headers: &HeaderMap) -> String {
    let given = headers.get(TRACE_ID).and_then(|value| value.to_str().ok());
    if let Some(given) = given.filter(|given| (1..=MAX_TRACE_ID).contains(&given.len())) {
        return given.into();
    }
    let random = uuid::Uuid::new_v4().simple().to_string();
    let seconds = crate::functions::time::now_ms() / 1000;
    let (root, parent) = (&random[..24], &random[16..]);
    format!("Root=1-{seconds:08x}-{root};Parent={parent};Sampled=0")
}

fn header_is(headers: &HeaderMap, name: &str, value: &str) -> bool {
    headers.get(name).is_some_and(|given| given.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
}

pub(super) async fn invoke(
    State(door): Door,
    target: Target,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    payload: Bytes,
) -> Answer {
    let entry = target.entry(&door)?;
    let trace_id = trace_id(&headers);
    let traced = HeaderValue::from_str(&trace_id);
    let client_context = client_context(&headers)?;
    let invocation = Invocation { request_id, payload, client_context, trace_id: Some(trace_id) };
    let kind = headers.get("x-amz-invocation-type").map(HeaderValue::as_bytes);
    let mut response = match kind {
        None | Some(b"RequestResponse" | b"") => {
            let reply = door.call(&entry, invocation).await?;
            replied(reply, header_is(&headers, "x-amz-log-type", "Tail"))
        }
        Some(b"Event") => {
            door.send(&entry, invocation).await?;
            StatusCode::ACCEPTED.into_response()
        }
        Some(b"DryRun") => StatusCode::NO_CONTENT.into_response(),
        Some(_) => {
            let message = "InvocationType must be RequestResponse, Event or DryRun";
            return Err(ServiceError::invalid(message).into());
        }
    };
    response.headers_mut().insert(EXECUTED_VERSION, HeaderValue::from_static(LATEST));
    if let Ok(traced) = traced {
        response.headers_mut().insert(TRACE_ID, traced);
    }
    Ok(response)
}

fn replied(reply: Reply, with_log: bool) -> Response {
    let mut response = Response::new(Body::from(reply.payload));
    let headers = response.headers_mut();
    // as AWS: whatever the runtime said of its answer
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(error) = reply.function_error.as_deref() {
        let value = HeaderValue::from_str(error).unwrap_or(HeaderValue::from_static("Unhandled"));
        headers.insert(FUNCTION_ERROR, value);
    }
    if with_log && let Ok(value) = HeaderValue::from_str(&STANDARD.encode(&reply.log_tail)) {
        headers.insert(LOG_RESULT, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_contexts() {
        let check = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-amz-client-context", HeaderValue::from_str(text).unwrap());
            client_context(&headers).map_err(|error| error.code)
        };
        let encoded = |text: &str| STANDARD.encode(text);
        assert_eq!(check(""), Ok(None));
        assert_eq!(check(&encoded("{\"custom\":\n{\"a\":1}}")), Ok(Some("{\"custom\":{\"a\":1}}".into())));
        for bad in
            ["{}", &encoded("[1]"), &encoded("nope"), &"e30=".repeat(1000), &encoded("{\"a\":\"\u{7f}\"}")]
        {
            assert_eq!(check(bad), Err(ErrorCode::InvalidRequestContent), "{bad}");
        }
    }

    #[test]
    fn trace_ids() {
        let mut headers = HeaderMap::new();
        let made = trace_id(&headers);
        assert!(made.starts_with("Root=1-") && made.ends_with(";Sampled=0"), "{made}");
        headers.insert(TRACE_ID, HeaderValue::from_static("Root=1-5759e988-bd862e3fe1be46a994272793"));
        assert_eq!(trace_id(&headers), "Root=1-5759e988-bd862e3fe1be46a994272793");
        headers.insert(TRACE_ID, HeaderValue::from_str(&"x".repeat(300)).unwrap());
        assert!(trace_id(&headers).len() < 100);
    }
}
