//! What the SDK's errors mean, and what to do about them.

use super::S3Store;
use crate::store::{ErrorKind, Origin, OriginError};
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

/// Whether the server says that the condition of a write did not hold: 412, or 409 where
/// somebody else writes the same name at this moment; for `If-Match` of an object that is
/// gone, 404.
pub(super) fn condition_failed<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let Some(response) = error.raw_response() else { return false };
    let code = error.code().unwrap_or_default();
    match response.status().as_u16() {
        412 => true,
        409 => matches!(code, "ConditionalRequestConflict" | "PreconditionFailed"),
        404 => code == "NoSuchKey",
        _ => false,
    }
}

/// What a code or status means and what to do about it.
fn meaning(status: u16, code: &str) -> (ErrorKind, &'static str) {
    match (code, status) {
        ("NoSuchBucket", _) => (ErrorKind::NotFound, "there is no such bucket; make it first"),
        ("NoSuchKey" | "NotFound", _) => (ErrorKind::NotFound, "there is no such object"),
        ("InvalidRange", _) | (_, 416) => (ErrorKind::Corrupt, "the object ends too early"),
        ("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken", _) => {
            (ErrorKind::Denied, "the credentials are not accepted")
        }
        ("RequestTimeTooSkewed", _) => (ErrorKind::Denied, "this machine's clock differs from the server's"),
        ("PermanentRedirect" | "AuthorizationHeaderMalformed", _) | (_, 301) => {
            (ErrorKind::Invalid, "the bucket is in another region; see --s3-region")
        }
        ("SlowDown" | "RequestTimeout" | "ServiceUnavailable" | "InternalError", _) => {
            (ErrorKind::Unavailable, "the server is overloaded or failing")
        }
        ("QuotaExceeded" | "QuotaExceededException", _) | (_, 507) => {
            (ErrorKind::Exhausted, "the store is full, or a quota is")
        }
        ("NotImplemented", _) | (_, 405 | 501) => (ErrorKind::Unsupported, "the server cannot do this"),
        (_, 404) => (ErrorKind::NotFound, "there is no such object or bucket"),
        (_, 401 | 403) => (ErrorKind::Denied, "the credentials do not allow this"),
        (_, 408 | 409 | 429 | 500..) => (ErrorKind::Unavailable, "the server is overloaded or failing"),
        _ => (ErrorKind::Invalid, "the server refused the request"),
    }
}

impl S3Store {
    pub(super) fn refused<E>(
        &self,
        operation: &'static str,
        object: &str,
        error: SdkError<E, HttpResponse>,
    ) -> OriginError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        let code = error.code().unwrap_or_default().to_string();
        let (kind, message) = match (&error, status) {
            (SdkError::ServiceError(_), Some(status)) => {
                let (kind, what) = meaning(status, &code);
                let code = if code.is_empty() { String::new() } else { format!(" {code}") };
                (kind, format!("{what} (HTTP {status}{code})"))
            }
            (SdkError::ConstructionFailure(_), _) => (
                ErrorKind::Invalid,
                "the request could not be made; see the region, endpoint and credentials".into(),
            ),
            (SdkError::TimeoutError(_), _) => (ErrorKind::Unavailable, "no answer in time".into()),
            // a connection that ends before its answer is `other` too, but says what it is
            (SdkError::DispatchFailure(failure), _)
                if failure.is_user() || (failure.is_other() && failure.as_other().is_none()) =>
            {
                let message = "no credentials were found; see AWS_ACCESS_KEY_ID or the AWS profile";
                (ErrorKind::Denied, message.into())
            }
            (SdkError::DispatchFailure(_), _) => {
                (ErrorKind::Unavailable, "the server cannot be reached".into())
            }
            _ => (ErrorKind::Unavailable, "the answer makes no sense".into()),
        };
        OriginError {
            kind,
            operation,
            object: object.to_string(),
            store: self.describe(),
            message,
            source: Some(Box::new(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_before_statuses() {
        for (status, code, kind) in [
            (404, "NoSuchKey", ErrorKind::NotFound),
            (404, "", ErrorKind::NotFound),
            (403, "AccessDenied", ErrorKind::Denied),
            (400, "ExpiredToken", ErrorKind::Denied),
            (416, "", ErrorKind::Corrupt),
            (503, "SlowDown", ErrorKind::Unavailable),
            (500, "", ErrorKind::Unavailable),
            (599, "", ErrorKind::Unavailable),
            (507, "", ErrorKind::Exhausted),
            (501, "NotImplemented", ErrorKind::Unsupported),
            (400, "MalformedXML", ErrorKind::Invalid),
            (301, "PermanentRedirect", ErrorKind::Invalid),
        ] {
            assert_eq!(meaning(status, code).0, kind, "{status} {code}");
        }
    }
}
