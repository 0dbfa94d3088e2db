//! `GET /metrics`

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::AppState;
use crate::metrics::Exposition;

pub(super) async fn metrics(State(state): State<AppState>) -> Response {
    let mut text = Exposition::default();
    state.metrics.expose(&mut text);
    text.single(
        "marquee_http_wait_seconds",
        "gauge",
        "How long the list had waited for its turn that was begun last.",
        state.queue.waited().as_secs_f64(),
    );
    text.single(
        "marquee_unknown_movies_total",
        "counter",
        "Requests for movies that the catalogue does not hold.",
        state.unknown.total() as f64,
    );
    logs(&state, &mut text);
    view(&state, &mut text);
    model(&state, &mut text);
    text.family(
        "marquee_alerts_total",
        "counter",
        "Conditions that a person should look at, by condition.",
    );
    for (condition, count) in state.alerts.counts() {
        text.sample("marquee_alerts_total", &[("condition", &condition)], count as f64);
    }
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text.finish(),
    )
        .into_response()
}

fn logs(state: &AppState, text: &mut Exposition) {
    let stats = state.logs.stats();
    text.single(
        "marquee_request_log_queue_depth",
        "gauge",
        "Request logs waiting to be sent.",
        state.logs.depth() as f64,
    );
    for (name, help, value) in [
        (
            "marquee_request_logs_accepted_total",
            "Request logs taken into the queue.",
            stats.accepted(),
        ),
        (
            "marquee_request_logs_delivered_total",
            "Request logs acknowledged by the broker.",
            stats.delivered(),
        ),
        (
            "marquee_request_logs_spooled_total",
            "Request logs written to the spool.",
            stats.spooled(),
        ),
    ] {
        text.single(name, "counter", help, value as f64);
    }
    let name = "marquee_request_logs_dropped_total";
    text.family(name, "counter", "Request logs lost, by reason.");
    for (reason, value) in [
        ("queue_full", stats.dropped_queue()),
        ("spool_full", stats.dropped_spool()),
        ("refused", stats.refused()),
    ] {
        text.sample(name, &[("reason", reason)], value as f64);
    }
    text.single(
        "marquee_request_log_spool_records",
        "gauge",
        "Request logs in the spool.",
        stats.spool_records() as f64,
    );
    text.single(
        "marquee_request_log_spool_bytes",
        "gauge",
        "Bytes of the spool.",
        stats.spool_bytes() as f64,
    );
}

fn view(state: &AppState, text: &mut Exposition) {
    let view = state.engine.view();
    let progress = &view.progress;
    let silent_ms = state
        .clock
        .now_ms()
        .saturating_sub(progress.polled_at_ms())
        .max(0);
    for (name, kind, help, value) in [
        (
            "marquee_view_loaded",
            "gauge",
            "Whether what the log held at the start has been applied.",
            f64::from(u8::from(progress.is_loaded())),
        ),
        (
            "marquee_view_lag_seconds",
            "gauge",
            "Age of the newest record when it was applied; 0 when nothing comes in.",
            progress.lag_ms() as f64 / 1e3,
        ),
        (
            "marquee_view_silent_seconds",
            "gauge",
            "Time since the view last heard from its subscriber.",
            if progress.polled_at_ms() == 0 {
                0.0
            } else {
                silent_ms as f64 / 1e3
            },
        ),
        (
            "marquee_view_records_total",
            "counter",
            "Records applied since the first load.",
            progress.applied_records() as f64,
        ),
        (
            "marquee_view_entries_total",
            "counter",
            "History entries applied since the first load.",
            progress.applied_entries() as f64,
        ),
        (
            "marquee_view_refused_records_total",
            "counter",
            "Records that could not be read.",
            progress.refused_records() as f64,
        ),
    ] {
        text.single(name, kind, help, value);
    }
    let now = view.read();
    let (movies, users, gaps) = (now.movies.present(), now.users.len(), now.users.missing_entries());
    let taken_back = now.users.taken_back();
    drop(now);
    text.single(
        "marquee_view_movies",
        "gauge",
        "Movies in the catalogue.",
        movies as f64,
    );
    text.single("marquee_view_users", "gauge", "Users known.", users as f64);
    text.single(
        "marquee_view_missing_entries",
        "gauge",
        "History entries that the changelog lacks.",
        gaps as f64,
    );
    text.single(
        "marquee_view_events_taken_back",
        "gauge",
        "Events that lists rested on before the feature store, which then did not apply them.",
        taken_back as f64,
    );
}

fn model(state: &AppState, text: &mut Exposition) {
    let name = "marquee_model_info";
    text.family(name, "gauge", "The models in memory, by role.");
    let champion = state.engine.champion();
    let challenger = champion.challenger();
    let one_each = [
        ("champion", champion.serving()),
        ("previous", champion.previous()),
        (
            "challenger",
            challenger
                .as_ref()
                .map(|challenger| Arc::clone(&challenger.serving)),
        ),
    ];
    let experiment = champion
        .all_named()
        .into_iter()
        .map(|model| ("experiment", model));
    let all = one_each
        .into_iter()
        .filter_map(|(role, model)| Some((role, model?)))
        .chain(experiment);
    for (role, model) in all {
        text.sample(name, &[("role", role), ("version", &model.version.0)], 1.0);
    }
    text.single(
        "marquee_rollout_share",
        "gauge",
        "Share of the users whom a challenger serves; 0 also where none is being rolled out.",
        challenger.map_or(0.0, |challenger| challenger.share),
    );
    text.single(
        "marquee_shadow_lists_total",
        "counter",
        "Lists made on the side by a model in its shadow stage.",
        state.shadow.scored() as f64,
    );
    text.single(
        "marquee_shadow_lists_skipped_total",
        "counter",
        "Such lists not made because too many waited.",
        state.shadow.skipped() as f64,
    );
    text.single(
        "marquee_shadow_lists_failed_total",
        "counter",
        "Such lists not made because making them panicked.",
        state.shadow.failed() as f64,
    );
}
