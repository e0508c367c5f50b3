//! The tussah binary.
fn main() {}
