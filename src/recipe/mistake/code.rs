//! The kinds of mistakes. A code never changes its meaning; one that is no longer used is not given again.

use std::fmt;

/// A kind of mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// A file cannot be read.
    Unreadable,
    /// A file is not TOML.
    NotToml,
    /// A recipe extends itself.
    ExtendsItself,
    /// The schema's version is another one.
    Version,
    /// A key that nothing reads.
    UnknownKey,
    /// A key that is needed.
    MissingKey,
    /// A value of another type.
    WrongType,
    /// A word that is not among those known.
    UnknownValue,
    /// Keys that exclude each other.
    Conflict,
    /// A placeholder that stands for nothing.
    Placeholder,
    /// A matrix that has no cells, or not those that are used.
    Matrix,
    /// A condition that cannot be decided.
    Condition,
    /// A stage, or a name in its place, that is not there.
    UnknownStage,
    /// A stage that makes something else than is read.
    WrongProduct,
    /// Stages that wait for each other.
    Cycle,
    /// A path that is not there.
    MissingPath,
    /// A name that cannot be one.
    BadName,
    /// One path that two stages write.
    SamePath,
    /// A variable of the environment that is not set, or may not be used.
    Variable,
    /// A value that the option refuses.
    Refused,
    /// What the models, the data or the target do not allow.
    Impossible,
    /// A gate on something that is not measured.
    NotMeasured,
    /// A gate without what it compares with.
    NothingToCompare,
    /// A gate that too few samples could ever decide.
    TooFewSamples,
    /// A sample that cannot be made.
    NoSample,
}

impl Code {
    /// Every kind, by number.
    pub const ALL: [Code; 25] = [
        Code::Unreadable,
        Code::NotToml,
        Code::ExtendsItself,
        Code::Version,
        Code::UnknownKey,
        Code::MissingKey,
        Code::WrongType,
        Code::UnknownValue,
        Code::Conflict,
        Code::Placeholder,
        Code::Matrix,
        Code::Condition,
        Code::UnknownStage,
        Code::WrongProduct,
        Code::Cycle,
        Code::MissingPath,
        Code::BadName,
        Code::SamePath,
        Code::Variable,
        Code::Refused,
        Code::Impossible,
        Code::NotMeasured,
        Code::NothingToCompare,
        Code::TooFewSamples,
        Code::NoSample,
    ];

