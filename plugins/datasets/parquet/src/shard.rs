//! One Parquet file: its columns, labels, and the bytes of its images by row group.

use parquet::basic::Compression;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use rqlab_sdk::{Error, Result};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Names that a column of labels goes by, when none is configured.
pub(crate) const LABELS: [&str; 4] = ["label", "labels", "fine_label", "coarse_label"];
/// Names that a column of images goes by.
const IMAGES: [&str; 2] = ["image", "img"];

/// The columns that are named in the configuration.
pub(crate) struct Columns<'a> {
    pub(crate) image: Option<&'a str>,
    pub(crate) label: Option<&'a str>,
    pub(crate) caption: Option<&'a str>,
}

/// An open file.
pub(crate) struct Shard {
    pub(crate) path: PathBuf,
    /// Reading moves the file's position: one at a time.
    reader: Mutex<SerializedFileReader<File>>,
    /// Index and name of the leaf column with the images' bytes.
    image: (usize, String),
    /// The same for the labels, if there are any.
    label: Option<(usize, String)>,
    /// The same for the captions, if they are asked for.
    caption: Option<(usize, String)>,
    /// Rows of each row group.
    pub(crate) groups: Vec<usize>,
    /// Class names, if the file tells them.
    pub(crate) names: Option<Vec<String>>,
}

impl Shard {
    /// Opens a file and finds its columns. An empty name of the labels means that there are none.
    pub(crate) fn open(path: &Path, columns: &Columns<'_>) -> Result<Self> {
        let (image_column, label_column) = (columns.image, columns.label);
        let file = File::open(path).map_err(Error::file(path))?;
        let reader = guarded(|| SerializedFileReader::new(file)).map_err(|e| {
            Error::Data(format!(
                "{}: cannot be read as Parquet (damaged, cut short, or another format): {e}",
                path.display()
            ))
        })?;
        let metadata = reader.metadata();
        let schema = metadata.file_metadata().schema_descr();
        let leaves: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
        let find = |names: &[&str], suffixes: &[&str]| {
            let mut wanted = names.iter().flat_map(|name| suffixes.iter().map(move |suffix| format!("{name}{suffix}")));
            wanted.find_map(|name| Some((leaves.iter().position(|leaf| *leaf == name)?, name)))
        };
        let missing = |what: &str, names: &[&str], field: &str| {
            Error::Data(format!(
                "{}: no column of {what} named {}; its columns are {}. Name it with `{field}`",
                path.display(),
                names.join(" or "),
                leaves.join(", ")
            ))
        };
        let names = image_column.map_or(IMAGES.to_vec(), |name| vec![name]);
        let image = find(&names, &[".bytes", ""]).ok_or_else(|| missing("images", &names, "image_column"))?;
        let label = if label_column == Some("") {
            None
        } else {
            let names = label_column.map_or(LABELS.to_vec(), |name| vec![name]);
            let found = find(&names, &[""]);
            match (found, label_column) {
                (None, Some(_)) => return Err(missing("labels", &names, "label_column")),
                (found, _) => found,
            }
        };
        let caption = match columns.caption {
            Some(name) => Some(find(&[name], &[""]).ok_or_else(|| missing("captions", &[name], "caption_column"))?),
            None => None,
        };
        for group in metadata.row_groups() {
            for (column, name) in [Some(&image), label.as_ref(), caption.as_ref()].into_iter().flatten() {
                let codec = group.column(*column).compression();
                if matches!(codec, Compression::LZ4 | Compression::LZ4_RAW | Compression::LZO) {
                    return Err(Error::Data(format!(
                        "{}: column `{name}` is compressed with {codec}, which rqlab does not read; it reads \
                         uncompressed, snappy, gzip, zstd and brotli",
                        path.display()
                    )));
                }
            }
        }
        let names = label.as_ref().and_then(|(_, label)| {
            let pairs = metadata.file_metadata().key_value_metadata()?;
            let text = pairs.iter().find(|pair| pair.key == "huggingface")?.value.as_deref()?;
            let json: serde_json::Value = serde_json::from_str(text).ok()?;
            let names = json["info"]["features"][label]["names"].as_array()?;
            names.iter().map(|name| Some(name.as_str()?.to_owned())).collect()
        });
        let groups = metadata.row_groups().iter().map(|group| group.num_rows() as usize).collect();
        Ok(Self { path: path.to_owned(), reader: Mutex::new(reader), image, label, caption, groups, names })
    }

    /// Where the image of row `row` of the file lies, counted from 0, or its label.
    pub(crate) fn place(&self, row: usize, label: bool) -> String {
        let column = if label { self.label_column() } else { &self.image.1 };
        format!("{}: row {row}, column `{column}`", self.path.display())
    }

