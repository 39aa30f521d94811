import numpy as np
import pyarrow as pa
import pytest

from stages.ledger import (
    SCHEMA,
    counts_by_reason,
    finished_chunks,
    kept_rows,
    part_path,
    read_ledger,
    read_part_metadata,
    schema_with,
    write_part,
)
from stages.pack import ledger_rows
from tests.stages.cast import person, photographs_of, verdicts_of

METADATA = {"shard": "000000.tar", "tar_sha256": "ab" * 32, "made_from": "cd" * 32}


def rows_of(index, reasons):
    return ledger_rows(verdicts_of(photographs_of([person(index)], len(reasons), index), reasons))


def test_a_part_reads_back_as_it_was_written_with_its_metadata(tmp_path):
    rows = rows_of(3, ["", "own_identity"])
    write_part(tmp_path / "000003.parquet", rows, METADATA)
    assert read_ledger(tmp_path).equals(rows)
    assert read_part_metadata(tmp_path / "000003.parquet") == METADATA
    assert read_ledger(tmp_path).schema == schema_with(["own_identity"])


def test_parts_are_read_in_the_order_of_their_chunks_not_of_their_writing(tmp_path):
    for index in (10, 2, 7):
        write_part(part_path(tmp_path, index), rows_of(index, ["", "face_found"]), METADATA)
    assert read_ledger(tmp_path)["chunk"].to_pylist() == [2, 2, 7, 7, 10, 10]
    assert finished_chunks(tmp_path) == {2, 7, 10}


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("000001.parquet", "000002.parquet"):
        write_part(tmp_path / name, rows_of(1, ["", ""]), METADATA)
    assert (tmp_path / "000001.parquet").read_bytes() == (tmp_path / "000002.parquet").read_bytes()


def test_unfinished_parts_and_other_files_are_no_chunks(tmp_path):
    for name in ("000001.parquet.part", "000002.parquet~", "x000003.parquet", "notes.txt"):
        (tmp_path / name).touch()
    assert finished_chunks(tmp_path) == finished_chunks(tmp_path / "nowhere") == set()
    assert read_ledger(tmp_path).schema == SCHEMA


def test_counts_by_reason_add_up_to_the_rows(tmp_path):
    rows = rows_of(1, ["", "own_identity", "", "face_found", "own_identity", ""])
    assert counts_by_reason(rows) == {"": 3, "own_identity": 2, "face_found": 1}
    assert list(counts_by_reason(rows)) == ["", "own_identity", "face_found"]
    assert kept_rows(rows)["key"].to_pylist() == ["000001_000", "000001_002", "000001_005"]


def test_a_rule_may_not_take_the_name_of_a_column():
    with pytest.raises(ValueError, match=r"rules: expected names of their own .*got \['norm'\]"):
        schema_with(["norm", "own_identity"])


def test_other_columns_other_metadata_and_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="table: expected the columns of SCHEMA"):
        write_part(tmp_path / "000001.parquet", pa.table({"key": ["a"]}), METADATA)
    with pytest.raises(ValueError, match="metadata: expected"):
        write_part(tmp_path / "000001.parquet", rows_of(1, [""]), {"shard": "x"})
    assert not list(tmp_path.iterdir())
    pa.parquet.write_table(pa.table({"key": ["a"]}), tmp_path / "000009.parquet")
    with pytest.raises(ValueError, match="expected a ledger part"):
        read_part_metadata(tmp_path / "000009.parquet")


def test_parts_of_two_judges_are_not_one_ledger(tmp_path):
    write_part(tmp_path / "000001.parquet", rows_of(1, [""]), METADATA)
    other = rows_of(2, [""]).rename_columns([*SCHEMA.names, "another_rule"])
    write_part(tmp_path / "000002.parquet", other, METADATA)
    with pytest.raises(ValueError, match="judged by the same rules"):
        read_ledger(tmp_path)


def test_a_picture_without_a_face_keeps_its_row_and_measures_nan(tmp_path):
    verdicts = verdicts_of(photographs_of([person(0)], 2), ["face_found", ""])
    verdicts.measured["own_identity"][0] = np.nan
    write_part(tmp_path / "000000.parquet", ledger_rows(verdicts), METADATA)
    measured = read_ledger(tmp_path)["own_identity"]
    assert measured.null_count == 0
    assert np.isnan(measured.to_numpy()).tolist() == [True, False]
