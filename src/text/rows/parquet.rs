//! Rows of a Parquet file, read by the `parquet` crate: strings, integers, booleans, floats, lists, structs and maps become
//! their JSON. Columns of other types (dates, decimals, bytes) are refused where they are asked for; within lists and structs
//! their values stand for themselves as text in an array, which nobody takes for a string by accident.

use super::super::error::TextError;
use super::super::file::{check_regular, foreign};
use super::Row;
use crate::disk::found::SNIFFED_BYTES;
use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::record::reader::RowIter;
use parquet::schema::types::Type;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

fn open(path: &Path) -> Result<SerializedFileReader<File>, TextError> {
    check_regular(path)?;
    let mut file = File::open(path).map_err(|source| TextError::Read { path: path.to_owned(), source })?;
    let mut start = [0; SNIFFED_BYTES];
    let read = file.read(&mut start).map_err(|source| TextError::Read { path: path.to_owned(), source })?;
    foreign(path, &start[..read])?;
    SerializedFileReader::new(file).map_err(|source| TextError::Parquet { path: path.to_owned(), source })
}

/// The names of all columns.
pub(super) fn columns(path: &Path) -> Result<Vec<String>, TextError> {
    let reader = open(path)?;
    let schema = reader.metadata().file_metadata().schema();
    Ok(schema.get_fields().iter().map(|field| field.name().to_owned()).collect())
}

/// Whether there is a column of this name that holds lists.
pub(super) fn is_list(path: &Path, key: &str) -> Result<bool, TextError> {
    let reader = open(path)?;
    let schema = reader.metadata().file_metadata().schema();
    let column = schema.get_fields().iter().find(|field| field.name() == key);
    Ok(column.is_some_and(|column| {
        let info = column.get_basic_info();
        info.converted_type() == ConvertedType::LIST
            || info.logical_type_ref() == Some(&LogicalType::List)
            || (info.has_repetition() && info.repetition() == Repetition::REPEATED)
    }))
}

/// The rows of a file, with the columns among `keys` that it has, or with all.
pub(super) fn read(path: &Path, keys: &[&str]) -> Result<Vec<Row>, TextError> {
    let broken = |source| TextError::Parquet { path: path.to_owned(), source };
    let reader = open(path)?;
    let schema = reader.metadata().file_metadata().schema().clone();
    let columns: Vec<Arc<Type>> =
        schema.get_fields().iter().filter(|field| keys.is_empty() || keys.contains(&field.name())).cloned().collect();
    if columns.is_empty() {
        let names: Vec<_> = schema.get_fields().iter().map(|field| field.name()).collect();
        return Err(TextError::NoColumn {
            path: path.to_owned(),
            wanted: keys.join("`, `"),
            columns: names.join(", "),
        });
    }
    columns.iter().filter(|_| !keys.is_empty()).try_for_each(|column| check_type(path, column))?;
    let projection = Type::group_type_builder(schema.name()).with_fields(columns).build().map_err(broken)?;
    let rows = RowIter::from_file_into(Box::new(reader)).project(Some(projection)).map_err(broken)?;
    rows.enumerate()
        .map(|(index, row)| {
            let row = row.map_err(broken)?;
            let values: Map<_, _> = row.into_columns().into_iter().map(|(name, field)| (name, value(field))).collect();
            Ok((index + 1, values))
        })
        .collect()
}

/// Refuses a column whose values are neither text nor numbers: bytes that are not said to be UTF-8, dates, decimals.
fn check_type(path: &Path, column: &Type) -> Result<(), TextError> {
    if !column.is_primitive() {
        return Ok(());
    }
    let info = column.get_basic_info();
    let (logical, converted) = (info.logical_type_ref(), info.converted_type());
    let text = matches!(logical, Some(LogicalType::String | LogicalType::Json | LogicalType::Enum))
        || matches!(converted, ConvertedType::UTF8 | ConvertedType::JSON | ConvertedType::ENUM);
    let physical = column.get_physical_type();
    let number = match physical {
        Physical::BOOLEAN | Physical::FLOAT | Physical::DOUBLE => true,
        Physical::INT32 | Physical::INT64 => match (logical, converted) {
            (Some(logical), _) => matches!(logical, LogicalType::Integer { .. }),
            (None, converted) => matches!(
                converted,
                ConvertedType::NONE
                    | ConvertedType::INT_8
                    | ConvertedType::INT_16
                    | ConvertedType::INT_32
                    | ConvertedType::INT_64
                    | ConvertedType::UINT_8
                    | ConvertedType::UINT_16
                    | ConvertedType::UINT_32
                    | ConvertedType::UINT_64
            ),
        },
        Physical::INT96 | Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY => false,
    };
    if text || number {
        return Ok(());
    }
    let found = match converted {
        ConvertedType::NONE => physical.to_string(),
        converted => converted.to_string(),
    };
    Err(TextError::Column { path: path.to_owned(), column: column.name().to_owned(), found })
}

fn value(field: Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => json!(value),
        Field::Byte(value) => json!(value),
        Field::Short(value) => json!(value),
        Field::Int(value) => json!(value),
        Field::Long(value) => json!(value),
        Field::UByte(value) => json!(value),
        Field::UShort(value) => json!(value),
        Field::UInt(value) => json!(value),
        Field::ULong(value) => json!(value),
        Field::Float16(value) => json!(value.to_f32()),
        Field::Float(value) => json!(value),
        Field::Double(value) => json!(value),
        Field::Str(text) => Value::String(text),
        Field::Group(row) => row.into_columns().into_iter().map(|(name, field)| (name, value(field))).collect(),
        Field::ListInternal(list) => list.elements().iter().cloned().map(value).collect(),
        Field::MapInternal(map) => {
            map.entries().iter().map(|(key, field)| (key.to_string(), value(field.clone()))).collect()
        }
        // Dates, decimals and bytes: an array of their text, so that they are not taken for strings.
        other => json!([other.to_string()]),
    }
}
