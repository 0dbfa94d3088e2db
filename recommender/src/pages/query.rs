//! What the addresses of pages carry. Forms send empty fields, so an empty value is none.

use std::fmt::Display;
use std::str::FromStr;

use marquee_schemas::{MovieId, UserId};
use serde::{Deserialize, Deserializer};

use crate::engine::Window;

fn blank<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    match text.trim() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

/// Which list a page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Which {
    /// For a user, or from seeds.
    #[default]
    Recommend,
    /// Like a movie.
    Similar,
    /// Popular.
    Popular,
}

impl Which {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Recommend => "recommend",
            Self::Similar => "similar",
            Self::Popular => "popular",
        }
    }
}

/// A page's address after the question mark.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PageQuery {
    pub(super) list: Which,
    #[serde(deserialize_with = "blank")]
    pub(super) user: Option<u64>,
    #[serde(deserialize_with = "blank")]
    pub(super) movie: Option<u32>,
    #[serde(deserialize_with = "blank")]
    pub(super) seeds: Option<Seeds>,
    #[serde(deserialize_with = "blank")]
    pub(super) genre: Option<String>,
    pub(super) window: Window,
    #[serde(deserialize_with = "blank")]
    pub(super) diversity: Option<f32>,
    #[serde(deserialize_with = "blank")]
    pub(super) recency: Option<f32>,
    #[serde(deserialize_with = "blank")]
    pub(super) query: Option<String>,
}

/// Movie ids with commas between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seeds(pub(super) Vec<MovieId>);

impl FromStr for Seeds {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',')
            .map(|id| id.trim().parse().map(MovieId))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Display for Seeds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, seed) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            write!(f, "{seed}")?;
        }
        Ok(())
    }
}

impl PageQuery {
    pub(super) fn user(&self) -> Option<UserId> {
        self.user.map(UserId)
    }

    pub(super) fn seeds(&self) -> &[MovieId] {
        self.seeds.as_ref().map_or(&[], |seeds| &seeds.0)
    }

    /// The address of `path` with the same query.
    pub(super) fn at(&self, path: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let mut pair = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                query.append_pair(name, &value);
            }
        };
        pair(
            "list",
            (self.list != Which::default()).then(|| self.list.as_str().to_owned()),
        );
        pair("user", self.user.map(|id| id.to_string()));
        pair("movie", self.movie.map(|id| id.to_string()));
        pair("seeds", self.seeds.as_ref().map(Seeds::to_string));
        pair("genre", self.genre.clone());
        pair(
            "window",
            (self.window != Window::default()).then(|| self.window.as_str().to_owned()),
        );
        pair("diversity", self.diversity.map(|strength| strength.to_string()));
        pair("recency", self.recency.map(|strength| strength.to_string()));
        let query = query.finish();
        if query.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{query}")
        }
    }

    /// The same with these seeds.
    pub(super) fn with_seeds(&self, seeds: Vec<MovieId>) -> Self {
        Self {
            seeds: (!seeds.is_empty()).then_some(Seeds(seeds)),
            query: None,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_and_empty_fields_are_none() {
        let uri = "/x?list=popular&user=7&seeds=1,%202&genre=Film-Noir&window=7d&diversity=0.5&query="
            .parse()
            .unwrap();
        let axum::extract::Query(query) = axum::extract::Query::<PageQuery>::try_from_uri(&uri).unwrap();
        assert_eq!(query.seeds(), [MovieId(1), MovieId(2)]);
        assert_eq!(query.query, None);
        assert_eq!(
            query.at("/y"),
            "/y?list=popular&user=7&seeds=1%2C2&genre=Film-Noir&window=7d&diversity=0.5"
        );
        for bad in ["/x?user=me", "/x?seeds=1,a", "/x?window=2h", "/x?colour=red"] {
            assert!(
                axum::extract::Query::<PageQuery>::try_from_uri(&bad.parse().unwrap()).is_err(),
                "{bad}"
            );
        }
    }
}
