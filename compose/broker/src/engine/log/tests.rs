use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use tansu_sans_io::ErrorCode;
use tansu_sans_io::record::deflated::Batch;
use tansu_sans_io::record::{Record, inflated};

use super::{AppendError, Name, PartitionLog};

/// `records` records numbered from `first`, at times from `timestamp` on.
fn batch(first: i64, records: i32, timestamp: i64) -> Batch {
    let mut builder = inflated::Batch::builder()
        .base_timestamp(timestamp)
        .max_timestamp(timestamp + i64::from(records) - 1)
        .producer_id(-1)
        .producer_epoch(-1)
        .base_sequence(-1)
        .last_offset_delta(records - 1);
    for n in 0..records {
        builder = builder.record(
            Record::builder()
                .offset_delta(n)
                .timestamp_delta(i64::from(n))
                .value(Some(format!("{}", first + i64::from(n)).into())),
        );
    }
    builder.build().and_then(TryInto::try_into).unwrap()
}

fn small(folder: &Path) -> PartitionLog {
    PartitionLog::open(folder, 400).unwrap()
}

/// Every record from `offset` on, as a consumer gets them that asks for `max_bytes` at a time.
fn all_from(log: &PartitionLog, mut offset: i64, max_bytes: usize) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    while let Some(span) = log.locate(offset) {
        let batches = span.read(max_bytes).unwrap();
        assert!(!batches.is_empty());
        for batch in batches {
            let base = batch.base_offset;
            for record in Vec::<Record>::try_from(batch).unwrap() {
                let at = base + i64::from(record.offset_delta);
                if at >= offset {
                    let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                    found.push((at, value));
                    offset = at + 1;
                }
            }
        }
    }
    assert_eq!(offset, log.end().max(offset));
    found
}

fn numbered(offsets: std::ops::Range<i64>) -> Vec<(i64, String)> {
    offsets.map(|n| (n, n.to_string())).collect()
}

/// Batches of one to four records, one hundred in all, over several segments.
fn filled(folder: &Path) -> PartitionLog {
    let mut log = small(folder);
    let mut next = 0;
    while next < 100 {
        let records = 1 + i32::try_from(next % 4).unwrap();
        assert_eq!(log.append(batch(next, records, 1_000 + next)).unwrap(), next);
        next += i64::from(records);
    }
    log
}

fn segments(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

#[test]
fn every_record_is_read_from_everywhere_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let log = filled(folder.path());
    let end = log.end();
    assert!(segments(folder.path()).len() > 5);
    for from in 0..=end {
        assert_eq!(all_from(&log, from, 150), numbered(from..end));
    }
    assert_eq!(all_from(&log, 0, 1), numbered(0..end));
    drop(log);
    let log = small(folder.path());
    assert_eq!((log.start(), log.end()), (0, end));
    assert_eq!(all_from(&log, 0, 1 << 20), numbered(0..end));
    assert!(log.locate(end).is_none());
    assert!(log.locate(-1).is_none());
}

#[test]
fn a_batch_larger_than_asked_for_is_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = PartitionLog::open(folder.path(), super::SEGMENT_BYTES).unwrap();
    log.append(batch(0, 3, 0)).unwrap();
    log.append(batch(3, 2_000, 0)).unwrap();
    assert_eq!(all_from(&log, 3, 10), numbered(3..2_003));
    assert_eq!(all_from(&log, 1_500, 10), numbered(1_500..2_003));
}

#[test]
fn a_torn_end_is_cut_off_wherever_it_was_torn() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = PartitionLog::open(folder.path(), super::SEGMENT_BYTES).unwrap();
    log.append(batch(0, 3, 0)).unwrap();
    let whole = log.newest().unwrap().bytes();
    log.append(batch(3, 2, 0)).unwrap();
    let torn = log.newest().unwrap().bytes();
    drop(log);
    let path = Name::written(0).path(folder.path());
    let bytes = std::fs::read(&path).unwrap();
    for length in whole..torn {
        std::fs::write(&path, &bytes[..usize::try_from(length).unwrap()]).unwrap();
        let mut log = PartitionLog::open(folder.path(), super::SEGMENT_BYTES).unwrap();
        assert_eq!(log.end(), 3);
        assert_eq!(log.append(batch(3, 1, 0)).unwrap(), 3);
        assert_eq!(all_from(&log, 0, 1 << 20), numbered(0..4));
    }
    // All there, but not what was written: as after a power cut.
    for at in usize::try_from(whole).unwrap()..bytes.len() {
        let mut other = bytes.clone();
        other[at] ^= 0x55;
        std::fs::write(&path, &other).unwrap();
        let log = PartitionLog::open(folder.path(), super::SEGMENT_BYTES).unwrap();
        // The leader's epoch is no part of the checksum and means nothing here.
        let spared = (12..16).contains(&(at - usize::try_from(whole).unwrap()));
        assert_eq!(log.end(), if spared { 5 } else { 3 }, "byte {at}");
    }
}

