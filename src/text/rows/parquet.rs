//! Rows of a Parquet file, read by the `parquet` crate: strings, integers, booleans, floats, lists, structs and maps become
//! their JSON. Other types (dates, decimals, bytes) stand for themselves as text, which no key of slmc's takes for a string
//! by accident, since they are refused where a string is expected.

use super::super::error::TextError;
use super::Row;
use parquet::basic::{ConvertedType, LogicalType};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::record::reader::RowIter;
use parquet::schema::types::Type;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;

/// The rows of a file, with the columns `keys` or with all.
pub(super) fn read(path: &Path, keys: &[&str]) -> Result<Vec<Row>, TextError> {
    let file = std::fs::File::open(path).map_err(|source| TextError::Read { path: path.to_owned(), source })?;
    let broken = |source| TextError::Parquet { path: path.to_owned(), source };
    let reader = SerializedFileReader::new(file).map_err(broken)?;
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
    for column in &columns {
        check_type(path, column)?;
    }
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

/// Refuses a column of bytes that are not said to be UTF-8: its values would not be text.
fn check_type(path: &Path, column: &Type) -> Result<(), TextError> {
    let info = column.get_basic_info();
    let text = matches!(info.logical_type_ref(), Some(LogicalType::String | LogicalType::Json | LogicalType::Enum))
        || matches!(info.converted_type(), ConvertedType::UTF8 | ConvertedType::JSON | ConvertedType::ENUM);
    let bytes = column.is_primitive()
        && matches!(
            column.get_physical_type(),
            parquet::basic::Type::BYTE_ARRAY | parquet::basic::Type::FIXED_LEN_BYTE_ARRAY
        );
    if bytes && !text {
        return Err(TextError::Column {
            path: path.to_owned(),
            column: column.name().to_owned(),
            found: format!("{:?}", column.get_physical_type()),
        });
    }
    Ok(())
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
