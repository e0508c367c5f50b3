//! The runtime as its owner sees it: jobs in, receipts out, one trick a guest.

mod cache;
mod ends;
mod fixture;
mod graphs;
mod llm;
mod preview1;
mod repeat;
mod submitted;
