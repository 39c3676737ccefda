//! Reads what a sandbox sends: into room that was taken before the memory is.

use super::room::{PORTION_BYTES, Place, Room};
use axum::http::HeaderMap;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use std::sync::Arc;
use std::time::Duration;

/// How long a body waits for room that others hold.
const ROOM_PATIENCE: Duration = Duration::from_secs(10);

/// Room of one sandbox for bodies that are being read. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Bodies(Arc<Room>);

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Larger than is allowed.
    #[error("the body is larger than the {0} bytes allowed")]
    TooLarge(usize),
    /// Others hold all room.
    #[error("this sandbox or others send too many large bodies at once; send fewer, or again later")]
    NoRoom,
    /// It did not come to its end.
    #[error("the body broke off")]
    BrokeOff,
}

/// A body, and the room that it holds.
#[derive(Debug)]
pub struct Read {
    /// What came.
    pub payload: Bytes,
    /// What came behind it.
    pub trailers: Option<HeaderMap>,
    _held: Vec<Place>,
}

impl Bodies {
    pub(super) fn new(room: Room) -> Self {
        Self(Arc::new(room))
    }

    /// Reads a body of at most `limit` bytes, which may come in pieces for as long as the caller
    /// lets it. Cancel-safe: what was read and held is gone with the call.
    ///
    /// # Errors
    /// [`BodyError`]; the body is where it was left.
    pub async fn read<B>(&self, body: &mut B, limit: usize) -> Result<Read, BodyError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (mut payload, mut held, mut trailers) = (Vec::new(), Vec::new(), None);
        while let Some(frame) = body.frame().await {
            match frame.map_err(|_| BodyError::BrokeOff).map(Frame::into_data)? {
                Ok(data) => {
                    let needed = payload.len() + data.len();
                    if needed > limit {
                        return Err(BodyError::TooLarge(limit));
                    }
                    self.grow(&mut payload, needed, limit, &mut held).await?;
                    payload.extend_from_slice(&data);
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        payload.shrink_to_fit();
        Ok(Read { payload: payload.into(), trailers, _held: held })
    }

    /// Makes room for `needed` bytes: what is allocated, not what has come, is paid for.
    async fn grow(
        &self,
        payload: &mut Vec<u8>,
        needed: usize,
        limit: usize,
        held: &mut Vec<Place>,
    ) -> Result<(), BodyError> {
        let before = payload.capacity();
        if needed <= before {
            return Ok(());
        }
        let capacity = needed.max((2 * before).min(limit));
        let portions = capacity.div_ceil(PORTION_BYTES) - before.div_ceil(PORTION_BYTES);
        let portions = u32::try_from(portions).unwrap_or(u32::MAX);
        if portions > 0 {
            let place = tokio::time::timeout(ROOM_PATIENCE, self.0.take(portions)).await;
            held.push(place.map_err(|_| BodyError::NoRoom)?);
        }
        payload.reserve_exact(capacity - payload.len());
        Ok(())
    }
}