#[test]
fn damage_before_the_last_segment_is_an_error_and_nothing_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(folder.path()));
    let first = segments(folder.path())[0].clone();
    let before = std::fs::read(&first).unwrap();
    File::options()
        .write(true)
        .open(&first)
        .unwrap()
        .write_all_at(&[0xff; 4], 8)
        .unwrap();
    let error = PartitionLog::open(folder.path(), super::SEGMENT_BYTES).unwrap_err();
    assert!(error.to_string().contains("no batch at byte 0"), "{error}");
    std::fs::write(&first, &before).unwrap();
    std::fs::remove_file(&segments(folder.path())[2]).unwrap();
    let error = PartitionLog::open(folder.path(), super::SEGMENT_BYTES).unwrap_err();
    assert!(error.to_string().contains("are missing"), "{error}");
}

#[test]
fn what_a_producer_sends_twice_is_kept_once_also_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let sent = |sequence: i32| {
        let mut batch = inflated::Batch::try_from(batch(0, 2, 0)).unwrap();
        (batch.producer_id, batch.producer_epoch, batch.base_sequence) = (7, 0, sequence);
        Batch::try_from(batch).unwrap()
    };
    let mut log = small(folder.path());
    for n in 0..8 {
        assert_eq!(log.append(sent(n * 2)).unwrap(), i64::from(n) * 2);
    }
    drop(log);
    let mut log = small(folder.path());
    assert_eq!(log.append(sent(14)).unwrap(), 14);
    assert_eq!(log.end(), 16);
    assert!(matches!(
        log.append(sent(20)),
        Err(AppendError::Refused(ErrorCode::OutOfOrderSequenceNumber))
    ));
    assert_eq!(log.append(sent(16)).unwrap(), 16);
}

#[test]
fn what_is_no_batch_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = small(folder.path());
    let refused = |log: &mut PartitionLog, change: fn(&mut Batch)| {
        let mut changed = batch(0, 2, 0);
        change(&mut changed);
        match log.append(changed) {
            Err(AppendError::Refused(code)) => code,
            other => panic!("{other:?}"),
        }
    };
    for (code, change) in [
        (
            ErrorCode::UnsupportedForMessageFormat,
            (|b| b.magic = 1) as fn(&mut Batch),
        ),
        (ErrorCode::CorruptMessage, |b| b.record_count = 3),
        (ErrorCode::CorruptMessage, |b| b.record_count = 0),
        (ErrorCode::CorruptMessage, |b| b.crc ^= 1),
        (ErrorCode::InvalidTxnState, |b| b.attributes |= 0x10),
        (ErrorCode::InvalidTxnState, |b| b.attributes |= 0x20),
    ] {
        assert_eq!(refused(&mut log, change), code);
    }
    assert_eq!(log.end(), 0);
}

#[test]
fn the_first_record_of_a_time_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let log = filled(folder.path());
    // Record n has time 1,000 + n.
    for n in 0..log.end() {
        assert_eq!(log.first_at(1_000 + n).unwrap(), Some((n, 1_000 + n)));
    }
    assert_eq!(log.first_at(0).unwrap(), Some((0, 1_000)));
    assert_eq!(log.first_at(1_000 + log.end()).unwrap(), None);
}

