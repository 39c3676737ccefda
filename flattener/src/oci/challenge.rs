//! `WWW-Authenticate` headers (RFC 9110): what a registry wants to see.
//!
//! Pure. Challenges of schemes that registries do not use are passed over.

use std::collections::HashMap;

/// How to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password with every request.
    Basic,
    /// A token from a token server.
    Bearer {
        /// URL of the token server.
        realm: String,
        /// Who the token is for, in the token server's words.
        service: Option<String>,
    },
}

/// The best challenge of a header: bearer before basic.
pub(super) fn parse(header: &str) -> Option<Challenge> {
    let mut basic = None;
    for (scheme, mut parameters) in split(header) {
        match scheme.to_ascii_lowercase().as_str() {
            "bearer" => {
                if let Some(realm) = parameters.remove("realm") {
                    return Some(Challenge::Bearer { realm, service: parameters.remove("service") });
                }
            }
            "basic" => basic = Some(Challenge::Basic),
            _ => {}
        }
    }
    basic
}

/// Splits a header into challenges with lowercase parameter names.
fn split(header: &str) -> Vec<(String, HashMap<String, String>)> {
    let mut challenges: Vec<(String, HashMap<String, String>)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let next = after.trim_start_matches([' ', '\t']);
        rest = match next.strip_prefix('=') {
            Some(value) if !word.is_empty() => {
                let (value, after) = value_of(value.trim_start_matches([' ', '\t']));
                if let Some((_, parameters)) = challenges.last_mut() {
                    parameters.insert(word.to_ascii_lowercase(), value);
                }
                after
            }
            _ => {
                if !word.is_empty() {
                    challenges.push((word.to_owned(), HashMap::new()));
                }
                next.trim_start_matches('=')
            }
        };
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    challenges
}

/// A token or quoted string and what follows it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.map(Into::into) })
        };
        for (header, want) in [
            (
                r#"Bearer realm="https://a/t",service="r.io",scope="repository:x:pull""#,
                bearer("https://a/t", Some("r.io")),
            ),
            (r#"bearer  REALM = "https://a\"b" , x"#, bearer("https://a\"b", None)),
            (r#"Basic realm="x, y", Bearer realm=https://a"#, bearer("https://a", None)),
            (r#"Negotiate abc==, Basic realm="x""#, Some(Challenge::Basic)),
            ("Bearer", None),
            (r#"Bearer service="x""#, None),
            ("Digest qop=auth", None),
            ("", None),
            (",,=,=", None),
        ] {
            assert_eq!(parse(header), want, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read(header in ".*") {
            let _ = parse(&header);
        }

        #[test]
        fn any_punctuation_is_read(header in r#"[a-c",=\\ \t]*"#) {
            let _ = parse(&header);
        }
    }
}
