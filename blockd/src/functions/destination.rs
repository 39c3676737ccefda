//! Where what becomes of an event is told: a function of the same account, or the worker's
//! own dead letters.

use super::error::ServiceError;
use super::name::FunctionReference;

/// The worker's own dead letters: kept in its state, listed and drained with
/// `blockd function dead-letters`.
pub const DEAD_LETTERS: &str = "arn:aws:lantern:::dead-letters";

/// A destination that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A function of the same tenant, by name; it gets the record as an event.
    Function(String),
    /// [`DEAD_LETTERS`].
    DeadLetters,
}

impl Destination {
    /// Reads the ARN of a destination for function `own` of `account`; an empty one is none.
    ///
    /// # Errors
    /// [`ServiceError`] says what can be used instead.
    pub fn parse(arn: &str, own: &str, account: &str) -> Result<Option<Self>, ServiceError> {
        if arn.is_empty() {
            return Ok(None);
        }
        if arn == DEAD_LETTERS {
            return Ok(Some(Self::DeadLetters));
        }
        let shown: String = arn.chars().take(200).collect();
        let reference = arn.parse::<FunctionReference>().ok().filter(|r| r.region.is_some()).ok_or_else(|| {
            ServiceError::invalid(format!(
                "destination {shown:?} cannot be used: this worker has no SQS, SNS, S3 or EventBridge; use the \
                 ARN of a function of account {account}, or {DEAD_LETTERS}"
            ))
        })?;
        reference.check(None, account, None)?;
        if reference.name == own {
            return Err(ServiceError::invalid(format!(
                "destination {shown:?} is the function itself; its failures would never end"
            )));
        }
        Ok(Some(Self::Function(reference.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_the_account_and_dead_letters() {
        let parse = |arn: &str| Destination::parse(arn, "own", "000000000000");
        assert_eq!(parse(""), Ok(None));
        assert_eq!(parse(DEAD_LETTERS), Ok(Some(Destination::DeadLetters)));
        let function = "arn:aws:lambda:us-east-1:000000000000:function:other";
        assert_eq!(parse(function), Ok(Some(Destination::Function("other".into()))));
        for (arn, named) in [
            ("arn:aws:sqs:us-east-1:000000000000:queue", "SQS"),
            ("other", DEAD_LETTERS),
            ("arn:aws:lambda:us-east-1:111111111111:function:other", "another account"),
            ("arn:aws:lambda:us-east-1:000000000000:function:other:7", "not found"),
            ("arn:aws:lambda:us-east-1:000000000000:function:own", "itself"),
        ] {
            let error = parse(arn).unwrap_err();
            assert!(error.message.contains(named), "{arn}: {error}");
        }
    }
}
