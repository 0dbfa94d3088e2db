//! Newtypes for everything that could be mistaken for another number.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A user, as the producer numbers them. At most 2^53 - 1 ([`UserId::MAX`]), the largest integer that every JSON
    /// implementation keeps exact.
    UserId(u64)
}
id! {
    /// A movie, as the catalogue numbers it.
    MovieId(u32)
}
id! {
    /// A position in one partition of a topic. As a *resume* position it is the next record to read, never the last
    /// one read.
    Offset(i64)
}

impl UserId {
    /// The largest id accepted on the wire.
    pub const MAX: UserId = UserId((1 << 53) - 1);
}

/// A model's version: assigned by the registry, sortable in the order of training (`v000001`, `v000002`, ...).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ModelVersion(pub String);

impl ModelVersion {
    /// The version with ordinal `n`.
    #[must_use]
    pub fn from_ordinal(n: u64) -> Self {
        Self(format!("v{n:06}"))
    }

    /// The ordinal, if this is a version that [`ModelVersion::from_ordinal`] made.
    #[must_use]
    pub fn ordinal(&self) -> Option<u64> {
        self.0.strip_prefix('v')?.parse().ok()
    }
}

impl fmt::Display for ModelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A resume position in one partition: everything below `offset` is included, `offset` itself is not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct PartitionOffset {
    /// Topic name.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// Next offset to read.
    pub offset: Offset,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_versions_sort_in_training_order_and_give_their_ordinal_back() {
        assert!(ModelVersion::from_ordinal(9) < ModelVersion::from_ordinal(10));
        assert_eq!(ModelVersion::from_ordinal(42).ordinal(), Some(42));
        assert_eq!(ModelVersion("latest".into()).ordinal(), None);
    }
}
