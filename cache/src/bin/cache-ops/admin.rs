//! Speaking to the nodes as an operator.

use crate::cli::FleetArgs;
use crate::failed;
use anyhow::Result;
use fleet::client::Fleet;
use fleet::members::{Members, Node};
use fleet::ring::{Ring, RingSettings};
use fleet::settings::{L2Args, L2Error, L2Settings, L2Table};
use fleet::transport::{CallError, CallKind, HttpTransport};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long an operator waits for a node.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer: the ids of a 256th of a node's shards.
const MAX_ANSWER: usize = 64 << 20;

/// The settings file, of which other commands read other tables.
#[derive(Debug, Default, Deserialize)]
struct ConfigFile {
    #[serde(default)]
    l2: L2Table,
}

/// The fleet that arguments and settings file name.
pub(crate) fn settings(l2: &L2Args, config: Option<&Path>) -> Result<L2Settings> {
    let file: ConfigFile = origin::settings::read_config(config)?;
    let settings = l2.clone().resolve(file.l2)?;
    Ok(settings.ok_or(L2Error::Missing)?)
}

/// The fleet's nodes and a way to speak to them.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) settings: L2Settings,
    pub(crate) members: Members,
    pub(crate) transport: Arc<HttpTransport>,
}

impl Admin {
    pub(crate) async fn open(args: &FleetArgs) -> Result<Self> {
        let settings = settings(&args.l2, args.config.as_deref())?;
        let members = settings.membership.members().await.map_err(L2Error::from)?;
        let transport = Arc::new(HttpTransport::new(settings.transport.clone()));
        Ok(Self { settings, members, transport })
    }

    pub(crate) fn fleet(&self) -> Result<Fleet> {
        Ok(Fleet::new(self.settings.fleet.clone(), self.members.clone(), self.transport.clone())?)
    }

    pub(crate) fn ring(&self, members: Members) -> Ring {
        let fleet = &self.settings.fleet;
        let width = usize::from(fleet.code.width());
        Ring::new(Arc::new(members), RingSettings { width, epsilon: fleet.epsilon })
    }

    pub(crate) fn node(&self, name: &str) -> Result<&Node> {
        let found = self.members.find(name).map(|(_, node)| node);
        found.ok_or_else(|| failed(3, format!("no node {name:?}; `cache-ops status` lists them")))
    }

    /// One call; a status that is no success is an error.
    pub(crate) async fn ask(&self, node: &Node, method: &str, path: &str) -> Result<bytes::Bytes, CallError> {
        let (status, body) = self.transport.ask(node, method, path, MAX_ANSWER, PATIENCE).await?;
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let said = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        Err(CallError {
            kind: CallKind::Protocol,
            node: node.name.clone(),
            message: format!("{status} {said}"),
        })
    }

    /// One call that is answered with JSON.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        node: &Node,
        method: &str,
        path: &str,
    ) -> Result<T, CallError> {
        let body = self.ask(node, method, path).await?;
        serde_json::from_slice(&body).map_err(|error| CallError {
            kind: CallKind::Protocol,
            node: node.name.clone(),
            message: format!("speaks another version: {error}"),
        })
    }
}

/// A bar on a terminal, nothing elsewhere: results say how it went.
pub(crate) fn progress(what: &'static str, total: u64, quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}");
    ProgressBar::new(total)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message(what)
}
