//! A column of captions.

use crate::png;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use rqlab_dataset_parquet::ParquetConfig;
use rqlab_sdk::prelude::*;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// Writes images with captions, none where a row has none.
fn write(path: &Path, rows: &[(u8, Option<&[u8]>)]) {
    let schema = parse_message_type("message schema { required binary image; optional binary text (UTF8); }").unwrap();
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), Arc::new(schema), properties).unwrap();
    for rows in rows.chunks(3) {
        let mut group = writer.next_row_group().unwrap();
        let images: Vec<ByteArray> = rows.iter().map(|(red, _)| png(*red).into()).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&images, None, None).unwrap();
        column.close().unwrap();
        let levels: Vec<i16> = rows.iter().map(|(_, caption)| i16::from(caption.is_some())).collect();
        let captions: Vec<ByteArray> =
            rows.iter().filter_map(|(_, caption)| Some(caption.as_ref()?.to_vec().into())).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&captions, Some(&levels), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

fn open(dir: &Path, fields: &str) -> Result<rqlab_dataset_parquet::Parquet> {
    let config = ParquetConfig::parse(&format!("parquet(path: \".\", {fields})"))?;
    rqlab_dataset_parquet::open(config, &DatasetContext::new(dir))
}

#[test]
fn a_column_of_texts_is_the_captions() {
    let dir = TempDir::new().unwrap();
    let captions: [Option<&[u8]>; 5] = [Some(b"none red"), None, Some(b" two "), Some(b"three"), Some(b"")];
    let rows: Vec<(u8, Option<&[u8]>)> = (0..5).zip(captions).collect();
    write(&dir.path().join("train-00000-of-00001.parquet"), &rows);
    write(&dir.path().join("test-00000-of-00001.parquet"), &rows[..2]);
    assert!(open(dir.path(), "").unwrap().caption_info().is_none());
    let set = open(dir.path(), "caption_column: \"text\"").unwrap();
    assert_eq!(set.captions(Split::Train, &[2, 0, 1, 4]).unwrap(), ["two", "none red", "", ""]);
    assert_eq!(set.captions(Split::Test, &[1, 0]).unwrap(), ["", "none red"]);
    assert_eq!(set.caption_info().unwrap().missing, [2, 1]);
    rqlab_sdk::testing::dataset(&set);
}

#[test]
fn captions_that_are_none_are_named() {
    let dir = TempDir::new().unwrap();
    let rows: Vec<(u8, Option<&[u8]>)> = vec![(0, Some(b"fine")), (1, Some(&[0xff])), (2, None)];
    write(&dir.path().join("train-00000-of-00001.parquet"), &rows);
    write(&dir.path().join("test-00000-of-00001.parquet"), &rows[..1]);
    let complaint = |fields: &str| open(dir.path(), fields).err().unwrap().to_string();
    let message = complaint("caption_column: \"text\"");
    assert!(message.contains("UTF-8") && message.contains("train-00000"), "{message}");
    let message = complaint("caption_column: \"caption\"");
    assert!(message.contains("no column of captions") && message.contains("text"), "{message}");
}
