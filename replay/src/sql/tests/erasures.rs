//! Users who were erased, through SQL.

use super::*;

fn record(table: Table, offset: i64, value: Vec<u8>) -> RawRecord {
    RawRecord {
        topic: table.topic(),
        partition: 0,
        offset,
        timestamp_ms: MAY + offset,
        key: None,
        value: Some(value),
    }
}

fn act(offset: i64, user: u64) -> RawRecord {
    let interaction = Interaction {
        schema_version: SchemaVersion,
        event_id: format!("e{offset}"),
        user_id: UserId(user),
        movie_id: Some(MovieId(100)),
        kind: Kind::View,
        rating: None,
        genres: vec![],
        timestamp: MAY + offset,
        session_id: None,
        request_id: None,
        source: None,
    };
    record(Table::Interactions, offset, encode(&interaction))
}

fn served(offset: i64, user: u64) -> RawRecord {
    let log = RequestLog {
        timestamp: MAY + offset - 1,
        user_id: Some(UserId(user)),
        ..request(5)
    };
    let log = RequestLog {
        request_id: format!("r{offset}"),
        endpoint: Endpoint::Recommend,
        items: request(4).items,
        ..log
    };
    record(Table::RequestLogs, offset, encode(&log))
}

/// What a sink has taken, and what it leaves after `ticks` looks for what has to go.
fn sink(dir: &Path, records: Vec<RawRecord>, ticks: usize) {
    let mut sink = sink_of(dir, 3);
    for table in [Table::Interactions, Table::RequestLogs] {
        sink.assigned(table.topic(), &[0]).unwrap();
    }
    sink.handle(records).unwrap();
    sink.flush_all().unwrap();
    (0..ticks).for_each(|_| sink.tick().unwrap());
}

#[tokio::test]
async fn who_was_erased_is_in_no_table_before_and_after_the_files_are_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // 7 acts at 1, 3 and 9, 8 at 2 and 8; 7 is erased at 5. Each act answers a list.
    let mut records: Vec<RawRecord> = [(1, 7), (2, 8), (3, 7), (8, 8), (9, 7)]
        .into_iter()
        .flat_map(|(offset, user)| [act(offset, user), served(offset, user)])
        .collect();
    records.insert(
        6,
        RawRecord {
            key: Some(b"7".to_vec()),
            value: None,
            ..record(Table::Interactions, 5, Vec::new())
        },
    );
    sink(dir, records, 0);
    let one_column = "SELECT count(*) AS n, count(movie_id) AS movies FROM interactions";
    for ticks in [0, 30] {
        sink(dir, Vec::new(), ticks);
        let answer = async |query: &str| csv(dir, query).await;
        for (query, expected) in [
            (
                "SELECT kafka_offset, user_id FROM interactions ORDER BY 1",
                "kafka_offset,user_id\n2,8\n8,8\n9,7\n",
            ),
            ("SELECT count(*) AS n FROM interactions", "n\n3\n"),
            (one_column, "n,movies\n3,3\n"),
            (
                "SELECT count(*) AS n FROM interactions WHERE user_id = 7",
                "n\n1\n",
            ),
            (
                "SELECT count(*) AS n FROM interactions WHERE date = '2024-05-01' AND kafka_offset < 5",
                "n\n1\n",
            ),
            (
                "SELECT event_id, date FROM interactions WHERE user_id = 7 LIMIT 1",
                "event_id,date\ne9,2024-05-01\n",
            ),
            (
                "SELECT kafka_offset, user_id, assignment_hash IS NULL AS a FROM request_logs ORDER BY 1",
                "kafka_offset,user_id,a\n1,,true\n2,8,false\n3,,true\n8,8,false\n9,7,false\n",
            ),
            (
                "SELECT count(*) AS n FROM request_logs WHERE user_id = 7",
                "n\n1\n",
            ),
            (
                "SELECT request_id, date FROM request_logs WHERE user_id IS NULL ORDER BY 1",
                "request_id,date\nr1,2024-05-01\nr3,2024-05-01\n",
            ),
            (
                "SELECT user_id, count(*) AS n FROM impressions GROUP BY user_id ORDER BY user_id",
                "user_id,n\n7,4\n8,8\n,8\n",
            ),
            (
                "SELECT request_id, user_id FROM attributions ORDER BY event_time",
                "request_id,user_id\nr2,8\nr8,8\nr9,7\n",
            ),
        ] {
            assert_eq!(answer(query).await, expected, "{query}, {ticks} looks");
        }
    }
    let snapshot = super::super::session::Snapshot::take(dir).unwrap();
    let rows = |table| -> u64 {
        let files = snapshot.0[&table].iter().flat_map(|manifest| &manifest.files);
        files.map(|file| file.rows).sum()
    };
    assert_eq!((rows(Table::Interactions), rows(Table::RequestLogs)), (3, 5));
    let purged = csv(dir, "EXPLAIN SELECT count(*) FROM interactions").await;
    assert!(!purged.contains("is_erased"), "nothing is left to hide: {purged}");
}
