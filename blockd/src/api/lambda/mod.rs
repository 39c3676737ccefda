//! The AWS Lambda HTTP API (2015-03-31 and what was added since), so far as functions here
//! can do it; docs/lambda-api.md lists the operations and what differs.
//!
//! `routes` is the API without any check of who calls: `server.rs` puts signatures, limits
//! and a listener in front of it, the control socket its own permissions.

mod auth;
mod extract;
mod invoke;
mod manage;
mod patient;
mod server;
mod shapes;

pub use server::{DoorSettings, serve};

use crate::functions::{ErrorCode, Service, ServiceError};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
pub(super) use extract::Target;
use photon::invocation::RequestId;
pub(super) use shapes::Failed as Failure;
use shapes::Failed;
use std::sync::Arc;

/// What every handler is given.
type Door = State<Arc<Service>>;
type Answer = Result<Response, Failed>;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

async fn unknown(method: Method, uri: Uri) -> Failed {
    let path: String = uri.path().chars().take(200).collect();
    Failed(ServiceError::new(
        ErrorCode::UnknownOperation,
        format!("{method} {path} is no operation of this worker; docs/lambda-api.md lists them"),
    ))
}

/// Gives a request its id, and every answer that id; an invocation has the same.
async fn identify(mut request: Request, next: Next) -> Response {
    let id = request.extensions().get::<RequestId>().cloned().unwrap_or_default();
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    if response.status().is_client_error() && !response.headers().contains_key(shapes::ERROR_TYPE) {
        // a path or query that could not be read: refused by the framework, in its own shape
        let message = "the path or the query cannot be read";
        response = Failed(ServiceError::new(ErrorCode::InvalidRequestContent, message)).into_response();
    }
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The operations. Each request must carry a [`crate::functions::Caller`] as an extension.
pub fn routes(service: Arc<Service>) -> Router {
    let events = "/2019-09-25/functions/{name}/event-invoke-config";
    Router::new()
        .route("/2015-03-31/functions", post(manage::create).get(manage::list))
        .route("/2015-03-31/functions/", post(manage::create).get(manage::list))
        .route("/2015-03-31/functions/{name}", get(manage::get).delete(manage::delete))
        .route("/2015-03-31/functions/{name}/code", put(manage::update_code))
        .route(
            "/2015-03-31/functions/{name}/configuration",
            get(manage::get_configuration).put(manage::update_configuration),
        )
        .route("/2015-03-31/functions/{name}/invocations", post(invoke::invoke))
        .route(
            "/2017-10-31/functions/{name}/concurrency",
            put(manage::put_concurrency).delete(manage::delete_concurrency),
        )
        .route("/2019-09-30/functions/{name}/concurrency", get(manage::get_concurrency))
        .route(
            events,
            put(manage::put_event_config)
                .post(manage::update_event_config)
                .get(manage::get_event_config)
                .delete(manage::delete_event_config),
        )
        .route("/2017-03-31/tags/{arn}", get(manage::list_tags).post(manage::tag).delete(manage::untag))
        .route("/2016-08-19/account-settings", get(manage::account_settings))
        .route("/2016-08-19/account-settings/", get(manage::account_settings))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        // whoever is in front has read the body within its own limits
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(identify))
        .with_state(service)
}

/// A refusal as a whole answer, for those in front of the routes.
fn refuse(error: ServiceError, id: &RequestId) -> Response {
    let mut response = Failed(error).into_response();
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}
