//! Classes, and images without any.

use super::{NAMES, Row, complaint, open, png, reds, rows, simple, write};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use rqlab_sdk::prelude::*;
use std::fs::File;
use std::sync::Arc;
use tempfile::TempDir;

/// A file's own list says what its labels mean.
#[test]
fn classes_are_matched_by_name_between_splits_and_files() {
    let dir = TempDir::new().unwrap();
    let animal = |red: u8, label: i64| (Some(png(red)), Some(label));
    let write = |name: &str, rows: &[Row], names: &[&str]| {
        write(&dir.path().join(name), rows, 2, names, Compression::SNAPPY);
    };
    write("train-0.parquet", &[animal(200, 0), animal(20, 1)], &["cat", "dog"]);
    write("train-1.parquet", &[animal(200, 2), animal(20, 0)], &["dog", "eel", "cat"]);
    write("test-0.parquet", &[animal(20, 0), animal(200, 1), animal(90, 2)], &["dog", "cat", "owl"]);
    let set = open(dir.path(), "path: \".\"").unwrap();
    assert_eq!(set.info().classes, ["cat", "dog", "eel", "owl"]);
    assert_eq!(set.info().summary.per_class, [[2, 1], [2, 1], [0, 0], [0, 1]]);
    let train = set.batch(Split::Train, &[0, 1, 2, 3], None).unwrap();
    assert_eq!((reds(&train), train.labels.as_slice()), (vec![200, 20, 200, 20], &[0, 1, 0, 1][..]));
    let test = set.batch(Split::Test, &[0, 1, 2], None).unwrap();
    assert_eq!((reds(&test), test.labels.as_slice()), (vec![20, 200, 90], &[1, 0, 3][..]));
    // Beyond the list of its own file, though others have longer ones.
    write("train-0.parquet", &[animal(200, 2), animal(20, 1)], &["cat", "dog"]);
    let error = complaint(dir.path(), "path: \".\"");
    assert!(error.contains("train-0.parquet: row 0, column `label`: label 2 is none of the 2 classes"), "{error}");
}

#[test]
fn files_without_a_column_of_labels_carry_none() {
    let dir = TempDir::new().unwrap();
    let schema = parse_message_type("message schema { optional group image { optional binary bytes; } }").unwrap();
    for name in ["train.parquet", "test.parquet"] {
        let file = File::create(dir.path().join(name)).unwrap();
        let properties = Arc::new(WriterProperties::builder().build());
        let mut writer = SerializedFileWriter::new(file, Arc::new(schema.clone()), properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let images: Vec<ByteArray> = (0..3).map(|red| png(red).into()).collect();
        column.typed::<ByteArrayType>().write_batch(&images, Some(&[2; 3]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    }
    let set = open(dir.path(), "path: \".\"").unwrap();
    assert!(set.info().classes.is_empty() && set.info().summary.notes[0].contains("`label_column`"));
    rqlab_sdk::testing::dataset(&set);
    // A split with labels beside one without.
    write(&dir.path().join("test.parquet"), &rows(0, 3), 3, &NAMES, Compression::SNAPPY);
    let error = complaint(dir.path(), "path: \".\"");
    assert!(
        error.contains("train.parquet: has no column of labels, and") && error.contains("`label_column`"),
        "{error}"
    );
}

#[test]
fn labels_may_be_left_out() {
    let dir = simple();
    let set = open(dir.path(), "path: \".\", label_column: \"\"").unwrap();
    assert!(set.info().classes.is_empty());
    assert_eq!(set.batch(Split::Train, &[1, 2], None).unwrap().labels.as_slice(), [0, 0]);
}

/// What is taken for granted of names is said.
#[test]
fn odd_names_of_classes_are_told() {
    let told = |first: &[&str], second: &[&str], test: &[&str]| {
        let dir = TempDir::new().unwrap();
        for (name, classes) in [("train-0", first), ("train-1", second), ("test-0", test)] {
            write(&dir.path().join(format!("{name}.parquet")), &rows(0, 6), 6, classes, Compression::SNAPPY);
        }
        open(dir.path(), "path: \".\"").unwrap().info().summary.notes.join("\n")
    };
    let names = ["ant", "bee", "cat"];
    assert_eq!(told(&names, &["cat", "ant", "bee"], &names), "");
    let notes = told(&["bee", "ant", "cat"], &[], &names);
    assert!(notes.contains("1 of 3 files tell no names of classes, such as ") && notes.contains("train-1"), "{notes}");
    assert!(notes.ends_with("are taken to count `bee`, `ant`, …"), "{notes}");
    assert!(told(&names, &names, &["ant", "Bee", "cat"]).contains("`bee` and `Bee` differ in case alone"));
    assert!(told(&["ant", "ant", "cat"], &names, &names).contains("train-0.parquet gives several classes one name"));
}
