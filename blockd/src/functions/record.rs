//! An event as it is kept, and the record that destinations are told of what became of it.

use super::name::LATEST;
use super::retry::Condition;
use super::time::timestamp;
use bytes::Bytes;
use photon::function::FunctionKey;
use photon::invocation::Reply;
use serde::{Deserialize, Serialize};

/// Version of the stored form. Fields may be added with a default; else it counts up.
pub(super) const STORED_VERSION: u32 = 1;

/// Longest record with the function's answer in it, in bytes: the longest event. A longer one
/// goes without. The event itself is always whole, so that a record can be longer than this by
/// its head: some hundred bytes for each destination on the way.
const MAX_BYTES_WITH_ANSWER: usize = super::service::MAX_EVENT_BYTES;

/// An accepted event without its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EventRecord {
    pub(super) version: u32,
    #[serde(skip)]
    pub(super) id: u64,
    pub(super) tenant: String,
    pub(super) name: String,
    pub(super) request_id: String,
    pub(super) accepted_ms: u64,
    /// Attempts in which the function failed.
    pub(super) failures: u32,
    /// Attempts in which it was not reached. Not kept: they count from a restart on.
    #[serde(skip)]
    pub(super) refusals: u32,
    pub(super) due_ms: u64,
    pub(super) payload_bytes: u64,
    pub(super) client_context: Option<String>,
    pub(super) trace_id: Option<String>,
    /// Destinations on the way to this event, so that they cannot go round for ever.
    pub(super) hops: u32,
}

impl EventRecord {
    pub(super) fn key(&self) -> FunctionKey {
        FunctionKey { tenant: self.tenant.clone(), name: self.name.clone() }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers are always JSON")
    }
}

/// What became of an event.
#[derive(Debug, Clone)]
pub(super) struct Ending<'a> {
    pub(super) condition: Condition,
    pub(super) arn: &'a str,
    pub(super) reply: Option<&'a Reply>,
    pub(super) now_ms: u64,
}

/// A value for a place in a JSON text: as it is if it is JSON, else as a string.
fn embedded(bytes: &[u8]) -> Vec<u8> {
    if serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok() {
        return bytes.to_vec();
    }
    serde_json::to_vec(&String::from_utf8_lossy(bytes)).expect("a string is always JSON")
}

impl Ending<'_> {
    /// The record, shaped as on AWS; where it would be too long, without the answer.
    pub(super) fn record(&self, event: &EventRecord, payload: &[u8]) -> Bytes {
        let calls = event.failures + u32::from(self.condition == Condition::Success);
        let head = serde_json::json!({
            "requestId": event.request_id,
            "functionArn": format!("{}:{LATEST}", self.arn),
            "condition": self.condition,
            "approximateInvokeCount": calls,
        });
        let mut out = format!(
            r#"{{"version":"1.0","timestamp":"{}","requestContext":{head},"requestPayload":"#,
            timestamp(self.now_ms)
        )
        .into_bytes();
        out.extend(embedded(payload));
        if let Some(reply) = self.reply {
            let mut context = serde_json::json!({"statusCode": 200, "executedVersion": LATEST});
            if let Some(error) = &reply.function_error {
                context["functionError"] = error.as_str().into();
            }
            out.extend(format!(r#","responseContext":{context},"responsePayload":"#).into_bytes());
            let answer = embedded(&reply.payload);
            let fits = out.len() + answer.len() < MAX_BYTES_WITH_ANSWER;
            out.extend(if fits { answer } else { b"null".to_vec() });
        }
        out.push(b'}');
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn event() -> EventRecord {
        EventRecord {
            version: STORED_VERSION,
            id: 1,
            tenant: "a".into(),
            name: "f".into(),
            request_id: "r".into(),
            accepted_ms: 0,
            failures: 3,
            refusals: 0,
            due_ms: 0,
            payload_bytes: 0,
            client_context: None,
            trace_id: None,
            hops: 0,
        }
    }

    fn reply(payload: impl Into<Bytes>) -> Reply {
        Reply {
            payload: payload.into(),
            content_type: None,
            function_error: Some("Unhandled".into()),
            log_tail: Bytes::new(),
            duration: Duration::ZERO,
            cold: false,
        }
    }

    #[test]
    fn as_on_aws() {
        let failed = reply(&br#"{"errorMessage":"no"}"#[..]);
        let ending =
            Ending { condition: Condition::RetriesExhausted, arn: "arn", reply: Some(&failed), now_ms: 0 };
        let record = ending.record(&event(), br#"{"a":[1]}"#);
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        assert_eq!(
            record,
            serde_json::json!({
                "version": "1.0",
                "timestamp": "1970-01-01T00:00:00.000Z",
                "requestContext": {
                    "requestId": "r", "functionArn": "arn:$LATEST", "condition": "RetriesExhausted",
                    "approximateInvokeCount": 3,
                },
                "requestPayload": {"a": [1]},
                "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
                "responsePayload": {"errorMessage": "no"},
            })
        );
    }

    #[test]
    fn answers_that_are_no_json_or_too_long() {
        let told = |payload: &[u8], reply: &Reply| -> serde_json::Value {
            let ending =
                Ending { condition: Condition::EventAgeExceeded, arn: "arn", reply: Some(reply), now_ms: 0 };
            serde_json::from_slice(&ending.record(&event(), payload)).unwrap()
        };
        let parse = |reply: &Reply| told(b"1", reply);
        assert_eq!(parse(&reply(&b"\xff\""[..]))["responsePayload"], "\u{fffd}\"");
        assert!(parse(&reply(vec![b'1'; MAX_BYTES_WITH_ANSWER]))["responsePayload"].is_null());
        let longest = format!("\"{}\"", "x".repeat(MAX_BYTES_WITH_ANSWER - 2));
        let record = told(longest.as_bytes(), &reply(&b"1"[..]));
        assert_eq!(record["requestPayload"].as_str().unwrap().len(), longest.len() - 2, "the event is whole");
        assert!(record["responsePayload"].is_null());
    }
}
