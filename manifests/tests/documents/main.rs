//! The documents as their readers and writers see them: texts with mistakes, bytes with flips,
//! round trips, known answers.

mod claims;
mod encoding;
mod identities;
mod manifest_text;
mod openings;
mod receipts;
mod reference;
mod requests;
mod samples;
mod vectors;
