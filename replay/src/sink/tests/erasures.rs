//! Users who were erased: no dead letter, no row that is older.

use super::*;
use crate::lake::Erasure;

fn erasure(partition: i32, offset: i64, user: u64) -> RawRecord {
    RawRecord {
        key: Some(user.to_string().into_bytes()),
        timestamp_ms: 1_000 + offset,
        ..raw(Topic::Interactions, partition, offset, None)
    }
}

/// One process that looks for what has to go until there is nothing.
fn purge(world: &World, disk: Arc<dyn Disk>) -> Result<(), Error> {
    let mut sink = world.sink(disk)?;
    for topic in [Topic::Interactions, Topic::RequestLogs] {
        sink.assigned(topic, &[0])?;
    }
    (0..40).try_for_each(|_| sink.tick())
}

/// Users 1 and 2 by turns on two dates; 1 is erased at 11 and returns, 3 is erased and was never there.
fn acts() -> Vec<RawRecord> {
    let act = |offset: i64| {
        let user = 1 + u64::try_from(offset % 2).unwrap();
        let time = 1 + offset % 3 / 2 * DAY + offset;
        raw(Topic::Interactions, 0, offset, Some(view(user, time)))
    };
    let mut log: Vec<RawRecord> = (0..20).map(act).collect();
    log[11] = erasure(0, 11, 1);
    log[13] = erasure(0, 13, 3);
    log
}

fn kept(log: &[RawRecord]) -> Vec<(i32, i64)> {
    let offsets = log.iter().map(|record| record.offset);
    offsets
        .filter(|&offset| (offset > 11 || offset % 2 == 1) && offset != 11 && offset != 13)
        .map(|offset| (0, offset))
        .collect()
}

#[test]
fn what_was_erased_leaves_the_files_whatever_kills_come_between() {
    let log = acts();
    let mut points = 0;
    for min_files in [0, 2] {
        for last in [Last::Undone, Last::Half, Last::Done] {
            for operations in 0.. {
                let world = World::new(4, 16, min_files);
                let disk = FaultyDisk::dying_after(operations, last);
                drop(world.run(disk.clone(), &log, 3));
                drop(purge(&world, disk.clone()));
                let died = disk.is_dead();
                points += usize::from(died);
                world.run(FaultyDisk::immortal(), &log, 3).unwrap();
                purge(&world, FaultyDisk::immortal()).unwrap();
                assert_eq!(world.rows(Table::Interactions), kept(&log), "{operations}");
                assert_eq!(
                    world.letters.offsets(),
                    BTreeSet::new(),
                    "an erasure is no dead letter"
                );
                assert_eq!(
                    world.data_files(Table::Interactions),
                    world.committed_files(Table::Interactions)
                );
                let manifest = &manifests(world.dir.path(), Table::Interactions).unwrap()[0];
                let noted = [(1, 11), (3, 13)].map(|(user_id, offset)| Erasure {
                    user_id,
                    offset,
                    at_ms: 1_000 + offset,
                });
                assert_eq!(manifest.erasures, noted);
                assert_eq!((manifest.erased, manifest.poison), (6, 0));
                if !died {
                    break;
                }
            }
        }
    }
    assert!(points > 100, "only {points} points of death were tried");
}

#[test]
fn files_that_hold_nothing_of_who_was_erased_are_read_once_and_stay() {
    let world = World::new(4, 16, 0);
    let mut log = acts();
    log[11] = erasure(0, 11, 9);
    world.run(FaultyDisk::immortal(), &log, 20).unwrap();
    let before = world.committed_files(Table::Interactions);
    purge(&world, FaultyDisk::immortal()).unwrap();
    assert_eq!(world.committed_files(Table::Interactions), before);
    let manifest = &manifests(world.dir.path(), Table::Interactions).unwrap()[0];
    let looked_at = |file: &crate::lake::FileEntry| file.first_offset > 13 || file.purged_to == 14;
    assert!(manifest.files.iter().all(looked_at));
    // Nothing is left to do, so nothing is written.
    let idle = FaultyDisk::dying_after(4, Last::Undone);
    purge(&world, idle.clone()).unwrap();
    assert!(!idle.is_dead());
}

#[test]
fn requests_before_an_erasure_lose_their_user_and_stay() {
    let request = |offset: i64, user: u64, timestamp: i64| {
        let json = format!(
            r#"{{"schema_version":1,"request_id":"r{offset}","timestamp":{timestamp},"endpoint":"recommend",
            "status":200,"user_id":{user},"assignment_hash":7,"policy":"ranked","k":1,"candidates":9,
            "latency_ms":1.0,"items":[]}}"#
        );
        raw(Topic::RequestLogs, 0, offset, Some(json.into_bytes()))
    };
    let world = World::new(10, 16, 0);
    // The erasure of 1 came at 1,002.
    let logs = [
        request(0, 1, 900),
        request(1, 2, 900),
        request(2, 1, 1_003),
        request(3, 1, 1_002),
    ];
    world.run(FaultyDisk::immortal(), &logs, 10).unwrap();
    world
        .run(FaultyDisk::immortal(), &[erasure(0, 2, 1)], 10)
        .unwrap();
    purge(&world, FaultyDisk::immortal()).unwrap();
    let manifest = &manifests(world.dir.path(), Table::RequestLogs).unwrap()[0];
    let path = world
        .dir
        .path()
        .join("request_logs")
        .join(&manifest.files[0].path);
    let batch = &read_file(&path, &Table::RequestLogs.schema()).unwrap()[0];
    let users = batch.column_by_name("user_id").unwrap();
    let users: Vec<Option<u64>> = users.as_primitive::<UInt64Type>().iter().collect();
    assert_eq!(users, [None, Some(2), Some(1), None]);
    assert_eq!(batch.column_by_name("assignment_hash").unwrap().null_count(), 2);
    assert_eq!((manifest.files.len(), manifest.erased), (1, 0));
}
