//! Layers made byte by byte or by GNU tar: every header kind, every refusal, and damage
//! of every sort.

mod blobs;
mod damage;
mod gnu_tar;
mod headers;
mod support;