#[test]
fn old_segments_go_and_the_newest_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = filled(folder.path());
    let end = log.end();
    log.expire(1_050).unwrap();
    let start = log.start();
    assert!(start > 0 && start <= 50, "{start}");
    assert_eq!(all_from(&log, start, 1 << 20), numbered(start..end));
    assert!(log.locate(start - 1).is_none());
    log.expire(i64::MAX).unwrap();
    assert_eq!(segments(folder.path()).len(), 1);
    assert!(log.start() < end);
    drop(log);
    assert_eq!(small(folder.path()).end(), end);
}

mod compaction {
    use std::collections::BTreeMap;

    use super::*;
    use crate::engine::log::compaction::Compacted;

    /// Key, and value or removal.
    type Put = (u8, Option<u32>);

    fn keyed(puts: &[Put], timestamp: i64) -> Batch {
        let last = i32::try_from(puts.len()).unwrap() - 1;
        let mut builder = inflated::Batch::builder()
            .base_timestamp(timestamp)
            .max_timestamp(timestamp + i64::from(last))
            .producer_id(-1)
            .producer_epoch(-1)
            .base_sequence(-1)
            .last_offset_delta(last);
        for (n, (key, value)) in (0..).zip(puts) {
            builder = builder.record(
                Record::builder()
                    .offset_delta(n)
                    .timestamp_delta(i64::from(n))
                    .key(Some(vec![*key].into()))
                    .value(value.map(|value| value.to_be_bytes().to_vec().into())),
            );
        }
        builder.build().and_then(TryInto::try_into).unwrap()
    }

    /// Offset, key and value of every record from `offset` on.
    fn records(log: &PartitionLog, mut offset: i64, max_bytes: usize) -> Vec<(i64, Put)> {
        let mut found = Vec::new();
        while let Some(span) = log.locate(offset) {
            let batches = span.read(max_bytes).unwrap();
            assert!(!batches.is_empty(), "a reader at {offset} would wait for ever");
            for batch in batches {
                let (base, next) = (batch.base_offset, batch.max_offset() + 1);
                for record in Vec::<Record>::try_from(batch).unwrap() {
                    let at = base + i64::from(record.offset_delta);
                    if at >= offset {
                        let value = record
                            .value
                            .map(|value| u32::from_be_bytes(value[..].try_into().unwrap()));
                        found.push((at, (record.key.unwrap()[0], value)));
                    }
                }
                offset = next;
            }
        }
        assert_eq!(offset, log.end());
        found
    }

    fn compact(log: &mut PartitionLog, before_ms: i64) -> Option<Compacted> {
        let compaction = log.compaction()?;
        Some(
            compaction
                .run(before_ms, |rewritten| log.replace(rewritten))
                .unwrap(),
        )
    }

    /// What a reader of the whole log ends with.
    fn state(records: &[(i64, Put)]) -> BTreeMap<u8, u32> {
        let mut state = BTreeMap::new();
        for &(_, (key, value)) in records {
            match value {
                Some(value) => drop(state.insert(key, value)),
                None => drop(state.remove(&key)),
            }
        }
        state
    }

    /// Five hundred records of ten keys, in batches of one to three; the seventh key is removed again and again.
    fn busy(folder: &Path) -> (PartitionLog, Vec<(i64, Put)>) {
        let mut log = small(folder);
        let mut all = Vec::new();
        let mut n = 0_u32;
        while n < 500 {
            let puts: Vec<Put> = (n..n + 1 + n % 3)
                .map(|n| (u8::try_from(n * 7 % 10).unwrap(), (n * 7 % 10 != 7).then_some(n)))
                .collect();
            let offset = log.append(keyed(&puts, i64::from(n))).unwrap();
            all.extend((offset..).zip(puts.iter().copied()));
            n += u32::try_from(puts.len()).unwrap();
        }
        (log, all)
    }

