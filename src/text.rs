//! Text to tokens to windows: reading text files, conversations as text, the one user of the `tokenizers` crate, and the
//! cutting of tokens into the windows and sequences that calibration and evaluation run on.

pub mod annotated;
pub mod chat_template;
pub mod constraint;
pub mod conversations;
pub mod device_text;
pub mod documents;
mod error;
pub mod file;
pub mod form;
pub mod masking;
pub mod reasoning;
pub mod records;
pub(crate) mod rows;
pub mod stream;
pub mod tokenizer;
pub mod tokenizer_training;
pub mod trimming;
pub mod vocabulary;
pub mod windows;

#[cfg(test)]
mod testing;
