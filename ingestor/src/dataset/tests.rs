use std::fs;
use std::path::PathBuf;

use marquee_schemas::{Record, decode, encode};

use super::*;

const CSV_MOVIES: &str = "movieId,title,genres\n\
    1,Toy Story (1995),Adventure|Animation\n\
    11,\"American President, The (1995)\",Comedy|Drama\n\
    40697,Babylon 5,Sci-Fi\n\
    95311,\"\"\"Quoted\"\" Désirée (2011) \",(no genres listed)\n";
const CSV_LINKS: &str = "movieId,imdbId,tmdbId\n1,0114709,862\n11,0112346,\n77,0000001,5\n";
const CSV_RATINGS: &str = "userId,movieId,rating,timestamp\n1,1,4.0,200\n2,11,0.5,100\n1,11,5.0,100\n";

fn folder(files: &[(&str, &[u8])]) -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("ml-test");
    fs::create_dir(&dir).unwrap();
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).unwrap();
    }
    (root, dir)
}

fn csv_folder(movies: &str, ratings: &str) -> (tempfile::TempDir, PathBuf) {
    folder(&[
        ("movies.csv", movies.as_bytes()),
        ("ratings.csv", ratings.as_bytes()),
        ("links.csv", CSV_LINKS.as_bytes()),
    ])
}

fn movie(data: &Dataset, id: u32) -> &Movie {
    data.movies
        .iter()
        .find(|movie| movie.movie_id == MovieId(id))
        .unwrap()
}

fn order(data: &Dataset) -> Vec<(u64, u32, f32, i64)> {
    let rows = data.ratings.iter();
    rows.map(|r| (r.user_id.0, r.movie_id.0, r.rating, r.timestamp_ms))
        .collect()
}

#[test]
fn a_csv_layout_loads_alike_with_either_line_end_and_with_a_byte_order_mark() {
    let crlf = |text: &str| text.replace('\n', "\r\n");
    let marked = |text: &str| format!("\u{feff}{text}");
    for change in [&str::to_owned as &dyn Fn(&str) -> String, &crlf, &marked] {
        let (_root, dir) = csv_folder(&change(CSV_MOVIES), &change(CSV_RATINGS));
        let data = Dataset::load(&dir).unwrap();
        assert_eq!(data.name, "ml-test");
        assert_eq!(
            order(&data),
            [(2, 11, 0.5, 100_000), (1, 11, 5.0, 100_000), (1, 1, 4.0, 200_000)]
        );
        let toy = movie(&data, 1);
        assert_eq!((toy.title.as_str(), toy.year), ("Toy Story", Some(1995)));
        assert_eq!(toy.genres, ["Adventure", "Animation"]);
        assert_eq!(
            (toy.imdb_id.as_deref(), toy.tmdb_id),
            (Some("0114709"), Some(862))
        );
        let president = movie(&data, 11);
        assert_eq!(president.title, "American President, The");
        assert_eq!(
            (president.imdb_id.as_deref(), president.tmdb_id),
            (Some("0112346"), None)
        );
        assert_eq!(
            (movie(&data, 40697).title.as_str(), movie(&data, 40697).year),
            ("Babylon 5", None)
        );
        let quoted = movie(&data, 95311);
        assert_eq!(
            (quoted.title.as_str(), quoted.year),
            ("\"Quoted\" Désirée", Some(2011))
        );
        assert!(quoted.genres.is_empty());
    }
}