    #[test]
    fn the_newest_record_of_each_key_stays_at_its_offset_and_is_read_from_everywhere() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, all) = busy(folder.path());
        let (end, files) = (log.end(), segments(folder.path()).len());
        let compacted = compact(&mut log, 0).unwrap();
        assert!(
            compacted.bytes_after * 10 < compacted.bytes_before,
            "{compacted:?}"
        );
        assert!(segments(folder.path()).len() < files / 4);
        let kept = records(&log, 0, 1 << 20);
        assert!(kept.iter().all(|record| all.contains(record)));
        assert_eq!(state(&kept), state(&all));
        assert!(
            kept.iter().any(|(_, put)| *put == (7, None)),
            "who lags behind must meet it"
        );
        for log in [&log, &small(folder.path())] {
            assert_eq!((log.start(), log.end()), (0, end));
            for from in 0..=end {
                let wanted: Vec<_> = kept.iter().copied().filter(|(at, _)| *at >= from).collect();
                assert_eq!(records(log, from, 100), wanted, "from {from}");
            }
        }
        assert_eq!(compact(&mut log, 0), None, "nothing new came");
    }

    #[test]
    fn records_that_remove_their_key_go_once_they_are_old() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, all) = busy(folder.path());
        compact(&mut log, i64::MAX).unwrap();
        let closed = log.newest().unwrap().base();
        let kept = records(&log, 0, 1 << 20);
        assert!(kept.iter().all(|(at, put)| *at >= closed || put.1.is_some()));
        assert_eq!(state(&kept), state(&all));
    }

    #[test]
    fn the_log_goes_on_after_a_compaction_and_is_compacted_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = small(folder.path());
        let mut all = Vec::new();
        for round in 0..40_u32 {
            for n in 0..20 {
                let put = (u8::try_from(n % 5).unwrap(), Some(round * 100 + n));
                all.push((log.append(keyed(&[put], i64::from(round))).unwrap(), put));
            }
            compact(&mut log, 0);
            if round % 7 == 3 {
                log = small(folder.path());
            }
            assert_eq!(state(&records(&log, 0, 300)), state(&all));
        }
        assert!(
            segments(folder.path()).len() < 10,
            "{:?}",
            segments(folder.path())
        );
    }

    #[test]
    fn a_process_that_dies_at_any_point_of_a_compaction_loses_nothing() {
        let master = tempfile::tempdir().unwrap();
        let (log, all) = busy(master.path());
        let end = log.end();
        let replaced = log.compaction().unwrap().run(0, |_| Ok(())).map(|_| ());
        assert!(replaced.is_ok());
        drop(log);
        let copy = |to: &Path| {
            for path in segments(master.path()) {
                std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
            }
        };
        let mut deaths = 0;
        for survives in 0..8 {
            for removed in 0..4 {
                let folder = tempfile::tempdir().unwrap();
                copy(folder.path());
                let mut log = small(folder.path());
                let before = segments(folder.path());
                let mut replaced = 0;
                let died = log.compaction().unwrap().run(0, |rewritten| {
                    if replaced == survives {
                        return Err(std::io::Error::other("killed"));
                    }
                    replaced += 1;
                    log.replace(rewritten)
                });
                // Some of what was replaced last is still there.
                for path in before.iter().filter(|path| !path.exists()).rev().take(removed) {
                    std::fs::copy(master.path().join(path.file_name().unwrap()), path).unwrap();
                }
                drop(log);
                let mut log = small(folder.path());
                assert_eq!((log.start(), log.end()), (0, end));
                assert_eq!(state(&records(&log, 0, 200)), state(&all));
                compact(&mut log, 0);
                assert_eq!(state(&records(&log, 0, 200)), state(&all));
                assert!(
                    segments(folder.path())
                        .iter()
                        .all(|path| path.extension().unwrap() == "log")
                );
                deaths += u32::from(died.is_err());
            }
        }
        assert!((4..32).contains(&deaths), "{deaths} deaths");
    }

    #[test]
    fn what_a_producer_sends_next_is_expected_after_a_compaction_and_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = small(folder.path());
        let sent = |sequence: i32| {
            let mut batch = inflated::Batch::try_from(keyed(&[(1, Some(1)), (2, Some(2))], 0)).unwrap();
            (batch.producer_id, batch.producer_epoch, batch.base_sequence) = (7, 0, sequence);
            Batch::try_from(batch).unwrap()
        };
        for n in 0..40 {
            log.append(sent(n * 2)).unwrap();
        }
        compact(&mut log, 0).unwrap();
        drop(log);
        let mut log = small(folder.path());
        assert_eq!(log.append(sent(78)).unwrap(), 78);
        assert!(log.append(sent(90)).is_err());
        assert_eq!(log.append(sent(80)).unwrap(), 80);
    }
}
