//! The whole road, from submission to receipt.
