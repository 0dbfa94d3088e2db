//! Facts about one item: how well it is known and liked, its genres, its year, its place in the catalogue. They are
//! computed where they are wanted, mostly for the ranker's candidates alone.

use super::Column;
use crate::live::{Items, position_bucket};
use crate::served::catalogue::CatalogueItem;
use crate::served::context::Query;

/// Interactions that an item's like-share is smoothed by.
const SHARE_PRIOR: f32 = 5.0;
/// Decayed interactions that an item's position statistic is smoothed by.
const POSITION_PRIOR: f64 = 5.0;
/// Time since an event that never was, milliseconds: a century.
const NEVER_MS: i64 = 100 * 365 * 24 * 3_600_000;
const GENRES: usize = 32;
/// Entries that make the recent profile, and the long one.
const RECENT: usize = 5;
const LONG: usize = 50;

/// What facts rest on, for one query.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    items: &'a [CatalogueItem],
    live: &'a Items,
    now_ms: i64,
    bucket: usize,
    /// Brings stored position sums to now.
    factor: f64,
    /// Share of the interactions that people at this point of their history make.
    usual: f64,
    like_share: f32,
    recent: Option<[f32; GENRES]>,
    long: Option<[f32; GENRES]>,
    wish: u32,
    last_year: Option<f32>,
    recent_year: Option<f32>,
    /// Public ids of the newest entries; not a number beyond the first.
    recent_ids: [f32; RECENT],
}

impl<'a> Facts<'a> {
    pub(crate) fn new(query: &Query<'a>) -> Self {
        let items = query.binding.items();
        let history = || query.context.history.iter().rev();
        let item_of = |item: u32| items.get(item as usize);
        let year_of = |item: u32| item_of(item)?.year.map(f32::from);
        let live = query.live.item_columns();
        let bucket = position_bucket(query.context.length);
        let (here, all) = live.position_totals(bucket);
        let mut recent_ids = [f32::NAN; RECENT];
        for (slot, entry) in recent_ids.iter_mut().zip(history()) {
            *slot = item_of(entry.item).map_or(f32::NAN, |item| item.external_id as f32);
        }
        Self {
            items,
            live,
            now_ms: query.now_ms,
            bucket,
            factor: query.live.position_factor(query.now_ms),
            usual: (here / all.max(1e-9)).max(1e-9),
            like_share: query.live.like_share(),
            recent: genre_profile(query, RECENT),
            long: genre_profile(query, LONG),
            wish: query.context.genres,
            last_year: history().next().and_then(|entry| year_of(entry.item)),
            recent_year: mean(history().take(RECENT).filter_map(|entry| year_of(entry.item))),
            recent_ids,
        }
    }

    /// The value of a column behind the scores for a live item; zero for one of the others.
    pub(crate) fn value(&self, column: Column, item: u32) -> f32 {
        let since = |at: Option<i64>, never: i64| at.map_or(never, |at| self.now_ms - at) as f32;
        let state = || self.live.get(item);
        let described = || self.items.get(item as usize);
        let affinity = |profile: &Option<[f32; GENRES]>| match (profile, described()) {
            (Some(profile), Some(item)) => affinity(profile, item.genres),
            _ => 0.0,
        };
        let year = || described()?.year.map(f32::from);
        let gap = |from: Option<f32>| year().zip(from).map_or(0.0, |(year, from)| year - from);
        match column {
            Column::PositionLift => self.lift(item),
            Column::Count => state().map_or(0.0, |state| state.count as f32),
            Column::LikeShare => state().map_or(0.0, |state| {
                (state.like_count as f32 + SHARE_PRIOR * self.like_share) / (state.count as f32 + SHARE_PRIOR)
            }),
            Column::MeanRating => state().and_then(|state| state.mean_rating()).unwrap_or(0.0),
            Column::Idle => state().map_or(0.0, |state| since(state.last_ms, NEVER_MS)),
            Column::Age => state().map_or(0.0, |state| since(state.first_ms, 0)),
            Column::Genre => affinity(&self.long),
            Column::GenreRecent => affinity(&self.recent),
            Column::Year => year().unwrap_or(0.0),
            Column::YearGap => gap(self.last_year),
            Column::YearGapRecent => gap(self.recent_year),
            Column::IdGap => self.id_gap(item, |ids, id| id - ids[0]),
            Column::IdGapLeast => self.id_gap(item, |ids, id| {
                ids.iter()
                    .map(|other| (id - other).abs())
                    .fold(f32::INFINITY, f32::min)
            }),
            Column::Wish => described().map_or(0.0, |item| (item.genres & self.wish).count_ones() as f32),
            _ => 0.0,
        }
    }

    fn lift(&self, item: u32) -> f32 {
        let Some(&here) = self.live.positions(self.bucket).values().get(item as usize) else {
            return 0.0;
        };
        let (here, all) = (here * self.factor, self.live.all_positions(item) * self.factor);
        ((here + self.usual * POSITION_PRIOR) / (all + POSITION_PRIOR) / self.usual) as f32
    }

    /// Lists are shown in catalogue order at times, so neighbours by public id are rated together.
    fn id_gap(&self, item: u32, gap: impl Fn(&[f32; RECENT], f32) -> f32) -> f32 {
        match self.items.get(item as usize) {
            Some(item) if !self.recent_ids[0].is_nan() => gap(&self.recent_ids, item.external_id as f32),
            _ => 0.0,
        }
    }
}

/// Share of each genre among the newest `count` entries, likes counting double.
fn genre_profile(query: &Query<'_>, count: usize) -> Option<[f32; GENRES]> {
    let items = query.binding.items();
    let mut profile = [0.0_f32; GENRES];
    let mut total = 0.0;
    for entry in query.context.history.iter().rev().take(count) {
        let genres = items.get(entry.item as usize).map_or(0, |item| item.genres);
        let weight = if entry.is_like() { 2.0 } else { 1.0 };
        total += weight;
        let mut rest = genres;
        while rest != 0 {
            profile[rest.trailing_zeros() as usize] += weight;
            rest &= rest - 1;
        }
    }
    if total == 0.0 {
        return None;
    }
    for share in &mut profile {
        *share /= total;
    }
    Some(profile)
}

fn affinity(profile: &[f32; GENRES], genres: u32) -> f32 {
    let mut rest = genres;
    let mut sum = 0.0;
    while rest != 0 {
        sum += profile[rest.trailing_zeros() as usize];
        rest &= rest - 1;
    }
    sum / (genres.count_ones().max(1) as f32).sqrt()
}

fn mean(values: impl Iterator<Item = f32>) -> Option<f32> {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    (count > 0.0).then(|| sum / count)
}
