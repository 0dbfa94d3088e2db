//! What the tables and columns mean.

/// A column and its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnDoc {
    /// Name.
    pub name: &'static str,
    /// One sentence.
    pub description: &'static str,
}

/// A table and its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableDoc {
    /// Name.
    pub name: &'static str,
    /// One sentence.
    pub description: &'static str,
    /// Its columns, in order.
    pub columns: &'static [ColumnDoc],
}

macro_rules! columns {
    ($($name:literal: $description:literal),* $(,)?) => {
        &[$(ColumnDoc { name: $name, description: $description }),*]
    };
}

/// Every table with its columns, as `marquee sql --tables` prints them.
#[must_use]
pub fn documentation() -> &'static [TableDoc] {
    &TABLES
}

static TABLES: [TableDoc; 9] = [
    TableDoc {
        name: "request_logs",
        description: "One row per answered request: what was served, to whom, by which model.",
        columns: columns! {
            "kafka_partition": "Partition of the topic request-logs.",
            "kafka_offset": "Offset in that partition; with it, the row's identity.",
            "request_id": "UUIDv7 of the request; interactions that answer the list carry it.",
            "timestamp": "When the request came in (UTC).",
            "endpoint": "The call: recommend, similar or popular; shadow for a list that nobody saw.",
            "status": "HTTP status of the answer.",
            "user_id": "The user, where the call names one and the user was not erased since.",
            "surface": "Where the list is shown, as the client names it.",
            "model_version": "The serving model; null before the first one.",
            "policy": "The logging policy: ranked, plackett_luce, ...",
            "experiment": "The running experiment, if any.",
            "arm": "The arm of that experiment.",
            "assignment_hash": "The sticky hash that chose the arm.",
            "feature_version": "The user's applied interactions that the list rests on.",
            "k": "Entries asked for.",
            "candidates": "Candidates before the cut.",
            "seeds": "Movies given as seeds, or the subject of similar.",
            "filters": "Restrictions of the client, as JSON.",
            "items": "The list: structs of movie_id, rank, score, source, propensity, explored.",
            "fallback_reason": "Why the list is not personal, where it is not.",
            "latency_ms": "Time from the request's arrival to its answer, in milliseconds.",
            "stages": "The same by stage in microseconds, as JSON.",
            "left_out": "Stages left out because they would have been late; null in rows from before this was logged.",
            "date": "Day of timestamp (UTC).",
        },
    },
    TableDoc {
        name: "impressions",
        description: "One row per served item and position: request_logs with its items unfolded.",
        columns: columns! {
            "kafka_partition": "Partition of the request's log record.",
            "kafka_offset": "Offset of the request's log record.",
            "request_id": "The request that served the item.",
            "timestamp": "When the request came in (UTC).",
            "date": "Day of timestamp (UTC).",
            "endpoint": "The call: recommend, similar or popular.",
            "user_id": "The user, where the call names one and the user was not erased since.",
            "surface": "Where the list is shown, as the client names it.",
            "model_version": "The serving model; null before the first one.",
            "policy": "The logging policy.",
            "experiment": "The running experiment, if any.",
            "arm": "The arm of that experiment.",
            "feature_version": "The user's applied interactions that the list rests on.",
            "fallback_reason": "Why the list is not personal, where it is not.",
            "movie_id": "The movie that was shown.",
            "rank": "Position in the list, from 0.",
            "score": "The score it was ranked by.",
            "source": "Where the candidate came from: a generator's name, popularity, exploration, ...",
            "propensity": "Probability of this movie at this position under the logging policy; 1 if deterministic.",
            "explored": "Whether this position was sampled rather than ranked.",
        },
    },
    TableDoc {
        name: "attributions",
        description: "One row per interaction that answers a served list, as `marquee replay` joins them: by request_id, \
                      else the user's latest list with the movie, else the latest list, within half an hour.",
        columns: columns! {
            "request_id": "The list that was answered.",
            "timestamp": "When the list was asked for (UTC); filter on it or on date to join less.",
            "date": "Day of timestamp (UTC).",
            "endpoint": "The call that served the list.",
            "surface": "Where the list was shown, as the client names it.",
            "model_version": "The model that served the list; null before the first one.",
            "policy": "The logging policy.",
            "experiment": "The running experiment, if any.",
            "arm": "The arm of that experiment.",
            "user_id": "Who answered.",
            "event_id": "The interaction that answers.",
            "movie_id": "Its movie.",
            "kind": "What was done: click, view, like, rating.",
            "rating": "Stars of a rating.",
            "event_time": "When it was done (UTC).",
            "delay_ms": "From the list to the interaction, in milliseconds of event time.",
            "attributed_by": "Why this list: request_id, last_touch, or last_list (the list does not hold the movie).",
            "rank": "Position of the movie in the list, from 0; null where the list does not hold it.",
            "is_first": "Whether this is the first act on this movie that answers the list.",
        },
    },
    TableDoc {
        name: "interactions",
        description: "One row per thing a user did, as the producers sent it (a repeated event_id is a repeated row).",
        columns: columns! {
            "kafka_partition": "Partition of the topic interactions.",
            "kafka_offset": "Offset in that partition; with it, the row's identity.",
            "event_id": "The producer's id of the event.",
            "user_id": "Who.",
            "movie_id": "Which movie; null for a preference.",
            "kind": "What: impression, view, click, like, dislike, rating, watchlist_add, watchlist_remove, preference.",
            "rating": "Stars, 0.5 to 5, of a rating.",
            "genres": "Genres of a preference; empty otherwise.",
            "timestamp": "Event time (UTC).",
            "session_id": "The client's session.",
            "request_id": "The served list that this answers, if the client says so.",
            "source": "Where the event comes from: web, replay, simulator, ...",
            "date": "Day of timestamp (UTC).",
        },
    },
    TableDoc {
        name: "model_events",
        description: "One row per step in a model's life.",
        columns: columns! {
            "kafka_partition": "Partition of the topic model-events.",
            "kafka_offset": "Offset in that partition; with it, the row's identity.",
            "event_id": "Deterministic id of the step.",
            "version": "The model.",
            "kind": "What happened: trained, promoted, rejected, rolled_back, rollout_step, failed, training_stage, command_refused.",
            "reason": "Why, in a sentence.",
            "bundle_uri": "Where the bundle lies.",
            "bundle_sha256": "SHA-256 of the bundle, in hex.",
            "offsets": "The data it was fitted on, as JSON: topic, partition, next offset.",
            "numbers": "Measured quality and other numbers of the step, as JSON.",
            "retrain_event_id": "The retrain event that asked for the model.",
            "previous": "The champion before this step.",
            "timestamp": "When (UTC).",
            "date": "Day of timestamp (UTC).",
        },
    },
    TableDoc {
        name: "quality_metrics",
        description: "One row per measured figure, offline or online (a repeated metric_id is the same figure).",
        columns: columns! {
            "kafka_partition": "Partition of the topic quality-metrics.",
            "kafka_offset": "Offset in that partition; with it, the row's identity.",
            "metric_id": "Deterministic id: a function of metric, scope and window.",
            "name": "The metric: next_interaction_hit_rate@10, ctr, ...",
            "scope": "What it describes: model, endpoint, arm, data, ...",
            "population": "Among whom: all, warm, cold, ...",
            "model_version": "The model, where it is about one.",
            "value": "The value.",
            "lo": "Lower end of its 95% interval.",
            "hi": "Upper end of its 95% interval.",
            "n": "Observations behind it.",
            "window_start": "Start of the measured window (UTC), inclusive.",
            "window_end": "End of the measured window (UTC), exclusive.",
            "date": "Day of window_end (UTC).",
        },
    },
    TableDoc {
        name: "movies",
        description: "The current catalogue, one row per movie.",
        columns: columns! {
            "movie_id": "The movie.",
            "title": "Title without its year.",
            "year": "Year of release, where known.",
            "genres": "Genres; empty where none is listed.",
            "imdb_id": "Digits of the IMDb id.",
            "tmdb_id": "The Movie Database's id.",
        },
    },
    TableDoc {
        name: "models",
        description: "One row per model: model_events folded by version.",
        columns: columns! {
            "version": "The model.",
            "state": "What happened to it last: trained, promoted, rejected, rolled_back, rollout_step, failed.",
            "is_champion": "Whether the newest promotion or roll-back made it the serving model.",
            "trained_at": "When it was fitted (UTC).",
            "promoted_at": "When it first became the champion (UTC).",
            "changed_at": "When something happened to it last (UTC).",
            "reason": "Why that happened, in a sentence.",
            "bundle_uri": "Where its bundle lies.",
            "bundle_sha256": "SHA-256 of the bundle, in hex.",
            "offsets": "The data it was fitted on, as JSON: topic, partition, next offset.",
            "numbers": "Quality measured when it was fitted, as JSON.",
            "retrain_event_id": "The retrain event that asked for it.",
            "steps": "Steps in its life so far.",
        },
    },
    TableDoc {
        name: "features_as_of",
        description: "One row per applied interaction: its user's features right after it. The row with a request's \
                      user_id and feature_version is what that request rested on; the user's newest row with as_of <= t \
                      is the state at t. Filter on user_id where you can.",
        columns: columns! {
            "user_id": "The user.",
            "feature_version": "Interactions applied so far, as request_logs.feature_version counts them.",
            "as_of": "Event time of the interaction (UTC).",
            "kafka_partition": "Partition of the interaction.",
            "kafka_offset": "Offset of the interaction.",
            "event_id": "The interaction.",
            "kind": "What was done.",
            "movie_id": "To which movie.",
            "history_len": "Interactions so far that are history: no impressions, preferences, watchlist changes.",
            "ratings": "Ratings so far.",
            "mean_rating": "Mean of the stars so far; null without a rating.",
            "first_seen": "Earliest event time so far (UTC).",
            "last_seen": "Latest event time so far (UTC).",
        },
    },
];
