//! What the suite does not know about: files, directories, descriptors.

mod descriptors;
mod files;
mod fixture;
mod sweep;
mod tokens;
