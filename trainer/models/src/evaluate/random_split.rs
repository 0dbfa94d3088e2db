//! The random-split protocol: pairs without time, for comparing implementations with the literature's figures.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::contender::fit_reference;
use super::result::{Case, Heading, rows};
use super::{EvaluationOptions, Meter, Population, Progress, ResultRow, Segment};
use crate::metrics::coverage;
use crate::{Error, HistoryItem, Interactions, Scorer, Scratch};

/// Share of a user's pairs that are tested, rounded up.
const TEST_SHARE: f64 = 0.2;
/// Users per unit of parallel work.
const BLOCK: usize = 64;

/// Divides each user's pairs 80/20 at random, fits on the first part at the literature's settings, and ranks all items
/// without the training ones for each user with a pair in the second. `pairs` are dense (user, item); one that is there
/// twice counts once. Cases are users; every one is *warm*.
///
/// # Errors
/// [`Error::Data`] without pairs; [`Error::Hyperparameter`] for a model that needs times or ratings; whatever a model's
/// fit refuses.
pub fn random_split(
    pairs: &[(u32, u32)],
    options: &EvaluationOptions,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Vec<ResultRow>, Error> {
    if let Some(model) = options.models.iter().find(|model| model.needs_time()) {
        return Err(Error::Hyperparameter {
            name: "models",
            value: model.to_string(),
            requirement: "ease, als, bpr or cosine: pairs have no time, which the others need",
        });
    }
    let Split { train, test } = Split::draw(pairs, options.seed)?;
    let users = test.iter().filter(|truth| !truth.is_empty()).count();
    let meter = Meter::new(users * options.models.len(), progress);
    let heading = Heading {
        protocol: "random-split",
        segment: Segment::Test,
        draws: options.bootstrap_draws,
        seed: options.seed,
    };
    let results: Result<Vec<_>, Error> = options
        .models
        .par_iter()
        .map(|&model| {
            let scorer = fit_reference(model, &train)?;
            let lists = judge(scorer.as_ref(), &train, &test, &meter);
            let share = coverage(lists.iter().map(|(_, top)| top.as_slice()), train.items());
            let cases: Vec<Case> = lists.into_iter().map(|(case, _)| case).collect();
            Ok(rows(heading, model, &cases, &[], share, &[Population::All]))
        })
        .collect();
    Ok(results?.concat())
}

struct Split {
    train: Interactions,
    /// Items by user, ascending.
    test: Vec<Vec<u32>>,
}

impl Split {
    fn draw(pairs: &[(u32, u32)], seed: u64) -> Result<Self, Error> {
        let mut sorted = pairs.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let users = sorted.last().map_or(0, |&(user, _)| user as usize + 1);
        let items = sorted
            .iter()
            .map(|&(_, item)| item as usize + 1)
            .max()
            .unwrap_or(0);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut test = vec![Vec::new(); users];
        let mut train = Vec::with_capacity(sorted.len());
        for of_user in sorted.chunk_by_mut(|a, b| a.0 == b.0) {
            of_user.shuffle(&mut rng);
            let tested = (of_user.len() as f64 * TEST_SHARE).ceil() as usize;
            let (second, first) = of_user.split_at(tested);
            train.extend(first.iter().map(|&(user, item)| (user, item, 1.0)));
            for &(user, item) in second {
                test[user as usize].push(item);
            }
        }
        for truth in &mut test {
            truth.sort_unstable();
        }
        Ok(Self {
            train: Interactions::from_triplets(users, items, &train)?,
            test,
        })
    }
}

/// A case and the top of its list, for every user with a truth.
fn judge(
    scorer: &dyn Scorer,
    train: &Interactions,
    test: &[Vec<u32>],
    meter: &Meter<'_>,
) -> Vec<(Case, Vec<u32>)> {
    test.par_chunks(BLOCK)
        .enumerate()
        .map(|(block, truths)| {
            let mut scratch = Scratch::default();
            let mut scores = vec![0.0_f32; train.items()];
            let mut judged = Vec::with_capacity(truths.len());
            for (user, truth) in (block * BLOCK..).zip(truths) {
                if truth.is_empty() {
                    continue;
                }
                let row = train.by_user().outer_view(user);
                let seen = row.as_ref().map_or(&[][..], |row| row.indices());
                let history: Vec<HistoryItem> = seen
                    .iter()
                    .map(|&item| HistoryItem { item, weight: 1.0 })
                    .collect();
                scorer.score_into(&history, &mut scratch, &mut scores);
                let mut ranked: Vec<u32> = (0..scores.len() as u32)
                    .filter(|item| seen.binary_search(item).is_err())
                    .collect();
                ranked.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]));
                if let Some(case) = Case::of_list(user as u32, &ranked, truth) {
                    ranked.truncate(100);
                    judged.push((case, ranked));
                }
                meter.add(1);
            }
            judged
        })
        .collect::<Vec<_>>()
        .concat()
}
