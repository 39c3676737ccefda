//! Which nodes make up the fleet: a checked list, from a file or from DNS.
//!
//! Invariants: names are unique, the list is in their order, so every client that reads the
//! same file sees the same fleet; there are 1 to [`MAX_NODES`] nodes.

use serde::Deserialize;
use std::collections::BTreeMap;

/// Most nodes of one fleet: placement tables grow with it.
pub const MAX_NODES: usize = 1024;
/// Largest weight of a node; weights are relative.
pub const MAX_WEIGHT: u32 = 100;
/// Longest name, address or zone in bytes.
const MAX_TEXT: usize = 253;

/// One cache node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name: what placement depends on, so that a node may change its address.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// What fails together: an availability zone, a rack. Empty where nothing is said.
    pub zone: String,
    /// Its share of the load relative to the others, 1 to [`MAX_WEIGHT`].
    pub weight: u32,
}

/// The nodes of a fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    nodes: Vec<Node>,
}

/// A list of nodes that makes no fleet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// The file is not TOML of the expected shape.
    #[error("not a list of nodes: {0}")]
    Parse(String),
    /// No node, or too many.
    #[error("a fleet has 1 to {MAX_NODES} nodes, not {0}")]
    Count(usize),
    /// Two nodes of one name.
    #[error("two nodes are named {0:?}")]
    Twice(String),
    /// A field that cannot be.
    #[error("node {node:?}: bad {field}: {why}")]
    Field {
        /// Which node.
        node: String,
        /// Which field.
        field: &'static str,
        /// What it must be.
        why: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    node: Vec<FileNode>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileNode {
    name: Option<String>,
    address: String,
    #[serde(default)]
    zone: String,
    weight: Option<u32>,
}

impl Node {
    /// A node that is named by its address, in no zone, of weight 1.
    #[must_use]
    pub fn at(address: &str) -> Self {
        Self { name: address.into(), address: address.into(), zone: String::new(), weight: 1 }
    }

    fn check(&self) -> Result<(), MembersError> {
        let bad = |field, why| Err(MembersError::Field { node: self.name.clone(), field, why });
        let plain = |text: &str| text.len() <= MAX_TEXT && text.bytes().all(|b| b.is_ascii_graphic());
        if self.name.is_empty() || !plain(&self.name) {
            return bad("name", "1 to 253 printable characters without spaces");
        }
        if !plain(&self.zone) {
            return bad("zone", "at most 253 printable characters without spaces");
        }
        let port = self.address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        let port = port.and_then(|(_, port)| port.parse::<u16>().ok()).filter(|&port| port != 0);
        if port.is_none() || !plain(&self.address) || self.address.contains(['/', '@']) {
            return bad("address", "host:port");
        }
        if !(1..=MAX_WEIGHT).contains(&self.weight) {
            return bad("weight", "1 to 100");
        }
        Ok(())
    }
}

impl Members {
    /// A fleet of these nodes.
    ///
    /// # Errors
    /// [`MembersError`] names the node and field that is wrong.
    pub fn new(nodes: Vec<Node>) -> Result<Self, MembersError> {
        if nodes.is_empty() || nodes.len() > MAX_NODES {
            return Err(MembersError::Count(nodes.len()));
        }
        let mut sorted = BTreeMap::new();
        for node in nodes {
            node.check()?;
            let name = node.name.clone();
            if sorted.insert(name.clone(), node).is_some() {
                return Err(MembersError::Twice(name));
            }
        }
        Ok(Self { nodes: sorted.into_values().collect() })
    }

    /// Reads the members file: `[[node]]` tables with `address` and optionally `name`, `zone`
    /// and `weight`.
    ///
    /// # Errors
    /// [`MembersError`] says what is wrong; unknown keys are refused.
    pub fn parse(text: &str) -> Result<Self, MembersError> {
        let file: File = toml::from_str(text).map_err(|error| MembersError::Parse(error.to_string()))?;
        let node = |node: FileNode| Node {
            name: node.name.unwrap_or_else(|| node.address.clone()),
            address: node.address,
            zone: node.zone,
            weight: node.weight.unwrap_or(1),
        };
        Self::new(file.node.into_iter().map(node).collect())
    }

    /// The nodes in the order of their names.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of that name with its position.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<(usize, &Node)> {
        self.nodes.iter().enumerate().find(|(_, node)| node.name == name)
    }

    /// The fleet without one node; `None` if it was the last.
    #[must_use]
    pub fn without(&self, name: &str) -> Option<Self> {
        let nodes: Vec<Node> = self.nodes.iter().filter(|node| node.name != name).cloned().collect();
        (!nodes.is_empty()).then_some(Self { nodes })
    }

    /// The nodes of one zone; `None` if it has none.
    #[must_use]
    pub fn of_zone(&self, zone: &str) -> Option<Self> {
        let nodes: Vec<Node> = self.nodes.iter().filter(|node| node.zone == zone).cloned().collect();
        (!nodes.is_empty()).then_some(Self { nodes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_a_sorted_fleet() {
        let text = "[[node]]\naddress = '10.0.0.2:7400'\nname = 'b'\nzone = 'z2'\nweight = 2\n\
                    [[node]]\naddress = '[::1]:7400'\n";
        let members = Members::parse(text).unwrap();
        let names: Vec<&str> = members.nodes().iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["[::1]:7400", "b"]);
        assert_eq!(members.find("b").unwrap().1.weight, 2);
        assert_eq!(members.without("b").unwrap().nodes().len(), 1);
        assert_eq!(members.of_zone("z2").unwrap().nodes()[0].name, "b");
        assert!(members.of_zone("z3").is_none());
    }

    #[test]
    fn what_makes_no_fleet_is_named() {
        for (text, says) in [
            ("", "not 0"),
            ("[[node]]\naddress = 'x'", "host:port"),
            ("[[node]]\naddress = 'x:0'", "host:port"),
            ("[[node]]\naddress = ':80'", "host:port"),
            ("[[node]]\naddress = 'user@x:80'", "host:port"),
            ("[[node]]\naddress = 'x:1'\nweight = 0", "1 to 100"),
            ("[[node]]\naddress = 'x:1'\nname = 'a b'", "printable"),
            ("[[node]]\naddress = 'x:1'\n[[node]]\naddress = 'x:1'", "two nodes"),
            ("[[node]]\naddress = 'x:1'\ncolour = 'red'", "colour"),
            ("nodes", "not a list"),
        ] {
            let error = Members::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
