//! How many files the daemon may have open: sandboxes, callers and mounts cost descriptors, and
//! the soft limit that a shell or service manager gives, mostly 1024, is gone after a hundred
//! sandboxes. What the daemon starts has its own limit, or inherits this one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises this process's soft limit to its hard one, and says so where that is below `needed`.
/// Gives back the limit then in force; `None` is none.
pub fn raise(needed: u64) -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, limit = ?limit.current, "the limit on open files could not be raised");
            limit.current
        }
    };
    if now.is_some_and(|now| now < needed) {
        tracing::warn!(
            limit = ?now, needed,
            "this process may open fewer files than its settings can ask for; raise its hard limit \
             (LimitNOFILE= in systemd, `ulimit -Hn` in a shell), or lower --max-sandboxes or max_connections"
        );
    }
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        // so little less that tests beside this one do not notice
        let less = hard.map(|hard| hard - 1);
        setrlimit(Resource::Nofile, Rlimit { current: less, maximum: hard }).unwrap();
        assert_eq!(raise(u64::MAX), hard);
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }
}