    /// Whether there is a column of labels.
    pub(crate) fn has_labels(&self) -> bool {
        self.label.is_some()
    }

    /// The bytes of the images of a row group; none where a row has no image.
    pub(crate) fn images(&self, group: usize) -> Result<Vec<Option<ByteArray>>> {
        self.byte_arrays(group, &self.image)
    }

    /// The captions of all rows, none where a row has none; empty if they are not asked for.
    pub(crate) fn captions(&self) -> Result<Vec<Option<ByteArray>>> {
        let mut captions = Vec::new();
        let Some(column) = &self.caption else { return Ok(captions) };
        for group in 0..self.groups.len() {
            captions.extend(self.byte_arrays(group, column)?);
        }
        Ok(captions)
    }

    fn byte_arrays(&self, group: usize, (column, name): &(usize, String)) -> Result<Vec<Option<ByteArray>>> {
        match self.column(group, *column, name)? {
            ColumnReader::ByteArrayColumnReader(reader) => self.values(reader, group, *column, name),
            _ => Err(self.wrong_type(name, "bytes")),
        }
    }

    /// The labels of all rows, none where a row has no label; empty if there is no column of labels.
    pub(crate) fn labels(&self) -> Result<Vec<Option<i64>>> {
        let mut labels = Vec::new();
        let Some((column, name)) = &self.label else { return Ok(labels) };
        for group in 0..self.groups.len() {
            match self.column(group, *column, name)? {
                ColumnReader::Int64ColumnReader(reader) => labels.extend(self.values(reader, group, *column, name)?),
                ColumnReader::Int32ColumnReader(reader) => {
                    let values = self.values(reader, group, *column, name)?;
                    labels.extend(values.into_iter().map(|label| label.map(i64::from)));
                }
                _ => return Err(self.wrong_type(name, "whole numbers")),
            }
        }
        Ok(labels)
    }

    /// The name of the column of labels.
    pub(crate) fn label_column(&self) -> &str {
        self.label.as_ref().map_or("label", |(_, name)| name)
    }

    /// That every label of the split is -1, and what helps.
    pub(crate) fn unlabelled_error(&self) -> Error {
        Error::Data(format!(
            "{}: every label in column `{}` is -1, which marks images without a label. Name the files of a labelled \
             split with `train` or `test`, or leave all labels out with `label_column: \"\"`",
            self.path.display(),
            self.label_column()
        ))
    }

    fn column(&self, group: usize, column: usize, name: &str) -> Result<ColumnReader> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let column = guarded(|| reader.get_row_group(group)?.get_column_reader(column));
        column.map_err(|e| self.damaged(group, name, &e))
    }

    /// All values of a column of a row group; none where there is none.
    fn values<T: DataType>(
        &self,
        mut reader: ColumnReaderImpl<T>,
        group: usize,
        column: usize,
        name: &str,
    ) -> Result<Vec<Option<T::T>>> {
        // Pages are read from the file as they are needed.
        let file = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        // The level of a value all of whose parents are there.
        let whole = file.metadata().file_metadata().schema_descr().column(column).max_def_level();
        let rows = self.groups[group];
        // They grow with what is there: the metadata may promise more.
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        let mut read = 0;
        while read < rows {
            let records = guarded(|| reader.read_records(rows - read, Some(&mut levels), None, &mut values));
            let (records, ..) = records.map_err(|e| self.damaged(group, name, &e))?;
            if records == 0 {
                break;
            }
            read += records;
        }
        if values.len() == rows {
            return Ok(values.into_iter().map(Some).collect());
        }
        let mut values = values.into_iter();
        let values: Vec<_> = levels.iter().map(|&level| if level == whole { values.next() } else { None }).collect();
        if values.len() == rows {
            return Ok(values);
        }
        Err(Error::Data(format!(
            "{}: row group {group} has {} values in column `{name}`, of {rows} rows",
            self.path.display(),
            values.len()
        )))
    }

    fn wrong_type(&self, name: &str, wanted: &str) -> Error {
        Error::Data(format!("{}: column `{name}` does not hold {wanted}", self.path.display()))
    }

    fn damaged(&self, group: usize, name: &str, error: &ParquetError) -> Error {
        Error::Data(format!(
            "{}: row group {group}, column `{name}`: cannot be read (the file is damaged): {error}",
            self.path.display()
        ))
    }
}

/// A look into the file. The library panics at some kinds of damage.
fn guarded<T>(look: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(look))
        .unwrap_or_else(|_| Err(ParquetError::General("its contents contradict each other".to_owned())))
}
