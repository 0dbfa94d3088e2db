use std::fs;

use super::*;
use crate::testing;

fn stored(dir: &Path) -> (PathBuf, String) {
    let (mut manifest, model, movies) = testing::model("v000001", 600);
    let digest = publish(&Store::at(dir).unwrap(), &mut manifest, &model, &movies).unwrap();
    (crate::registry::models_dir(dir).join("v000001"), digest)
}

fn damage(bundle: &Path, file: &str, change: impl FnOnce(&mut Vec<u8>)) -> BundleError {
    let path = bundle.join(file);
    let sound = fs::read(&path).unwrap();
    let mut bytes = sound.clone();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
    let error = Bundle::load(bundle).unwrap_err();
    fs::write(&path, sound).unwrap();
    error
}

#[test]
fn a_bundle_comes_back_with_everything_that_was_stored() {
    let dir = tempfile::tempdir().unwrap();
    let (path, digest) = stored(dir.path());
    let bundle = Bundle::load_expecting(&path, &digest).unwrap();
    assert_eq!(bundle.sha256, digest);
    assert_eq!(bundle.movies, testing::movies());
    assert_eq!(bundle.manifest.metrics["ndcg@10"], 0.25);
    assert_eq!(bundle.manifest.genres.names(), ["Comedy", "Drama", "Western"]);
    assert_eq!(
        bundle.model.to_bytes().unwrap(),
        fs::read(path.join(MODEL)).unwrap()
    );
}

#[test]
fn the_same_manifest_gives_the_same_bytes() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert_eq!(stored(one.path()).1, stored(two.path()).1);
    for file in [MANIFEST, MODEL, CATALOGUE] {
        let read =
            |dir: &Path| fs::read(crate::registry::models_dir(dir).join("v000001").join(file)).unwrap();
        assert_eq!(read(one.path()), read(two.path()), "{file}");
    }
}

#[test]
fn a_flipped_bit_or_a_missing_tail_anywhere_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = stored(dir.path());
    for file in [MODEL, CATALOGUE] {
        let length = fs::metadata(path.join(file)).unwrap().len() as usize;
        for place in [0, length / 2, length - 1] {
            let flipped = damage(&path, file, |bytes| bytes[place] ^= 1);
            assert!(matches!(flipped, BundleError::Damaged { .. }), "{flipped}");
            let torn = damage(&path, file, |bytes| bytes.truncate(place));
            assert!(matches!(torn, BundleError::Damaged { .. }), "{torn}");
        }
    }
    let torn = damage(&path, MANIFEST, |bytes| bytes.truncate(bytes.len() / 2));
    assert!(matches!(torn, BundleError::Damaged { .. }), "{torn}");
    Bundle::load(&path).unwrap();
}

#[test]
fn a_manifest_that_was_edited_no_longer_has_the_expected_digest() {
    let dir = tempfile::tempdir().unwrap();
    let (path, digest) = stored(dir.path());
    let text = fs::read_to_string(path.join(MANIFEST)).unwrap();
    fs::write(path.join(MANIFEST), text.replace("0.25", "0.95")).unwrap();
    let error = Bundle::load_expecting(&path, &digest).unwrap_err();
    assert!(matches!(error, BundleError::Damaged { .. }), "{error}");
}

#[test]
fn a_newer_format_a_missing_file_and_a_missing_bundle_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = stored(dir.path());
    let newer = damage(&path, MANIFEST, |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        *bytes = text
            .replace("\"format_version\": 1", "\"format_version\": 7")
            .into_bytes();
    });
    assert!(
        matches!(newer, BundleError::NewerFormat { found: 7, .. }),
        "{newer}"
    );
    fs::remove_file(path.join(CATALOGUE)).unwrap();
    let error = Bundle::load(&path).unwrap_err();
    assert!(
        error.to_string().contains("catalogue.jsonl is missing"),
        "{error}"
    );
    let nothing = Bundle::load(&dir.path().join("v000009")).unwrap_err();
    assert!(matches!(nothing, BundleError::Missing { .. }), "{nothing}");
}

#[test]
fn a_moved_registry_still_finds_the_bundle_of_an_old_event() {
    let registry = tempfile::tempdir().unwrap();
    let (path, _) = stored(registry.path());
    assert_eq!(resolve("/gone/models/v000001", registry.path()), path);
    assert_eq!(
        resolve(&path.display().to_string(), Path::new("/elsewhere")),
        path
    );
    let bucket = "s3://models/marquee/models/v000001";
    assert_eq!(
        resolve(bucket, Path::new("s3://models/marquee")),
        Path::new(bucket)
    );
}
