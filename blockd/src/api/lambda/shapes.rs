//! What the Lambda API answers, as JSON.

use super::super::status;
use crate::functions::definition::{Definition, EventConfig};
use crate::functions::name::LATEST;
use crate::functions::registry::Entry;
use crate::functions::time::last_modified;
use crate::functions::{ErrorCode, ServiceError, ServiceSettings};
use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Header with the name of the exception.
pub(super) const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// A failure on its way to the client.
#[derive(Debug)]
pub(in crate::api) struct Failed(pub(in crate::api) ServiceError);

impl From<ServiceError> for Failed {
    fn from(error: ServiceError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let ServiceError { code, message, reason } = self.0;
        let (status, name, _) = status::of(code);
        // both spellings: the shapes of some exceptions have one, of some the other
        let mut body = json!({
            "Type": if status.is_server_error() { "Service" } else { "User" },
            "Message": message,
            "message": message,
        });
        if let Some(reason) = reason {
            body["Reason"] = reason.into();
        }
        if status.is_server_error() {
            tracing::warn!(error = message, name, "a request about functions failed");
        }
        let mut response = (status, [(ERROR_TYPE, name)], Json(body)).into_response();
        if code == ErrorCode::TooManyRequests {
            response.headers_mut().insert("retry-after", HeaderValue::from_static("1"));
        }
        response
    }
}

/// `FunctionConfiguration`.
pub(super) fn configuration(entry: &Entry, settings: &ServiceSettings) -> Value {
    let definition = &entry.definition;
    let digest = definition.digest.strip_prefix("sha256:").unwrap_or(&definition.digest);
    let mut body = json!({
        "FunctionName": definition.name,
        "FunctionArn": definition.arn,
        "Role": definition.role,
        "CodeSize": definition.image_bytes,
        "CodeSha256": digest,
        "Description": definition.description,
        "Timeout": definition.timeout_seconds,
        "MemorySize": definition.memory_mib.unwrap_or(settings.undeclared_memory_mib),
        "LastModified": last_modified(definition.last_modified_ms),
        "Version": LATEST,
        "TracingConfig": {"Mode": "PassThrough"},
        "RevisionId": definition.revision,
        "State": "Active",
        "LastUpdateStatus": "Successful",
        "PackageType": "Image",
        "Architectures": [definition.architecture],
        "EphemeralStorage": {"Size": definition.tmp_mib},
    });
    if let Err(error) = entry.function() {
        body["State"] = "Failed".into();
        body["StateReasonCode"] = "InvalidConfiguration".into();
        body["StateReason"] = error.message.into();
    }
    if !definition.environment.is_empty() {
        body["Environment"] = json!({"Variables": definition.environment});
    }
    if !definition.image_config.is_empty() {
        body["ImageConfigResponse"] = json!({"ImageConfig": definition.image_config});
    }
    if let Some(arn) = &definition.dead_letter {
        body["DeadLetterConfig"] = json!({"TargetArn": arn});
    }
    if let Some(most) = definition.declared_concurrency {
        let inner = json!({"PerExecutionEnvironmentMaxConcurrency": most});
        body["CapacityProviderConfig"] = json!({"LambdaManagedInstancesCapacityProviderConfig": inner});
    }
    body
}

/// The answer of `GetFunction`.
pub(super) fn function(entry: &Entry, settings: &ServiceSettings) -> Value {
    let definition = &entry.definition;
    let mut body = json!({
        "Configuration": configuration(entry, settings),
        "Code": {
            "RepositoryType": "ECR",
            "ImageUri": definition.image_uri,
            "ResolvedImageUri": definition.digest,
        },
    });
    if !definition.tags.is_empty() {
        body["Tags"] = json!(definition.tags);
    }
    if let Some(most) = definition.reserved_concurrency {
        body["Concurrency"] = json!({"ReservedConcurrentExecutions": most});
    }
    body
}

/// `FunctionEventInvokeConfig`.
pub(super) fn event_config(definition: &Definition, config: &EventConfig) -> Value {
    let destination =
        |arn: &Option<String>| arn.as_ref().map_or_else(|| json!({}), |arn| json!({"Destination": arn}));
    let mut body = json!({
        // seconds since 1970: a timestamp of the REST-JSON protocol
        "LastModified": config.last_modified_ms / 1000,
        "FunctionArn": format!("{}:{LATEST}", definition.arn),
        "DestinationConfig": {
            "OnSuccess": destination(&config.on_success), "OnFailure": destination(&config.on_failure),
        },
    });
    if let Some(attempts) = config.maximum_retry_attempts {
        body["MaximumRetryAttempts"] = attempts.into();
    }
    if let Some(seconds) = config.maximum_event_age_seconds {
        body["MaximumEventAgeInSeconds"] = seconds.into();
    }
    body
}

/// An answer with a body.
pub(super) fn answer(status: StatusCode, body: &Value) -> Response {
    (status, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::definition::tests::plain;
    use crate::functions::registry::Registry;
    use crate::functions::store::Contents;

    #[test]
    fn a_stored_function_that_cannot_run_is_shown_as_failed() {
        let shown = |runtime: &str| {
            let mut definition = plain("a", "f");
            definition.environment.insert("LANTERN_RUNTIME".into(), runtime.into());
            let stored = (("a".into(), "f".into()), serde_json::to_vec(&definition).unwrap());
            let contents = Contents { functions: vec![stored], ..Contents::default() };
            let registry = Registry::load(&contents, std::path::Path::new("x")).unwrap();
            configuration(&registry.get(&definition.key()).unwrap(), &ServiceSettings::new("x"))
        };
        assert_eq!(shown("java")["State"], "Active");
        let failed = shown("cobol");
        assert_eq!(
            (&failed["State"], &failed["StateReasonCode"]),
            (&json!("Failed"), &json!("InvalidConfiguration"))
        );
        assert!(failed["StateReason"].as_str().unwrap().contains("cobol"));
    }
}
