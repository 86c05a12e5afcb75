//! The command line as transcripts: the built program runs in a directory of its own, and everything it prints with its
//! exit code is compared with a committed file, so that a change of any message is seen in review.

mod adapters;
mod decoder;
mod encoder;
mod exports;
mod harness;
mod help;
mod imports;
mod outputs;
mod refusals;
mod streams;
