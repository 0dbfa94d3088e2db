//! `marquee drift calibrate`: how often drift detection cries wolf, and how soon it finds what is planted.

use anyhow::{Result, bail};
use marquee_feature_processor::drift::{Corpus, DriftConfig, Outcome, Plan, Shift};
use marquee_ingestor::Dataset;
use serde_json::json;

use crate::cli::{Common, DriftAction, DriftArgs};
use crate::config::Config;
use crate::ingest;

/// Planted shifts begin after this many undisturbed windows.
const CLEAN_WINDOWS: usize = 3;

pub(crate) async fn run(common: &Common, args: DriftArgs) -> Result<()> {
    let DriftAction::Calibrate {
        dataset,
        seeds,
        lanes,
        genre,
        json,
    } = args.action;
    let config = Config::load(common)?.feature_processor.drift;
    let dataset = ingest::load(dataset).await?;
    tokio::task::spawn_blocking(move || calibrate(&config, &dataset, seeds, lanes, &genre, json)).await?
}

fn calibrate(
    config: &DriftConfig,
    dataset: &Dataset,
    seeds: u64,
    lanes: usize,
    genre: &str,
    json: bool,
) -> Result<()> {
    let mut corpus = Corpus::default();
    for movie in &dataset.movies {
        corpus.movie(movie.movie_id, &movie.genres);
    }
    for rating in &dataset.ratings {
        corpus.rating(
            rating.user_id.0,
            rating.movie_id,
            rating.rating,
            rating.timestamp_ms,
        );
    }
    if seeds == 0 || lanes == 0 || (corpus.events() as u64) < 2 * config.reference_events {
        bail!(
            "{} events are too few for a reference of {} and as many to watch, or there is no seed or lane",
            corpus.events(),
            config.reference_events
        );
    }
    let run = |shift: &Shift| -> Vec<Outcome> {
        let plan = Plan {
            lanes,
            shift: shift.clone(),
            clean_windows: CLEAN_WINDOWS,
        };
        (0..seeds).map(|seed| corpus.run(config, &plan, seed)).collect()
    };
    let stationary = run(&Shift::None);
    let windows: usize = stationary.iter().map(|outcome| outcome.clean_windows).sum();
    let alarms: usize = stationary.iter().map(|outcome| outcome.false_alarms).sum();
    let sightings: usize = stationary.iter().map(|outcome| outcome.false_sightings).sum();
    let share = |part: usize| part as f64 / windows.max(1) as f64;
    if !json {
        println!(
            "{seeds} streams, {lanes} users at a time, a reference of {} events",
            config.reference_events
        );
        println!("stationary: {windows} windows");
        println!(
            "  {:5.2}% of windows raise an alarm ({alarms})",
            100.0 * share(alarms)
        );
        println!(
            "  {:5.2}% of windows show a change in some feature ({sightings})",
            100.0 * share(sightings)
        );
    }
    let mut planted = Vec::new();
    for (name, shift, within) in [
        (
            format!("10% of events about {genre}"),
            Shift::Genre {
                genre: genre.to_owned(),
                share: 0.1,
            },
            3,
        ),
        (
            "30% of ratings one star lower".to_owned(),
            Shift::LowerStars { share: 0.3 },
            6,
        ),
    ] {
        let mut delays: Vec<usize> = run(&shift)
            .iter()
            .map(|outcome| outcome.delay().unwrap_or(usize::MAX))
            .collect();
        delays.sort_unstable();
        let found = delays.iter().filter(|&&delay| delay <= within).count() as f64 / seeds as f64;
        let median = delays.get(delays.len() / 2).filter(|&&delay| delay != usize::MAX);
        if json {
            planted.push(json!({
                "shift": name, "within_windows": within, "found_share": found, "median_delay_windows": median,
            }));
        } else {
            println!("{name}");
            println!("  {:5.1}% found within {within} windows", 100.0 * found);
            match median {
                Some(median) => println!("  median: window {median} after it began"),
                None => println!("  more than half never found"),
            }
        }
    }
    if json {
        println!(
            "{}",
            json!({
                "streams": seeds, "lanes": lanes, "windows": windows,
                "false_alarm_share_of_windows": share(alarms),
                "retrains_per_100_windows": 100.0 * share(alarms),
                "false_sighting_share_of_windows": share(sightings),
                "planted": planted,
            })
        );
    }
    Ok(())
}
