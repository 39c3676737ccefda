//! What each failure of a request about functions is to HTTP and to the shell, once.

use crate::functions::ErrorCode;
use axum::http::StatusCode;

/// Status, name of the exception, and exit code.
#[must_use]
pub fn of(code: ErrorCode) -> (StatusCode, &'static str, u8) {
    use ErrorCode as E;
    match code {
        E::InvalidParameterValue => (StatusCode::BAD_REQUEST, "InvalidParameterValueException", 4),
        E::InvalidRequestContent => (StatusCode::BAD_REQUEST, "InvalidRequestContentException", 4),
        E::CodeStorageExceeded => (StatusCode::BAD_REQUEST, "CodeStorageExceededException", 7),
        E::AccessDenied => (StatusCode::FORBIDDEN, "AccessDeniedException", 6),
        E::MissingAuthenticationToken => (StatusCode::FORBIDDEN, "MissingAuthenticationTokenException", 6),
        E::IncompleteSignature => (StatusCode::FORBIDDEN, "IncompleteSignatureException", 6),
        E::InvalidSignature => (StatusCode::FORBIDDEN, "InvalidSignatureException", 6),
        E::UnrecognizedClient => (StatusCode::FORBIDDEN, "UnrecognizedClientException", 6),
        E::ResourceNotFound => (StatusCode::NOT_FOUND, "ResourceNotFoundException", 3),
        E::UnknownOperation => (StatusCode::NOT_FOUND, "UnknownOperationException", 2),
        E::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "RequestTimeoutException", 5),
        E::ResourceConflict => (StatusCode::CONFLICT, "ResourceConflictException", 4),
        E::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "PreconditionFailedException", 4),
        E::RequestTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLargeException", 4),
        E::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException", 7),
        E::Service => (StatusCode::INTERNAL_SERVER_ERROR, "ServiceException", 70),
        E::InvalidImage => (StatusCode::BAD_GATEWAY, "InvalidImageException", 4),
        E::ServiceUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException", 5),
    }
}
