"""Reads a lake with pyarrow, as any Parquet engine would: prints one JSON object with what it finds.

    python read_lake.py LAKE_DIR TABLE
"""

import json
import sys
from pathlib import Path

import pyarrow.dataset as ds

lake, table = Path(sys.argv[1]), sys.argv[2]

# A manifest per partition names the files that count; a file that none names belongs to an unfinished commit.
files = [
    str(lake / table / entry["path"])
    for manifest in sorted((lake / table / "_manifest").glob("*.json"))
    for entry in json.loads(manifest.read_text())["files"]
]
partitioning = ds.partitioning(flavor="hive")
rows = ds.dataset(files, format="parquet", partitioning=partitioning, partition_base_dir=str(lake / table)).to_table()
found = {"rows": rows.num_rows, "columns": rows.schema.names}
if "kafka_offset" in rows.schema.names:
    found["identities"] = len(set(zip(rows["kafka_partition"].to_pylist(), rows["kafka_offset"].to_pylist())))
    found["dates"] = sorted({str(date) for date in rows["date"].to_pylist()})
if table == "request_logs":
    items = [item for items in rows["items"].to_pylist() for item in items]
    found["movies"] = sorted({item["movie_id"] for item in items})
    found["propensity_sum"] = sum(item["propensity"] for item in items)
print(json.dumps(found))
