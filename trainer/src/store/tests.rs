//! One suite over every kind of store. Over a bucket it runs where `MARQUEE_TEST_BUCKET` names one (`s3://bucket/prefix`,
//! with the usual `AWS_` variables).

use object_store::memory::InMemory;

use super::*;

/// Runs the suite's checks over a folder, memory, and memory below a prefix.
macro_rules! contract {
    ($($name:ident)*) => {
        mod folder {
            $(#[test]
            fn $name() {
                let dir = tempfile::tempdir().unwrap();
                // Not there yet: the first write makes it.
                super::$name(&super::Store::at(&dir.path().join("registry")).unwrap());
            })*
        }
        mod memory {
            $(#[test]
            fn $name() {
                super::$name(&super::in_memory(""));
            })*
        }
        mod bucket {
            $(#[test]
            fn $name() {
                if let Some(store) = super::bucket(stringify!($name)) {
                    super::$name(&store);
                }
            })*
        }
        mod memory_with_a_prefix {
            $(#[test]
            fn $name() {
                super::$name(&super::in_memory("team/marquee"));
            })*
        }
    };
}

contract! {
    what_is_put_comes_back_and_what_is_not_is_none
    of_two_who_swap_one_object_the_second_loses
    folders_and_their_objects_are_listed_and_removed
    callers_may_stand_on_a_runtime_of_their_own
}

/// A folder of the test's own in the bucket that the environment names.
fn bucket(test: &str) -> Option<Store> {
    let Ok(bucket) = std::env::var("MARQUEE_TEST_BUCKET") else {
        eprintln!("skipped: MARQUEE_TEST_BUCKET names no bucket");
        return None;
    };
    let folder = Path::new(&bucket).join(format!("{}-{test}", std::process::id()));
    Some(Store::at(&folder).unwrap())
}

fn in_memory(prefix: &str) -> Store {
    Store::over(
        Arc::new(InMemory::new()),
        Key::parse(prefix).unwrap(),
        Path::new("memory"),
    )
}

fn what_is_put_comes_back_and_what_is_not_is_none(store: &Store) {
    assert_eq!(store.get("models/v000001/manifest.json").unwrap(), None);
    assert!(store.folders("models").unwrap().is_empty());
    for bytes in [b"one".as_slice(), b"another", b""] {
        store.put("models/v000001/manifest.json", bytes).unwrap();
        let found = store.get("models/v000001/manifest.json").unwrap();
        assert_eq!(found.as_deref(), Some(bytes));
    }
}

fn of_two_who_swap_one_object_the_second_loses(store: &Store) {
    let first = store.swap("registry.json", b"0", None).unwrap();
    assert!(matches!(
        store.swap("registry.json", b"0", None),
        Err(SwapError::Lost)
    ));
    let (bytes, seen) = store.get_tagged("registry.json").unwrap().unwrap();
    assert_eq!((bytes.as_slice(), &seen), (b"0".as_slice(), &first));
    let second = store.swap("registry.json", b"longer", Some(&first)).unwrap();
    assert!(matches!(
        store.swap("registry.json", b"late", Some(&first)),
        Err(SwapError::Lost)
    ));
    assert_eq!(store.get("registry.json").unwrap().unwrap(), b"longer");
    store.swap("registry.json", b"on", Some(&second)).unwrap();
    // What is gone cannot be updated.
    assert!(store.swap("nothing.json", b"x", Some(&second)).is_err());
    assert_eq!(store.get("nothing.json").unwrap(), None);
}

fn folders_and_their_objects_are_listed_and_removed(store: &Store) {
    for name in [
        "models/v2/b",
        "models/v2/a",
        "models/v1/a",
        "models/.v3.tmp/a",
        "other",
    ] {
        store.put(name, b"x").unwrap();
    }
    assert_eq!(store.folders("models").unwrap(), [".v3.tmp", "v1", "v2"]);
    assert_eq!(store.objects("models/v2").unwrap(), ["a", "b"]);
    store.remove_folder("models/v2").unwrap();
    store.remove_folder("models/v2").unwrap();
    assert_eq!(store.folders("models").unwrap(), [".v3.tmp", "v1"]);
    assert_eq!(store.get("models/v2/a").unwrap(), None);
    assert_eq!(store.get("other").unwrap().unwrap(), b"x");
}

fn callers_may_stand_on_a_runtime_of_their_own(store: &Store) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = store.clone();
    runtime.block_on(async move {
        store.put("a", b"1").unwrap();
        assert_eq!(store.get("a").unwrap().unwrap(), b"1");
    });
}

#[test]
fn a_bucket_and_its_prefix_are_read_from_the_location() {
    assert!(is_remote(Path::new("s3://models/team/a")) && !is_remote(Path::new("/srv/s3")));
    let store = Store::at(Path::new("s3://models/team/a/")).unwrap();
    assert_eq!(store.key("models/v1/a").as_ref(), "team/a/models/v1/a");
    assert_eq!(
        store.describe("registry.json"),
        Path::new("s3://models/team/a/registry.json")
    );
}
