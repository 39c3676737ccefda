//! What a server can do, found by trying: some ignore conditions on writes, some honour
//! them only while nobody races.

use super::{Condition, S3Store, Written};
use crate::store::{Abilities, ErrorKind, Origin, Result};
use bytes::Bytes;
use futures_util::future::join_all;
use image_format::names::ObjectName;

/// Writers of one race.
const WRITERS: usize = 8;
/// Races of each kind: one lucky run proves nothing.
const RACES: usize = 4;

impl S3Store {
    /// A name that nobody else uses.
    fn scratch(&self) -> Result<ObjectName> {
        let random = getrandom::u64().map_err(|error| {
            self.failed(ErrorKind::Internal, "probe", "", format!("no random number: {error}"))
        })?;
        let label = format!("p{random:016x}").parse();
        label.map(ObjectName::Probe).map_err(|error| {
            self.failed(ErrorKind::Internal, "probe", "", format!("no scratch name: {error}"))
        })
    }

    /// Whether `If-None-Match: *` keeps a write from replacing an object, racing writers
    /// aside. Found once, with two small requests.
    pub(super) async fn honours_absent(&self) -> Result<bool> {
        let found = self.honours_absent.get_or_try_init(|| async {
            let name = self.scratch()?;
            self.write("probe", &name, Bytes::from_static(b"1"), Condition::None).await?;
            let second = self.write("probe", &name, Bytes::from_static(b"2"), Condition::Absent).await;
            self.delete(&name).await?;
            match second {
                Ok(written) => Ok(written == Written::No),
                Err(error) if matches!(error.kind, ErrorKind::Unsupported | ErrorKind::Invalid) => Ok(false),
                Err(error) => Err(error),
            }
        });
        found.await.copied()
    }

    /// How many of several writers that race under one condition win.
    async fn race(&self, name: &ObjectName, condition: Condition<'_>) -> Result<usize> {
        let writers = (0..WRITERS)
            .map(|n| self.write("probe", name, Bytes::from(format!("{condition:?} {n}")), condition));
        let mut won = 0;
        for written in join_all(writers).await {
            match written {
                Ok(Written::Yes(_)) => won += 1,
                Ok(Written::No) => {}
                // a server that cannot do it at all
                Err(error) if matches!(error.kind, ErrorKind::Unsupported | ErrorKind::Invalid) => {
                    won = WRITERS
                }
                Err(error) => return Err(error),
            }
        }
        Ok(won)
    }

    pub(super) async fn probe(&self) -> Result<Abilities> {
        let mut abilities = Abilities { conditional_put: true, compare_and_swap: true };
        for _ in 0..RACES {
            let name = self.scratch()?;
            let raced = self.race_once(&name, &mut abilities).await;
            self.delete(&name).await?;
            raced?;
            if !abilities.conditional_put {
                break;
            }
        }
        // creation is part of swapping
        abilities.compare_and_swap &= abilities.conditional_put;
        tracing::debug!(store = self.describe(), ?abilities, "probed");
        Ok(abilities)
    }

    async fn race_once(&self, name: &ObjectName, abilities: &mut Abilities) -> Result<()> {
        if self.race(name, Condition::Absent).await? != 1 {
            abilities.conditional_put = false;
            return Ok(());
        }
        let (_, version) = match self.get_versioned(name, 64).await {
            Ok(found) => found,
            Err(error) if error.kind == ErrorKind::Unsupported => {
                abilities.compare_and_swap = false;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        // all write different bytes, so that entity tags tell them apart
        if self.race(name, Condition::Unchanged(&version.0)).await? != 1 {
            abilities.compare_and_swap = false;
        }
        let stale =
            self.write("probe", name, Bytes::from_static(b"stale"), Condition::Unchanged("\"0\"")).await?;
        abilities.compare_and_swap &= stale == Written::No;
        Ok(())
    }
}
