//! What one record changes.

use marquee_runtime::bus::RawRecord;
use marquee_schemas::{
    DecodeError, FeatureKey, FeatureRecord, HistoryChunk, Interaction, MAX_INTERACTION_BYTES, Movie, MovieId,
    Topic, UserFeatures, UserId, decode,
};

/// A record, read.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A movie is new or described anew.
    Movie(Movie),
    /// A movie left the catalogue.
    MovieGone(MovieId),
    /// A history chunk as of now.
    Chunk {
        /// Partition of the changelog.
        partition: i32,
        /// The chunk.
        chunk: HistoryChunk,
    },
    /// A user's aggregates as of now.
    User {
        /// Partition of the changelog.
        partition: i32,
        /// The aggregates.
        features: Box<UserFeatures>,
    },
    /// A user did something that the feature store has not published yet.
    Event {
        /// Partition of `interactions`, which is that of the changelog.
        partition: i32,
        /// Offset in it.
        offset: i64,
        /// What was done.
        event: Box<Interaction>,
    },
    /// A user is to be forgotten; the feature store has not followed yet.
    Erasure {
        /// Partition of `interactions`, which is that of the changelog.
        partition: i32,
        /// Offset in it.
        offset: i64,
        /// The user.
        user: UserId,
    },
    /// A user's data in one partition was erased.
    UserGone {
        /// Partition of the changelog.
        partition: i32,
        /// The user.
        user: UserId,
    },
    /// A chunk of a history was erased, with all that was known of the user then.
    ChunkGone {
        /// Partition of the changelog.
        partition: i32,
        /// The user.
        user: UserId,
        /// Which chunk.
        chunk: u32,
    },
}

/// A record of a followed topic that is not what its topic promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The value cannot be read.
    #[error(transparent)]
    Value(#[from] DecodeError),
    /// The key is absent or of no known form.
    #[error("key: {0}")]
    Key(String),
}

impl Change {
    /// Reads a record of `movies`, `features` or `interactions`; `None` for one that says nothing to a view: movie
    /// aggregates follow from the histories, and whatever is no valid interaction is the feature processor's to
    /// refuse.
    ///
    /// # Errors
    /// [`RecordError`] for a record that is not what its topic promises.
    pub fn read(record: &RawRecord) -> Result<Option<Self>, RecordError> {
        if record.topic == Topic::Interactions {
            return Ok(Self::event(record));
        }
        let key = record
            .key
            .as_deref()
            .and_then(|key| std::str::from_utf8(key).ok())
            .ok_or_else(|| RecordError::Key("absent or not text".into()))?;
        // An empty value is a tombstone as well: some brokers and clients cannot tell the two apart.
        let value = record.value.as_deref().filter(|value| !value.is_empty());
        if record.topic == Topic::Movies {
            return Ok(Some(match value {
                Some(value) => Self::Movie(decode(value)?),
                None => Self::MovieGone(MovieId(
                    key.parse()
                        .map_err(|_| RecordError::Key(format!("not a movie id: {key:?}")))?,
                )),
            }));
        }
        let partition = record.partition;
        let key = key
            .parse::<FeatureKey>()
            .map_err(|error| RecordError::Key(error.to_string()))?;
        match (key, value) {
            (FeatureKey::Movie(_), _) => Ok(None),
            (FeatureKey::User(user), None) => Ok(Some(Self::UserGone { partition, user })),
            (FeatureKey::History(user, chunk), None) => Ok(Some(Self::ChunkGone {
                partition,
                user,
                chunk,
            })),
            (_, Some(value)) => Ok(match decode::<FeatureRecord>(value)? {
                FeatureRecord::History(chunk) => Some(Self::Chunk { partition, chunk }),
                FeatureRecord::User(features) => Some(Self::User {
                    partition,
                    features: Box::new(features),
                }),
                FeatureRecord::Movie(_) => None,
            }),
        }
    }

    fn event(record: &RawRecord) -> Option<Self> {
        if let Some(user) = Interaction::erased(record.key.as_deref(), record.value.as_deref()) {
            return Some(Self::Erasure {
                partition: record.partition,
                offset: record.offset,
                user,
            });
        }
        let value = record.value.as_deref()?;
        if value.len() > MAX_INTERACTION_BYTES {
            return None;
        }
        Some(Self::Event {
            partition: record.partition,
            offset: record.offset,
            event: Box::new(decode(value).ok()?),
        })
    }
}
