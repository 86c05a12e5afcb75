//! A finished artifact: opened, run on this machine, inspected and verified, and how its text parts agree.

pub mod chat;
pub mod embedding;
pub mod host;
pub mod inspect;
pub mod runner;
pub mod sealed;
pub mod streamed;
pub mod text;
pub mod verify;
