//! Tables that are questions to other tables.

/// One row per item and position of a served list.
const IMPRESSIONS: &str = "\
SELECT kafka_partition, kafka_offset, request_id, \"timestamp\", date, endpoint, user_id, surface, model_version, \
policy, experiment, arm, feature_version, fallback_reason, \
item['movie_id'] AS movie_id, item['rank'] AS rank, item['score'] AS score, item['source'] AS source, \
item['propensity'] AS propensity, item['explored'] AS explored \
FROM (SELECT kafka_partition, kafka_offset, request_id, \"timestamp\", date, endpoint, user_id, surface, \
model_version, policy, experiment, arm, feature_version, fallback_reason, unnest(items) AS item FROM request_logs)";

/// One row per model, from the steps of its life. A step that was published again after a crash is the same step.
const MODELS: &str = "\
SELECT version, \
last_value(kind ORDER BY kafka_offset) AS state, \
coalesce(version = (SELECT last_value(version ORDER BY kafka_offset) FROM model_events \
WHERE kind IN ('promoted', 'rolled_back')), false) AS is_champion, \
min(\"timestamp\") FILTER (WHERE kind = 'trained') AS trained_at, \
min(\"timestamp\") FILTER (WHERE kind = 'promoted') AS promoted_at, \
max(\"timestamp\") AS changed_at, \
last_value(reason ORDER BY kafka_offset) AS reason, \
max(bundle_uri) AS bundle_uri, \
max(bundle_sha256) AS bundle_sha256, \
max(offsets) FILTER (WHERE kind = 'trained') AS offsets, \
max(numbers) FILTER (WHERE kind = 'trained') AS numbers, \
max(retrain_event_id) AS retrain_event_id, \
count(DISTINCT event_id) AS steps \
FROM model_events GROUP BY version";

/// One row per interaction that the feature processor applies: the first record of an event id whose movie is in the
/// catalogue. A user's interactions lie in one partition, so the offset is their order.
const FEATURES_AS_OF: &str = "\
SELECT user_id, \
count(*) OVER until_now AS feature_version, \
\"timestamp\" AS as_of, kafka_partition, kafka_offset, event_id, kind, movie_id, \
count(*) FILTER (WHERE kind NOT IN ('impression', 'preference', 'watchlist_add', 'watchlist_remove')) \
OVER until_now AS history_len, \
count(*) FILTER (WHERE kind = 'rating') OVER until_now AS ratings, \
avg(CASE WHEN kind = 'rating' THEN CAST(rating AS DOUBLE) END) OVER until_now AS mean_rating, \
min(\"timestamp\") OVER until_now AS first_seen, \
max(\"timestamp\") OVER until_now AS last_seen \
FROM (SELECT *, row_number() OVER (PARTITION BY user_id, event_id ORDER BY kafka_partition, kafka_offset) AS sending \
FROM interactions) \
WHERE sending = 1 AND (movie_id IS NULL OR movie_id IN (SELECT movie_id FROM movies)) \
WINDOW until_now AS (PARTITION BY user_id ORDER BY kafka_partition, kafka_offset \
ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)";

/// Name and definition of each.
pub(super) const VIEWS: [(&str, &str); 3] = [
    ("impressions", IMPRESSIONS),
    ("models", MODELS),
    ("features_as_of", FEATURES_AS_OF),
];
