//! All end-to-end suites, in one binary.

mod architecture;
mod conformance;
mod on_s3;
mod pushing;
mod right_bytes;
mod running;
