//! Where downloaded tools are kept between runs, outside the checkout.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::Unavailable;

/// `$MARQUEE_TEST_CACHE`, else `marquee` below `$XDG_CACHE_HOME` or `~/.cache`, else below the temporary folder.
#[must_use]
pub fn cache_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("MARQUEE_TEST_CACHE") {
        return dir.into();
    }
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("marquee")
}

/// The folder `name-<digest of recipe>` in the cache, made by `fill` if it is not there. Filling happens beside it and
/// is renamed into place, so that a killed or concurrent run never leaves half of it.
pub(crate) fn filled(
    what: &'static str,
    name: &str,
    recipe: &str,
    fill: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, Unavailable> {
    let unavailable = |why: String| Unavailable::new(what, why);
    let mut hasher = DefaultHasher::new();
    recipe.hash(&mut hasher);
    let parent = cache_dir();
    let wanted = parent.join(format!("{name}-{:016x}", hasher.finish()));
    if wanted.is_dir() {
        return Ok(wanted);
    }
    std::fs::create_dir_all(&parent).map_err(|e| unavailable(format!("{}: {e}", parent.display())))?;
    let fresh = tempfile::Builder::new()
        .prefix(&format!("{name}-filling-"))
        .tempdir_in(&parent)
        .map_err(|e| unavailable(format!("{}: {e}", parent.display())))?;
    fill(fresh.path()).map_err(unavailable)?;
    match std::fs::rename(fresh.path(), &wanted) {
        Ok(()) => {
            // Renamed away: there is nothing left to delete.
            let _gone = fresh.keep();
            Ok(wanted)
        }
        // Another run was faster; ours is deleted on drop.
        Err(_) if wanted.is_dir() => Ok(wanted),
        Err(error) => Err(unavailable(format!("{}: {error}", wanted.display()))),
    }
}

/// Runs a preparation command; an error carries the end of what it said.
pub(crate) fn run(command: &mut std::process::Command) -> Result<String, String> {
    let output = command
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|e| format!("{}: {e}", command.get_program().display()))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let all = format!("{said}{complaint}");
    let tail: Vec<&str> = all.lines().rev().take(8).collect();
    Err(format!(
        "{} ended with {}: {}",
        command.get_program().display(),
        output.status,
        tail.into_iter().rev().collect::<Vec<_>>().join(" | ")
    ))
}