    /// Such as `S011`.
    pub fn name(self) -> &'static str {
        match self {
            Code::Unreadable => "S001",
            Code::NotToml => "S002",
            Code::ExtendsItself => "S003",
            Code::Version => "S010",
            Code::UnknownKey => "S011",
            Code::MissingKey => "S012",
            Code::WrongType => "S013",
            Code::UnknownValue => "S014",
            Code::Conflict => "S015",
            Code::Placeholder => "S016",
            Code::Matrix => "S017",
            Code::Condition => "S018",
            Code::UnknownStage => "S020",
            Code::WrongProduct => "S021",
            Code::Cycle => "S022",
            Code::MissingPath => "S023",
            Code::BadName => "S024",
            Code::SamePath => "S025",
            Code::Variable => "S026",
            Code::Refused => "S030",
            Code::Impossible => "S031",
            Code::NotMeasured => "S040",
            Code::NothingToCompare => "S041",
            Code::TooFewSamples => "S042",
            Code::NoSample => "S050",
        }
    }

    /// What to do about a mistake that has no remedy of its own.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Code::Unreadable => "check the path and its rights; `extends` is relative to the file that says it",
            Code::NotToml => "correct the text; strings are in quotes, lists in brackets",
            Code::ExtendsItself => "put what both need into a third recipe",
            Code::Version => "write version = 1",
            Code::UnknownKey => "remove it, or correct its spelling",
            Code::MissingKey => "add it",
            Code::WrongType => "write a value of that type",
            Code::UnknownValue => "write one that is known",
            Code::Conflict => "keep one",
            Code::Placeholder => "write \"${{ matrix.KEY }}\", KEY being one of [matrix]",
            Code::Matrix => "see `slmc explain S017`",
            Code::Condition => "see `slmc explain S018`",
            Code::UnknownStage => "name a stage of this recipe, or \"model\"",
            Code::WrongProduct => "name a stage that makes what is taken",
            Code::Cycle => "change one `input` or option, so that one of them can begin",
            Code::MissingPath => "paths are relative to the file that says them; correct it, or put the file there",
            Code::BadName => "letters, digits, - and _",
            Code::SamePath => "give them names of their own",
            Code::Variable => "set it, or write a value in its place",
            Code::Refused => "see the help of the option: `slmc explain STAGE.OPTION`",
            Code::Impossible => "change the option, or the stage before it",
            Code::NotMeasured => "name a stage that measures it (docs/gates.md)",
            Code::NothingToCompare => "give the stage a `reference`, or the gate an `against`",
            Code::TooFewSamples => "raise `max_windows`",
            Code::NoSample => "remove [sample]",
        }
    }

    /// What it means and what to do, in a paragraph.
    pub fn explanation(self) -> &'static str {
        match self {
            Code::Unreadable => {
                "The recipe, or one that it extends, is not there, cannot be read or is not UTF-8. `extends` is \
                 relative to the file that says it."
            }
            Code::NotToml => {
                "The text is not TOML 1.0. Often a string lacks its quotes or its closing quote, a list a comma, or a \
                 key is given twice in one table."
            }
            Code::ExtendsItself => {
                "Following `extends` leads back to a file that waits for it. Put what both need into a third recipe."
            }
            Code::Version => {
                "A recipe says `version = 1`, the version of the schema it is written for. A higher one is from a newer \
                 slmc; its keys may mean something else here, so it is not guessed."
            }
            Code::UnknownKey => {
                "Nothing reads this key, so it would have no effect. The keys of a stage are `kind`, `input` and the \
                 long options of its subcommand, `-` or `_` alike: `slmc COMMAND --help` lists them."
            }
            Code::MissingKey => "The key is needed and has no default. The message names the table it belongs in.",
            Code::WrongType => {
                "The value has another type than the key takes: a number in quotes is a string, and a list is for \
                 options that may be given several times."
            }
            Code::UnknownValue => {
                "The key takes one of some words, and this is not one of them. The help lists them, or names the nearest."
            }
            Code::Conflict => {
                "Two keys of one stage exclude each other, or one of them is an older name of the other. Keep one."
            }
            Code::Placeholder => {
                "`${{ matrix.KEY }}` in a value of [model] or of a stage stands for the value of a key of [matrix]. There is \
                 no other placeholder; variables of the environment are whole values, `env:NAME`."
            }
            Code::Matrix => {
                "A [matrix] has axes, lists of values whose combinations are its cells; `exclude` takes cells away and \
                 `include` adds some. Every cell that a stage is in has a value of each key the stage uses, and every key \
                 is used by a stage."
            }
            Code::Condition => {
                "`when` consists of terms joined by `&&`: `env:NAME`, `env:NAME == 'text'`, `matrix.KEY == 'text'` (or `!=`) \
                 and `exists('path')`, each with `!` before it for the contrary."
            }
            Code::UnknownStage => {
                "The name is neither a stage of the recipe nor `model`. A compile stage with several targets is a stage \
                 for each: `NAME.TARGET`."
            }
            Code::WrongProduct => {
                "Stages take what others make: quantize takes a dense model, compile a quantized one. The message says \
                 what is made and what is taken."
            }
            Code::Cycle => {
                "Each of these stages waits for the output of another of them. Change one `input` or option."
            }
            Code::MissingPath => {
                "The path does not exist. Paths are relative to the file that says them, not to the working directory."
            }
            Code::BadName => {
                "Names of stages become parts of paths: letters, digits, `-` and `_`; `model` and `inputs` are taken. \
                 Files that a stage writes are named without a directory."
            }
            Code::SamePath => {
                "Outputs are named by stage, values of the matrix and target; files such as `metrics` by the recipe. Two \
                 stages that write one path would replace each other's results."
            }
            Code::Variable => {
                "`env:NAME` in the place of a value is what the variable NAME of the environment says; it must be set. Its \
                 value becomes part of keys and provenance, so names that look like secrets are refused."
            }
            Code::Refused => {
                "The subcommand's own parser refuses the value; the message is what it says on a command line."
            }
            Code::Impossible => {
                "The options can be read, and the models, vocabularies, patterns or targets that are there show that \
                 the stage could not run: found before anything does."
            }
            Code::NotMeasured => {
                "The gate limits a number that no stage, or not the one it names, reports. docs/gates.md lists which \
                 stages measure what."
            }
            Code::NothingToCompare => {
                "The gate compares with a reference or a baseline. Give the eval stage a `reference`, or the gate an \
                 `against`, or [gates] a `baseline`."
            }
            Code::TooFewSamples => {
                "Below eight blocks of windows no bound on the error is trusted, so the gate could never pass or be \
                 missed. Measure more windows or texts."
            }
            Code::NoSample => {
                "[sample] continues its prompt with [model], if that has weights, and with the last artifact; both must \
                 be decoders, and one of them must be there."
            }
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_listed_in_order_and_explained() {
        let names: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert!(names.is_sorted() && names.iter().all(|name| name.len() == 4 && name.starts_with('S')), "{names:?}");
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        assert!(Code::ALL.iter().all(|code| code.explanation().len() > 60 && code.explanation().ends_with('.')));
    }
}
