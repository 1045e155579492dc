//! A Parquet file, read a whole column at a time, by its name.
//!
//! Invariant: every column that was read has as many values as the file has rows.

use std::fs::File;
use std::path::{Path, PathBuf};

use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{ByteArrayType, DataType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

/// Why a file's columns cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ColumnError {
    /// There is no such file, or it may not be read.
    #[error("cannot read {}: {cause}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// It is damaged, or no Parquet at all.
    #[error("{} is no whole Parquet file: {cause}; if its run was interrupted, run it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: ParquetError,
    },
    /// It is of something else.
    #[error("{} has no column {column} of the type {expected}; it was written by another version", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
        /// The type.
        expected: parquet::basic::Type,
    },
    /// A value is not what the column is for.
    #[error("{}: column {column}, row {row} (counted from 0): {value} is no value of it", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
        /// The row, counted from 0.
        row: usize,
        /// What is there.
        value: String,
    },
}

/// See the module.
pub(super) struct Columns {
    path: PathBuf,
    file: SerializedFileReader<File>,
}

impl Columns {
    pub(super) fn open(path: &Path) -> Result<Columns, ColumnError> {
        let file =
            File::open(path).map_err(|cause| ColumnError::Open { path: path.to_owned(), cause })?;
        let file = SerializedFileReader::new(file)
            .map_err(|cause| ColumnError::Damaged { path: path.to_owned(), cause })?;
        Ok(Columns { path: path.to_owned(), file })
    }

    /// The values of a column; rows without one have `None`.
    pub(super) fn optional<T: DataType>(
        &self,
        name: &'static str,
    ) -> Result<Vec<Option<T::T>>, ColumnError> {
        let schema = self.file.metadata().file_metadata().schema_descr();
        let expected = T::get_physical_type();
        let place = schema.columns().iter().position(|column| {
            column.name() == name
                && column.physical_type() == expected
                && column.max_rep_level() == 0
                && column.max_def_level() <= 1
        });
        let Some(place) = place else {
            return Err(ColumnError::Column { path: self.path.clone(), column: name, expected });
        };
        let is_optional = schema.column(place).max_def_level() == 1;
        self.read::<T>(place, is_optional)
            .map_err(|cause| ColumnError::Damaged { path: self.path.clone(), cause })
    }

    fn read<T: DataType>(
        &self,
        place: usize,
        is_optional: bool,
    ) -> Result<Vec<Option<T::T>>, ParquetError> {
        let mut rows = Vec::new();
        for number in 0..self.file.num_row_groups() {
            let group = self.file.get_row_group(number)?;
            let mut reader = get_typed_column_reader::<T>(group.get_column_reader(place)?);
            let all = group.metadata().num_rows() as usize;
            let (mut values, mut levels) = (Vec::new(), Vec::new());
            let mut read = 0;
            while read < all {
                let levels = is_optional.then_some(&mut levels);
                let (more, ..) = reader.read_records(all - read, levels, None, &mut values)?;
                if more == 0 {
                    return Err(ParquetError::EOF(format!("{read} of {all} rows are there")));
                }
                read += more;
            }
            let mut values = values.into_iter();
            match is_optional {
                true => rows.extend(
                    levels.iter().map(|level| if *level == 1 { values.next() } else { None }),
                ),
                false => rows.extend(values.map(Some)),
            }
        }
        Ok(rows)
    }

    /// The values of a column in which every row has one.
    pub(super) fn column<T: DataType>(&self, name: &'static str) -> Result<Vec<T::T>, ColumnError> {
        let all = self.optional::<T>(name)?.into_iter().enumerate();
        all.map(|(row, value)| value.ok_or_else(|| self.wrong(name, row, "nothing"))).collect()
    }

    /// Whole numbers.
    pub(super) fn numbers<N: TryFrom<i64>>(
        &self,
        name: &'static str,
    ) -> Result<Vec<N>, ColumnError> {
        let all = self.column::<Int64Type>(name)?.into_iter().enumerate();
        all.map(|(row, value)| self.number(name, row, value)).collect()
    }

    /// Whole numbers; rows without one have `None`.
    pub(super) fn optional_numbers<N: TryFrom<i64>>(
        &self,
        name: &'static str,
    ) -> Result<Vec<Option<N>>, ColumnError> {
        let all = self.optional::<Int64Type>(name)?.into_iter().enumerate();
        all.map(|(row, value)| value.map(|value| self.number(name, row, value)).transpose())
            .collect()
    }

    /// Texts.
    pub(super) fn texts(&self, name: &'static str) -> Result<Vec<String>, ColumnError> {
        let all = self.optional_texts(name)?.into_iter().enumerate();
        all.map(|(row, value)| value.ok_or_else(|| self.wrong(name, row, "nothing"))).collect()
    }

    /// Texts; rows without one have `None`.
    pub(super) fn optional_texts(
        &self,
        name: &'static str,
    ) -> Result<Vec<Option<String>>, ColumnError> {
        let all = self.optional::<ByteArrayType>(name)?.into_iter().enumerate();
        let text = |row, bytes: &[u8]| match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.wrong(name, row, "no UTF-8")),
        };
        all.map(|(row, value)| value.map(|value| text(row, value.data())).transpose()).collect()
    }

    fn number<N: TryFrom<i64>>(
        &self,
        name: &'static str,
        row: usize,
        value: i64,
    ) -> Result<N, ColumnError> {
        N::try_from(value).map_err(|_| self.wrong(name, row, &value.to_string()))
    }

    /// The error of a value that a column is not for.
    pub(super) fn wrong(&self, column: &'static str, row: usize, value: &str) -> ColumnError {
        ColumnError::Value { path: self.path.clone(), column, row, value: value.to_owned() }
    }
}
