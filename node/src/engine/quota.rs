//! What a namespace may hold, as the engine sees to it: between two writes, when it is known what each adds.
//!
//! The rule this file upholds: what does not grow is always let through, so that one who is over the limit can get below it.

use replication::replica::{Growth, Usage};

use super::WriteError;

/// The bounds of one namespace; without one it may hold whatever there is room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StorageQuota {
    /// Values.
    pub max_keys: Option<u64>,
    /// Bytes of keys, values and metadata.
    pub max_bytes: Option<u64>,
}

impl StorageQuota {
    /// Whether there is nothing to see to.
    pub(super) fn is_boundless(self) -> bool {
        self == Self::default()
    }

    /// Whether a namespace that has so much may get so much more.
    pub(super) fn check(self, used: Usage, growth: Growth) -> Result<(), WriteError> {
        check("max_keys", self.max_keys, used.keys, growth.keys)?;
        check("max_bytes", self.max_bytes, used.bytes, growth.bytes)
    }
}

fn check(quota: &'static str, limit: Option<u64>, used: u64, growth: i64) -> Result<(), WriteError> {
    match (limit, u64::try_from(growth)) {
        (Some(limit), Ok(added @ 1..)) if used.saturating_add(added) > limit => {
            Err(WriteError::OverQuota { quota, limit, used, added })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_stays_within_the_limit_and_what_does_not_passes() {
        let quota = StorageQuota { max_keys: Some(10), max_bytes: Some(100) };
        let used = |keys, bytes| Usage { keys, bytes };
        let by = |keys, bytes| Growth { keys, bytes };
        for (used, growth, refused) in [
            (used(9, 0), by(1, 100), None),
            (used(9, 1), by(1, 99), None),
            (used(9, 1), by(1, 100), Some("max_bytes")),
            (used(10, 0), by(1, 1), Some("max_keys")),
            (used(10, 99), by(0, 1), None),
            (used(20, 200), by(0, 0), None),
            (used(20, 200), by(-1, 1), Some("max_bytes")),
            (used(20, 200), by(-1, -1), None),
            (used(u64::MAX, 0), by(i64::MAX, 0), Some("max_keys")),
        ] {
            let found = quota.check(used, growth).err().map(|error| match error {
                WriteError::OverQuota { quota, .. } => quota,
                other => panic!("{other}"),
            });
            assert_eq!(found, refused, "{used:?} {growth:?}");
            assert!(StorageQuota::default().check(used, growth).is_ok());
        }
        assert!(StorageQuota { max_keys: Some(0), max_bytes: None }.check(used(0, 0), by(1, 1)).is_err());
    }
}
