//! How requests name functions: name, partial ARN, ARN, with or without a qualifier.

use super::error::{ErrorCode, ServiceError};
use std::fmt;
use std::str::FromStr;

/// Longest reference that is looked at, in bytes: an ARN with the longest name is 140.
const MAX_REFERENCE_BYTES: usize = 256;

/// The one version there is.
pub const LATEST: &str = "$LATEST";

/// What a request calls a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionReference {
    /// Its name: 1 to 64 of `[a-zA-Z0-9-_]`.
    pub name: String,
    /// The account of the ARN, if one was given.
    pub account: Option<String>,
    /// The region of the ARN, if one was given.
    pub region: Option<String>,
    /// Version or alias, if one was given.
    pub qualifier: Option<String>,
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn is_qualifier(text: &str) -> bool {
    text == LATEST
        || (1..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Whether that is an AWS account id: twelve digits.
#[must_use]
pub fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether that can be a region's name: it is part of ARNs.
#[must_use]
pub fn is_region(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

impl FromStr for FunctionReference {
    type Err = ServiceError;

    fn from_str(text: &str) -> Result<Self, ServiceError> {
        let refused = || {
            let shown: String = text.chars().take(MAX_REFERENCE_BYTES).collect();
            ServiceError::invalid(format!(
                "{shown:?} is not a function: use a name of 1 to 64 letters, digits, - and _, an ARN \
                 (arn:aws:lambda:REGION:ACCOUNT:function:NAME) or ACCOUNT:function:NAME"
            ))
        };
        if text.len() > MAX_REFERENCE_BYTES {
            return Err(refused());
        }
        let parts: Vec<&str> = text.split(':').collect();
        let (region, account, name, qualifier) = match parts[..] {
            [name] => (None, None, name, None),
            [name, qualifier] => (None, None, name, Some(qualifier)),
            [account, "function", name] => (None, Some(account), name, None),
            [account, "function", name, qualifier] => (None, Some(account), name, Some(qualifier)),
            ["arn", partition, "lambda", region, account, "function", name, ref rest @ ..]
                if partition.starts_with("aws") && rest.len() <= 1 =>
            {
                (Some(region), Some(account), name, rest.first().copied())
            }
            _ => return Err(refused()),
        };
        let fits = is_name(name)
            && account.is_none_or(is_account)
            && region.is_none_or(is_region)
            && qualifier.is_none_or(is_qualifier);
        if !fits {
            return Err(refused());
        }
        Ok(Self {
            name: name.into(),
            account: account.map(Into::into),
            region: region.map(Into::into),
            qualifier: qualifier.map(Into::into),
        })
    }
}

impl fmt::Display for FunctionReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.region, &self.account) {
            (Some(region), Some(account)) => write!(f, "arn:aws:lambda:{region}:{account}:function:")?,
            (_, Some(account)) => write!(f, "{account}:function:")?,
            _ => {}
        }
        f.write_str(&self.name)?;
        self.qualifier.as_ref().map_or(Ok(()), |qualifier| write!(f, ":{qualifier}"))
    }
}

impl FunctionReference {
    /// Takes a qualifier from the query as well, and checks that the whole means this account's
    /// newest version; there is no other.
    ///
    /// # Errors
    /// [`ServiceError`] if it means something else.
    pub fn check(
        &self,
        query: Option<&str>,
        account: &str,
        region: Option<&str>,
    ) -> Result<(), ServiceError> {
        if self.account.as_deref().is_some_and(|own| own != account) {
            return Err(ServiceError::new(
                ErrorCode::AccessDenied,
                format!("{self} belongs to another account than {account}, whose key signed the request"),
            ));
        }
        if let (Some(own), Some(region)) = (&self.region, region)
            && own != region
        {
            return Err(ServiceError::new(
                ErrorCode::ResourceNotFound,
                format!("Functions from '{own}' are not reachable in this region ('{region}')"),
            ));
        }
        match (self.qualifier.as_deref(), query) {
            (Some(name), Some(query)) if name != query => Err(ServiceError::invalid(format!(
                "the function's name says version {name:?} and Qualifier says {query:?}; give one of them"
            ))),
            (name, query) => match name.or(query) {
                None | Some(LATEST) => Ok(()),
                Some(other) => Err(ServiceError::not_found(&format!("{}:{other}", self.name))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_of_every_form() {
        let long = "a".repeat(64);
        for text in [
            "app",
            "A-b_9",
            &long,
            "app:$LATEST",
            "000000000000:function:app",
            "000000000000:function:app:$LATEST",
            "arn:aws:lambda:us-east-1:000000000000:function:app",
            "arn:aws:lambda:us-gov-east-1:000000000000:function:app:7",
        ] {
            let reference: FunctionReference = text.parse().unwrap();
            assert_eq!(reference.to_string(), text);
        }
        for text in [
            "",
            ":",
            "app:",
            "a b",
            "ä",
            &"a".repeat(65),
            "app/x",
            "1:function:app",
            "arn:aws:s3:::bucket",
            "arn:aws:lambda:us-east-1:000000000000:function:app:1:2",
            "arn:aws:lambda::000000000000:function:app",
            "function:",
            &"a:".repeat(500),
            "app:$OLD",
            "arn:xx:lambda:us-east-1:000000000000:function:app",
        ] {
            let error = text.parse::<FunctionReference>().unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidParameterValue, "{text}");
        }
    }

    #[test]
    fn only_ones_own_newest_version() {
        let check = |text: &str, query| {
            let reference: FunctionReference = text.parse().unwrap();
            reference.check(query, "000000000000", Some("us-east-1")).map_err(|error| error.code)
        };
        assert_eq!(check("app", None), Ok(()));
        assert_eq!(check("app:$LATEST", Some("$LATEST")), Ok(()));
        assert_eq!(check("arn:aws:lambda:us-east-1:000000000000:function:app", None), Ok(()));
        assert_eq!(check("app", Some("7")), Err(ErrorCode::ResourceNotFound));
        assert_eq!(check("app:7", Some("8")), Err(ErrorCode::InvalidParameterValue));
        assert_eq!(check("111111111111:function:app", None), Err(ErrorCode::AccessDenied));
        let elsewhere = "arn:aws:lambda:eu-west-1:000000000000:function:app";
        assert_eq!(check(elsewhere, None), Err(ErrorCode::ResourceNotFound));
    }
}
