//! Checkpoints as people have them: keys that transformers leaves out, names that training left behind, tables padded or
//! tied under another name, marks before JSON, and paths that are not quite a model. Made of golden checkpoints and of the
//! tiny ones of `fixture`, edited in a directory of their own.

mod defaults;
mod found;
mod names;
mod vocabulary;

use safetensors::Dtype;
use serde_json::Value;
use slmc::disk::tensor_file::{self, NewTensor};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A copy of a directory of files.
fn copied(source: &Path) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for entry in fs::read_dir(source).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name");
        if name != "golden.safetensors" {
            fs::copy(&path, directory.path().join(name)).expect("it can be copied");
        }
    }
    directory
}

/// Changes a JSON file of a directory.
fn edit_json(directory: &Path, name: &str, edit: impl FnOnce(&mut Value)) {
    let path = directory.join(name);
    let mut value = serde_json::from_slice(&fs::read(&path).expect("it is there")).expect("JSON");
    edit(&mut value);
    fs::write(path, value.to_string()).expect("it can be written");
}

fn remove(value: &mut Value, key: &str) {
    drop(value.as_object_mut().expect("an object").shift_remove(key));
}

/// A tensor of a file.
#[derive(Clone)]
struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Changes the tensors of model.safetensors.
fn edit_tensors(directory: &Path, edit: impl FnOnce(&mut BTreeMap<String, Tensor>)) {
    let path = directory.join("model.safetensors");
    let stored = tensor_file::read(&path).expect("it is a tensor file").into_iter();
    let mut tensors = stored
        .map(|(name, tensor)| {
            let bytes = tensor.bytes.as_slice().to_vec();
            (name, Tensor { dtype: tensor.dtype, shape: tensor.shape, bytes })
        })
        .collect();
    edit(&mut tensors);
    let new = directory.join("new");
    let tensors = tensors.iter().map(|(name, tensor)| NewTensor {
        name: name.clone(),
        dtype: tensor.dtype,
        shape: tensor.shape.clone(),
        bytes: Box::new(|| Cow::Borrowed(tensor.bytes.as_slice())),
    });
    tensor_file::write(&new, tensors.collect()).expect("it can be written");
    fs::rename(new, path).expect("it can be moved");
}

/// Renames tensors of model.safetensors.
fn rename_tensors(directory: &Path, rename: impl Fn(&str) -> String) {
    edit_tensors(directory, |tensors| {
        *tensors = std::mem::take(tensors).into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect();
    });
}
