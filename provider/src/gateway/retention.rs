//! Retention: what ended long ago loses its content, in steps that hold up nobody for long.

use std::sync::Weak;
use std::time::Duration;

use super::{Inner, millis, now_unix_ms};
use crate::ledger::PruneStep;

/// How often to look for what has become old.
const INTERVAL: Duration = Duration::from_mins(15);
/// Between two steps, for whoever else writes.
const PAUSE: Duration = Duration::from_millis(100);
/// Jobs of a step: what a commit takes together at most.
const JOBS_MAX: u32 = 64;
/// Pages of a step: 4 MiB.
const PAGES_MAX: u32 = 1024;

/// Takes steps for as long as the gateway is there, and there is a bound to what is kept.
pub(super) async fn prune(inner: Weak<Inner>) {
    loop {
        let Some(inner) = inner.upgrade() else {
            return;
        };
        let Some(keep) = inner.config.keep else {
            return;
        };
        let now = now_unix_ms();
        let step = PruneStep {
            ended_before_unix_ms: now.saturating_sub(millis(keep)),
            jobs_max: JOBS_MAX,
            pages_max: PAGES_MAX,
        };
        let pause = match inner.ledger.prune(step, now).await {
            Ok(pruned) if pruned.is_done => INTERVAL,
            Ok(_) => PAUSE,
            Err(error) => {
                tracing::warn!(%error, "old content of the ledger was not removed");
                INTERVAL
            }
        };
        drop(inner);
        tokio::time::sleep(pause).await;
    }
}
