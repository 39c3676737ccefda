//! The operations that make, show, change and remove functions.

use super::extract::{Parsed, Target};
use super::shapes::{answer, configuration, event_config, function};
use super::{Answer, Door};
use crate::functions::input::{CodeInput, ConfigurationInput, CreateFunction, EventConfigInput};
use crate::functions::registry::Entry;
use crate::functions::{Caller, Service, ServiceError};
use axum::Extension;
use axum::extract::{Query, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;

/// Functions on a page where the request does not say, and at most.
const PAGE: usize = 50;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Paging {
    marker: Option<String>,
    max_items: Option<String>,
}

fn shown(door: &Service, entry: &Entry) -> Answer {
    Ok(answer(StatusCode::OK, &configuration(entry, door.settings())))
}

fn done() -> Answer {
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn create(
    State(door): Door,
    Extension(caller): Extension<Caller>,
    Parsed(input): Parsed<CreateFunction>,
) -> Answer {
    let entry = door.create(&caller, input).await?;
    Ok(answer(StatusCode::CREATED, &configuration(&entry, door.settings())))
}

pub(super) async fn get(State(door): Door, target: Target) -> Answer {
    Ok(answer(StatusCode::OK, &function(&*target.entry(&door)?, door.settings())))
}

pub(super) async fn get_configuration(State(door): Door, target: Target) -> Answer {
    shown(&door, &*target.entry(&door)?)
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
    Target { caller, name, .. }: Target,
    Parsed(input): Parsed<CodeInput>,
) -> Answer {
    shown(&door, &*door.update_code(&caller, &name, input).await?)
}

pub(super) async fn update_configuration(
    State(door): Door,
    Target { caller, name, .. }: Target,
    Parsed(input): Parsed<ConfigurationInput>,
) -> Answer {
    shown(&door, &*door.update_configuration(&caller, &name, input).await?)
}

pub(super) async fn delete(State(door): Door, target: Target) -> Answer {
    door.delete(&target.caller, &target.name, target.qualifier.as_deref()).await?;
    done()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ConcurrencyInput {
    reserved_concurrent_executions: i64,
}

pub(super) async fn put_concurrency(
    State(door): Door,
    Target { caller, name, .. }: Target,
    Parsed(input): Parsed<ConcurrencyInput>,
) -> Answer {
    let most = u32::try_from(input.reserved_concurrent_executions)
        .map_err(|_| ServiceError::invalid("ReservedConcurrentExecutions must be 0 or more"))?;
    door.set_concurrency(&caller, &name, Some(most)).await?;
    Ok(answer(StatusCode::OK, &json!({"ReservedConcurrentExecutions": most})))
}

pub(super) async fn get_concurrency(State(door): Door, Target { caller, name, .. }: Target) -> Answer {
    let entry = door.get(&caller, &name, None)?;
    let most = entry.definition.reserved_concurrency;
    let body = most.map_or_else(|| json!({}), |most| json!({"ReservedConcurrentExecutions": most}));
    Ok(answer(StatusCode::OK, &body))
}

pub(super) async fn delete_concurrency(State(door): Door, Target { caller, name, .. }: Target) -> Answer {
    door.set_concurrency(&caller, &name, None).await?;
    done()
}

fn shown_event_config(door: &Service, target: &Target) -> Answer {
    let Target { caller, name, qualifier } = target;
    let (entry, config) = door.event_config(caller, name, qualifier.as_deref())?;
    Ok(answer(StatusCode::OK, &event_config(&entry.definition, &config)))
}

pub(super) async fn put_event_config(
    State(door): Door,
    target: Target,
    Parsed(input): Parsed<EventConfigInput>,
) -> Answer {
    let Target { caller, name, qualifier } = &target;
    door.set_event_config(caller, (name, qualifier.as_deref()), input, false).await?;
    shown_event_config(&door, &target)
}

pub(super) async fn update_event_config(
    State(door): Door,
    target: Target,
    Parsed(input): Parsed<EventConfigInput>,
) -> Answer {
    let Target { caller, name, qualifier } = &target;
    door.event_config(caller, name, qualifier.as_deref())?;
    door.set_event_config(caller, (name, qualifier.as_deref()), input, true).await?;
    shown_event_config(&door, &target)
}

pub(super) async fn get_event_config(State(door): Door, target: Target) -> Answer {
    shown_event_config(&door, &target)
}

pub(super) async fn delete_event_config(State(door): Door, target: Target) -> Answer {
    door.remove_event_config(&target.caller, &target.name, target.qualifier.as_deref()).await?;
    done()
}

pub(super) async fn list_tags(State(door): Door, Target { caller, name, .. }: Target) -> Answer {
    let entry = door.get(&caller, &name, None)?;
    Ok(answer(StatusCode::OK, &json!({"Tags": entry.definition.tags})))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TagsInput {
    tags: BTreeMap<String, String>,
}

pub(super) async fn tag(
    State(door): Door,
    Target { caller, name, .. }: Target,
    Parsed(input): Parsed<TagsInput>,
) -> Answer {
    door.change_tags(&caller, &name, input.tags, Vec::new()).await?;
    done()
}

pub(super) async fn untag(
    State(door): Door,
    Target { caller, name, .. }: Target,
    RawQuery(query): RawQuery,
) -> Answer {
    // `tagKeys=a&tagKeys=b`: a list that a struct cannot hold
    let uri = format!("/?{}", query.unwrap_or_default()).parse();
    let pairs = uri.ok().and_then(|uri| Query::<Vec<(String, String)>>::try_from_uri(&uri).ok());
    let pairs = pairs.map(|Query(pairs)| pairs).unwrap_or_default();
    let keys = pairs.into_iter().filter(|(name, _)| name == "tagKeys").map(|(_, key)| key).collect();
    door.change_tags(&caller, &name, BTreeMap::new(), keys).await?;
    done()
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
