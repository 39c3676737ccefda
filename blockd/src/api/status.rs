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

/// The exit code of the exception with that name; a fault of ours for one that is not known.
#[must_use]
pub fn exit_code(name: &str) -> u8 {
    let known = ErrorCode::ALL.into_iter().map(of).find(|(_, own, _)| *own == name);
    known.map_or(70, |(.., code)| code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = ErrorCode::ALL.into_iter().map(|code| of(code).1).collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        assert_eq!((exit_code("ResourceNotFoundException"), exit_code("Other")), (3, 70));
    }
}