#[test]
fn the_double_colon_layout_loads_with_latin_letters_and_either_line_end() {
    let movies = b"1::Toy Story (1995)::Animation|Children's\n2::Mis\xe9rables, Les (1995)::Drama\n3::A::B (1999)::War\n";
    let ratings = b"1::1::5::978300760\n1::2::3.5::978300700\n";
    let crlf = |bytes: &[u8]| -> Vec<u8> {
        bytes
            .iter()
            .flat_map(|&b| if b == b'\n' { vec![b'\r', b'\n'] } else { vec![b] })
            .collect()
    };
    for change in [&<[u8]>::to_vec as &dyn Fn(&[u8]) -> Vec<u8>, &crlf] {
        let (_root, dir) = folder(&[("movies.dat", &change(movies)), ("ratings.dat", &change(ratings))]);
        let data = Dataset::load(&dir).unwrap();
        assert_eq!(
            order(&data),
            [(1, 2, 3.5, 978_300_700_000), (1, 1, 5.0, 978_300_760_000)]
        );
        assert_eq!(movie(&data, 2).title, "Misérables, Les");
        assert_eq!(movie(&data, 1).genres, ["Animation", "Children's"]);
        assert_eq!(movie(&data, 3).title, "A::B");
    }
}

#[test]
fn the_tab_layout_loads_with_genre_flags_and_the_unknown_movie() {
    let (_root, dir) = folder(&[
        ("u.genre", b"unknown|0\nAction|1\nComedy|2\n\n"),
        (
            "u.item",
            b"1|Caf\xe9 (1995)|01-Jan-1995||http://x|0|1|1\r\n267|unknown||||1|0|0\r\n",
        ),
        ("u.data", b"196\t1\t3\t881250949\r\n186\t267\t4\t881250949\r\n"),
    ]);
    let data = Dataset::load(&dir).unwrap();
    assert_eq!(
        (movie(&data, 1).title.as_str(), movie(&data, 1).year),
        ("Café", Some(1995))
    );
    assert_eq!(movie(&data, 1).genres, ["Action", "Comedy"]);
    assert_eq!(
        (movie(&data, 267).title.as_str(), movie(&data, 267).year),
        ("unknown", None)
    );
    assert!(movie(&data, 267).genres.is_empty());
    // At equal times the file's order stays.
    assert_eq!(order(&data)[0].0, 196);
}

#[test]
fn a_damaged_row_is_named_by_file_line_and_fault() {
    let header = "userId,movieId,rating,timestamp\n1,1,4.0,200\n";
    for (row, fault) in [
        ("x,1,4,100", "user \"x\""),
        ("1,-1,4,100", "movie \"-1\""),
        ("1,1,7,100", "rating 7"),
        ("1,1,NaN,100", "rating NaN"),
        ("1,1,4,soon", "timestamp \"soon\""),
        ("1,1,4,0", "timestamp 0"),
        ("1,1,4,9223372036854775807", "timestamp 9223372036854775807"),
        ("9007199254740992,1,4,100", "2^53 - 1"),
        ("1,1,4", "3 fields"),
        ("1,1,4,100,5", "5 fields"),
    ] {
        let (_root, dir) = csv_folder(CSV_MOVIES, &format!("{header}{row}\n1,11,3,50\n"));
        let error = Dataset::load(&dir).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Row { line: 3, .. }), "{row}: {text}");
        assert!(
            text.contains("ratings.csv:3: ") && text.contains(fault),
            "{row}: {text}"
        );
        let data = Dataset::load_with(&dir, DamagedRows::Skip).unwrap();
        assert_eq!((data.ratings.len(), data.skipped_rows), (2, 1), "{row}");
    }
}

#[test]
fn a_damaged_catalogue_or_header_is_named_too() {
    for (movies, ratings, fault) in [
        (
            "id,title,genres\n1,A,B\n",
            CSV_RATINGS,
            "movies.csv:1: no column \"movieId\"",
        ),
        (
            "movieId,title,genres\n1,A,B\n1,C,D\n",
            CSV_RATINGS,
            "movies.csv:3: movie 1 is in the catalogue twice",
        ),
        (
            "movieId,title,genres\n1, ,B\n",
            CSV_RATINGS,
            "movies.csv:2: invalid title",
        ),
        ("movieId,title,genres\n", CSV_RATINGS, "not one movie"),
        (CSV_MOVIES, "userId,movieId,rating,timestamp\n", "not one rating"),
        (CSV_MOVIES, "", "ratings.csv:1: no column"),
    ] {
        let (_root, dir) = csv_folder(movies, ratings);
        let text = Dataset::load(&dir).unwrap_err().to_string();
        assert!(text.contains(fault), "{text}");
    }
    for (item, fault) in [
        (
            &b"1|A (1999)||||0|2\n"[..],
            "u.item:1: flag \"2\" for genre Action",
        ),
        (b"1|A (1999)||||0\n", "u.item:1: 6 fields, expected 7"),
    ] {
        let files: &[(&str, &[u8])] = &[
            ("u.genre", b"unknown|0\nAction|1\n"),
            ("u.item", item),
            ("u.data", b"1\t1\t4\t5\n"),
        ];
        let (_root, dir) = folder(files);
        let text = Dataset::load(&dir).unwrap_err().to_string();
        assert!(text.contains(fault), "{text}");
    }
}

