//! The meaning of the options of stages, as types: a path of a model that another stage may make, a file that is read,
//! one that is written, a target. Recipes read the meaning off the type of an option in its clap definition, and
//! compare products.

pub mod dtype;
pub mod exits;
pub mod groups;
pub mod losses;
pub mod privacy;
pub mod rounds;
pub mod scope;
pub mod shape;
pub mod size;
pub mod training;

use super::stage::Product;
use clap::builder::{MapValueParser, PathBufValueParser, StringValueParser, TypedValueParser, ValueParserFactory};
use std::any::TypeId;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// Meaning of an option's value, where that is more than a word or a number.
#[derive(Clone, Copy, Debug)]
pub enum Meaning {
    /// A model: a path, or a stage that makes one of these.
    Model {
        /// Products allowed there.
        takes: &'static [Product],
        /// In words, with an article.
        name: &'static str,
        /// Whether its weights are read, and not its configuration or its tokenizer alone.
        weights: bool,
    },
    /// A file that is there, or one of these words.
    Reads(&'static [&'static str]),
    /// A file or a directory beside the outputs.
    Writes,
    /// A file beside the outputs that several stages may read and fill.
    Shares,
    /// A target by name, or a target file.
    Target,
    /// A backend by name; the addresses of workers in it decide no result.
    Backend,
}

macro_rules! values {
    ($($(#[$doc:meta])* $name:ident($inner:ty, $parser:ident) = $meaning:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $name(pub $inner);

            impl ValueParserFactory for $name {
                type Parser = MapValueParser<$parser, fn($inner) -> $name>;

                fn value_parser() -> Self::Parser {
                    $parser::new().map($name as fn($inner) -> $name)
                }
            }

            impl Deref for $name {
                type Target = $inner;

                fn deref(&self) -> &$inner {
                    &self.0
                }
            }
        )*

        /// The meaning of an option by the type of its values; `None` for words and numbers.
        pub fn meaning(argument: &clap::Arg) -> Option<Meaning> {
            let value = argument.get_value_parser().type_id();
            $(
                if value == TypeId::of::<$name>() {
                    return Some($meaning);
                }
            )*
            // A path that says no more is read.
            (value == TypeId::of::<PathBuf>()).then_some(Meaning::Reads(&[]))
        }
    };
}

values! {
    /// A directory with dense weights.
    DenseModel(PathBuf, PathBufValueParser) =
        Meaning::Model { takes: &[Product::Dense], name: "a dense model", weights: true };
    /// Likewise, or a configuration alone: where training starts.
    DenseOrConfiguration(PathBuf, PathBufValueParser) =
        Meaning::Model { takes: &[Product::Dense], name: "a dense model", weights: false };
    /// A directory written by `slmc quantize`.
    QuantizedModel(PathBuf, PathBufValueParser) =
        Meaning::Model { takes: &[Product::Quantized], name: "a quantized model", weights: true };
    /// A directory.
    AnyModel(PathBuf, PathBufValueParser) =
        Meaning::Model { takes: &[Product::Dense, Product::Quantized], name: "a model", weights: true };
    /// A directory whose tokenizer is read.
    TokenizerDirectory(PathBuf, PathBufValueParser) =
        Meaning::Model { takes: &[Product::Dense, Product::Quantized], name: "a model", weights: false };
    /// A directory or an artifact.
    ModelOrArtifact(PathBuf, PathBufValueParser) = Meaning::Model {
        takes: &[Product::Dense, Product::Quantized, Product::Artifact],
        name: "a model or an artifact",
        weights: true,
    };
    /// An artifact.
    Artifact(PathBuf, PathBufValueParser) =
        Meaning::Model { takes: &[Product::Artifact], name: "an artifact", weights: true };
    /// A file that is read.
    ReadFile(PathBuf, PathBufValueParser) = Meaning::Reads(&[]);
    /// A file that is read and is another one from day to day: no lock holds it.
    LogFile(PathBuf, PathBufValueParser) = Meaning::Reads(&[]);
    /// A file with text, or `self` for samples of the model itself.
    TextOrSelf(PathBuf, PathBufValueParser) = Meaning::Reads(&[OWN_SAMPLES]);
    /// A file with text, or `chat` for what the model's chat template begins with.
    TextOrChat(PathBuf, PathBufValueParser) = Meaning::Reads(&[CHAT]);
    /// A file that is written.
    WriteFile(PathBuf, PathBufValueParser) = Meaning::Writes;
    /// A directory that is written.
    WriteDirectory(PathBuf, PathBufValueParser) = Meaning::Writes;
    /// A file that is filled by whoever needs it first.
    SharedFile(PathBuf, PathBufValueParser) = Meaning::Shares;
    /// A name of `slmc targets`, or a target file.
    TargetName(String, StringValueParser) = Meaning::Target;
    /// A backend, with addresses where it is that of workers.
    BackendName(String, StringValueParser) = Meaning::Backend;
}

/// Whether what an option reads is another from day to day.
pub fn changes(argument: &clap::Arg) -> bool {
    argument.get_value_parser().type_id() == TypeId::of::<LogFile>()
}

/// The word for what a chat template begins with.
pub const CHAT: &str = "chat";

/// The word for samples of the model itself.
pub const OWN_SAMPLES: &str = "self";

impl TextOrSelf {
    /// Whether it is the word.
    pub fn is_self(&self) -> bool {
        self.0 == Path::new(OWN_SAMPLES)
    }
}

/// The paths of some values.
pub fn paths<V: Deref<Target = PathBuf>>(values: &[V]) -> Vec<PathBuf> {
    values.iter().map(|value| value.deref().clone()).collect()
}

/// The path of a value that may be absent.
pub fn path<V: Deref<Target = PathBuf>>(value: &Option<V>) -> Option<PathBuf> {
    value.as_ref().map(|value| value.deref().clone())
}
