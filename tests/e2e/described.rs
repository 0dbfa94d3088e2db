//! The description of the interface in the hands of Schemathesis, which makes up requests from it and holds the answers
//! against it.

use std::process::Command;

use marquee_testkit::{Foreign, python_with, required};

use crate::harness::Marquee;

/// By exact version, so that the cache follows a change.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";
/// No 5xx but those that are described; no status, media type or shape that is not. So every refusal is a problem
/// document of a known type.
const CHECKS: &str =
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

#[test]
fn schemathesis_finds_no_answer_that_is_not_described() {
    let Some(python) = required(python_with(SCHEMATHESIS), Foreign::REQUIRE) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut marquee = Marquee::up(&folder.path().join("state"), None, &["--dataset", "synthetic"]);
    marquee.wait_ready();
    marquee.wait_model();
    let url = marquee.url();
    // As a module: the programs in the environment's folder name the place it was made in, not the one it lies in.
    let outcome = Command::new(python)
        .args(["-m", "schemathesis.cli"])
        .current_dir(folder.path())
        .args(["run", &format!("{url}/openapi.json"), "--checks", CHECKS])
        .args([
            "--max-examples",
            "60",
            "--seed",
            "1",
            "--phases",
            "examples,coverage,fuzzing",
        ])
        .args(["--no-color"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&outcome.stdout);
    assert!(
        outcome.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&outcome.stderr)
    );
    let counted: Vec<&str> = said.lines().filter(|line| line.contains("generated")).collect();
    println!("{}", counted.join("\n"));
}
