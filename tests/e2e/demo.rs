//! `marquee demo retraining`, made short.

use std::process::{Command, Stdio};

use crate::harness::{binary, data_dir};

#[test]
fn the_story_of_a_models_life_keeps_its_promises() {
    let Some(data) = data_dir() else { return };
    let output = Command::new(binary())
        .args([
            "demo",
            "retraining",
            "--dataset",
            "ml-100k",
            "--events-per-s",
            "2000",
        ])
        .arg("--data-dir")
        .arg(&data)
        // A short replay trains in seconds. What it gains is little, so the gate is told to tolerate a loss, far smaller
        // than the damaged challenger's.
        .env("MARQUEE_TRAINER__MODEL__FIT__WINDOW", "4000")
        .env("MARQUEE_TRAINER__GATE__MIN_RELATIVE_GAIN", "-0.3")
        .env("MARQUEE_TRAINER__GATE__MAX_SECONDARY_LOSS", "0.6")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, log) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{log}");
    let (_, promises) = out.split_once("What was promised:").unwrap();
    assert!(!promises.contains("BROKEN"), "{promises}");
    for kept in [
        "a first model serves",
        "a trigger asked for",
        "were compared on the same users and events",
        "was rolled out under load to 0%, 10%, 50%, everybody",
        "the gate stopped",
        "a person brought",
        "was rolled back by itself",
        "requests failed",
    ] {
        assert!(promises.contains(kept), "{kept}: {promises}");
    }
}
