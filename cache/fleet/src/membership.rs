//! Where the list of nodes comes from, and following it: a file that is read again when it
//! changes, or a DNS name that is asked again and again. No coordination service.
//!
//! Invariant: a list that cannot be had or is wrong never replaces the one in use.

use crate::client::Fleet;
use crate::members::{Members, MembersError, Node};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Largest members file in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// How often the file or the name is looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Longest wait for the name service.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the list of nodes comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// A TOML file of `[[node]]` tables.
    File(PathBuf),
    /// `name:port`: every address of the name is a node, as of a Kubernetes headless service.
    Dns(String),
    /// A fixed list.
    Fixed(Members),
}

/// A list that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// Not a form of membership.
    #[error("{0:?} is no fleet: use file:/path, dns:name:port, or host:port,host:port,…")]
    Form(String),
    /// The file cannot be read.
    #[error("members file {path} cannot be read")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file or list is wrong.
    #[error("the members of the fleet cannot be used")]
    Members(#[from] MembersError),
    /// The name service did not answer.
    #[error("{name} cannot be resolved")]
    Resolve {
        /// Which name.
        name: String,
        /// Why.
        source: std::io::Error,
    },
}

impl FromStr for Membership {
    type Err = MembershipError;

    fn from_str(text: &str) -> Result<Self, MembershipError> {
        if let Some(path) = text.strip_prefix("file:") {
            return Ok(Self::File(path.trim_start_matches("//").into()));
        }
        if let Some(name) = text.strip_prefix("dns:") {
            Members::new(vec![Node::at(name)])?;
            return Ok(Self::Dns(name.into()));
        }
        if text.contains(':') {
            return Ok(Self::Fixed(Members::new(text.split(',').map(|at| Node::at(at.trim())).collect())?));
        }
        Err(MembershipError::Form(text.into()))
    }
}

impl Membership {
    /// The nodes at present.
    ///
    /// # Errors
    /// [`MembershipError`] if they cannot be had.
    pub async fn members(&self) -> Result<Members, MembershipError> {
        match self {
            Self::Fixed(members) => Ok(members.clone()),
            Self::File(path) => {
                let failed = |source| MembershipError::Read { path: path.clone(), source };
                let length = tokio::fs::metadata(path).await.map_err(failed)?.len();
                if length > MAX_FILE_BYTES {
                    return Err(failed(std::io::Error::other("longer than 1 MiB")));
                }
                let text = tokio::fs::read_to_string(path).await.map_err(failed)?;
                Ok(Members::parse(&text)?)
            }
            Self::Dns(name) => {
                let failed = |source| MembershipError::Resolve { name: name.clone(), source };
                let resolved = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(name)).await;
                let resolved = resolved.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
                let mut nodes: Vec<Node> =
                    resolved.map_err(failed)?.map(|address| Node::at(&address.to_string())).collect();
                nodes.sort_by(|a, b| a.name.cmp(&b.name));
                nodes.dedup();
                Ok(Members::new(nodes)?)
            }
        }
    }

    /// Keeps a fleet on the present list for as long as the future runs.
    pub async fn follow(&self, fleet: &Fleet, every: Duration) {
        if matches!(self, Self::Fixed(_)) {
            return std::future::pending().await;
        }
        let mut last = None;
        loop {
            tokio::time::sleep(every).await;
            let members = match self.members().await {
                Ok(members) => members,
                Err(error) => {
                    tracing::warn!(error = %error, "the fleet's members cannot be had; the last ones stay");
                    continue;
                }
            };
            if last.as_ref() == Some(&members) {
                continue;
            }
            let nodes = members.nodes().len();
            let (changed, to) = (fleet.clone(), members.clone());
            // a table of places takes tens of milliseconds to make
            let set = tokio::task::spawn_blocking(move || changed.set_members(to)).await;
            match set.expect("placement does not panic") {
                Ok(()) if last.is_some() => tracing::info!(nodes, "the fleet's members changed"),
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, "the fleet's new members cannot be used; the last ones stay")
                }
            }
            last = Some(members);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!("file:/etc/x".parse::<Membership>().unwrap(), Membership::File("/etc/x".into()));
        assert_eq!("file:///etc/x".parse::<Membership>().unwrap(), Membership::File("/etc/x".into()));
        assert_eq!("dns:cache:7400".parse::<Membership>().unwrap(), Membership::Dns("cache:7400".into()));
        let Membership::Fixed(members) = "b:1, a:2".parse().unwrap() else { panic!("a list") };
        assert_eq!(members.nodes().len(), 2);
        for bad in ["", "x", "dns:x", "a:1,b", "a:1,a:1"] {
            assert!(bad.parse::<Membership>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn names_become_nodes() {
        let members = Membership::Dns("localhost:7400".into()).members().await.unwrap();
        assert!(members.nodes().iter().any(|node| node.address == "127.0.0.1:7400"));
        assert!(Membership::Dns("no-such-host.invalid:1".into()).members().await.is_err());
    }
}
