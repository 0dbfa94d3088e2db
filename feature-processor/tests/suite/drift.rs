//! Drift detection on streams made of ml-100k: a short form of `marquee drift calibrate`.

use marquee_feature_processor::drift::{Corpus, DriftConfig, Outcome, Plan, Shift};
use marquee_feature_processor::{Catalogue, MemoryCatalogue};
use marquee_schemas::MovieId;

use crate::movielens::{data, movies, ratings};

const SEEDS: u64 = 12;

fn corpus(folder: &std::path::Path) -> Corpus {
    let catalogue: MemoryCatalogue = movies(folder);
    let mut corpus = Corpus::default();
    for movie in (1..=1682).map(MovieId) {
        let genres: Vec<String> = catalogue
            .genres(movie)
            .unwrap_or_default()
            .iter()
            .map(|genre| genre.to_string())
            .collect();
        corpus.movie(movie, &genres);
    }
    let mut events = ratings(folder);
    events.sort_by_key(|event| event.timestamp);
    for event in events {
        corpus.rating(
            event.user_id.0,
            event.movie_id.unwrap(),
            event.rating.unwrap(),
            event.timestamp,
        );
    }
    corpus
}

#[test]
fn stationary_streams_are_left_alone_and_planted_shifts_are_found() {
    let Some(folder) = data() else {
        println!("skipped: MARQUEE_DATA_DIR does not name a folder with ml-100k");
        return;
    };
    let corpus = corpus(&folder);
    let config = DriftConfig::default();
    let run = |shift: &Shift| -> Vec<Outcome> {
        let plan = Plan {
            lanes: 8,
            shift: shift.clone(),
            clean_windows: 3,
        };
        (0..SEEDS).map(|seed| corpus.run(&config, &plan, seed)).collect()
    };
    let stationary = run(&Shift::None);
    let windows: usize = stationary.iter().map(|outcome| outcome.clean_windows).sum();
    let alarms: usize = stationary.iter().map(|outcome| outcome.false_alarms).sum();
    assert!(windows > 100, "{windows}");
    assert!(alarms * 50 <= windows, "{alarms} alarms in {windows} windows");
    // The movies of genre 11 in u.genre are horror.
    let horror = Shift::Genre {
        genre: "genre 11".into(),
        share: 0.1,
    };
    for (shift, within, least) in [(horror, 3, 11), (Shift::LowerStars { share: 0.3 }, 6, 10)] {
        let found = run(&shift)
            .iter()
            .filter(|outcome| outcome.delay().is_some_and(|delay| delay <= within))
            .count();
        assert!(found >= least, "{shift:?}: {found} of {SEEDS}");
    }
    assert_eq!(
        run(&Shift::None),
        stationary,
        "the same seeds give the same outcome"
    );
}
