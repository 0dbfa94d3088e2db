//! Genres, years and catalogue order: how an item resembles the history without anybody else's help.

use super::Column;
use crate::served::catalogue::CatalogueItem;
use crate::served::context::Query;

const GENRES: usize = 32;
/// Entries that make the recent profile, and the long one.
const RECENT: usize = 5;
const LONG: usize = 50;

pub(super) fn fill(query: &Query<'_>, columns: &mut [Vec<f32>]) {
    let items = query.binding.items();
    for (column, count) in [(Column::GenreRecent, RECENT), (Column::Genre, LONG)] {
        let Some(profile) = genre_profile(query, items, count) else {
            continue;
        };
        for (score, item) in columns[column as usize].iter_mut().zip(items) {
            *score = affinity(&profile, item.genres);
        }
    }
    if query.context.genres != 0 {
        for (score, item) in columns[Column::Wish as usize].iter_mut().zip(items) {
            *score = (item.genres & query.context.genres).count_ones() as f32;
        }
    }
    years(query, items, columns);
    ids(query, items, columns);
}

/// Share of each genre among the newest `count` entries, likes counting double.
fn genre_profile(query: &Query<'_>, items: &[CatalogueItem], count: usize) -> Option<[f32; GENRES]> {
    let mut profile = [0.0_f32; GENRES];
    let mut total = 0.0;
    for entry in query.context.history.iter().rev().take(count) {
        let genres = items.get(entry.item as usize).map_or(0, |item| item.genres);
        let weight = if entry.is_like() { 2.0 } else { 1.0 };
        total += weight;
        for (genre, share) in profile.iter_mut().enumerate() {
            if genres >> genre & 1 == 1 {
                *share += weight;
            }
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

fn years(query: &Query<'_>, items: &[CatalogueItem], columns: &mut [Vec<f32>]) {
    let year_of = |item: u32| items.get(item as usize).and_then(|item| item.year).map(f32::from);
    let last = query.context.history.last().and_then(|entry| year_of(entry.item));
    let recent: Mean = query
        .context
        .history
        .iter()
        .rev()
        .take(RECENT)
        .filter_map(|entry| year_of(entry.item))
        .collect();
    let mean = recent.value();
    for (index, item) in items.iter().enumerate() {
        let Some(year) = item.year.map(f32::from) else {
            continue;
        };
        columns[Column::Year as usize][index] = year;
        columns[Column::YearGap as usize][index] = last.map_or(0.0, |last| year - last);
        columns[Column::YearGapRecent as usize][index] = mean.map_or(0.0, |mean| year - mean);
    }
}

/// Sum and count of a few numbers, without a heap.
#[derive(Default)]
struct Mean {
    sum: f32,
    count: f32,
}

impl FromIterator<f32> for Mean {
    fn from_iter<I: IntoIterator<Item = f32>>(values: I) -> Self {
        values.into_iter().fold(Self::default(), |all, value| Self {
            sum: all.sum + value,
            count: all.count + 1.0,
        })
    }
}

impl Mean {
    fn value(&self) -> Option<f32> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }
}

/// Lists are shown in catalogue order at times, so neighbours by public id are rated together.
fn ids(query: &Query<'_>, items: &[CatalogueItem], columns: &mut [Vec<f32>]) {
    let id_of = |item: u32| items.get(item as usize).map(|item| item.external_id as f32);
    let mut recent = [f32::NAN; RECENT];
    for (slot, entry) in recent.iter_mut().zip(query.context.history.iter().rev()) {
        *slot = id_of(entry.item).unwrap_or(f32::NAN);
    }
    let [last, ..] = recent;
    if last.is_nan() {
        return;
    }
    for (index, item) in items.iter().enumerate() {
        let id = item.external_id as f32;
        columns[Column::IdGap as usize][index] = id - last;
        let least = recent
            .iter()
            .map(|other| (id - other).abs())
            .fold(f32::INFINITY, f32::min);
        columns[Column::IdGapLeast as usize][index] = least;
    }
}
