//! What can be wrong with a request about functions. `api/status.rs` knows what each code is
//! to HTTP and to the shell.

/// Kinds of failure, named as AWS Lambda names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// A value outside its range, or something this worker does not do.
    InvalidParameterValue,
    /// A body that is not what it should be.
    InvalidRequestContent,
    /// There is no such function.
    ResourceNotFound,
    /// There is one already.
    ResourceConflict,
    /// The revision is no longer the one the caller saw.
    PreconditionFailed,
    /// Over a limit of the function's or of the worker's; later is fine.
    TooManyRequests,
    /// Longer than a request may be.
    RequestTooLarge,
    /// As many functions as a tenant may have.
    CodeStorageExceeded,
    /// Another account's.
    AccessDenied,
    /// No signature.
    MissingAuthenticationToken,
    /// A signature that cannot be read.
    IncompleteSignature,
    /// A signature that does not fit.
    InvalidSignature,
    /// A key that nobody has.
    UnrecognizedClient,
    /// No such operation.
    UnknownOperation,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The image cannot be had or mounted.
    InvalidImage,
    /// A fault of the worker's.
    Service,
    /// Shutting down.
    ServiceUnavailable,
}

impl ErrorCode {
    /// Every kind.
    pub const ALL: [Self; 18] = [
        Self::InvalidParameterValue,
        Self::InvalidRequestContent,
        Self::ResourceNotFound,
        Self::ResourceConflict,
        Self::PreconditionFailed,
        Self::TooManyRequests,
        Self::RequestTooLarge,
        Self::CodeStorageExceeded,
        Self::AccessDenied,
        Self::MissingAuthenticationToken,
        Self::IncompleteSignature,
        Self::InvalidSignature,
        Self::UnrecognizedClient,
        Self::UnknownOperation,
        Self::RequestTimeout,
        Self::InvalidImage,
        Self::Service,
        Self::ServiceUnavailable,
    ];
}

/// A refused or failed request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServiceError {
    /// What kind.
    pub code: ErrorCode,
    /// What, why, and what to do.
    pub message: String,
    /// For [`ErrorCode::TooManyRequests`]: which limit, in the words of AWS.
    pub reason: Option<&'static str>,
}

impl ServiceError {
    /// A failure of that kind.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), reason: None }
    }

    /// A value that cannot be used.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidParameterValue, message)
    }

    /// A function that is not there.
    #[must_use]
    pub fn not_found(arn: &str) -> Self {
        Self::new(ErrorCode::ResourceNotFound, format!("Function not found: {arn}"))
    }

    /// Over a limit.
    #[must_use]
    pub fn throttled(reason: &'static str, message: impl Into<String>) -> Self {
        Self { code: ErrorCode::TooManyRequests, message: message.into(), reason: Some(reason) }
    }

    /// A fault of the worker's.
    #[must_use]
    pub fn service(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Service, message)
    }
}
