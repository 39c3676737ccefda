//! What handlers are given of a request: the function that it is about, and its body.

use super::shapes::Failed;
use crate::functions::registry::Entry;
use crate::functions::{Caller, ErrorCode, Service, ServiceError};
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

fn unreadable(what: &str) -> Failed {
    Failed(ServiceError::new(ErrorCode::InvalidRequestContent, format!("{what} cannot be read")))
}

/// The function that a path names, not looked up yet, and who asks for it.
#[derive(Debug)]
pub(in crate::api) struct Target {
    pub(in crate::api) caller: Caller,
    /// Name or ARN.
    pub(in crate::api) name: String,
    pub(super) qualifier: Option<String>,
}

impl Target {
    /// The function, if its caller has it.
    pub(in crate::api) fn entry(&self, door: &Service) -> Result<Arc<Entry>, ServiceError> {
        door.get(&self.caller, &self.name, self.qualifier.as_deref())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Qualified {
    qualifier: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failed> {
        let caller = parts.extensions.get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| ServiceError::service("nobody said who calls"))?;
        let name = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = name.map_err(|_| unreadable("the path"))?;
        let query = Query::<Qualified>::from_request_parts(parts, state).await;
        let Query(Qualified { qualifier }) = query.map_err(|_| unreadable("the query"))?;
        Ok(Self { caller, name, qualifier })
    }
}

/// A body of JSON; an empty one is `{}`.
#[derive(Debug)]
pub(super) struct Parsed<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Parsed<T> {
    type Rejection = Failed;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failed> {
        let body = Bytes::from_request(request, state).await.map_err(|_| unreadable("the body"))?;
        let body = if body.is_empty() { b"{}" } else { &body[..] };
        serde_json::from_slice(body).map(Self).map_err(|error| {
            let message = format!("Could not parse request body into json: {error}");
            Failed(ServiceError::new(ErrorCode::InvalidRequestContent, message))
        })
    }
}