#[test]
fn a_directory_without_a_data_set_says_what_is_missing() {
    let (_root, dir) = folder(&[]);
    let text = Dataset::load(&dir).unwrap_err().to_string();
    assert!(
        text.contains("neither ratings.csv nor ratings.dat nor u.data"),
        "{text}"
    );
    let text = Dataset::load(&dir.join("nowhere")).unwrap_err().to_string();
    assert!(text.contains("no such directory"), "{text}");
    fs::write(dir.join("movies.dat"), "").unwrap();
    let text = Dataset::load(&dir).unwrap_err().to_string();
    assert!(text.contains("ratings.dat is missing"), "{text}");
}

#[test]
fn a_file_that_is_no_text_is_refused_without_reading_it_whole() {
    let (_root, dir) = folder(&[
        ("movies.dat", &vec![0xff; 200_000]),
        ("ratings.dat", b"1::1::5::9\n"),
    ]);
    for damaged in [DamagedRows::Refuse, DamagedRows::Skip] {
        let text = Dataset::load_with(&dir, damaged).unwrap_err().to_string();
        assert!(text.contains("movies.dat:1: longer than"), "{text}");
    }
}

#[test]
fn event_ids_are_functions_of_the_rating_and_unique_even_where_rows_repeat() {
    let row = |user: u64, stars| Rating {
        user_id: UserId(user),
        movie_id: MovieId(3),
        rating: stars,
        timestamp_ms: 1_000,
    };
    let data = Dataset::new(
        "d",
        vec![],
        vec![row(1, 4.0), row(2, 3.0), row(1, 4.0), row(1, 2.0)],
    );
    let ids: Vec<_> = data.interactions(0..9).map(|event| event.event_id).collect();
    assert_eq!(ids, ["d/1/3/1000", "d/2/3/1000", "d/1/3/1000/1", "d/1/3/1000/2"]);
    let event = data.interaction(3).unwrap();
    assert_eq!(
        (event.kind, event.rating, event.timestamp),
        (Kind::Rating, Some(2.0), 1_000)
    );
    assert_eq!(decode::<Interaction>(&encode(&event)).unwrap(), event);
    assert!(data.interaction(4).is_none());
    // The longest ids still fit.
    let long = Rating {
        user_id: UserId::MAX,
        movie_id: MovieId(u32::MAX),
        rating: 1.0,
        timestamp_ms: i64::MAX,
    };
    let data = Dataset::new("é".repeat(100), vec![], vec![long; 3]);
    data.interaction(2).unwrap().check().unwrap();
}

#[test]
fn a_share_splits_at_a_position_within_the_ratings() {
    let (_root, dir) = csv_folder(CSV_MOVIES, CSV_RATINGS);
    let data = Dataset::load(&dir).unwrap();
    let shares = [0.0, 0.85, 1.0, 7.0, -1.0, f64::NAN];
    assert_eq!(shares.map(|share| data.split_at(share)), [0, 3, 3, 3, 0, 0]);
}

