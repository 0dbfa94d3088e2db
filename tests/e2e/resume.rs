//! A restart takes the view up from its snapshot, which is never more than a shortcut.

use std::path::Path;

use marquee_runtime::bus::Bus;
use marquee_schemas::Topic;
use serde_json::{Value, json};

use crate::harness::{Marquee, beginning_of_ml_100k, data_dir, delete, eventually, get, post};

const RESUMED: &str = "view resumed from its snapshot";
const LOADED: &str = "view loaded";
const PASSED_OVER: &str = "snapshot is passed over";

fn up(state: &Path, data: &Path) -> Marquee {
    let mut args = beginning_of_ml_100k(data, "1/s").to_vec();
    args.extend(["--log", "info"]);
    let mut marquee = Marquee::up(state, None, &args);
    marquee.wait_ready();
    marquee
}

fn lines(marquee: &Marquee, said: &str) -> usize {
    marquee.log().matches(said).count()
}

fn published(bus: &Bus) -> i64 {
    bus.watermarks_blocking(Topic::Features).unwrap().len()
}

fn user(url: &str, id: u64) -> (u16, Value) {
    get(&format!("{url}/users/{id}"))
}

#[test]
fn a_restart_resumes_and_neither_an_erasure_nor_a_damaged_file_is_overlooked() {
    let Some(data) = data_dir() else { return };
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let snapshot = state.join("recommender/view.snapshot");

    let mut marquee = up(&state, &data);
    marquee.wait_model();
    let url = marquee.url();
    for id in [777_777, 888_888] {
        let events: Vec<Value> = [50, 181, 172]
            .iter()
            .map(|movie| json!({"user_id": id, "movie_id": movie, "kind": "rating", "rating": 5}))
            .collect();
        assert_eq!(
            post(&format!("{url}/events"), serde_json::to_vec(&events).unwrap()).0,
            202
        );
        eventually("the ratings are known", || {
            (user(&url, id).1["feature_version"] == 3).then_some(())
        });
    }
    assert!(marquee.interrupt().success());
    assert!(snapshot.exists(), "a stop leaves a snapshot");

    // What is erased after the snapshot was taken is not brought back by it.
    let mut marquee = up(&state, &data);
    assert_eq!((lines(&marquee, RESUMED), lines(&marquee, LOADED)), (1, 1));
    let url = marquee.url();
    assert_eq!(user(&url, 777_777).1["feature_version"], 3);
    assert_eq!(user(&url, 888_888).1["feature_version"], 3);
    let before = published(&marquee.bus());
    assert_eq!(delete(&format!("{url}/users/888888")).0, 202);
    eventually("the user is erased", || {
        (user(&url, 888_888).0 == 404).then_some(())
    });
    assert!(published(&marquee.bus()) > before);
    marquee.kill_9();
    let mut marquee = up(&state, &data);
    assert_eq!(lines(&marquee, RESUMED), 2);
    let url = marquee.url();
    assert_eq!(user(&url, 888_888).0, 404);
    assert_eq!(user(&url, 777_777).1["feature_version"], 3);
    let whole = get(&format!("{url}/ready")).1;
    assert!(marquee.interrupt().success());

    let mut bytes = std::fs::read(&snapshot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&snapshot, bytes).unwrap();
    let mut marquee = up(&state, &data);
    assert_eq!((lines(&marquee, PASSED_OVER), lines(&marquee, LOADED)), (1, 2));
    let url = marquee.url();
    let ready = get(&format!("{url}/ready")).1;
    assert_eq!(ready["movies"], whole["movies"]);
    assert!(
        ready["users"].as_u64() >= whole["users"].as_u64(),
        "{ready} {whole}"
    );
    assert_eq!(user(&url, 888_888).0, 404);
    assert_eq!(user(&url, 777_777).1["feature_version"], 3);
    assert!(marquee.interrupt().success());
}
