//! The operations that make, show, change and remove functions.

use super::shapes::{Failed, answer, configuration, event_config, function};
use super::{Answer, Door};
use crate::functions::input::{CodeInput, ConfigurationInput, CreateFunction, EventConfigInput};
use crate::functions::{Caller, ErrorCode, ServiceError};
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, Query, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::BTreeMap;

/// Functions on a page where the request does not say, and at most.
const PAGE: usize = 50;

/// Reads a body; an empty one is `{}`.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failed> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| {
        let message = format!("Could not parse request body into json: {error}");
        Failed(ServiceError::new(ErrorCode::InvalidRequestContent, message))
    })
}

/// What most operations take from the query.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Qualified {
    qualifier: Option<String>,
}

impl Qualified {
    pub(super) fn as_deref(&self) -> Option<&str> {
        self.qualifier.as_deref()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Paging {
    marker: Option<String>,
    max_items: Option<String>,
}

pub(super) async fn create(State(door): Door, Extension(caller): Extension<Caller>, body: Bytes) -> Answer {
    let input: CreateFunction = parse(&body)?;
    let entry = door.create(&caller, input).await?;
    Ok(answer(StatusCode::CREATED, &configuration(&entry, door.settings())))
}

pub(super) async fn get(
    State(door): Door,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(query): Query<Qualified>,
) -> Answer {
    let entry = door.get(&caller, &name, query.as_deref())?;
    Ok(answer(StatusCode::OK, &function(&entry, door.settings())))
}

pub(super) async fn get_configuration(
    State(door): Door,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(query): Query<Qualified>,
) -> Answer {
    let entry = door.get(&caller, &name, query.as_deref())?;
    Ok(answer(StatusCode::OK, &configuration(&entry, door.settings())))
}

pub(super) async fn list(
    State(door): Door,
    Extension(caller): Extension<Caller>,
    Query(query): Query<Paging>,
) -> Answer {
    let bad = |what: &str| ServiceError::invalid(format!("{what} is not one that this API gave out"));
    let most = match query.max_items.as_deref() {
        None => PAGE,
        Some(text) => {
            let asked = text.parse().ok().filter(|most: &usize| (1..=10_000).contains(most));
            asked.ok_or_else(|| ServiceError::invalid("MaxItems must be 1 to 10000"))?.min(PAGE)
        }
    };
    let after = match query.marker.as_deref() {
        None | Some("") => String::new(),
        Some(marker) => {
            let bytes = URL_SAFE_NO_PAD.decode(marker).map_err(|_| bad("Marker"))?;
            String::from_utf8(bytes).map_err(|_| bad("Marker"))?
        }
    };
    let (page, more) = door.list(&caller, &after, most);
    let shown: Vec<_> = page.iter().map(|entry| configuration(entry, door.settings())).collect();
    let mut body = json!({"Functions": shown});
    if let (true, Some(last)) = (more, page.last()) {
        body["NextMarker"] = URL_SAFE_NO_PAD.encode(&last.definition.name).into();
    }
    Ok(answer(StatusCode::OK, &body))
}

pub(super) async fn update_code(
    State(door): Door,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer {
    let input: CodeInput = parse(&body)?;
    let entry = door.update_code(&caller, &name, input).await?;
    Ok(answer(StatusCode::OK, &configuration(&entry, door.settings())))
}

pub(super) async fn update_configuration(
    State(door): Door,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer {
    let input: ConfigurationInput = parse(&body)?;
    let entry = door.update_configuration(&caller, &name, input).await?;
    Ok(answer(StatusCode::OK, &configuration(&entry, door.settings())))
}

pub(super) async fn delete(
    State(door): Door,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(query): Query<Qualified>,
) -> Answer {
    door.delete(&caller, &name, query.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ConcurrencyInput {
    reserved_concurrent_executions: i64,
}

pub(super) async fn put_concurrency(
    State(door): Door,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer {
    let input: ConcurrencyInput = parse(&body)?;
    let most = u32::try_from(input.reserved_concurrent_executions)
        .map_err(|_| ServiceError::invalid("ReservedConcurrentExecutions must be 0 or more"))?;
    door.set_concurrency(&caller, &name, Some(most)).await?;
    Ok(answer(StatusCode::OK, &json!({"ReservedConcurrentExecutions": most})))
}

pub(super) async fn get_concurrency(
    State(door): Door,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer {
    let entry = door.get(&caller, &name, None)?;
    let most = entry.definition.reserved_concurrency;
    let body = most.map_or_else(|| json!({}), |most| json!({"ReservedConcurrentExecutions": most}));
    Ok(answer(StatusCode::OK, &body))
}

pub(super) async fn delete_concurrency(
    State(door): Door,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Answer {
    door.set_concurrency(&caller, &name, None).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn put_event_config(
    State(door): Door,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(query): Query<Qualified>,
    body: Bytes,
) -> Answer {
    let input: EventConfigInput = parse(&body)?;
    door.set_event_config(&caller, (&name, query.as_deref()), input, false).await?;
    shown_event_config(&door.event_config(&caller, &name, None)?)
}

pub(super) async fn update_event_config(
    State(door): Door,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(query): Query<Qualified>,
    body: Bytes,
) -> Answer {
    let input: EventConfigInput = parse(&body)?;
    door.event_config(&caller, &name, query.as_deref())?;
    door.set_event_config(&caller, (&name, query.as_deref()), input, true).await?;
    shown_event_config(&door.event_config(&caller, &name, None)?)
}

pub(super) async fn get_event_config(
    State(door): Door,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(query): Query<Qualified>,
) -> Answer {
    shown_event_config(&door.event_config(&caller, &name, query.as_deref())?)
}

type Configured =
    (std::sync::Arc<crate::functions::registry::Entry>, crate::functions::definition::EventConfig);

fn shown_event_config((entry, config): &Configured) -> Answer {
    Ok(answer(StatusCode::OK, &event_config(&entry.definition, config)))
}

pub(super) async fn delete_event_config(
    State(door): Door,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(query): Query<Qualified>,
) -> Answer {
    door.remove_event_config(&caller, &name, query.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn list_tags(
    State(door): Door,
    Extension(caller): Extension<Caller>,
    Path(arn): Path<String>,
) -> Answer {
    let entry = door.get(&caller, &arn, None)?;
    Ok(answer(StatusCode::OK, &json!({"Tags": entry.definition.tags})))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TagsInput {
    tags: BTreeMap<String, String>,
}

pub(super) async fn tag(
    State(door): Door,
    Extension(caller): Extension<Caller>,
    Path(arn): Path<String>,
    body: Bytes,
) -> Answer {
    let input: TagsInput = parse(&body)?;
    door.change_tags(&caller, &arn, input.tags, Vec::new()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn untag(
    State(door): Door,
    Extension(caller): Extension<Caller>,
    Path(arn): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    // `tagKeys=a&tagKeys=b`: a list that a struct cannot hold
    let uri = format!("/?{}", query.unwrap_or_default()).parse();
    let pairs = uri.ok().and_then(|uri| Query::<Vec<(String, String)>>::try_from_uri(&uri).ok());
    let pairs = pairs.map(|Query(pairs)| pairs).unwrap_or_default();
    let keys = pairs.into_iter().filter(|(name, _)| name == "tagKeys").map(|(_, key)| key).collect();
    door.change_tags(&caller, &arn, BTreeMap::new(), keys).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What AWS gives an account; this worker's limits are by measurement.
const CONCURRENT_EXECUTIONS: u32 = 1000;

pub(super) async fn account_settings(State(door): Door, Extension(caller): Extension<Caller>) -> Response {
    let (functions, bytes) = door.usage(&caller);
    let reserved: u32 = door
        .list(&caller, "", usize::MAX - 1)
        .0
        .iter()
        .filter_map(|entry| entry.definition.reserved_concurrency)
        .fold(0, u32::saturating_add);
    let body = json!({
        "AccountLimit": {
            "TotalCodeSize": i64::MAX,
            "CodeSizeUnzipped": 0,
            "CodeSizeZipped": 0,
            "ConcurrentExecutions": CONCURRENT_EXECUTIONS,
            "UnreservedConcurrentExecutions": CONCURRENT_EXECUTIONS.saturating_sub(reserved),
        },
        "AccountUsage": {"TotalCodeSize": bytes, "FunctionCount": functions},
    });
    answer(StatusCode::OK, &body)
}
