//! The command line as a person meets it.

use std::process::Command;

use crate::harness::{binary, tool};

#[test]
fn every_subcommand_explains_itself() {
    let help = Command::new(binary()).arg("--help").output().unwrap();
    assert!(help.status.success());
    let text = String::from_utf8(help.stdout).unwrap();
    let commands: Vec<&str> = text
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        // Not the further lines of a long description.
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|&command| command != "help")
        .collect();
    assert!(
        commands.contains(&"up") && commands.contains(&"sql"),
        "{commands:?}"
    );
    for command in commands {
        let help = Command::new(binary()).args([command, "--help"]).output().unwrap();
        assert!(help.status.success(), "{command}");
        assert!(help.stdout.len() > 60, "{command}");
    }
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    let usage = Command::new(binary())
        .args(["up", "--speed", "warp"])
        .output()
        .unwrap();
    assert_eq!(usage.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&usage.stderr).contains("--speed"));

    let folder = tempfile::tempdir().unwrap();
    let failure = tool(folder.path(), &["models", "show", "v000009"]);
    assert_eq!(
        failure.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&failure.stderr)
    );
}

#[test]
fn an_unknown_configuration_key_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("marquee.toml");
    std::fs::write(&file, "[trainer]\nwarp_factor = 9\n").unwrap();
    let outcome = tool(folder.path(), &["config", "--config", file.to_str().unwrap()]);
    assert!(!outcome.status.success());
    assert!(String::from_utf8_lossy(&outcome.stderr).contains("warp_factor"));
}

#[test]
fn the_committed_json_schemas_are_those_of_the_code() {
    let folder = tempfile::tempdir().unwrap();
    let schemas = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/json");
    let outcome = tool(folder.path(), &["schemas", "--check", "--out", schemas]);
    assert!(
        outcome.status.success(),
        "{}",
        String::from_utf8_lossy(&outcome.stderr)
    );
}
