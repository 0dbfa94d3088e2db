//! Where a data set lies on this machine.

use std::path::{Path, PathBuf};

use super::layout;
use crate::Error;

/// Finds the directory of the data set `name`.
///
/// An explicit `data_dir` (a flag) is the only place looked at when given: as `data_dir/name`, or itself if it holds a
/// data set. Otherwise `env_dir` (the value of `MARQUEE_DATA_DIR`) the same way, except that there the directory
/// itself must be called `name`; then `cache_dir/name`, where downloads go.
///
/// # Errors
/// [`Error::NotFound`] with everywhere it was looked for; [`Error::InvalidName`] for a name with path separators.
pub fn locate(
    name: &str,
    data_dir: Option<&Path>,
    env_dir: Option<&Path>,
    cache_dir: Option<&Path>,
) -> Result<PathBuf, Error> {
    check_name(name)?;
    let candidates: Vec<PathBuf> = if let Some(dir) = data_dir {
        vec![dir.join(name), dir.to_path_buf()]
    } else {
        let env = env_dir.filter(|dir| !dir.as_os_str().is_empty());
        let itself = env.filter(|dir| dir.file_name().is_some_and(|last| last == name));
        let below = env.into_iter().chain(cache_dir).map(|dir| dir.join(name));
        itself.map(Path::to_path_buf).into_iter().chain(below).collect()
    };
    match candidates.iter().find(|dir| holds_dataset(dir)) {
        Some(found) => Ok(found.clone()),
        None => Err(Error::NotFound {
            name: name.to_owned(),
            tried: candidates,
        }),
    }
}

/// Whether the directory holds a data set, complete or not (loading says what is missing).
pub(crate) fn holds_dataset(dir: &Path) -> bool {
    layout::recognised(dir)
}

pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(plain) {
        return Err(Error::InvalidName(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(root: &Path, name: &str) -> PathBuf {
        let dir = root.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("u.data"), "").unwrap();
        dir
    }

    #[test]
    fn an_explicit_directory_is_the_only_place_looked_at() {
        let root = tempfile::tempdir().unwrap();
        let (flag, env) = (root.path().join("flag"), root.path().join("env"));
        let in_env = make(&env, "ml-100k");
        assert_eq!(locate("ml-100k", None, Some(&env), None).unwrap(), in_env);
        let error = locate("ml-100k", Some(&flag), Some(&env), None).unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
        let in_flag = make(&flag, "ml-100k");
        assert_eq!(locate("ml-100k", Some(&flag), Some(&env), None).unwrap(), in_flag);
        assert_eq!(locate("ml-1m", Some(&in_flag), None, None).unwrap(), in_flag);
    }

    #[test]
    fn the_environment_comes_before_the_cache_and_may_name_the_directory_itself() {
        let root = tempfile::tempdir().unwrap();
        let (env, cache) = (root.path().join("env"), root.path().join("cache"));
        let cached = make(&cache, "ml-100k");
        assert_eq!(locate("ml-100k", None, Some(&env), Some(&cache)).unwrap(), cached);
        let in_env = make(&env, "ml-100k");
        assert_eq!(locate("ml-100k", None, Some(&env), Some(&cache)).unwrap(), in_env);
        assert_eq!(
            locate("ml-100k", None, Some(&in_env), Some(&cache)).unwrap(),
            in_env
        );
    }

    #[test]
    fn a_failure_names_every_place_and_what_to_do() {
        let error = locate("ml-100k", None, Some(Path::new("here")), Some(Path::new("there"))).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("here/ml-100k, there/ml-100k") && text.contains("--data-dir"),
            "{text}"
        );
    }

    #[test]
    fn a_name_with_a_path_in_it_is_refused() {
        for name in ["", "..", "a/b", "../ml-100k", "a\\b", ".hidden"] {
            assert!(
                matches!(locate(name, None, None, None), Err(Error::InvalidName(_))),
                "{name:?}"
            );
        }
    }
}