proptest::proptest! {
    // Each case writes seven files.
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]
    #[test]
    fn any_bytes_in_any_file_end_in_a_result(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        for files in [
            &[("movies.csv", &bytes[..]), ("ratings.csv", &bytes[..])][..],
            &[("movies.dat", &bytes[..]), ("ratings.dat", &bytes[..])],
            &[("u.genre", &bytes[..]), ("u.item", &bytes[..]), ("u.data", &bytes[..])],
        ] {
            let (_root, dir) = folder(files);
            proptest::prop_assert!(Dataset::load(&dir).is_err());
            proptest::prop_assert!(Dataset::load_with(&dir, DamagedRows::Skip).is_err());
        }
    }
}

/// The real data sets, where they are.
fn real(name: &str) -> Option<Dataset> {
    let root = std::env::var_os("MARQUEE_DATA_DIR").map(PathBuf::from);
    match locate(name, None, root.as_deref(), None) {
        Ok(dir) => Some(Dataset::load(&dir).unwrap()),
        Err(error) => {
            println!("skipped, MARQUEE_DATA_DIR has no {name}: {error}");
            None
        }
    }
}

#[test]
fn ml_100k_loads_whole() {
    let Some(data) = real("ml-100k") else { return };
    let summary = data.summary();
    assert_eq!(
        (summary.ratings, summary.users, summary.movies),
        (100_000, 943, 1_682)
    );
    assert_eq!((summary.unknown_movies, summary.skipped_rows), (0, 0));
    assert_eq!(
        summary.by_half_stars,
        [0, 6_110, 0, 11_370, 0, 27_145, 0, 34_174, 0, 21_201]
    );
    assert_eq!(
        summary.to_string(),
        "ml-100k: 100,000 ratings by 943 users of 1,682 movies, 1997-09-20 to 1998-04-22, mean 3.53 stars"
    );
    let without_year: Vec<_> = data
        .movies
        .iter()
        .filter(|m| m.year.is_none())
        .map(|m| m.movie_id.0)
        .collect();
    assert_eq!(without_year, [267]);
    let ids: HashSet<_> = data
        .interactions(0..usize::MAX)
        .map(|event| event.event_id)
        .collect();
    assert_eq!(ids.len(), 100_000);
}

#[test]
fn ml_latest_small_loads_whole() {
    let Some(data) = real("ml-latest-small") else {
        return;
    };
    let summary = data.summary();
    assert_eq!(
        (summary.ratings, summary.users, summary.movies),
        (100_836, 610, 9_742)
    );
    assert_eq!(summary.unknown_movies, 0);
    let unknown = data.movies.iter().filter(|movie| movie.year.is_none()).count();
    assert_eq!(unknown, 12, "Babylon 5 and its like");
    assert_eq!(movie(&data, 171_749).year, Some(2006));
    assert!(
        data.movies
            .iter()
            .all(|movie| movie.imdb_id.is_some() && movie.check().is_ok())
    );
    assert_eq!(
        data.movies.iter().filter(|movie| movie.genres.is_empty()).count(),
        34
    );
    for position in 0..data.ratings.len() {
        data.interaction(position).unwrap().check().unwrap();
    }
}

#[test]
fn the_catalogue_of_ml_1m_loads_with_ratings_of_ones_own() {
    let Some(root) = std::env::var_os("MARQUEE_DATA_DIR").map(PathBuf::from) else {
        println!("skipped, MARQUEE_DATA_DIR is not set");
        return;
    };
    let Ok(movies) = fs::read(root.join("ml-1m/movies.dat")) else {
        println!("skipped, MARQUEE_DATA_DIR has no ml-1m");
        return;
    };
    let (_root, dir) = folder(&[
        ("movies.dat", &movies),
        ("ratings.dat", b"1::1193::5::978300760\n"),
    ]);
    let data = Dataset::load(&dir).unwrap();
    assert!(data.movies.len() >= 3_883);
    assert_eq!(movie(&data, 73).title, "Misérables, Les");
    let associate = movie(&data, 1001);
    assert_eq!(
        (associate.title.as_str(), associate.year),
        ("Associate, The (L'Associe)", Some(1982))
    );
}
