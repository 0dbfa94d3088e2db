//! ml-1m where only its pairs are at hand: stars and times are made up, deterministically. Who saw what is real, and with
//! it the sizes of everything: 6,040 users, 3,883 movies, a million events.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, UInt32Type};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

const PAIRS: &str = "user-movie-pairs.parquet";
/// The first user's first event, and the time over which users arrive: as in the data set.
const BEGIN_S: u64 = 956_703_932;
const SPAN_S: u64 = 1_039 * 86_400;

/// The data set's folder: that of `MARQUEE_DATA_DIR`, or one made in `scratch` where that holds the pairs only.
pub(crate) fn folder(scratch: &Path) -> PathBuf {
    let given = PathBuf::from(std::env::var_os("MARQUEE_DATA_DIR").expect("MARQUEE_DATA_DIR")).join("ml-1m");
    if given.join("ratings.dat").is_file() {
        return given;
    }
    let made = scratch.join("ml-1m");
    write(&given, &made);
    made
}

/// Writes a folder in the data set's own layout to `to` from the pairs in `from`.
fn write(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    fs::copy(from.join("movies.dat"), to.join("movies.dat")).expect("movies.dat");
    let mut pairs = read(&from.join(PAIRS));
    // A user's movies in an order of their own.
    pairs.sort_by_key(|&(user, movie)| (user, mixed(u64::from(user) << 32 | u64::from(movie))));
    let mut text = String::new();
    for history in pairs.chunk_by(|a, b| a.0 == b.0) {
        let user = history[0].0;
        let mut time_s = BEGIN_S + mixed(u64::from(user)) % SPAN_S;
        for &(_, movie) in history {
            let luck = mixed(u64::from(movie) << 32 | u64::from(user));
            // What everybody thinks of the movie, and how this user differs.
            let stars = 2 + mixed(u64::from(movie)) % 3 + luck % 3;
            time_s += 5 + luck % 35;
            writeln!(text, "{user}::{movie}::{}::{time_s}", stars.clamp(2, 6) - 1).expect("text");
        }
    }
    fs::write(to.join("ratings.dat"), text).expect("ratings.dat");
}

/// SplitMix64's finaliser.
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

fn read(file: &Path) -> Vec<(u32, u32)> {
    let file = File::open(file).expect("the pairs");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet");
    let mut pairs = Vec::new();
    for batch in reader.build().expect("Parquet") {
        let batch = batch.expect("a batch");
        let [users, movies] =
            [0, 1].map(|column| cast(batch.column(column), &DataType::UInt32).expect("numbers"));
        assert_eq!(users.null_count() + movies.null_count(), 0, "all are numbers");
        let users = users.as_primitive::<UInt32Type>().values();
        pairs.extend(
            users
                .iter()
                .copied()
                .zip(movies.as_primitive::<UInt32Type>().values().iter().copied()),
        );
    }
    pairs
}
